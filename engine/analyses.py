"""What follows reading: results of cells, and the tables, figures and page over all of them."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis.contrasts import emotion_names
from analysis.settings import Settings
from engine import tasks
from engine.events import Note, StageProgress, StageStarted
from engine.ledger import Ledger
from engine.machines import Machines
from engine.machines.workers import TRIES, Workers
from engine.page import page_job
from engine.plan import Plan, Stage, State, made_from
from store.cell_attributes import NEEDED
from store.corpus import iter_texts
from store.layout import Layout
from store.places import Place
from store.residuals import open_residuals

MANY_MODELS = 4
"""Models from which starting processes for their tables is worth its seconds."""


def n_layers_to_analyse(ledger: Ledger) -> int:
    """Return how many windows and layers wait for their analysis."""
    found = 0
    statuses = ledger.plan.inspect(ledger.layout)
    for status in statuses.values():
        waits = any(statuses[key].state is not State.DONE for key in status.stage.after)
        if status.stage.kind != "analyze" or status.state is State.DONE or waits:
            continue
        cell = open_residuals(ledger.layout.residuals(status.stage.name), as_dask=False)
        found += cell.sizes["window"] * cell.sizes["layer"]
    return found


def analyse_words(ledger: Ledger, workers: Workers) -> None:
    """Have the words of every corpus analysed that were not."""
    running: list[tuple[Stage, float, Any]] = []
    for status in ledger.ready("words"):
        stage = status.stage
        with ledger.failing([stage.id]):
            ledger.begin(stage)
            ledger.listener(StageStarted(stage.id, 1, 0, "corpus"))
            stories = ledger.layout.stories(stage.name)
            emotions = list(
                dict.fromkeys(t.emotion for t in iter_texts(stories) if t.emotion is not None)
            )
            future = workers.submit(
                tasks.analyse_words,
                str(stories.resolve()),
                emotions,
                ledger.plan.study.norms,
                _settings(ledger, emotions),
                {"made_from": made_from(stage, ledger.inputs(stage)), "versions": ledger.versions},
                str(ledger.layout.words(stage.name).resolve()),
            )
            running.append((stage, time.monotonic(), future))
    for stage, started, future in running:
        with ledger.failing([stage.id]):
            ledger.finish(stage, started, workers.result(future))


def analyse_cells(ledgers: Sequence[Ledger], workers: Workers) -> None:
    """Analyse every cell whose results are not there; cells, windows and layers in parallel.

    Few cells are with the workers at once, so that what a scheduler holds does not grow with the
    number of cells.
    """
    waiting = deque((ledger, s.stage) for ledger in ledgers for s in ledger.ready("analyze"))
    running: deque[tuple[Ledger, Stage, Analysis]] = deque()
    failed: Counter[str] = Counter()
    while waiting or running:
        enough = 1 + len(workers.client.scheduler_info(n_workers=-1)["workers"])
        while waiting and len(running) < enough:
            ledger, stage = waiting.popleft()
            with ledger.failing([stage.id]):
                ledger.begin(stage)
                running.append((ledger, stage, _begin_analysis(ledger, workers, stage)))
        if running:
            ledger, stage, analysis = running.popleft()  # let go of its results on the workers
            with ledger.failing([stage.id]):
                try:
                    _finish_analysis(ledger, workers, stage, analysis)
                except tasks.WorkerUnfit as error:
                    failed[ledger.label + stage.id] += 1
                    if failed[ledger.label + stage.id] >= TRIES or not workers.gave_back(error):
                        raise
                    running.append((ledger, stage, _begin_analysis(ledger, workers, stage)))


def _begin_analysis(ledger: Ledger, workers: Workers, stage: Stage) -> Analysis:
    residuals = ledger.layout.residuals(stage.name)
    emotions = emotion_names(open_residuals(residuals, as_dask=False, needed=NEEDED))
    settings = _settings(ledger, emotions)
    attributes = {
        "made_from": made_from(stage, ledger.inputs(stage)),
        "neutral_variance": settings.neutral_variance,
        "versions": ledger.versions,
    }
    target = ledger.layout.analysis(stage.name)
    return submit_analysis(workers, residuals, target, settings, attributes)


def _settings(ledger: Ledger, emotions: Sequence[str]) -> Settings:
    analysis, norms = ledger.plan.study.manifest.analysis, ledger.plan.study.norms
    return Settings(
        analysis.contrasts,
        analysis.neutral_variance,
        {rated.name: rated.rate(emotions) for rated in norms},
        analysis.seed,
        {rated.name: rated.middle_valence for rated in norms},
        analysis.bootstraps,
        analysis.permutations,
    )


def _finish_analysis(ledger: Ledger, workers: Workers, stage: Stage, analysis: Analysis) -> None:
    started = time.monotonic()
    ledger.listener(StageStarted(stage.id, len(analysis.layers), 0, "layers"))
    for done, future in enumerate(workers.completed(analysis.layers), start=1):
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
    figures = dict(workers.result(analysis.joined))
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
    workers: Workers,
    residuals: Place,
    target: Place,
    settings: Settings,
    attributes: dict[str, Any],
) -> Analysis:
    """Have every window and layer of a store analysed in parallel, and its results written.

    Args:
        workers: that see the two folders under the same paths.
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
    layers = [  # settings are a few kilobytes; scattered, they would die with a worker
        workers.submit(tasks.analyse_layer, str(residuals.resolve()), *key, settings)
        for key in keys
    ]
    joined = workers.submit(
        tasks.join_cell,
        str(residuals.resolve()),
        keys,
        layers,
        emotion_names(cell),
        int(cell.attrs["n_layers"]),
        settings,
        attributes,
        str(target.resolve()),
        priority=1,  # before the layers of the next cell, so that few results are held
    )
    return Analysis(layers, joined)


def compare_cells(ledger: Ledger, machines: Machines, kind: str) -> None:
    """Make the `tables`, the `figures` or the `page` over all cells."""
    here = machines.here
    for status in ledger.ready(kind):
        stage, started = status.stage, time.monotonic()
        layout = ledger.layout
        cells = analysed_cells(ledger.plan, layout)
        ledger.begin(stage)
        ledger.listener(StageStarted(stage.id, status.total or 0, 0, status.unit))
        with ledger.failing([stage.id]):
            if kind == "tables":
                made = _tables_by_model(ledger, machines, cells)
                parts = here.client.scatter(made, hash=False)  # not through the scheduler
                found = here.do(tasks.write_tables, cells, parts, str(layout.tables))
                for note in found.pop("notes"):
                    ledger.listener(Note(note))
            elif kind == "figures":
                found = here.do(tasks.draw_figures, cells, str(layout.figures))
            else:
                job = page_job(ledger.plan, layout)
                found = here.do(tasks.write_page, [job], str(layout.page))
            ledger.finish(stage, started, found)


def _tables_by_model(
    ledger: Ledger, machines: Machines, cells: Sequence[tasks.AnalysedCell]
) -> list[dict[str, Any]]:
    """Have what takes longest made for each model, in a process for each core if there are many."""
    seed = ledger.plan.study.manifest.analysis.seed
    needed: dict[str, set[str]] = {}
    for cell in cells:
        needed.setdefault(cell.model, {cell.model}).update({cell.twin or cell.model})
    with machines.analysts(len(needed), worth=MANY_MODELS) as workers:
        futures = [
            workers.submit(tasks.model_tables, [c for c in cells if c.model in some], model, seed)
            for model, some in needed.items()
        ]
        return [workers.result(future) for future in futures]


def compare_effects(ledger: Ledger, here: Workers) -> None:
    """Make the tables and figures of steering."""
    for status in ledger.ready("effects"):
        stage, started = status.stage, time.monotonic()
        layout, steered = ledger.layout, ledger.plan.study.steered
        assert steered is not None
        cells = [
            {
                "name": cell.name,
                "journal": str(layout.steering(cell.name)),
                "directions": str(layout.steering_directions(cell.name)),
                "fingerprint": ledger.plan.stages[f"steer:{cell.name}"].fingerprint,
                "blocks": ledger.plan.n_blocks(cell.model),
            }
            for cell in steered.cells
        ]
        ledger.begin(stage)
        ledger.listener(StageStarted(stage.id, status.total or 0, 0, status.unit))
        with ledger.failing([stage.id]):
            found = here.do(
                tasks.write_effects,
                cells,
                steered.prompts.positive,
                steered.prompts.negative,
                steered.norms,
                str(layout.tables),
                str(layout.figures),
            )
            ledger.finish(stage, started, found)


def analysed_cells(plan: Plan, layout: Layout) -> list[tasks.AnalysedCell]:
    """Return every cell of a run with what its results are compared with."""
    return [
        tasks.AnalysedCell(
            cell.model,
            cell.corpus,
            plan.stages[f"analyze:{cell.name}"].fingerprint,
            str(layout.analysis(cell.name)),
            str(layout.words(cell.corpus)),
            plan.random_twin(cell),
            plan.writer(cell.corpus),
            plan.result_names(cell.model),
        )
        for cell in plan.study.cells
    ]
