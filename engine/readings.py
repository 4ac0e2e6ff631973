"""The reading phase: story vectors of every cell, of one run or several."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine import tasks
from engine.dealing import SHARDS_IN_HAND, Dealer, failing, together
from engine.device import replica_environments
from engine.events import Note, StageStarted
from engine.ledger import Ledger
from engine.machines import Machines
from engine.machines.workers import Workers
from engine.models import model_source
from engine.plan import Plan, Stage, made_from
from engine.versions import other_versions
from manifests.resolve import Cell
from store.atomic import sweep_partials
from store.corpus import read_corpus
from store.layout import Layout
from store.records import read_record
from store.residuals import complete_residuals, create_residuals
from store.shards import group_attributes, missing_shards, shard_span


def read_cells(ledgers: Sequence[Ledger], machines: Machines) -> None:
    """Read every cell that is not complete; cells of one model together, whichever run's.

    On this machine one model reads at a time, in as many copies as the manifest asks for; a
    cluster's workers may hold different ones of those that take as many GPUs.
    """
    readings = [
        CellReading(ledger, machines.here, status.stage, status.total)
        for ledger in ledgers
        for status in ledger.ready("extract")
    ]
    groups = list(by_size(readings) if machines.elsewhere else by_holding(readings))
    for group in groups:
        with failing(group):
            environments = [{}] if machines.elsewhere else group[0].environments()
            wanted = together(reading.size for reading in group)
            with machines.readers(environments, group[0].gpus, wanted) as workers:
                dealer = Dealer(workers, group, SHARDS_IN_HAND)
                dealer.deal(lambda what: ledgers[0].listener(Note(what)))
    if readings:
        machines.let_go()


def by_size(readings: Sequence[CellReading]) -> Iterator[list[CellReading]]:
    """Yield the cells whose models take as many GPUs, together, fewest first."""
    for size in sorted({reading.gpus for reading in readings}):
        yield [reading for reading in readings if reading.gpus == size]


def by_holding(readings: Sequence[CellReading]) -> Iterator[list[CellReading]]:
    """Yield the cells that need the same held, together, in order of first appearance."""
    groups: dict[str, list[CellReading]] = {}
    for reading in readings:
        groups.setdefault(reading.holds, []).append(reading)
    yield from groups.values()


class CellReading:
    """A cell on its way from a corpus to story vectors.

    Attributes:
        holds: what a worker has to hold: the model's folder and the backend.
        gpus: that one copy of the model takes.
        size: shards of the cell, None where that is not known.
        ended: it is read, or has failed.
    """

    def __init__(self, ledger: Ledger, here: Workers, stage: Stage, size: int | None):
        self.size = size
        self._ledger, self._here, self._stage = ledger, here, stage
        self._cell = ledger.plan.cell(stage.name)
        extraction = ledger.plan.study.manifest.extraction_of(self._cell.model)
        self.holds = f"{ledger.folders[self._cell.model]} {extraction.backend} {extraction.dtype}"
        self.gpus = ledger.plan.study.manifest.models[self._cell.model].tensor_parallel_size
        self.ended = False
        self._tokens, self._seconds = 0, 0.0
        self._first, self._last = math.inf, -math.inf
        self._readers: set[str] = set()
        self._others: dict[str, None] = {}
        self._gpus: set[str | None] = set()
        self._job: dict[str, Any] = {}
        self._started = time.monotonic()

    def environments(self) -> list[dict[str, str]]:
        """Return the environment of each copy of the model that is to read at once.

        Raises:
            ValueError: fewer GPUs are free than are asked for.
        """
        manifest = self._ledger.plan.study.manifest
        entry = manifest.models[self._cell.model]
        workers = manifest.extraction.workers
        return replica_environments(
            workers, entry.tensor_parallel_size, entry.gpu_memory_utilization
        )

    def begin(self) -> list[int]:
        """Make the store unless it is there, and return the shards that it lacks."""
        self._started = time.monotonic()
        ledger, stage = self._ledger, self._stage
        residuals = ledger.layout.residuals(stage.name)
        if group_attributes(residuals) is None and self._is_recorded():
            complete_residuals(residuals, *self._frame())
        ledger.begin(stage)
        self._job = self._make_job()
        if (group_attributes(residuals) or {}).get("made_from") != self._origin():
            create_residuals(residuals, *self._frame())
        missing = missing_shards(residuals)
        todo = sum(len(shard_span(residuals, shard)) for shard in missing)
        n_texts = ledger.plan.n_texts(self._cell.corpus, ledger.layout) or todo
        ledger.listener(StageStarted(stage.id, n_texts, n_texts - todo, "texts"))
        return missing

    def task(self, shard: int) -> tuple[Any, ...]:
        """Return the function and arguments that read a shard."""
        return tasks.read_shard, {**self._job, "shard": shard}

    def take(self, figures: dict[str, Any]) -> None:
        """Take the figures of a shard that is done."""
        self._tokens += figures["tokens"]
        self._seconds += figures["seconds"]
        self._last = time.monotonic()
        self._first = min(self._first, self._last - figures["seconds"])
        self._readers.add(figures["worker"])
        self._others |= dict.fromkeys(other_versions(figures["versions"]))
        self._gpus.add(figures["gpu"])

    def progress(self) -> int:
        """Return 0: a shard is there or not."""
        return 0

    def end(self) -> None:
        """Count over the complete store, and write the stage's record."""
        stage, ledger = self._stage, self._ledger
        residuals = ledger.layout.residuals(stage.name)
        if isinstance(residuals, Path):
            sweep_partials(residuals)  # of workers that died while they wrote
        counting = self._here.submit(
            tasks.cell_figures,
            str(residuals),
            ledger.plan.study.manifest.extraction.max_tokens,
        )
        counts = self._here.result(counting)
        wall = self._last - self._first
        workers = workers_at_once(self._seconds, wall, len(self._readers))
        rate = self._tokens * workers / self._seconds if self._seconds else None
        others: dict[str, Any] = {}
        if self._others:
            others["other_versions"] = list(self._others)
        if len(self._gpus) == 1 and (gpu := self._gpus.pop()) is not None:
            entry = ledger.plan.study.manifest.models[self._cell.model]
            others |= {"gpu": gpu, "gpus": workers * entry.tensor_parallel_size}
        ledger.finish(stage, self._started, {**counts, "tokens_per_second": rate, **others})
        self.ended = True

    def fail(self, error: Exception) -> None:
        """Note that the cell failed."""
        with self._ledger.failing([self._stage.id]):
            raise error
        self.ended = True

    def _origin(self) -> dict[str, Any]:
        return made_from(self._stage, self._ledger.inputs(self._stage))

    def _is_recorded(self) -> bool:
        """Tell whether the shards on disk are of these settings, by the record of the stage.

        That is asked where a store has lost what says so itself.
        """
        ledger, stage = self._ledger, self._stage
        record = read_record(ledger.layout.record(stage.kind, stage.name))
        return (
            record is not None
            and record.fingerprint == stage.fingerprint
            and record.inputs == ledger.inputs(stage)
        )

    def _frame(self) -> tuple[Any, ...]:
        """Return what a store is made with, behind its folder."""
        plan, model = self._ledger.plan, self._cell.model
        shape, layers = plan.shapes[model], plan.layers(model)
        assert shape is not None
        assert layers is not None
        extraction = plan.study.manifest.extraction_of(model)
        return (
            read_corpus(self._ledger.layout.stories(self._cell.corpus)).texts,
            [window.name for window in extraction.windows],
            layers,
            shape.d_model,
            {
                "made_from": self._origin(),
                "model": self._stage.settings["model"],
                "cell": self._stage.name,
                "source": {
                    **dataclasses.asdict(model_source(plan.study, model)),
                    "trust_remote_code": plan.study.manifest.models[model].trust_remote_code,
                },
                "n_layers": shape.n_layers,
                "extraction": extraction.model_dump(mode="json", exclude={"workers"}),
                "versions": self._ledger.versions,
            },
        )

    def _make_job(self) -> dict[str, Any]:
        ledger, model = self._ledger, self._cell.model
        job = reading_job(ledger.plan, ledger.layout, self._cell, ledger.folders[model])
        return {**job, "stage": f"{ledger.label}{self._stage.id}", "made_from": self._origin()}


def workers_at_once(seconds: float, wall: float, workers: int) -> int:
    """Return how many workers read a cell at once: those of jobs that end are replaced by others.

    Args:
        seconds: that all of them read.
        wall: seconds from the first one's beginning to the last one's end.
        workers: that read any of it, one after another or at once.
    """
    return min(workers, max(1, round(seconds / wall))) if wall > 0 else workers


def reading_job(plan: Plan, layout: Layout, cell: Cell, folder: str) -> dict[str, Any]:
    """Return what a child needs to read a cell (`engine.reading.shards`).

    Args:
        plan: of the study.
        layout: of the run.
        cell: to be read.
        folder: of the model's files.
    """
    manifest = plan.study.manifest
    entry = manifest.models[cell.model]
    return {
        "log": str(layout.logs.resolve() / f"read-{cell.model}.log"),
        "model": {
            "folder": folder,
            "trust_remote_code": entry.trust_remote_code,
            "tensor_parallel_size": entry.tensor_parallel_size,
            "gpu_memory_utilization": entry.gpu_memory_utilization,
        },
        "extraction": {
            **manifest.extraction_of(cell.model).model_dump(mode="json"),
            "layers": plan.layers(cell.model),
        },
        "corpus": str(layout.stories(cell.corpus).resolve()),
        "residuals": str(layout.residuals(cell.name).resolve()),
    }
