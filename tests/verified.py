"""Small finished runs that tests of verification look at and spoil, and ways to spoil them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.generation.demand import Demand
from engine.plan import Plan
from engine.verification.findings import Report
from engine.verification.look import Look
from manifests.resolve import load_study
from store import Layout
from tests.test_bad_input import in_process
from tests.test_demand import Scribe
from tests.test_run import emovec
from tests.tiny import EMOTIONS, write_manifest

OWN, WRITTEN = "tiny@own", "tiny@written"


@dataclass(frozen=True)
class Run:
    """A finished run: its manifest, where it lies, its plan."""

    manifest: Path
    layout: Layout
    plan: Plan

    def look(self) -> Report:
        look = Look(self.plan, self.layout, lambda read, total: None)
        look.take()
        return look.report

    def verify(self, *options: str, check: int = 0) -> dict[str, Any]:
        done = emovec(
            "verify", self.manifest, "--root", self.layout.root, "--json", *options, check=check
        )
        return dict(json.loads(done.stdout))

    def files(self) -> dict[str, Path]:
        """Return every file that a digest speaks of, and the lists, by key."""
        run = self.layout.run
        found = {f.relative_to(run).as_posix(): f for f in run.rglob("*") if f.is_file()}
        return {k: f for k, f in found.items() if not k.startswith((".", "logs/"))}

    def contents(self) -> dict[str, bytes]:
        return {key: file.read_bytes() for key, file in self.files().items()}


def opened(manifest: Path) -> Run:
    plan = Plan(load_study(manifest))
    return Run(manifest, Layout(manifest.parent / "runs", "study"), plan)


STEERING = {
    "cells": [OWN],
    "directions": ["happy"],
    "layers": [1],
    "strengths": [1.0],
    "random": 0,
    "max_new_tokens": 3,
    "temperature": 0,
    "backend": "transformer_lens",
    "transfer": {"direction": "happy", "strength": 1.0},
}


def prepare_run(folder: Path, model: Path, **more: Any) -> Run:
    """Prepare a run of two corpora; what the model says in the written one is made up."""
    texts = {"stories": "stories.jsonl", "neutral": "neutral.txt"}
    asked = {"topics_per_emotion": 2, "stories_per_topic": 2, "neutral": 6, "max_new_tokens": 400}
    manifest = write_manifest(
        folder,
        model,
        models={"tiny": {"path": str(model), "dtype": "float32"}},
        corpora={
            "own": {"import": texts},
            "written": {"generate": {"model": "tiny", "emotions": list(EMOTIONS), **asked}},
        },
        extraction={
            "max_tokens": 256,
            "windows": ["all", "no-first", {"name": "late", "start": 75}],
        },
        analysis={"norms": ["glasgow"], "bootstraps": 100, "permutations": 100},
        **more,
    )
    run = opened(manifest)
    write_journal(run, run.layout.journal("written"))
    return run


def write_journal(run: Run, file: Path) -> None:
    """Write the journal of a corpus that is complete."""
    demand = Demand("written", run.plan.study.writing["written"])
    scribe = Scribe(file, demand, run.plan.journal_key("written"))
    first, *others = demand.replay([])
    (again,) = scribe.answer(first, None)
    for request in [again, *others]:
        scribe.keep(request)
    scribe.journal.__exit__(None, None, None)


def make_run(folder: Path, model: Path, **more: Any) -> Run:
    """Do such a run."""
    run = prepare_run(folder, model, **more)
    emovec("run", run.manifest, "--root", run.layout.root)
    return run


def command(run: Run, *arguments: str) -> tuple[object, str, str]:
    """Exit code and what is printed, of a command in this process that ends without a traceback."""
    name, *options = arguments
    where = [str(run.manifest), "--root", str(run.layout.root)]
    code, out, err = in_process([name, *where, *options])
    return code or 0, out, err


def flip(file: Path, bit: int) -> None:
    """Flip one bit of a file in its place."""
    with file.open("r+b") as stream:
        stream.seek(bit // 8)
        (byte,) = stream.read(1)
        stream.seek(bit // 8)
        stream.write(bytes([byte ^ 1 << bit % 8]))


def residual(run: Run, cell: str, key: str) -> Path:
    folder = run.layout.residuals(cell)
    assert isinstance(folder, Path)
    return folder / key
