"""Has corpora written by models: those of one model together, divided among workers.

A corpus is written by one worker, since its journal has one writer at a time.
"""

from __future__ import annotations

import csv
import io
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from engine import tasks
from engine.dealing import Dealer, OnePiece, Work, failing
from engine.events import Note
from engine.generation.flags import FINGERPRINT_DIGITS
from engine.generation.prompts import writing_to_json
from engine.ledger import Ledger
from engine.machines.workers import Workers
from engine.plan import Stage
from manifests.errors import InputError
from store.atomic import write_text
from store.fingerprint import fingerprint
from store.journal import journal_fingerprint
from store.mirror import forget
from store.superseded import KEPT, keep_digests, put_aside


class Share(OnePiece):
    """Corpora that one worker writes with one load of their model; one piece of work.

    Attributes:
        ordered: each with the run that asks for it.
        job: what a child needs to write them, in the same order.
        holds: what has to be loaded.
    """

    def __init__(self, ordered: Sequence[tuple[Ledger, Stage]], job: dict[str, Any]):
        self.ordered, self.job = list(ordered), job
        self.holds = f"write {job['model']['folder']}"

    @property
    def gpus(self) -> int:
        """GPUs that one copy of the model takes."""
        return int(self.job["model"]["tensor_parallel_size"])

    def divided(self, n: int) -> list[Share]:
        """Return shares for at most `n` workers, as even as whole corpora allow."""
        sizes = [ledger.plan.n_texts(s.name, ledger.layout) or 0 for ledger, s in self.ordered]
        largest = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
        parts: list[list[int]] = [[] for _ in range(min(n, len(sizes)))]
        for i in largest:
            min(parts, key=lambda part: sum(sizes[j] for j in part)).append(i)
        corpora = self.job["corpora"]
        return [
            Share(
                [self.ordered[i] for i in sorted(part)],
                {**self.job, "corpora": [corpora[i] for i in sorted(part)]},
            )
            for part in parts
        ]

    def begin(self) -> list[int]:
        """Forget what was derived from the corpora."""
        for ledger, stage in self.ordered:
            begin_corpus(ledger, stage)
        return [0]

    def task(self, piece: int) -> tuple[Any, ...]:
        """Return what writes them."""
        return tasks.write_corpora, self.job

    def take(self, figures: dict[str, Any]) -> None:
        """Enter the end of each."""
        _settle(figures, self.ordered)

    def progress(self) -> int:
        """Return how many bytes their journals hold."""
        files = (ledger.layout.journal(stage.name) for ledger, stage in self.ordered)
        return sum(file.stat().st_size for file in files if file.is_file())

    def fail(self, error: Exception) -> None:
        """Let all of them fail."""
        for ledger, stage in self.ordered:
            with ledger.failing([stage.id]):
                raise error
        self.ended = True


class Measuring(OnePiece):
    """What a share's model says of the context that its corpora need; one piece of work.

    Attributes:
        share: whose job gets the context filled in.
        problem: what the model cannot take, None while nothing is known of that.
        holds: what has to be loaded.
    """

    def __init__(self, share: Share):
        self.share, self.holds = share, share.holds
        self.problem: InputError | None = None

    def task(self, piece: int) -> tuple[Any, ...]:
        """Return what asks the model."""
        return tasks.measure_prompts, self.share.job

    def take(self, figures: dict[str, Any]) -> None:
        """Fill the context in, or keep the problem."""
        problem = figures.get("problem")
        if problem is None:
            self.share.job["model"]["context"] = int(figures["context"])
            return
        owners = {f"{ledger.label}{stage.id}": ledger for ledger, stage in self.share.ordered}
        owner = owners[figures.get("stage", next(iter(owners)))]
        document = owner.plan.study.document
        self.problem = InputError(document.problem(tuple(problem["path"]), problem["what"]))

    def fail(self, error: Exception) -> None:
        """Let the share fail."""
        self.share.fail(error)
        self.ended = True


def writer_of(ledger: Ledger, stage: Stage) -> str:
    """Return what has to be loaded to write a corpus, for telling who can share a load."""
    writing = ledger.plan.study.writing[stage.name]
    entry = ledger.plan.study.manifest.models[writing.spec.model]
    folder = ledger.folders[writing.spec.model]
    return fingerprint([folder, entry.model_dump(mode="json"), writing.chat_template])


def share_of(ordered: Sequence[tuple[Ledger, Stage]]) -> Share:
    """Return corpora of one model with what a child needs to write them, its context left open."""
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
    job = {
        "log": str(first.layout.logs.resolve() / f"write-{model}.log"),
        "model": {
            **first.plan.study.manifest.models[model].model_dump(mode="json"),
            "name": model,
            "folder": first.folders[model],
            "chat_template": writing.chat_template,
        },
        "corpora": corpora,
    }
    return Share(list(ordered), job)


def measure(writers: Workers, shares: Sequence[Share]) -> list[Share]:
    """Ask models what context they need to write their corpora.

    Returns:
        Those that can write, their context filled in. Others have failed.

    Raises:
        InputError: a model cannot take the requests.
    """
    # The first writer's process is then the one that is up, where one worker does all.
    asked = [Measuring(share) for share in reversed(shares)]
    with failing(asked):
        _dealt(writers, asked, shares)
    for measuring in reversed(asked):
        if measuring.problem is not None:
            raise measuring.problem
    return [share for share in shares if not share.ended]


def write(writers: Workers, shares: Sequence[Share]) -> None:
    """Have corpora written; where there are more workers than models, those of one by several."""
    n = max(1, writers.places() // len(shares))
    parts = [part for share in shares for part in share.divided(n)]
    with failing(parts):
        _dealt(writers, parts, shares)


def _dealt(writers: Workers, works: Sequence[Work], shares: Sequence[Share]) -> None:
    listener = shares[0].ordered[0][0].listener
    Dealer(writers, works).deal(lambda what: listener(Note(what)))


def _settle(results: dict[str, Any], ordered: Sequence[tuple[Ledger, Stage]]) -> None:
    """Enter the end of corpora that are written."""
    started = time.monotonic() - results["seconds"]
    for ledger, stage in ordered:
        with ledger.failing([stage.id]):
            figures = results["corpora"][f"{ledger.label}{stage.id}"]
            given_up = figures.pop("given_up")
            if given_up:
                ledger.fail(stage.id, _list_given_up(ledger, stage, given_up, figures["kept"]))
            else:
                ledger.finish(stage, started, figures, identity=figures.pop("identity"))


def _list_given_up(ledger: Ledger, stage: Stage, given_up: dict[str, str], kept: int) -> str:
    """Write down what a corpus lacks and why; return it in a sentence."""
    made_by = stage.fingerprint[:FINGERPRINT_DIGITS]
    rows = [[request, why, made_by] for request, why in given_up.items()]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["request", "reason", "fingerprint"], *rows])
    file = ledger.layout.given_up(stage.name)
    write_text(file, text.getvalue())
    checks = Counter(why.partition(":")[0] for why in given_up.values())
    reasons = ", ".join(f"{check} {n}" for check, n in checks.most_common())
    return (
        f"texts refused too often: {len(given_up)} (the last time for {reasons}; all in {file}); "
        f"{kept} texts are kept; raise attempts or relax a check, and run again"
    )


def begin_corpus(ledger: Ledger, stage: Stage) -> None:
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
