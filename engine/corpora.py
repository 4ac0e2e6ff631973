"""The writing phase: corpora written by models or taken from files, and those of other settings."""

from __future__ import annotations

import csv
import io
import shutil
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from engine import tasks
from engine.child import ChildFailed
from engine.cluster import run_task
from engine.events import Note, StageStarted
from engine.generation.prompts import writing_to_json
from engine.ledger import Ledger
from engine.models import model_source
from engine.plan import Stage
from manifests.errors import InputError
from store.atomic import write_text
from store.journal import journal_fingerprint

if TYPE_CHECKING:
    from distributed import Client


def bring_corpora(ledger: Ledger, client: Client, folders: dict[str, str]) -> None:
    """Write or import every corpus that is not there yet, model by model.

    Raises:
        InputError: a model cannot take the requests; nothing was begun.
    """
    by_model: dict[str, list[Stage]] = {}
    imports: list[Stage] = []
    for status in ledger.ready("generate", "import"):
        stage = status.stage
        if stage.kind == "generate":
            model = ledger.plan.study.writing[stage.name].spec.model
            by_model.setdefault(model, []).append(stage)
        else:
            imports.append(stage)
    jobs = {
        model: _writing_job(ledger, model, folders[model], stages)
        for model, stages in by_model.items()
    }
    for model in reversed(jobs):  # the first writer's process is then the one that is up
        jobs[model]["model"]["context"] = _measure(ledger, client, jobs[model], by_model[model])
    for stage in imports:
        _import(ledger, client, stage)
    for model, stages in by_model.items():
        if jobs[model]["model"]["context"] is not None:
            _write(ledger, client, jobs[model], stages)


def _import(ledger: Ledger, client: Client, stage: Stage) -> None:
    started = time.monotonic()
    ledger.begin(stage)
    with ledger.failing([stage.id]):
        texts = ledger.plan.import_texts(stage.name, ledger.layout, sealed=False)
        ledger.listener(StageStarted(stage.id, len(texts), 0, "texts"))
        file = str(ledger.layout.stories(stage.name))
        figures = run_task(client, tasks.import_corpus, file, texts)
        ledger.finish(stage, started, figures, identity=figures.pop("identity"))


def _writing_job(ledger: Ledger, model: str, folder: str, stages: list[Stage]) -> dict[str, Any]:
    """Return what a child needs to write corpora of one model, its context left open."""
    entry = ledger.plan.study.manifest.models[model]
    corpora = [
        {
            "name": stage.name,
            "journal": str(ledger.layout.journal(stage.name)),
            "stories": str(ledger.layout.stories(stage.name)),
            "fingerprint": ledger.plan.journal_key(stage.name),
            "writing": writing_to_json(ledger.plan.study.writing[stage.name]),
        }
        for stage in stages
    ]
    return {
        "log": str(ledger.layout.logs / f"write-{model}.log"),
        "model": {
            **entry.model_dump(mode="json"),
            "name": model,
            "folder": folder,
            "chat_template": ledger.plan.study.writing[stages[0].name].chat_template,
        },
        "corpora": corpora,
    }


def _measure(
    ledger: Ledger, client: Client, job: dict[str, Any], stages: list[Stage]
) -> int | None:
    """Return the context in tokens that a job needs, None after failing its stages.

    Raises:
        InputError: the model cannot take the requests.
    """
    try:
        found = run_task(client, tasks.measure_prompts, job)
    except ChildFailed as error:
        for stage in stages:
            ledger.fail(stage.id, str(error), str(error.log), tuple(error.tail()))
        return None
    if problem := found.get("problem"):
        document = ledger.plan.study.document
        raise InputError(document.problem(tuple(problem["path"]), problem["what"]))
    return int(found["context"])


def _write(ledger: Ledger, client: Client, job: dict[str, Any], stages: list[Stage]) -> None:
    for stage in stages:
        ledger.begin(stage)
        claim_corpus_folder(ledger, stage)
        for derived in (ledger.layout.stories, ledger.layout.flagged, ledger.layout.given_up):
            derived(stage.name).unlink(missing_ok=True)
    started = time.monotonic()
    with ledger.failing([stage.id for stage in stages]):
        results = run_task(client, tasks.write_corpora, job)
        for stage in stages:
            figures = results[stage.name]
            given_up = figures.pop("given_up")
            if given_up:
                ledger.fail(stage.id, _list_given_up(ledger, stage.name, given_up, figures["kept"]))
            else:
                ledger.finish(stage, started, figures, identity=figures.pop("identity"))


def describe_corpora(ledger: Ledger, client: Client) -> None:
    """Count what the corpora hold, list texts that break a check, and write the corpus tables."""
    for status in ledger.ready("describe"):
        stage, started = status.stage, time.monotonic()
        ledger.begin(stage)
        names = list(ledger.plan.study.manifest.corpora)
        ledger.listener(StageStarted(stage.id, len(names), 0, "corpora"))
        with ledger.failing([stage.id]):
            jobs = [_description_job(ledger, client, name) for name in names]
            futures = client.map(tasks.describe_corpus, jobs, pure=False)
            figures = run_task(
                client, tasks.write_corpus_tables, futures, str(ledger.layout.tables)
            )
            ledger.finish(stage, started, figures)


def _description_job(ledger: Ledger, client: Client, corpus: str) -> dict[str, Any]:
    """Return what `engine.tasks.describe_corpus` takes."""
    plan, layout = ledger.plan, ledger.layout
    writing = plan.study.writing.get(corpus)
    tokenizer = plan.tokenizer(corpus)
    source = model_source(plan.study, tokenizer)
    log = str(layout.logs / f"fetch-{tokenizer}.log")
    file = run_task(client, tasks.tokenizer_file, source, log)
    if file is None:
        what = f"{corpus}: its tokens are not counted, the tokenizer of {tokenizer} is not at hand"
        ledger.listener(Note(what))
    return {
        "corpus": corpus,
        "writing": None if writing is None else writing_to_json(writing),
        "journal": str(layout.journal(corpus)),
        "stories": str(layout.stories(corpus)),
        "flagged": str(layout.flagged(corpus)),
        "checks": plan.checks(corpus),
        "tokenizer": None if file is None else (tokenizer, file),
        "norms": plan.study.norms,
    }


def _list_given_up(ledger: Ledger, corpus: str, given_up: dict[str, str], kept: int) -> str:
    """Write down what a corpus lacks and why; return it in a sentence."""
    rows = [["request", "reason"], *([request, why] for request, why in given_up.items())]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    file = ledger.layout.given_up(corpus)
    write_text(file, text.getvalue())
    checks = Counter(why.partition(":")[0] for why in given_up.values())
    reasons = ", ".join(f"{check} {n}" for check, n in checks.most_common())
    return (
        f"texts refused too often: {len(given_up)} (the last time for {reasons}; all in {file}); "
        f"{kept} texts are kept; raise attempts or relax a check, and run again"
    )


def claim_corpus_folder(ledger: Ledger, stage: Stage) -> None:
    """Move a corpus of other settings aside, and bring one of these settings back."""
    folder = ledger.layout.corpus(stage.name)
    found = journal_fingerprint(ledger.layout.journal(stage.name))
    wanted = ledger.plan.journal_key(stage.name)
    if found == wanted:
        return
    if found is not None:
        aside = ledger.layout.superseded(stage.name, found)
        while aside.exists():
            aside = aside.with_name(aside.name + "+")
        aside.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(aside)
        ledger.listener(Note(f"{stage.name}: the corpus of other settings went to {aside}"))
    earlier = ledger.layout.superseded(stage.name, wanted)
    if earlier.exists():
        if folder.exists():  # an imported corpus: made again from its files at any time
            shutil.rmtree(folder)
        earlier.rename(folder)
        ledger.listener(Note(f"{stage.name}: an earlier corpus of these settings is back"))
