"""The reading phase and what follows: story vectors, results, tables and figures of cells."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import as_completed

from analysis.contrasts import emotion_names
from analysis.layer import Settings
from engine import tasks
from engine.cluster import HALF_SLOT, reading_workers, run_task
from engine.device import replica_environments
from engine.events import StageProgress, StageStarted
from engine.ledger import Ledger
from engine.plan import Stage, made_from
from store.corpus import read_corpus
from store.residuals import create_residuals, open_residuals
from store.shards import group_attributes, missing_shards, shard_span

if TYPE_CHECKING:
    from distributed import Client


def read_cells(ledger: Ledger, client: Client, folders: dict[str, str]) -> None:
    """Read every cell that is not complete, model by model."""
    by_model: dict[str, list[Stage]] = {}
    for status in ledger.ready("extract"):
        by_model.setdefault(ledger.plan.cell(status.stage.name).model, []).append(status.stage)
    if not by_model:
        return
    for model, stages in by_model.items():
        with ledger.failing([stage.id for stage in stages]):
            environments = _reading_environments(ledger, model)
            with reading_workers(client, environments, ledger.listener) as readers:
                for stage in stages:
                    with ledger.failing([stage.id]):
                        _read_cell(ledger, client, readers, stage, model, folders[model])
    run_task(client, tasks.stop_child)


def _reading_environments(ledger: Ledger, model: str) -> list[dict[str, str]]:
    """Return the environment of each copy of a model that is to read at once.

    Raises:
        ValueError: fewer GPUs are free than are asked for.
    """
    entry = ledger.plan.study.manifest.models[model]
    workers = ledger.plan.study.manifest.extraction.workers
    return replica_environments(workers, entry.tensor_parallel_size, entry.gpu_memory_utilization)


def _read_cell(
    ledger: Ledger, client: Client, readers: Client, stage: Stage, model: str, folder: str
) -> None:
    study, started = ledger.plan.study, time.monotonic()
    ledger.begin(stage)
    shape, layers = ledger.plan.shapes[model], ledger.plan.layers(model)
    assert shape is not None
    assert layers is not None
    residuals = ledger.layout.residuals(stage.name)
    stories = ledger.layout.stories(ledger.plan.cell(stage.name).corpus)
    origin = made_from(stage, ledger.inputs(stage))
    if (group_attributes(residuals) or {}).get("made_from") != origin:
        extraction = study.manifest.extraction
        create_residuals(
            residuals,
            read_corpus(stories).texts,
            [window.name for window in extraction.windows],
            layers,
            shape.d_model,
            {
                "made_from": origin,
                "model": stage.settings["model"],
                "cell": stage.name,
                "n_layers": shape.n_layers,
                "extraction": extraction.model_dump(mode="json", exclude={"workers"}),
                "versions": ledger.versions,
            },
        )
    missing = missing_shards(residuals)
    todo = sum(len(shard_span(residuals, shard)) for shard in missing)
    n_texts = ledger.plan.n_texts(ledger.plan.cell(stage.name).corpus, ledger.layout) or todo
    ledger.listener(StageStarted(stage.id, n_texts, n_texts - todo, "texts"))
    entry = study.manifest.models[model]
    job = {
        "stage": stage.id,
        "log": str(ledger.layout.logs / f"read-{model}.log"),
        "model": {
            "folder": folder,
            "trust_remote_code": entry.trust_remote_code,
            "tensor_parallel_size": entry.tensor_parallel_size,
            "gpu_memory_utilization": entry.gpu_memory_utilization,
        },
        "extraction": {
            **study.manifest.extraction.model_dump(mode="json"),
            "layers": layers,
        },
        "corpus": str(stories),
        "residuals": str(residuals),
    }
    n_workers = len(readers.scheduler_info()["workers"])
    spent = {"tokens": 0, "seconds": 0.0}
    for figures in _read_shards(readers, job, missing, 2 * n_workers):
        spent["tokens"] += figures["tokens"]
        spent["seconds"] += figures["seconds"] / n_workers
    counts = run_task(
        client, tasks.cell_figures, str(residuals), study.manifest.extraction.max_tokens
    )
    rate = spent["tokens"] / spent["seconds"] if spent["seconds"] else None
    ledger.finish(stage, started, {**counts, "tokens_per_second": rate})


def _read_shards(
    readers: Client, job: dict[str, Any], shards: Sequence[int], at_once: int
) -> Iterator[dict[str, Any]]:
    """Read shards, some at once, and yield each one's figures as it is done.

    The rest is not handed out beforehand, so that a worker that dies takes only its own along.
    """

    def submit(shard: int) -> Any:
        return readers.submit(
            tasks.read_shard, {**job, "shard": shard}, resources=HALF_SLOT, pure=False
        )

    waiting = iter(shards)
    running = {submit(shard) for shard in islice(waiting, at_once)}
    try:
        done = as_completed(running)
        for future in done:
            yield future.result()
            running.discard(future)
            for shard in islice(waiting, 1):
                done.add(following := submit(shard))
                running.add(following)
    finally:
        readers.cancel(list(running))


def analyse_cells(ledger: Ledger, client: Client) -> None:
    """Analyse every cell whose results are not there; cells, windows and layers in parallel."""
    running: deque[tuple[Stage, Analysis]] = deque()
    for status in ledger.ready("analyze"):
        with ledger.failing([status.stage.id]):
            ledger.begin(status.stage)
            running.append((status.stage, _begin_analysis(ledger, client, status.stage)))
    while running:
        stage, analysis = running.popleft()  # let go of its results on the workers
        with ledger.failing([stage.id]):
            _finish_analysis(ledger, stage, analysis)


def _begin_analysis(ledger: Ledger, client: Client, stage: Stage) -> Analysis:
    residuals = ledger.layout.residuals(stage.name)
    emotions = emotion_names(open_residuals(residuals, as_dask=False))
    analysis = ledger.plan.study.manifest.analysis
    settings = Settings(
        analysis.contrasts,
        analysis.neutral_variance,
        {norms.name: norms.rate(emotions) for norms in ledger.plan.study.norms},
        analysis.seed,
        {norms.name: norms.middle_valence for norms in ledger.plan.study.norms},
    )
    attributes = {"made_from": made_from(stage, ledger.inputs(stage)), "versions": ledger.versions}
    target = ledger.layout.analysis(stage.name)
    return submit_analysis(client, residuals, target, settings, attributes)


def _finish_analysis(ledger: Ledger, stage: Stage, analysis: Analysis) -> None:
    started = time.monotonic()
    ledger.listener(StageStarted(stage.id, len(analysis.layers), 0, "layers"))
    for done, future in enumerate(as_completed(analysis.layers), start=1):
        future.result()
        ledger.listener(StageProgress(stage.id, done))
    emotions = emotion_names(open_residuals(ledger.layout.residuals(stage.name), as_dask=False))
    unrated = {
        norms.name: sorted(
            emotion
            for emotion, row in zip(emotions, norms.rate(emotions), strict=True)
            if row[0] != row[0]
        )
        for norms in ledger.plan.study.norms
    }
    figures = dict(analysis.joined.result())
    ledger.finish(stage, started, {**figures, "unrated_emotions": unrated})


@dataclass(frozen=True)
class Analysis:
    """The analysis of a store on its way.

    Attributes:
        layers: a future for each window and layer.
        joined: future of the figures, once the results are written.
    """

    layers: list[Any]
    joined: Any


def submit_analysis(
    client: Client,
    residuals: Path,
    target: Path,
    settings: Settings,
    attributes: dict[str, Any],
) -> Analysis:
    """Have every window and layer of a store analysed in parallel, and its results written.

    Args:
        client: of the workers, which see the two folders under the same paths.
        residuals: a complete store.
        target: the `analysis.zarr` to write.
        settings: contrasts and ratings.
        attributes: what made it; kept with the results.
    """
    cell = open_residuals(residuals, as_dask=False)
    keys = [
        (str(window), int(layer))
        for window in cell["window"].to_numpy()
        for layer in cell["layer"].to_numpy()
    ]
    shared = client.scatter(settings, direct=False)
    layers = [
        client.submit(tasks.analyse_layer, str(residuals.resolve()), *key, shared, pure=False)
        for key in keys
    ]
    joined = client.submit(
        tasks.join_cell,
        str(residuals.resolve()),
        keys,
        layers,
        emotion_names(cell),
        int(cell.attrs["n_layers"]),
        shared,
        attributes,
        str(target.resolve()),
        pure=False,
        priority=1,  # before the layers of the next cell, so that few results are held
    )
    return Analysis(layers, joined)


def compare_cells(ledger: Ledger, client: Client, kind: str) -> None:
    """Make the `tables` or the `figures` over all cells."""
    for status in ledger.ready(kind):
        stage, started = status.stage, time.monotonic()
        cells = [
            (
                cell.model,
                cell.corpus,
                str(ledger.layout.analysis(cell.name)),
                ledger.plan.stages[f"analyze:{cell.name}"].fingerprint,
            )
            for cell in ledger.plan.study.cells
        ]
        ledger.begin(stage)
        ledger.listener(StageStarted(stage.id, status.total or 0, 0, status.unit))
        with ledger.failing([stage.id]):
            if kind == "tables":
                seed = ledger.plan.study.manifest.analysis.seed
                found = run_task(client, tasks.write_tables, cells, str(ledger.layout.tables), seed)
            else:
                found = run_task(client, tasks.draw_figures, cells, str(ledger.layout.figures))
            ledger.finish(stage, started, found)
