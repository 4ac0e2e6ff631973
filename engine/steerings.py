"""The steering phase: what models write and say with a direction added, cell by cell."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.contrasts import emotion_names
from analysis.directions import MIN_RATED
from analysis.settings import AXES
from analysis.steering import random_directions, steering_directions, token_norms
from engine import tasks
from engine.dealing import Dealer, OnePiece, failing
from engine.events import Note, StageStarted
from engine.ledger import Ledger
from engine.machines import Machines
from engine.plan import Stage, made_from
from engine.steering.conditions import (
    HELD_OUT,
    mixture_names,
    n_measures,
    random_names,
    steered_layers,
    tensor_name,
)
from engine.steering.jobs import conditions_of
from manifests.errors import InputError
from manifests.resolve import known_names
from store.cell_attributes import NEEDED
from store.corpus import iter_texts
from store.fingerprint import file_digest, fingerprint
from store.journal import journal_fingerprint
from store.residuals import open_residuals
from store.vectors import write_tensors

POOR = 0.3
"""An r with emotions that a direction never saw, below which a person is told."""


def check_steered_emotions(ledger: Ledger) -> None:
    """Refuse directions that a corpus cannot give, before anything reads it.

    Raises:
        InputError: a corpus that is to be steered with has no such emotion, or too few rated ones.
    """
    steered = ledger.plan.study.steered
    if steered is None:
        return
    names = list(steered.spec.directions)
    if steered.spec.transfer is not None:
        names.append(steered.spec.transfer.direction)
    for corpus in dict.fromkeys(cell.corpus for cell in steered.cells):
        file = ledger.layout.stories(corpus)
        if not file.is_file():
            continue
        emotions = dict.fromkeys(t.emotion for t in iter_texts(file) if t.emotion is not None)
        problem = None
        for name in names:
            if name not in (*AXES, *emotions):
                known = known_names(name, (*AXES, *emotions))
                problem = f"corpus {corpus!r} has no emotion {name!r}; {known}"
        rated = int(np.isfinite(steered.norms.rate(list(emotions))).all(axis=1).sum())
        if set(names) & set(AXES) and rated < MIN_RATED:
            problem = (
                f"a direction of ratings needs {MIN_RATED} rated emotions; of corpus {corpus!r} "
                f"{steered.norms.name} rates {rated}"
            )
        if problem is not None:
            document = ledger.plan.study.document
            raise InputError(document.problem(("steering", "directions"), problem))


def steer_cells(ledgers: Sequence[Ledger], machines: Machines) -> None:
    """Steer every cell that is asked for and not done, one model after another."""
    ready = [CellSteering(ledger, s.stage) for ledger in ledgers for s in ledger.ready("steer")]
    for size in sorted({steering.gpus for steering in ready}):
        mine = [steering for steering in ready if steering.gpus == size]
        with failing(mine):
            dealer = Dealer(machines.writers(size, len(mine)), mine)
            dealer.deal(lambda what: ledgers[0].listener(Note(what)))
    if ready:
        machines.let_go()


class CellSteering(OnePiece):
    """A cell whose model writes and is measured while directions are added to it; one piece.

    Attributes:
        holds: the model's folder.
        gpus: that the model takes.
    """

    def __init__(self, ledger: Ledger, stage: Stage):
        model = ledger.plan.cell(stage.name).model
        self._ledger, self._stage = ledger, stage
        self._job: dict[str, Any] = {}
        self._started = time.monotonic()
        self.holds = f"steer {ledger.folders[model]}"
        self.gpus = ledger.plan.study.manifest.models[model].tensor_parallel_size

    def begin(self) -> list[int]:
        """Write the cell's directions."""
        self._started = time.monotonic()
        self._ledger.begin(self._stage)
        self._job, total = _prepare(self._ledger, self._stage)
        self._ledger.listener(StageStarted(self._stage.id, total, 0, "measures"))
        return [0]

    def task(self, piece: int) -> tuple[Any, ...]:
        """Return what steers the cell."""
        return tasks.steer, self._job

    def take(self, figures: dict[str, Any]) -> None:
        """Enter that it is done."""
        identity = file_digest(self._ledger.layout.steering(self._stage.name))
        self._ledger.finish(self._stage, self._started, figures, identity=identity)

    def progress(self) -> int:
        """Return the size of its journal."""
        journal = self._ledger.layout.steering(self._stage.name)
        return journal.stat().st_size if journal.is_file() else 0

    def fail(self, error: Exception) -> None:
        """Let it fail."""
        with self._ledger.failing([self._stage.id]):
            raise error
        self.ended = True


def _prepare(ledger: Ledger, stage: Stage) -> tuple[dict[str, Any], int]:
    """Write the directions of a cell; return what its children need, and how much there is to do.

    Raises:
        NoDirection: the cell has no such direction.
    """
    plan, layout, cell = ledger.plan, ledger.layout, ledger.plan.cell(stage.name)
    steered, manifest = plan.study.steered, plan.study.manifest
    assert steered is not None
    spec, entry = steered.spec, manifest.models[cell.model]
    store = open_residuals(layout.residuals(stage.name), as_dask=False, needed=NEEDED)
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
        mixtures=spec.controls,
        seed=spec.seed,
    )
    layers = steered_layers(spec, int(store.attrs["n_layers"]))
    for axis, r_L in found.held_out.items():
        if poor := [layer for layer in layers if not r_L[blocks.index(layer)] >= POOR]:
            r = ", ".join(f"{r_L[blocks.index(layer)]:.2f} at layer {layer}" for layer in poor)
            what = (
                f"the direction of {axis} hardly follows the ratings of emotions left out (r {r})"
            )
            ledger.listener(Note(f"{stage.id}: {what}"))
    drawn = random_directions(
        len(random_names(spec)), len(blocks), store.sizes["d_model"], spec.seed
    )
    rows = {
        **found.rows,
        **dict(zip(random_names(spec), drawn, strict=True)),
        **dict(zip(mixture_names(spec), found.mixtures, strict=True)),
    }
    file = layout.steering_directions(stage.name)
    tensors = {tensor_name(name): rows_LD for name, rows_LD in rows.items()}
    held = {f"{HELD_OUT}{axis}": r_L for axis, r_L in found.held_out.items()}
    write_tensors(file, {**tensors, **held, "layer": np.array(blocks)})
    origin = fingerprint(made_from(stage, ledger.inputs(stage)))
    _claim_journal(ledger, stage, origin)
    job = {
        "stage": f"{ledger.label}{stage.id}",
        "log": str(layout.logs.resolve() / f"steer-{cell.model}.log"),
        "model": {
            **entry.model_dump(mode="json"),
            "name": cell.model,
            "folder": ledger.folders[cell.model],
            "chat_template": steered.chat_templates.get(cell.model),
        },
        "scoring_dtype": manifest.extraction_of(cell.model).dtype,
        "spec": spec.model_dump(mode="json"),
        "prompts": vars(steered.prompts),
        "layers": layers,
        "blocks": blocks,
        "token_norms": token_norms(store, blocks).tolist(),
        "directions": str(file.resolve()),
        "journal": str(layout.steering(stage.name).resolve()),
        "fingerprint": origin,
    }
    texts, conditions = n_measures(steered, int(store.attrs["n_layers"]), blocks)
    assert conditions == len(conditions_of(job, "scored"))
    return job, 2 * texts + conditions


def _claim_journal(ledger: Ledger, stage: Stage, wanted: str) -> None:
    """Move what was measured under other settings aside, and bring that of these settings back."""
    layout = ledger.layout
    journal, earlier = layout.steering(stage.name), layout.superseded_steering(stage.name, wanted)
    found = journal_fingerprint(journal)
    if found not in (None, wanted):
        aside = layout.superseded_steering(stage.name, found)
        aside.parent.mkdir(parents=True, exist_ok=True)
        journal.replace(aside)  # what lies there can only be an earlier part of it
        what = f"what was measured under other settings went to {aside}"
        ledger.listener(Note(f"{stage.id}: {what}"))
    if earlier.is_file() and not journal.is_file():
        earlier.replace(journal)
        ledger.listener(Note(f"{stage.id}: what was measured under these settings is back"))
