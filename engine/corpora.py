"""The writing phase: corpora written by models or taken from files, and those of other settings."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import Any

from engine import tasks
from engine.child import ChildFailed
from engine.events import Note, StageStarted
from engine.generation.prompts import writing_to_json
from engine.ledger import Ledger
from engine.machines import Machines
from engine.machines.workers import Workers
from engine.models import model_source
from engine.plan import Stage, State
from engine.writings import Share, begin_corpus, measure, share_of, write, writer_of
from store.atomic import written_whole
from store.layout import Layout
from store.records import read_record


def bring_corpora(ledgers: Sequence[Ledger], machines: Machines) -> None:
    """Write or import every corpus that is not there yet, model by model.

    What several runs ask of one model is written with one load of it, and a corpus that two of
    them ask for is written once.

    Raises:
        InputError: a model cannot take the requests; nothing was begun.
    """
    writing: dict[str, list[tuple[Ledger, Stage]]] = {}
    imports: list[tuple[Ledger, Stage]] = []
    alike: dict[str, tuple[Ledger, Stage]] = {}
    copies: list[tuple[Ledger, Stage]] = []
    for ledger in ledgers if len(ledgers) > 1 else ():
        for status in ledger.plan.inspect(ledger.layout).values():
            if status.stage.kind == "generate" and status.state is State.DONE:
                alike[status.stage.fingerprint] = (ledger, status.stage)
    for ledger in ledgers:
        for status in ledger.ready("generate", "import"):
            stage = status.stage
            if stage.kind == "import":
                imports.append((ledger, stage))
            elif alike.setdefault(stage.fingerprint, (ledger, stage))[0] is not ledger:
                copies.append((ledger, stage))
            else:
                writing.setdefault(writer_of(ledger, stage), []).append((ledger, stage))
    shares = [share_of(ordered) for ordered in writing.values()]
    able: list[Share] = []
    if shares:
        writers = machines.writers(min(share.gpus for share in shares), len(shares))
        able = measure(writers, shares)
    for ledger, stage in imports:
        _import(ledger, machines.here, stage)
    for size in sorted({share.gpus for share in able}):
        mine = [share for share in able if share.gpus == size]
        write(machines.writers(size, sum(len(share.ordered) for share in mine)), mine)
    for ledger, stage in copies:
        _copy(ledger, stage, *alike[stage.fingerprint])


def _copy(ledger: Ledger, stage: Stage, other: Ledger, written: Stage) -> None:
    """Take over a corpus that another run has just written."""
    started = time.monotonic()
    with ledger.failing([stage.id]):
        record = read_record(other.layout.record(written.kind, written.name))
        if record is None:
            raise ChildFailed(
                f"{other.layout.run_name} was to write it and could not", other.layout.logs, False
            )
        begin_corpus(ledger, stage)
        for of in (Layout.journal, Layout.stories):
            with written_whole(of(ledger.layout, stage.name)) as partial:
                shutil.copyfile(of(other.layout, written.name), partial)
        ledger.listener(
            Note(
                f"{stage.name}: {ledger.layout.run_name} takes over the corpus of "
                f"{other.layout.run_name}"
            )
        )
        ledger.finish(stage, started, record.figures, identity=record.identity)


def _import(ledger: Ledger, here: Workers, stage: Stage) -> None:
    started = time.monotonic()
    ledger.begin(stage)
    with ledger.failing([stage.id]):
        texts = ledger.plan.import_texts(stage.name, ledger.layout, sealed=False)
        ledger.listener(StageStarted(stage.id, len(texts), 0, "texts"))
        file = str(ledger.layout.stories(stage.name))
        figures = here.do(tasks.import_corpus, file, texts)
        ledger.finish(stage, started, figures, identity=figures.pop("identity"))


def describe_corpora(ledger: Ledger, here: Workers) -> None:
    """Count what the corpora hold, list texts that break a check, and write the corpus tables."""
    for status in ledger.ready("describe"):
        stage, started = status.stage, time.monotonic()
        ledger.begin(stage)
        names = list(ledger.plan.study.manifest.corpora)
        ledger.listener(StageStarted(stage.id, len(names), 0, "corpora"))
        with ledger.failing([stage.id]):
            jobs = [_description_job(ledger, here, stage, name) for name in names]
            futures = [here.submit(tasks.describe_corpus, job) for job in jobs]
            tables = str(ledger.layout.tables)
            figures = here.do(tasks.write_corpus_tables, futures, tables, stage.fingerprint)
            ledger.finish(stage, started, figures)


def _description_job(ledger: Ledger, here: Workers, stage: Stage, corpus: str) -> dict[str, Any]:
    """Return what `engine.tasks.describe_corpus` takes."""
    plan, layout = ledger.plan, ledger.layout
    writing = plan.study.writing.get(corpus)
    tokenizer = plan.tokenizer(corpus)
    source = model_source(plan.study, tokenizer)
    log = str(layout.logs / f"fetch-{tokenizer}.log")
    file = here.do(tasks.tokenizer_file, source, log)
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
        "fingerprint": stage.fingerprint,
    }
