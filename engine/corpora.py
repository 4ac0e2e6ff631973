"""The writing phase: corpora written by models or taken from files, and those of other settings."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

from engine import tasks
from engine.cluster import run_task
from engine.events import Note, StageStarted
from engine.ledger import Ledger
from engine.plan import Stage
from engine.writing import writing_to_json
from store.journal import journal_fingerprint

if TYPE_CHECKING:
    from distributed import Client


def bring_corpora(ledger: Ledger, client: Client, folders: dict[str, str]) -> None:
    """Write or import every corpus that is not there yet, model by model."""
    by_model: dict[str, list[Stage]] = {}
    for status in ledger.ready("generate", "import"):
        stage = status.stage
        if stage.kind == "generate":
            model = ledger.plan.study.writing[stage.name].spec.model
            by_model.setdefault(model, []).append(stage)
        else:
            _import(ledger, client, stage)
    for model, stages in by_model.items():
        _write(ledger, client, model, folders[model], stages)


def _import(ledger: Ledger, client: Client, stage: Stage) -> None:
    started = time.monotonic()
    ledger.begin(stage)
    with ledger.failing([stage.id]):
        texts = ledger.plan.import_texts(stage.name, ledger.layout, sealed=False)
        ledger.listener(StageStarted(stage.id, len(texts), 0, "texts"))
        file = str(ledger.layout.stories(stage.name))
        figures = run_task(client, tasks.import_corpus, file, texts)
        ledger.finish(stage, started, figures, identity=figures.pop("identity"))


def _write(ledger: Ledger, client: Client, model: str, folder: str, stages: list[Stage]) -> None:
    for stage in stages:
        ledger.begin(stage)
        claim_corpus_folder(ledger, stage)
    entry = ledger.plan.study.manifest.models[model]
    corpora = [
        {
            "name": stage.name,
            "journal": str(ledger.layout.journal(stage.name)),
            "stories": str(ledger.layout.stories(stage.name)),
            "fingerprint": stage.fingerprint,
            "writing": writing_to_json(ledger.plan.study.writing[stage.name]),
        }
        for stage in stages
    ]
    job = {
        "log": str(ledger.layout.logs / f"write-{model}.log"),
        "model": {"folder": folder, **entry.model_dump(mode="json")},
        "corpora": corpora,
    }
    started = time.monotonic()
    with ledger.failing([stage.id for stage in stages]):
        results = run_task(client, tasks.write_corpora, job)
        for stage in stages:
            figures = results[stage.name]
            given_up = figures.pop("given_up")
            if given_up:
                reasons = "; ".join(f"{k}: {v}" for k, v in list(given_up.items())[:5])
                ledger.fail(
                    stage.id,
                    f"{len(given_up)} requests were refused too often ({reasons}); "
                    f"{figures['kept']} texts are kept; raise attempts and run again",
                )
            else:
                ledger.finish(stage, started, figures, identity=figures.pop("identity"))


def claim_corpus_folder(ledger: Ledger, stage: Stage) -> None:
    """Move a corpus of other settings aside, and bring one of these settings back."""
    folder = ledger.layout.corpus(stage.name)
    found = journal_fingerprint(ledger.layout.journal(stage.name))
    if found == stage.fingerprint:
        return
    if found is not None:
        aside = ledger.layout.superseded(stage.name, found)
        while aside.exists():
            aside = aside.with_name(aside.name + "+")
        aside.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(aside)
        ledger.listener(Note(f"{stage.name}: the corpus of other settings went to {aside}"))
    earlier = ledger.layout.superseded(stage.name, stage.fingerprint)
    if earlier.exists():
        if folder.exists():  # an imported corpus: made again from its files at any time
            shutil.rmtree(folder)
        earlier.rename(folder)
        ledger.listener(Note(f"{stage.name}: an earlier corpus of these settings is back"))
