"""A sealed corpus described: its words, what its journal refused, which texts break a check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.counting import TokenCounter
from engine.generation.demand import Demand
from engine.generation.flags import FINGERPRINT_DIGITS, TEXT_CHECKS, flag_texts
from manifests.norms import Norms
from manifests.resolve import Writing
from manifests.schema import Checks
from store.corpus import corpus_identity, iter_texts
from store.journal import read_journal

if TYPE_CHECKING:
    import pandas as pd

    from analysis.corpus import CorpusTally

REPLY_CHECKS = ("truncated", "unfinished", "story_count")
"""Checks of a reply as a whole, beside those of its texts."""


@dataclass(frozen=True)
class Refusals:
    """What a journal says: replies in all, by emotion, and refusals by check and emotion."""

    replies: int
    replies_by_emotion: Counter[str]
    by_check: Counter[str]
    by_emotion: Counter[str]


@dataclass(frozen=True)
class Description:
    """One corpus: words, refusals (None for an imported corpus), flagged texts by check.

    Attributes:
        corpus: its name.
        source: the model that wrote it, or `import`.
        tokenizer: the model whose tokenizer counted it, "" without one.
        identity: of its content.
    """

    corpus: str
    source: str
    tokenizer: str
    identity: str
    norms: tuple[Norms, ...]
    tally: CorpusTally
    refusals: Refusals | None
    flagged: dict[str, int]


def describe(
    corpus: str,
    writing: Writing | None,
    *,
    journal: Path,
    stories: Path,
    flagged: Path,
    checks: Checks,
    tokenizer: tuple[str, str] | None,
    norms: Sequence[Norms],
    fingerprint: str,
) -> Description:
    """Describe a sealed corpus and write the list of its texts that break a check.

    What a generated corpus refuses is not in it, so only skipped checks are looked at there.
    """
    from analysis.corpus import tally_corpus

    count = None if tokenizer is None else _token_counter(tokenizer[1])
    return Description(
        corpus=corpus,
        source="import" if writing is None else writing.spec.model,
        tokenizer="" if tokenizer is None else tokenizer[0],
        identity=str(corpus_identity(stories)),
        norms=tuple(norms),
        tally=tally_corpus(iter_texts(stories), norms, count),
        refusals=None if writing is None else _refusals(corpus, writing, journal),
        flagged=flag_texts(
            stories,
            flagged,
            checks,
            fingerprint,
            names=TEXT_CHECKS if writing is None else checks.skip,
            templates=() if writing is None else tuple(vars(writing.prompts).values()),
        ),
    )


def corpus_tables(found: Sequence[Description], fingerprint: str) -> dict[str, pd.DataFrame]:
    """Return `corpora` (a row for each corpus and norms) and `corpus_emotions` (and emotion).

    refused_* count replies that a check of today refuses (the first that a reply fails);
    refused_duplicate counts texts withdrawn. NaN for an imported corpus. flagged_* count texts in
    the corpus that break a check. `identity` is of the corpus' content, `fingerprint` of the stage
    that describes it.
    """
    import pandas as pd

    from analysis.corpus import content_row, emotion_rows, summary_row

    corpora, emotions = [], []
    made_by = {"fingerprint": fingerprint[:FINGERPRINT_DIGITS]}
    for d in found:
        about = {"corpus": d.corpus, "source": d.source}
        for norms in d.norms:
            rows = emotion_rows(d.tally, norms)
            corpora.append(
                {
                    **about,
                    **summary_row(d.tally),
                    "tokenizer": d.tokenizer,
                    "norms": norms.name,
                    **content_row(rows),
                    **_refused_columns(d.refusals),
                    **{f"flagged_{check}": d.flagged.get(check, 0) for check in TEXT_CHECKS},
                    "identity": d.identity[:FINGERPRINT_DIGITS],
                    **made_by,
                }
            )
            if d.refusals is not None:
                rows["replies"] = [d.refusals.replies_by_emotion[e] for e in rows["emotion"]]
                rows["refused_replies"] = [d.refusals.by_emotion[e] for e in rows["emotion"]]
            emotions.append(rows.assign(**about))
    table = pd.concat(emotions, ignore_index=True)
    for column in ("replies", "refused_replies"):
        if column not in table:
            table[column] = float("nan")
    first = ["corpus", "source", "norms", "emotion"]
    table = table[[*first, *(c for c in table.columns if c not in first)]].assign(**made_by)
    return {"corpora": pd.DataFrame(corpora), "corpus_emotions": table}


def _refused_columns(refusals: Refusals | None) -> dict[str, float]:
    names = (*REPLY_CHECKS, *TEXT_CHECKS)
    if refusals is None:
        return dict.fromkeys(["replies", *(f"refused_{name}" for name in names)], float("nan"))
    counts = {f"refused_{name}": refusals.by_check[name] for name in names}
    return {"replies": refusals.replies, **counts}


def _refusals(corpus: str, writing: Writing, journal: Path) -> Refusals:
    demand = Demand(corpus, writing)
    found = Refusals(0, Counter(), Counter(), Counter())
    replies = 0
    for row in read_journal(journal, demand.oddity):
        if row["outcome"] == "withdrawn":
            found.by_check["duplicate"] += 1
            continue
        check = demand.verdict(row).reason.partition(":")[0]
        replies += 1
        emotion = demand.request(row["request"]).emotion
        found.replies_by_emotion[emotion] += 1
        if check:
            found.by_check[check] += 1
            found.by_emotion[emotion] += 1
    return Refusals(replies, found.replies_by_emotion, found.by_check, found.by_emotion)


def _token_counter(file: str) -> Callable[[str], int]:
    counter = TokenCounter(Path(file))
    return lambda text: counter.count([text])[0]
