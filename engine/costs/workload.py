"""What stages have to do: requests, tokens, operations; expected, measured, or done already.

An expectation is replaced by what was measured as soon as a run has some: a corpus' own journal
for writing, its texts and the model's tokenizer for reading.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from engine.costs.architecture import Architecture
from engine.models import tokenizer_at_hand
from engine.plan import Plan, State, Status
from engine.steering.conditions import n_measures
from manifests.resolve import Writing
from store.corpus import Text, iter_texts
from store.exchange import read_texts
from store.journal import journal_fingerprint, read_journal
from store.layout import Layout

WORDS_A_TEXT = 150
"""Expected of a story or a neutral text: three corpora by two models have 143, 158 and 163."""

TOKENS_A_WORD = 1.35
"""Expected of English text and a vocabulary of 50,000 entries or more."""

MIN_REPLIES = 20
"""Replies in a journal from which they count as a measurement."""

SAMPLE = 200
"""Texts whose tokens are counted for the ratio of tokens to words."""


@dataclass(frozen=True)
class Work:
    """What a stage has to do; None where it is not known.

    Attributes:
        stage: its id.
        model: that does it.
        dtype: of its weights.
        writes: whether it writes texts, or reads them.
        requests: prompts to answer, or texts to read.
        tokens: prompts and replies, or texts as they are read.
        output_tokens: of the replies.
        flops: operations, multiplications and additions.
        source: `expected`, `measured` or `done`.
    """

    stage: str
    model: str
    dtype: str
    writes: bool
    requests: int | None
    tokens: float | None
    output_tokens: float | None
    flops: float | None
    source: str


def workloads(
    plan: Plan, layout: Layout, statuses: Iterable[Status], sizes: dict[str, Architecture | None]
) -> list[Work]:
    """Return the work of every stage that a model does, finished ones included.

    Args:
        plan: of a study.
        layout: where the run lies.
        statuses: of its stages.
        sizes: each model's, None where its config is not at hand.
    """
    found = []
    words: dict[str, tuple[int, float] | None] = {}
    for status in statuses:
        if status.stage.kind == "generate":
            found.append(_writing(plan, layout, status, sizes))
        elif status.stage.kind == "extract":
            found.append(_reading(plan, layout, status, sizes, words))
        elif status.stage.kind == "steer":
            found.append(_steering(plan, status, sizes))
    return found


def _writing(
    plan: Plan, layout: Layout, status: Status, sizes: dict[str, Architecture | None]
) -> Work:
    corpus = status.stage.name
    writing = plan.study.writing[corpus]
    spec, model = writing.spec, writing.spec.model
    texts = len(writing.pairs()) * spec.stories_per_topic + spec.neutral
    each = spec.stories_per_prompt or spec.stories_per_topic
    prompts = len(writing.pairs()) * -(-spec.stories_per_topic // each) + spec.neutral
    journal = layout.journal(corpus)
    measured = None
    if journal_fingerprint(journal) == plan.journal_key(corpus):
        measured = _measured_writing(journal)
    if measured is None:
        output = texts * WORDS_A_TEXT * TOKENS_A_WORD
        given = prompts * _prompt_words(writing) * TOKENS_A_WORD
        requests, source = prompts, "expected"
    else:
        replies, prompt_tokens, output_tokens, kept = measured
        share = texts / kept if kept else 1.0
        requests = round(replies * max(1.0, share))
        given, output = (tokens * max(1.0, share) for tokens in (prompt_tokens, output_tokens))
        source = "done" if status.state is State.DONE else "measured"
    size = sizes[model]
    length = (given + output) / max(1, requests)
    flops = None
    if size is not None:
        flops = size.read_flops(given, length) + size.write_flops(output, length)
    dtype = plan.study.manifest.models[model].dtype
    return Work(
        status.stage.id, model, dtype, True, requests, given + output, output, flops, source
    )


def _measured_writing(journal: Path) -> tuple[int, float, float, int] | None:
    """Return replies, prompt and output tokens and texts kept; None for too few replies."""
    replies = kept = 0
    given = written = 0.0
    for row in read_journal(journal):
        if "reply" not in row:
            continue
        replies += 1
        given += row.get("prompt_tokens", 0)
        written += row.get("output_tokens", 0)
        kept += len(row["stories"]) if row["outcome"] in ("kept", "ahead") else 0
    return (replies, given, written, kept) if replies >= MIN_REPLIES else None


def _prompt_words(writing: Writing) -> int:
    prompts = writing.prompts
    each = writing.spec.stories_per_prompt or writing.spec.stories_per_topic
    return len((prompts.stories if each > 1 else prompts.story).split())


def _reading(
    plan: Plan,
    layout: Layout,
    status: Status,
    sizes: dict[str, Architecture | None],
    words: dict[str, tuple[int, float] | None],
) -> Work:
    cell = plan.cell(status.stage.name)
    extraction = plan.study.manifest.extraction
    record = status.record
    texts: int | None
    if record is not None and "tokens" in record.figures:
        texts, tokens = int(record.figures["texts"]), float(record.figures["tokens"])
        source = "done"
    else:
        if cell.corpus not in words:
            words[cell.corpus] = _words(plan, layout, cell.corpus)
        known = words[cell.corpus]
        if known is None:
            texts = plan.n_texts(cell.corpus, layout)
            tokens, source = (texts or 0) * WORDS_A_TEXT * TOKENS_A_WORD, "expected"
        else:
            texts = known[0]
            ratio = _tokens_a_word(plan, layout, cell.model, cell.corpus)
            tokens = known[1] * (ratio or TOKENS_A_WORD)
            source = "expected" if ratio is None else "measured"
        if texts is not None:
            tokens = min(tokens, texts * extraction.max_tokens)
    size = sizes[cell.model]
    flops = None
    if size is not None and texts:
        flops = size.read_flops(tokens, tokens / texts)
        if extraction.layers != "all":  # the pass ends after the last layer that is wanted
            flops *= (max(extraction.layers) + 1) / size.n_layers
    return Work(
        status.stage.id,
        cell.model,
        extraction.dtype,
        False,
        texts,
        tokens if texts is not None else None,
        None,
        flops,
        source,
    )


def _steering(plan: Plan, status: Status, sizes: dict[str, Architecture | None]) -> Work:
    """Texts of full length, each read once more, and every end behind every beginning."""
    model, steered = plan.cell(status.stage.name).model, plan.study.steered
    assert steered is not None
    dtype, size, layers = plan.study.manifest.models[model].dtype, sizes[model], plan.layers(model)
    if size is None or layers is None:
        return Work(status.stage.id, model, dtype, True, None, None, None, None, "expected")
    prompts = steered.prompts
    texts, conditions = n_measures(steered, size.n_layers, [i for i in layers if i >= 0])
    openings = [*prompts.continuations, *prompts.questions]
    given = texts * sum(_tokens_of(text) for text in openings) / len(openings)
    output = float(texts * steered.spec.max_new_tokens)
    ends = sum(_tokens_of(end) for end in (*prompts.positive, *prompts.negative))
    scored = conditions * len(prompts.self_report) * ends
    record = status.record.figures if status.record is not None else {}
    if "output_tokens" in record:
        output = float(record["output_tokens"])
    read, length = 2 * given + output + scored, (given + output) / texts
    return Work(
        status.stage.id,
        model,
        dtype,
        True,
        texts,
        read + output,
        output,
        size.read_flops(read, length) + size.write_flops(output, length),
        "done" if record else "expected",
    )


def _tokens_of(text: str) -> float:
    return len(text.split()) * TOKENS_A_WORD


def _texts(plan: Plan, layout: Layout, corpus: str) -> Iterable[Text] | None:
    """Return a corpus' texts, from its files where it is not sealed yet; None where it cannot be.

    Files that are not there are named by the plan already.
    """
    if layout.stories(corpus).is_file():
        return iter_texts(layout.stories(corpus))
    source = plan.study.importing.get(corpus)
    return None if source is None or source.stories is None else read_texts(source)


def _words(plan: Plan, layout: Layout, corpus: str) -> tuple[int, float] | None:
    """Return a corpus' texts and words."""
    texts = _texts(plan, layout, corpus)
    if texts is None:
        return None
    counts = [len(text.text.split()) for text in texts]
    return len(counts), float(sum(counts))


@lru_cache(maxsize=2)
def _tokenizer(file: str) -> Any:
    """Return a tokenizer; cells of one model come together."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(file)


def _tokens_a_word(plan: Plan, layout: Layout, model: str, corpus: str) -> float | None:
    """Return tokens for each word of a corpus by a model's tokenizer; None where it is not here."""
    texts, file = _texts(plan, layout, corpus), tokenizer_at_hand(plan.study, model)
    if texts is None or file is None:
        return None
    tokenizer = _tokenizer(str(file.resolve()))
    some = [text.text for text in islice(texts, SAMPLE)]
    tokens = sum(len(encoded.ids) for encoded in tokenizer.encode_batch(some))
    return float(tokens / sum(len(text.split()) for text in some))
