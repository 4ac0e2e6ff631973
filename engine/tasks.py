"""What Dask workers run: one function for each kind of work, each safe to do twice.

A worker holds at most one child process with one model; a task that needs another model ends it
and starts its own. Progress goes to the client as worker events.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from distributed import get_worker
from threadpoolctl import threadpool_limits

from engine.child import ChildFailed
from engine.device import WORKERS_PER_JOB, gpu_name, has_gpu, take_share
from engine.events import Event, Note, StageProgress, StageStarted
from engine.generation.demand import Demand
from engine.generation.description import Description, corpus_tables, describe
from engine.generation.prompts import writing_from_json
from engine.machines.slot import Slot
from engine.machines.workers import Run, program_digest
from engine.models import ModelSource, ModelUnavailable, fetch_model, hub_tokenizer
from engine.versions import program_versions
from manifests.norms import Norms
from store.corpus import Text, seal_corpus
from store.journal import journal_rows
from store.places import StoreRefused, place, sizes, total_size
from store.shards import shard_span

if TYPE_CHECKING:
    from analysis.effects import SteeredCell

FETCHING = {
    "dequantise": "unpacking",
    "download": "downloading",
    "initialise": "drawing random weights for",
}


THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class WorkerUnfit(Exception):
    """A worker cannot do a run's tasks; the message names its host and what it lacks.

    Attributes:
        worker: its address.
    """

    def __init__(self, message: str, worker: str):
        super().__init__(message, worker)
        self.message, self.worker = message, worker

    def __str__(self) -> str:
        return self.message


def dask_setup(worker: Any) -> None:
    """Prepare a worker process (Dask calls this as it starts).

    Ctrl-C is left to the process that started it, and it takes its share of a job.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    program_digest()  # of the source as it is now, which is what runs here
    for name in THREADS:  # Dask's nannies leave one thread where the user has said nothing
        if os.environ.get(name) == "1":
            del os.environ[name]
    together = int(os.environ.get(WORKERS_PER_JOB, "1"))
    if together > 1:
        take_share(int(str(worker.name).rpartition("-")[2]), together)


_lock = threading.Lock()
_slot = Slot()
_fit: set[str] = set()
_mine = threading.local()


def call(run: Run, work: Callable[..., Any], *arguments: Any) -> Any:
    """Do one of this module's functions for a run.

    Raises:
        WorkerUnfit: this worker cannot do its tasks.
    """
    if run.token not in _fit:
        require_fit(run, get_worker())
        _fit.add(run.token)
    if run.gpu and not has_gpu():
        host = socket.gethostname()
        what = f"the profile asks for GPUs, a job on {host} has none"
        raise WorkerUnfit(what, get_worker().address)
    before, _mine.run = getattr(_mine, "run", None), run
    try:
        return work(*arguments)
    finally:
        _mine.run = before


def require_fit(run: Run, dask_worker: Any) -> tuple[str, dict[str, str]]:
    """Refuse to work for a run of other source, or whose folders are not here.

    Args:
        run: the run.
        dask_worker: this worker (`Client.run` gives it to an argument of this name).

    Returns:
        This host's name, and the versions of the programs here.

    Raises:
        WorkerUnfit: naming this host.
    """
    host, me = socket.gethostname(), dask_worker.address
    if unseen := [folder for folder in run.folders if not _seen(folder)]:
        raise WorkerUnfit(
            f"a worker on {host} does not see {unseen[0]}; use a folder that all machines share, "
            "or give jobs the object store's keys",
            me,
        )
    if unseen := [folder for folder in run.models if not Path(folder).is_dir()]:
        raise WorkerUnfit(
            f"a worker on {host} does not see the model in {unseen[0]}; set HF_HOME and "
            "XDG_CACHE_HOME to folders that all machines share, or give its path on such a one",
            me,
        )
    if program_digest() != run.program:
        raise WorkerUnfit(
            f"a worker on {host} runs other source than {run.host}; use one checkout for both",
            me,
        )
    return host, program_versions()


def _seen(folder: str) -> bool:
    """Tell whether a run's folder can be read from here."""
    where = place(folder)
    if isinstance(where, Path):
        return where.is_dir()
    try:
        sizes(where, "records")
    except StoreRefused:
        return False
    return True


def _away(run: Run) -> bool:
    """Tell whether this process is another than the run's own."""
    return (socket.gethostname(), os.getpid()) != (run.host, run.process)


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
            message = " ".join(str(error).removeprefix("ModelUnavailable: ").split())
            raise ModelUnavailable(f"{message} (log: {log})") from None
        finally:
            end_child(_mine.run.token)

    return str(fetch_model(source, run_child))


def measure_prompts(job: dict[str, Any]) -> dict[str, Any]:
    """Ask the child that is about to write what context it needs (`engine.generation.prompts`)."""
    found = _in_child(_writer(job), Path(job["log"]), "measure", job, lambda event: None)
    return dict(found)


def write_corpora(job: dict[str, Any]) -> dict[str, Any]:
    """Write all corpora of one model.

    Args:
        job: as `engine.generation.writing.write_corpora` takes it, with `log`, and for each corpus
            `stories`, the file to seal.

    Returns:
        `seconds` taken, and `corpora`: figures by stage, with the identity of what is sealed.
    """

    def on_event(event: dict[str, Any]) -> None:
        _emit(StageProgress(event["stage"], event["done"], event["tokens"], event["refused"]))

    started = time.monotonic()
    for corpus in job["corpora"]:
        demand, _ = _replayed(corpus)
        _emit(StageStarted(corpus["stage"], demand.wanted, demand.n_kept, "texts"))
    try:
        results = _in_child(_writer(job), Path(job["log"]), "write", job, on_event)
    finally:
        end_child(_mine.run.token)
    for corpus in job["corpora"]:
        demand, waiting = _replayed(corpus)
        figures = results[corpus["stage"]]
        figures["kept"] = demand.n_kept
        if not (figures["given_up"] or waiting):
            assert demand.n_kept == demand.wanted
            texts = demand.texts(Path(corpus["journal"]))
            sealed = seal_corpus(Path(corpus["stories"]), texts)
            figures |= {"identity": sealed.identity, "texts": sealed.n_texts}
    return {"seconds": time.monotonic() - started, "corpora": results}


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


def write_corpus_tables(found: list[Description], folder: str, fingerprint: str) -> dict[str, Any]:
    """Write the tables over all corpora."""
    from store.results import write_tables as write

    files = write(Path(folder), corpus_tables(found, fingerprint))
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
    figures = dict(_in_child(key, Path(job["log"]), "read", job, on_event))
    return {
        **figures,
        "worker": get_worker().address,
        "versions": program_versions(),
        "gpu": gpu_name(),
    }


def steer(job: dict[str, Any]) -> dict[str, Any]:
    """Have a cell's model write under every condition, then measure what needs no writing.

    Args:
        job: as `engine.steering.jobs` describes it, with `log`.
    """

    def on_event(event: dict[str, Any]) -> None:
        _emit(StageProgress(event["stage"], event["done"], event["tokens"]))

    found: dict[str, Any] = {}
    for task in ("steer-write", "steer-score"):
        key = f"{task}:{job['stage']}:{job['fingerprint']}"
        try:
            found[task] = _in_child(key, Path(job["log"]), task, job, on_event)
        finally:
            end_child(_mine.run.token)
    written, scored = found["steer-write"], found["steer-score"]
    return {**written, "texts": scored["texts"], "conditions": scored["conditions"]}


def cell_figures(residuals: str, max_tokens: int) -> dict[str, Any]:
    """Return counts over a complete cell: texts, tokens read, texts cut, texts outside windows."""
    from store.residuals import open_residuals

    cell = open_residuals(place(residuals), as_dask=False)
    text_tokens = cell["text_tokens"].to_numpy()
    empty = (cell["token_count"] == 0).sum("text")
    return {
        "texts": len(text_tokens),
        "tokens": int(np.minimum(text_tokens, max_tokens).sum()),
        "cut_texts": int((text_tokens > max_tokens).sum()),
        "texts_without_token": {
            str(w): int(n) for w, n in zip(cell["window"].to_numpy(), empty, strict=True)
        },
        "bytes": total_size(place(residuals)),
    }


@dataclasses.dataclass(frozen=True)
class AnalysedCell:
    """A cell whose results are there, and what they are compared with.

    Attributes:
        model: that read.
        corpus: that was read.
        fingerprint: of the analysis.
        results: folder of its results.
        words: folder of what the corpus' words give without a model.
        twin: the model of the same configuration with random weights, None where there is none.
        writer: the model that wrote the corpus, None where that is not known.
    """

    model: str
    corpus: str
    fingerprint: str
    results: str
    words: str
    twin: str | None
    writer: str | None


def analyse_words(
    stories: str,
    emotions: list[str],
    norms: Sequence[Norms],
    settings: Any,
    attributes: dict[str, Any],
    target: str,
) -> dict[str, Any]:
    """Analyse the words of a corpus without a model, and write the results."""
    from analysis.baselines import corpus_baselines
    from store.corpus import read_corpus
    from store.results import write_analysis

    _one_thread_each()
    texts = read_corpus(Path(stories)).texts
    found = corpus_baselines(texts, emotions, norms, settings)
    write_analysis(place(target), found.assign_attrs(attributes))
    return {"texts": len(texts), "bytes": total_size(place(target))}


def analyse_layer(residuals: str, window: str, layer: int, settings: Any) -> Any:
    """Analyse one window and layer of a cell from its store."""
    from analysis.layer import analyse_layer as analyse
    from store.residuals import open_residuals

    _one_thread_each()
    return analyse(open_residuals(place(residuals), as_dask=False), window, layer, settings)


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
    store = open_residuals(place(residuals), as_dask=False)
    read = np.minimum(store["text_tokens"].to_numpy(), store.attrs["extraction"]["max_tokens"])
    spans = [shard_span(place(residuals), shard) for shard in range(store.sizes["shard"])]
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
    write_analysis(place(target), found.assign_attrs(attributes))
    missing = found["missing"].to_series()
    reasons = missing[missing != ""].groupby(level=["window", "contrast"]).first()
    return {
        "layers": found.sizes["layer"],
        "windows": found.sizes["window"],
        "bytes": total_size(place(target)),
        "missing": {f"{window}, {c}": str(why) for (window, c), why in reasons.items()},
    }


def write_tables(cells: list[AnalysedCell], folder: str, seed: int) -> dict[str, Any]:
    """Write every table over all cells."""
    from analysis import across, tables
    from analysis.claim_tables import claims_table, norms_table, profiles_table, summary_table
    from analysis.detection_table import detected_emotions_table, detection_table
    from analysis.exclusions import exclusions_table
    from analysis.geometry_table import geometry_table
    from analysis.markdown import claims_markdown, clusters_markdown, geometry_markdown
    from analysis.peak_layers import cluster_table, cosine_table
    from store.atomic import write_text
    from store.results import write_tables as write

    found = open_results(cells)
    geometry = geometry_table(found)
    clusters = cluster_table(found, geometry, seed)
    claims = claims_table(found)
    summary = summary_table(claims, found)
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
            "detection": detection_table(found),
            "detected_emotions": detected_emotions_table(found),
            "exclusions": exclusions_table(found),
            "profiles": profiles_table(found),
            "claims": claims,
            "claim_summary": summary,
            "norms": norms_table(found),
        },
    )
    pages = {
        "geometry": geometry_markdown(geometry),
        "clusters": clusters_markdown(clusters),
        "claims": claims_markdown(summary),
    }
    for name, page in pages.items():
        write_text(Path(folder) / f"{name}.md", page)
    return {"files": len(files) + len(pages)}


def write_effects(
    cells: list[dict[str, Any]],
    positive: tuple[str, ...],
    negative: tuple[str, ...],
    norms: Norms,
    tables: str,
    figures: str,
) -> dict[str, Any]:
    """Write the tables and draw the figures of steering.

    Args:
        cells: `name`, `journal`, `directions` (file), `fingerprint` (of the stage) and `blocks` (of
            the model) of each.
        positive: ends of self-reports, as they were scored.
        negative: the opposite ends.
        norms: that rate words.
        tables: folder for tables.
        figures: folder for figures.
    """
    from analysis.effect_tests import effect_tables
    from analysis.figures import save_figures
    from analysis.figures.steering import effect_figures
    from store.results import write_tables as write

    made = effect_tables([_steered_cell(cell, positive, negative, norms) for cell in cells])
    files = write(Path(tables), made)
    drawn = save_figures(Path(figures), effect_figures(made, norms.name))
    return {"files": len(files) + len(drawn)}


def _steered_cell(
    cell: dict[str, Any], positive: Sequence[str], negative: Sequence[str], norms: Norms
) -> SteeredCell:
    from safetensors.numpy import load_file

    from analysis.effects import SteeredCell, direction_cosines
    from engine.steering.conditions import HELD_OUT, TENSOR
    from store.journal import read_journal

    found = load_file(cell["directions"])
    layers = [int(layer) for layer in found["layer"]]
    model, _, corpus = cell["name"].partition("@")
    return SteeredCell(
        model=model,
        corpus=corpus,
        n_layers=cell["blocks"],
        rows=list(read_journal(Path(cell["journal"]))),
        positive=positive,
        negative=negative,
        norms=norms,
        cosines={
            key.removeprefix(TENSOR): (layers, direction_cosines(rows.astype(float)))
            for key, rows in found.items()
            if key.startswith(TENSOR)
        },
        held_out={
            key.removeprefix(HELD_OUT): dict(zip(layers, r_L.tolist(), strict=True))
            for key, r_L in found.items()
            if key.startswith(HELD_OUT)
        },
        fingerprint=cell["fingerprint"],
    )


def draw_figures(cells: list[AnalysedCell], folder: str) -> dict[str, Any]:
    """Draw every figure over all cells."""
    from analysis.figures import draw_all, remove_others, save_figures
    from analysis.geometry_table import geometry_table

    found = open_results(cells)
    Path(folder).mkdir(parents=True, exist_ok=True)
    figures = draw_all(found, geometry_table(found))
    files = save_figures(Path(folder), figures)
    remove_others(Path(folder), figures)
    return {"files": len(files)}


def write_page(jobs: list[dict[str, Any]], target: str) -> dict[str, Any]:
    """Write the page of some runs.

    Args:
        jobs: as `engine.page.page_job` gives them.
        target: the file.
    """
    from engine.page import write_page as write

    return {"bytes": write(jobs, Path(target))}


def end_child(token: str) -> None:
    """End this worker's child process, if it has one and that is of this run."""
    _slot.end_for(token)


def stop_run(token: str) -> None:
    """End the child of a run and let no task of it start another: it is being interrupted."""
    _slot.stop(token)


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
        part, done = event.get("stage", ""), event.get("done", event.get("texts", 0))
        progress[part] = max(done, progress.get(part, 0))
        on_event(event)

    run: Run = _mine.run
    if _away(run):  # workers elsewhere have logs of their own
        log = log.with_name(f"{log.stem}.{get_worker().name}.log".replace("/", "-"))
    while True:
        with _slot.child(run.token, key, log) as child:
            try:
                return child.call(task, job, note_progress)
            except ChildFailed as failure:
                _slot.end(child)
                furthest = sum(progress.values())
                if not failure.crashed or furthest <= reached or _slot.stopped(run.token):
                    raise
                reached = furthest
                _emit(Note(f"{failure}; it is started once more (log: {log.name})"))


def _writer(job: dict[str, Any]) -> str:
    return f"write:{job['model']['folder']}"


def _replayed(corpus: dict[str, Any]) -> tuple[Demand, list[Any]]:
    demand = Demand(corpus["name"], writing_from_json(corpus["writing"]))
    return demand, demand.replay(journal_rows(Path(corpus["journal"])))


def open_results(cells: list[AnalysedCell]) -> list[Any]:
    """Return the results of some cells in memory, but for their directions."""
    from analysis.results import CellResults
    from store.results import open_analysis

    return [
        CellResults(
            cell.model,
            cell.corpus,
            open_analysis(place(cell.results), as_dask=False).drop_vars("direction").load(),
            cell.fingerprint,
            open_analysis(place(cell.words), as_dask=False).load(),
            cell.twin,
            cell.writer,
        )
        for cell in cells
    ]


_limited: list[Any] = []


def _one_thread_each() -> None:
    """Let linear algebra use one thread in this process from now on: tasks are the parallelism."""
    with _lock:
        if not _limited:
            _limited.append(threadpool_limits(limits=1))


def _emit(event: Event) -> None:
    payload = {"type": type(event).__name__, **dataclasses.asdict(event)}
    get_worker().log_event(_mine.run.topic, {"event": payload})
