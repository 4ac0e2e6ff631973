"""The steering phase: what models write and say with a direction added, cell by cell."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from analysis.contrasts import emotion_names
from analysis.steering import random_directions, steering_directions, token_norms
from engine import tasks
from engine.events import Note, StageStarted
from engine.ledger import Ledger
from engine.machines import Machines
from engine.machines.workers import MODEL_SLOT
from engine.plan import Stage, made_from
from engine.steering.conditions import n_measures, random_names, steered_layers, tensor_name
from engine.steering.jobs import conditions_of
from store.atomic import written_whole
from store.fingerprint import file_digest, fingerprint
from store.journal import journal_fingerprint
from store.residuals import open_residuals


def steer_cells(ledgers: Sequence[Ledger], machines: Machines) -> None:
    """Steer every cell that is asked for and not done, one model after another."""
    ready = [(ledger, s.stage) for ledger in ledgers for s in ledger.ready("steer")]
    if not ready:
        return
    workers = machines.writers()
    running = []
    for ledger, stage in sorted(ready, key=lambda one: one[0].plan.cell(one[1].name).model):
        with ledger.failing([stage.id]):
            ledger.begin(stage)
            job, total = _prepare(ledger, stage)
            ledger.listener(StageStarted(stage.id, total, 0, "measures"))
            future = workers.submit(tasks.steer, job, resources=MODEL_SLOT)
            running.append((ledger, stage, time.monotonic(), future))
    for ledger, stage, started, future in running:
        with ledger.failing([stage.id]):
            figures = workers.result(future)
            journal = ledger.layout.steering(stage.name)
            ledger.finish(stage, started, figures, identity=file_digest(journal))
    machines.let_go()


def _prepare(ledger: Ledger, stage: Stage) -> tuple[dict[str, Any], int]:
    """Write the directions of a cell; return what its children need, and how much there is to do.

    Raises:
        NoDirection: the cell has no such direction.
    """
    plan, layout, cell = ledger.plan, ledger.layout, ledger.plan.cell(stage.name)
    steered, manifest = plan.study.steered, plan.study.manifest
    assert steered is not None
    spec, entry = steered.spec, manifest.models[cell.model]
    store = open_residuals(layout.residuals(stage.name), as_dask=False)
    blocks = [int(layer) for layer in store["layer"].to_numpy() if layer >= 0]
    names = list(spec.directions)
    if spec.transfer is not None and spec.transfer.direction not in names:
        names.append(spec.transfer.direction)
    found = steering_directions(
        store,
        names,
        steered.norms.rate(emotion_names(store)),
        blocks,
        kind=spec.contrast,
        window=spec.window,
        estimator=spec.estimator,
        neutral_variance=manifest.analysis.neutral_variance,
    )
    drawn = random_directions(spec.random, len(blocks), store.sizes["d_model"], spec.seed)
    found |= dict(zip(random_names(spec), drawn, strict=True))
    file = layout.steering_directions(stage.name)
    with written_whole(file) as partial:
        tensors = {tensor_name(name): rows for name, rows in found.items()}
        save_file({**tensors, "layer": np.array(blocks)}, partial)
    origin = fingerprint(made_from(stage, ledger.inputs(stage)))
    journal = layout.steering(stage.name)
    if journal_fingerprint(journal) not in (None, origin):
        journal.unlink()
        ledger.listener(Note(f"{stage.id}: what was measured under other settings is replaced"))
    n_layers = int(store.attrs["n_layers"])
    job = {
        "stage": f"{ledger.label}{stage.id}",
        "log": str(layout.logs.resolve() / f"steer-{cell.model}.log"),
        "model": {
            **entry.model_dump(mode="json"),
            "name": cell.model,
            "folder": ledger.folders[cell.model],
            "chat_template": steered.chat_templates.get(cell.model),
        },
        "scoring_dtype": manifest.extraction.dtype,
        "spec": spec.model_dump(mode="json"),
        "prompts": vars(steered.prompts),
        "layers": steered_layers(spec, n_layers),
        "blocks": blocks,
        "token_norms": token_norms(store, blocks).tolist(),
        "directions": str(file.resolve()),
        "journal": str(journal.resolve()),
        "fingerprint": origin,
    }
    texts, conditions = n_measures(steered, n_layers, blocks)
    assert conditions == len(conditions_of(job, "scored"))
    return job, 2 * texts + conditions
