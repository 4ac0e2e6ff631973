"""The writing phase: corpora written by models or taken from files, and those of other settings."""

from __future__ import annotations

import csv
import io
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine import tasks
from engine.child import ChildFailed
from engine.events import Note, StageStarted
from engine.generation.prompts import writing_to_json
from engine.ledger import Ledger
from engine.machines import Machines
from engine.machines.workers import MODEL_SLOT, REST_SECONDS, TRIES, Workers
from engine.models import model_source
from engine.plan import Stage, State
from manifests.errors import InputError
from store.atomic import write_text, written_whole
from store.fingerprint import fingerprint
from store.journal import journal_fingerprint
from store.layout import Layout
from store.mirror import forget
from store.records import read_record
from store.superseded import KEPT, keep_digests, put_aside

if TYPE_CHECKING:
    from distributed import Future


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
                writing.setdefault(_writer(ledger, stage), []).append((ledger, stage))
    jobs = {writer: _writing_job(ordered) for writer, ordered in writing.items()}
    sizes = {writer: int(job["model"]["tensor_parallel_size"]) for writer, job in jobs.items()}
    writers = machines.writers(min(sizes.values())) if jobs else machines.here
    asked = {  # the first writer's process is then the one that is up
        writer: writers.submit(tasks.measure_prompts, jobs[writer], resources=MODEL_SLOT)
        for writer in reversed(jobs)
    }
    for writer, future in asked.items():
        context = _measured(writers, future, jobs[writer], writing[writer])
        jobs[writer]["model"]["context"] = context
    for ledger, stage in imports:
        _import(ledger, machines.here, stage)
    for size in sorted(set(sizes.values())):
        mine = [writer for writer in jobs if sizes[writer] == size]
        able = [writer for writer in mine if jobs[writer]["model"]["context"] is not None]
        if able:
            some = {writer: writing[writer] for writer in able}
            _write(machines.writers(size), some, jobs)
    for ledger, stage in copies:
        _copy(ledger, stage, *alike[stage.fingerprint])


def _write(
    writers: Workers,
    writing: dict[str, list[tuple[Ledger, Stage]]],
    jobs: dict[str, dict[str, Any]],
) -> None:
    """Have corpora written, those of each writer by one task."""
    running: dict[Future, str] = {}
    failed: Counter[str] = Counter()
    written: dict[str, int] = {}
    for number, (writer, ordered) in enumerate(writing.items()):
        for ledger, stage in ordered:
            _clear(ledger, stage)
        future = writers.submit(
            tasks.write_corpora, jobs[writer], resources=MODEL_SLOT, priority=-number
        )
        running[future] = writer
    while running:
        future = next(writers.completed(running))
        writer = running.pop(future)
        before, written[writer] = written.get(writer, 0), _journal_bytes(writing[writer])
        failed[writer] = 1 if written[writer] > before else failed[writer] + 1
        if failed[writer] < TRIES and writers.gave_back(future.exception()):
            time.sleep(REST_SECONDS)
            future = writers.submit(tasks.write_corpora, jobs[writer], resources=MODEL_SLOT)
            running[future] = writer
        else:
            _settle(future, writing[writer])


def _writer(ledger: Ledger, stage: Stage) -> str:
    """Return what has to be loaded to write a corpus, for telling who can share a load."""
    writing = ledger.plan.study.writing[stage.name]
    entry = ledger.plan.study.manifest.models[writing.spec.model]
    folder = ledger.folders[writing.spec.model]
    return fingerprint([folder, entry.model_dump(mode="json"), writing.chat_template])


def _copy(ledger: Ledger, stage: Stage, other: Ledger, written: Stage) -> None:
    """Take over a corpus that another run has just written."""
    started = time.monotonic()
    with ledger.failing([stage.id]):
        record = read_record(other.layout.record(written.kind, written.name))
        if record is None:
            raise ChildFailed(
                f"{other.layout.run_name} was to write it and could not", other.layout.logs, False
            )
        _clear(ledger, stage)
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


def _writing_job(ordered: Sequence[tuple[Ledger, Stage]]) -> dict[str, Any]:
    """Return what a child needs to write corpora of one model, its context left open."""
    first, stage = ordered[0]
    writing = first.plan.study.writing[stage.name]
    model = writing.spec.model
    corpora = [
        {
            "stage": f"{ledger.label}{stage.id}",
            "name": stage.name,
            "journal": str(ledger.layout.journal(stage.name).resolve()),
            "stories": str(ledger.layout.stories(stage.name).resolve()),
            "fingerprint": ledger.plan.journal_key(stage.name),
            "writing": writing_to_json(ledger.plan.study.writing[stage.name]),
        }
        for ledger, stage in ordered
    ]
    return {
        "log": str(first.layout.logs.resolve() / f"write-{model}.log"),
        "model": {
            **first.plan.study.manifest.models[model].model_dump(mode="json"),
            "name": model,
            "folder": first.folders[model],
            "chat_template": writing.chat_template,
        },
        "corpora": corpora,
    }


def _journal_bytes(ordered: Sequence[tuple[Ledger, Stage]]) -> int:
    """Return the size of the journals of some corpora: what was written, whoever wrote it."""
    files = (ledger.layout.journal(stage.name) for ledger, stage in ordered)
    return sum(file.stat().st_size for file in files if file.is_file())


def _measured(
    writers: Workers,
    future: Future,
    job: dict[str, Any],
    ordered: Sequence[tuple[Ledger, Stage]],
) -> int | None:
    """Return the context in tokens that a job needs, None after failing its stages.

    Raises:
        InputError: the model cannot take the requests.
    """
    from distributed import KilledWorker

    try:
        found = writers.insist(
            future, lambda: writers.submit(tasks.measure_prompts, job, resources=MODEL_SLOT)
        )
    except (ChildFailed, tasks.WorkerUnfit, KilledWorker) as error:
        _fail(ordered, error)
        return None
    if problem := found.get("problem"):
        owners = {f"{ledger.label}{stage.id}": ledger for ledger, stage in ordered}
        owner = owners[found.get("stage", next(iter(owners)))]
        document = owner.plan.study.document
        raise InputError(document.problem(tuple(problem["path"]), problem["what"]))
    return int(found["context"])


def _fail(ordered: Sequence[tuple[Ledger, Stage]], error: Exception) -> None:
    for ledger, stage in ordered:
        with ledger.failing([stage.id]):
            raise error


def _clear(ledger: Ledger, stage: Stage) -> None:
    """Forget what was derived from a corpus that is to be written.

    Its description, too: a corpus that comes out the same would not be described again.
    """
    keep_digests(ledger.layout, stage.name)
    ledger.begin(stage)
    forget(ledger.layout, "describe", "all")
    claim_corpus_folder(ledger, stage)
    for derived in (ledger.layout.stories, ledger.layout.flagged, ledger.layout.given_up):
        derived(stage.name).unlink(missing_ok=True)
    (ledger.layout.corpus(stage.name) / KEPT).unlink(missing_ok=True)


def _settle(future: Future, ordered: Sequence[tuple[Ledger, Stage]]) -> None:
    """Enter the end of corpora that are written."""
    try:
        results = future.result()
    except Exception as error:
        _fail(ordered, error)
        return
    started = time.monotonic() - results["seconds"]
    for ledger, stage in ordered:
        with ledger.failing([stage.id]):
            figures = results["corpora"][f"{ledger.label}{stage.id}"]
            given_up = figures.pop("given_up")
            if given_up:
                ledger.fail(stage.id, _list_given_up(ledger, stage.name, given_up, figures["kept"]))
            else:
                ledger.finish(stage, started, figures, identity=figures.pop("identity"))


def describe_corpora(ledger: Ledger, here: Workers) -> None:
    """Count what the corpora hold, list texts that break a check, and write the corpus tables."""
    for status in ledger.ready("describe"):
        stage, started = status.stage, time.monotonic()
        ledger.begin(stage)
        names = list(ledger.plan.study.manifest.corpora)
        ledger.listener(StageStarted(stage.id, len(names), 0, "corpora"))
        with ledger.failing([stage.id]):
            jobs = [_description_job(ledger, here, name) for name in names]
            futures = [here.submit(tasks.describe_corpus, job) for job in jobs]
            tables = str(ledger.layout.tables)
            figures = here.do(tasks.write_corpus_tables, futures, tables, stage.fingerprint)
            ledger.finish(stage, started, figures)


def _description_job(ledger: Ledger, here: Workers, corpus: str) -> dict[str, Any]:
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
        aside = put_aside(ledger.layout, stage.name, found)
        ledger.listener(Note(f"{stage.name}: the corpus of other settings went to {aside}"))
    earlier = ledger.layout.superseded(stage.name, wanted)
    if earlier.exists():
        if folder.exists():  # an imported corpus: made again from its files at any time
            shutil.rmtree(folder)
        earlier.rename(folder)
        ledger.listener(Note(f"{stage.name}: an earlier corpus of these settings is back"))
