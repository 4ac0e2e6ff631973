"""Models brought here, corpora written, taken in and described."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.child import ChildFailed
from engine.events import Note, StageProgress, StageStarted
from engine.generation.demand import Demand
from engine.generation.description import Description, corpus_tables, describe
from engine.generation.prompts import writing_from_json
from engine.models import ModelSource, ModelUnavailable, fetch_model, hub_tokenizer
from engine.tasks.worker import emit, end_child, in_child, my_run
from store.corpus import Text, seal_corpus
from store.journal import journal_rows

FETCHING = {
    "dequantise": "unpacking",
    "download": "downloading",
    "initialise": "drawing random weights for",
}


def fetch(source: ModelSource, log: str) -> str:
    """Return the folder of a model's files, after unpacking or downloading it.

    Raises:
        ModelUnavailable: it cannot be had.
    """

    def run_child(task: str, job: dict[str, Any]) -> Any:
        emit(Note(f"{FETCHING[task]} the model {source.name}"))
        try:
            return in_child(f"{task}:{source.name}", Path(log), task, job, lambda event: None)
        except ChildFailed as error:
            message = " ".join(str(error).removeprefix("ModelUnavailable: ").split())
            raise ModelUnavailable(f"{message} (log: {log})") from None
        finally:
            end_child(my_run().token)

    return str(fetch_model(source, run_child))


def measure_prompts(job: dict[str, Any]) -> dict[str, Any]:
    """Ask the child that is about to write what context it needs (`engine.generation.prompts`)."""
    found = in_child(_writer(job), Path(job["log"]), "measure", job, lambda event: None)
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
        emit(StageProgress(event["stage"], event["done"], event["tokens"], event["refused"]))

    started = time.monotonic()
    for corpus in job["corpora"]:
        demand, _ = _replayed(corpus)
        emit(StageStarted(corpus["stage"], demand.wanted, demand.n_kept, "texts"))
    try:
        results = in_child(_writer(job), Path(job["log"]), "write", job, on_event)
    finally:
        end_child(my_run().token)
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
            `checks`, `tokenizer` (model and file, or None), `norms` and the stage's `fingerprint`.
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
        fingerprint=job["fingerprint"],
    )


def write_corpus_tables(found: list[Description], folder: str, fingerprint: str) -> dict[str, Any]:
    """Write the tables over all corpora."""
    from store.results import write_tables as write

    files = write(Path(folder), corpus_tables(found, fingerprint))
    flagged = {d.corpus: {k: n for k, n in d.flagged.items() if n} for d in found}
    return {"files": len(files), "flagged": {k: counts for k, counts in flagged.items() if counts}}


def _writer(job: dict[str, Any]) -> str:
    return f"write:{job['model']['folder']}"


def _replayed(corpus: dict[str, Any]) -> tuple[Demand, list[Any]]:
    demand = Demand(corpus["name"], writing_from_json(corpus["writing"]))
    return demand, demand.replay(journal_rows(Path(corpus["journal"]), demand.oddity))
