"""Has the model read some texts of each cell again, and names those that come out otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engine.child import Child, ChildFailed
from engine.device import child_environment
from engine.models import ModelUnavailable, fetch_model, model_source
from engine.plan import Plan
from engine.readings import reading_job
from engine.verification.cells import CellLook
from engine.verification.findings import Kind, Report
from store.fingerprint import fingerprint
from store.layout import Layout
from store.shards import shard_span

BOUNDS = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 2e-3}
"""Relative L2 of a text, window and layer under another batch, by the precision of reading."""


def recompute(
    plan: Plan,
    layout: Layout,
    cells: dict[str, CellLook],
    n_texts: int,
    report: Report,
    say: Callable[[str], None],
) -> None:
    """Read texts of each cell again.

    Args:
        plan: of the study.
        layout: of the run.
        cells: cells whose arrays can be opened.
        n_texts: texts of each cell; always the same ones of the same cell.
        report: takes what is found.
        say: told what is being read.
    """
    found = sorted((plan.cell(name) for name in cells), key=lambda cell: cell.model)
    for model in dict.fromkeys(cell.model for cell in found):
        log = layout.logs / f"verify-{model}.log"
        child = Child(log, child_environment())
        try:
            folder = str(fetch_model(model_source(plan.study, model), _in_child(log)))
            for cell in (cell for cell in found if cell.model == model):
                rows = sampled_rows(cells[cell.name], n_texts)
                if rows and f"extract:{cell.name}" in plan.stages:
                    say(f"{cell.name}: {len(rows)} texts are read again")
                    job = reading_job(plan, layout, cell, folder)
                    _compare(child, job, cells[cell.name], rows, report)
        except (ChildFailed, ModelUnavailable) as error:
            report.notes.append(f"nothing was read again with {model}: {error} (log: {log})")
            report.failed = True
        finally:
            child.stop()


def _compare(
    child: Child, job: dict[str, Any], look: CellLook, rows: list[int], report: Report
) -> None:
    bound = BOUNDS[job["extraction"]["dtype"]]
    answer = child.call("reread", {**job, "rows": rows, "bound": bound}, lambda event: None)
    name = look.stage.partition(":")[2]
    report.recomputed[name] = {"texts": len(rows), "worst": answer["worst"], "bound": bound}
    for found in answer["deviating"]:
        row = found["row"]
        what = (
            f"{look.text_id[row]}, read again, deviates by {found['error']:.1e} (bound {bound:g}) "
            f"in window {found['window']} at layer {found['layer']}"
        )
        if found["tokens"]:
            what += f"; it has {found['tokens'][1]} tokens, stored are {found['tokens'][0]}"
        shard = next(s for s in look.done if row in shard_span(look.folder, s))
        report.add(Kind.DEVIATES, look.key("residual_mean", shard), look.stage, what)


def sampled_rows(look: CellLook, n_texts: int) -> list[int]:
    """Return the numbers of some texts of the shards that are there, the same each time."""
    rows = [row for shard in look.done for row in shard_span(look.folder, shard)]
    seed = int(fingerprint(["recompute", look.stage])[:16], 16)
    drawn = np.random.default_rng(seed).permutation(len(rows))[:n_texts]
    return sorted(rows[i] for i in drawn)


def _in_child(log: Path) -> Callable[[str, dict[str, Any]], Any]:
    """Return what does a task in a process of its own."""

    def run(task: str, job: dict[str, Any]) -> Any:
        child = Child(log, child_environment())
        try:
            return child.call(task, job, lambda event: None)
        finally:
            child.stop()

    return run
