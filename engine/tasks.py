"""What Dask workers run: one function for each kind of work, each safe to do twice.

A worker holds at most one child process with one model; a task that needs another model ends it
and starts its own. Progress goes to the client as worker events.
"""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from distributed import get_worker
from threadpoolctl import threadpool_limits

from engine.child import Child, ChildFailed
from engine.device import child_environment
from engine.events import Event, Note, StageProgress, StageStarted
from engine.generation.demand import Demand
from engine.generation.description import Description, corpus_tables, describe
from engine.generation.prompts import writing_from_json
from engine.models import ModelSource, ModelUnavailable, fetch_model, hub_tokenizer
from store.corpus import Text, seal_corpus
from store.journal import journal_rows
from store.shards import shard_span

TOPIC = "emovec"

FETCHING = {
    "dequantise": "unpacking",
    "download": "downloading",
    "initialise": "drawing random weights for",
}


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the process that started this worker's (Dask calls this as it starts)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


_lock = threading.Lock()
_child: tuple[str, Child] | None = None


def fetch(source: ModelSource, log: str) -> str:
    """Return the folder of a model's files, after unpacking or downloading it.

    Raises:
        ModelUnavailable: it cannot be had.
    """

    def run_child(task: str, job: dict[str, Any]) -> Any:
        _emit(Note(f"{FETCHING[task]} the model {source.name}"))
        try:
            return _in_child(f"{task}:{source.name}", Path(log), task, job, lambda event: None)
        except ChildFailed as error:
            message = str(error).removeprefix("ModelUnavailable: ")
            raise ModelUnavailable(f"{message} (log: {log})") from None
        finally:
            stop_child()

    return str(fetch_model(source, run_child))


def measure_prompts(job: dict[str, Any]) -> dict[str, Any]:
    """Ask the child that is about to write what context it needs (`engine.generation.prompts`)."""
    found = _in_child(_writer(job), Path(job["log"]), "measure", job, lambda event: None)
    return dict(found)


def write_corpora(job: dict[str, Any]) -> dict[str, Any]:
    """Write all corpora of one model; return each one's figures, and its identity once sealed.

    Args:
        job: as `engine.generation.writing.write_corpora` takes it, with `log`, and for each corpus
            `stories`, the file to seal.
    """

    def on_event(event: dict[str, Any]) -> None:
        stage = f"generate:{event['corpus']}"
        _emit(StageProgress(stage, event["done"], event["tokens"], event["refused"]))

    for corpus in job["corpora"]:
        demand, _ = _replayed(corpus)
        _emit(StageStarted(f"generate:{corpus['name']}", demand.wanted, demand.n_kept, "texts"))
    try:
        results = _in_child(_writer(job), Path(job["log"]), "write", job, on_event)
    finally:
        stop_child()
    for corpus in job["corpora"]:
        demand, waiting = _replayed(corpus)
        figures = results[corpus["name"]]
        figures["kept"] = demand.n_kept
        if not (figures["given_up"] or waiting):
            assert demand.n_kept == demand.wanted
            texts = demand.texts(Path(corpus["journal"]))
            sealed = seal_corpus(Path(corpus["stories"]), texts)
            figures |= {"identity": sealed.identity, "texts": sealed.n_texts}
    return dict(results)


def import_corpus(stories: str, texts: Sequence[Text]) -> dict[str, Any]:
    """Seal an imported corpus."""
    sealed = seal_corpus(Path(stories), texts)
    return {"identity": sealed.identity, "texts": sealed.n_texts}


def tokenizer_file(source: ModelSource, log: str) -> str | None:
    """Return a model's `tokenizer.json`, None where it has none or cannot be had."""
    if source.hf is None:
        found = Path(fetch(source, log)) / "tokenizer.json"
        return str(found) if found.is_file() else None
    hub_file = hub_tokenizer(source)
    return None if hub_file is None else str(hub_file)


def describe_corpus(job: dict[str, Any]) -> Description:
    """Describe one corpus and list its texts that break a check.

    Args:
        job: `corpus`, `writing` (None for an imported one), `journal`, `stories`, `flagged`,
            `checks`, `tokenizer` (model and file, or None) and `norms`.
    """
    writing = None if job["writing"] is None else writing_from_json(job["writing"])
    return describe(
        job["corpus"],
        writing,
        journal=Path(job["journal"]),
        stories=Path(job["stories"]),
        flagged=Path(job["flagged"]),
        checks=job["checks"],
        tokenizer=job["tokenizer"],
        norms=job["norms"],
    )


def write_corpus_tables(found: list[Description], folder: str) -> dict[str, Any]:
    """Write the tables over all corpora."""
    from store.results import write_tables as write

    files = write(Path(folder), corpus_tables(found))
    flagged = {d.corpus: {k: n for k, n in d.flagged.items() if n} for d in found}
    return {"files": len(files), "flagged": {k: counts for k, counts in flagged.items() if counts}}


def read_shard(job: dict[str, Any]) -> dict[str, Any]:
    """Read one shard of a cell.

    Args:
        job: as `engine.reading.shards.read_shard` takes it, with `log` and `stage`.
    """

    def on_event(event: dict[str, Any]) -> None:
        if "note" in event:
            _emit(Note(event["note"]))
        else:
            _emit(StageProgress(f"{job['stage']}#{job['shard']}", event["texts"], event["tokens"]))

    key = f"read:{job['model']['folder']}:{job['extraction']['backend']}"
    return dict(_in_child(key, Path(job["log"]), "read", job, on_event))


def cell_figures(residuals: str, max_tokens: int) -> dict[str, Any]:
    """Return counts over a complete cell: texts, tokens read, texts cut, texts outside windows."""
    from store.residuals import open_residuals

    cell = open_residuals(Path(residuals), as_dask=False)
    text_tokens = cell["text_tokens"].to_numpy()
    empty = (cell["token_count"] == 0).sum("text")
    return {
        "texts": len(text_tokens),
        "tokens": int(np.minimum(text_tokens, max_tokens).sum()),
        "cut_texts": int((text_tokens > max_tokens).sum()),
        "texts_without_token": {
            str(w): int(n) for w, n in zip(cell["window"].to_numpy(), empty, strict=True)
        },
        "bytes": sum(f.stat().st_size for f in Path(residuals).rglob("*") if f.is_file()),
    }


def analyse_layer(residuals: str, window: str, layer: int, settings: Any) -> Any:
    """Analyse one window and layer of a cell from its store."""
    from analysis.layer import analyse_layer as analyse
    from store.residuals import open_residuals

    _one_thread_each()
    return analyse(open_residuals(Path(residuals), as_dask=False), window, layer, settings)


def join_cell(
    residuals: str,
    keys: list[tuple[str, int]],
    results: list[Any],
    emotions: list[str],
    n_layers: int,
    settings: Any,
    attributes: dict[str, Any],
    target: str,
) -> dict[str, Any]:
    """Join a cell's layers, add what its store says of its tokens, and write its data set."""
    from analysis.activations import massive_activations
    from analysis.cell import join_layers
    from analysis.exclusions import join_names
    from store.residuals import open_residuals
    from store.results import write_analysis

    _one_thread_each()
    found = join_layers(dict(zip(keys, results, strict=True)), emotions, n_layers, settings)
    store = open_residuals(Path(residuals), as_dask=False)
    read = np.minimum(store["text_tokens"].to_numpy(), store.attrs["extraction"]["max_tokens"])
    spans = [shard_span(Path(residuals), shard) for shard in range(store.sizes["shard"])]
    activations = massive_activations(
        store.assign(
            tokens_read=("text", read),
            shard_tokens=("shard", [read[s.start : s.stop].sum() for s in spans]),
        )
    )
    ids, empty_NW = store["text_id"].to_numpy(), (store["token_count"] == 0).to_numpy()
    found = found.merge(activations).assign(
        texts_without_token=("window", empty_NW.sum(axis=0)),
        texts_without_token_names=(
            "window",
            [join_names([str(i) for i in ids[empty_N]]) for empty_N in empty_NW.T],
        ),
    )
    write_analysis(Path(target), found.assign_attrs(attributes))
    missing = found["missing"].to_series()
    reasons = missing[missing != ""].groupby(level=["window", "contrast"]).first()
    return {
        "layers": found.sizes["layer"],
        "windows": found.sizes["window"],
        "missing": {f"{window}, {c}": str(why) for (window, c), why in reasons.items()},
    }


def write_tables(cells: list[tuple[str, str, str, str]], folder: str, seed: int) -> dict[str, Any]:
    """Write every table over all cells: (model, corpus, analysis folder, fingerprint) each."""
    from analysis import across, tables
    from analysis.exclusions import exclusions_table
    from analysis.markdown import clusters_markdown, geometry_markdown
    from analysis.peak_layers import cluster_table, cosine_table
    from store.atomic import write_text
    from store.results import write_tables as write

    found = _results(cells)
    geometry = tables.geometry_table(found)
    clusters = cluster_table(found, geometry, seed)
    files = write(
        Path(folder),
        {
            "geometry": geometry,
            "cka": tables.cka_table(found),
            "valence_directions": tables.direction_cosine_table(found, "valence"),
            "arousal_directions": tables.direction_cosine_table(found, "arousal"),
            "directions": tables.direction_table(found),
            "activations": tables.activation_table(found),
            "cka_corpora": across.corpora_table(found),
            "cka_models": across.models_table(found),
            "cka_grids": across.grids_table(found),
            "variance": tables.variance_table(found),
            "left_out": tables.left_out_table(found),
            "clusters": clusters,
            "emotion_cosines": cosine_table(found, geometry),
            "exclusions": exclusions_table(found),
        },
    )
    pages = {"geometry": geometry_markdown(geometry), "clusters": clusters_markdown(clusters)}
    for name, page in pages.items():
        write_text(Path(folder) / f"{name}.md", page)
    return {"files": len(files) + len(pages)}


def draw_figures(cells: list[tuple[str, str, str, str]], folder: str) -> dict[str, Any]:
    """Draw every figure over all cells."""
    from analysis.figures import draw_all, save_figures
    from analysis.tables import geometry_table

    found = _results(cells)
    Path(folder).mkdir(parents=True, exist_ok=True)
    return {"files": len(save_figures(Path(folder), draw_all(found, geometry_table(found))))}


def stop_child(only: Child | None = None) -> None:
    """End this worker's child process, if it has one (and if it is `only`)."""
    global _child
    with _lock:
        if _child is None or only not in (None, _child[1]):
            return
        held, _child = _child, None
    held[1].stop()


def _in_child(
    key: str,
    log: Path,
    task: str,
    job: dict[str, Any],
    on_event: Callable[[dict[str, Any]], None],
) -> Any:
    """Run a task in the child for `key`.

    A child that dies is replaced, once, and again for as long as each gets further than the last.
    """
    progress: dict[str, int] = {}
    reached = -1

    def note_progress(event: dict[str, Any]) -> None:
        part, done = event.get("corpus", ""), event.get("done", event.get("texts", 0))
        progress[part] = max(done, progress.get(part, 0))
        on_event(event)

    while True:
        child = _child_for(key, log)
        try:
            return child.call(task, job, note_progress)
        except ChildFailed as failure:
            stop_child(child)
            furthest = sum(progress.values())
            if not failure.crashed or furthest <= reached or _stopping.is_set():
                raise
            reached = furthest
            _emit(Note(f"{failure}; it is started once more (log: {log.name})"))


_stopping = threading.Event()


def prepare_stop() -> None:
    """End the child and let no task start another: the run is being interrupted."""
    _stopping.set()
    stop_child()


def allow_children() -> None:
    """Take back `prepare_stop`, at the start of a run in the same process."""
    _stopping.clear()


def _child_for(key: str, log: Path) -> Child:
    global _child
    with _lock:
        if _stopping.is_set():
            raise ChildFailed("the run is being interrupted", log, crashed=False)
        if _child is not None and (_child[0] != key or not _child[1].alive):
            held, _child = _child, None
            held[1].stop()
        if _child is None:
            _child = (key, Child(log, child_environment()))
        return _child[1]


def _writer(job: dict[str, Any]) -> str:
    return f"write:{job['model']['folder']}"


def _replayed(corpus: dict[str, Any]) -> tuple[Demand, list[Any]]:
    demand = Demand(corpus["name"], writing_from_json(corpus["writing"]))
    return demand, demand.replay(journal_rows(Path(corpus["journal"])))


def _results(cells: list[tuple[str, str, str, str]]) -> list[Any]:
    from analysis.tables import CellResults
    from store.results import open_analysis

    return [
        CellResults(
            model,
            corpus,
            open_analysis(Path(folder), as_dask=False).drop_vars("direction").load(),
            key,
        )
        for model, corpus, folder, key in cells
    ]


_limited: list[Any] = []


def _one_thread_each() -> None:
    """Let linear algebra use one thread in this process from now on: tasks are the parallelism."""
    with _lock:
        if not _limited:
            _limited.append(threadpool_limits(limits=1))


def _emit(event: Event) -> None:
    payload = {"type": type(event).__name__, **dataclasses.asdict(event)}
    get_worker().log_event(TOPIC, {"event": payload})
