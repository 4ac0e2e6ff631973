"""What stages have to do: requests, tokens, operations; expected, measured, or done already.

An expectation is replaced by what was measured as soon as a run has some: a corpus' own journal
for writing, or the share of replies kept in another one by the same model; a corpus' texts and the
model's tokenizer for reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from engine.costs.architecture import Architecture
from engine.counting import TokenCounter
from engine.models import tokenizer_at_hand
from engine.plan import Plan, State, Status
from engine.steering.conditions import n_measures
from manifests.resolve import Writing
from store.corpus import Text, iter_texts
from store.journal import journal_fingerprint, read_journal
from store.journal_shapes import odd_reply
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
        kept: share of the replies that pass the checks; None for reading and steering.
        kept_from: the corpus whose journal says so, or `expected_kept`; empty where `kept` is None.
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
    kept: float | None = None
    kept_from: str = ""


@dataclass(frozen=True)
class Words:
    """What a corpus' texts hold.

    Attributes:
        texts: how many.
        words: of all of them.
        some: the first SAMPLE texts.
    """

    texts: int
    words: int
    some: tuple[str, ...]


def count_words(texts: Iterable[Text]) -> Words:
    """Return what a corpus' texts hold."""
    n = words = 0
    some: list[str] = []
    for text in texts:
        n, words = n + 1, words + len(text.text.split())
        if n <= SAMPLE:
            some.append(text.text)
    return Words(n, words, tuple(some))


def corpus_words(plan: Plan, layout: Layout, statuses: Mapping[str, Status]) -> dict[str, Words]:
    """Return what the texts of every corpus hold that is here: sealed, or in files to be imported.

    The plan then knows how many texts an import that is not sealed has.

    Raises:
        InputError: files to be imported are broken, or hold nothing that can be analysed.
    """
    found = {}
    for corpus in plan.study.manifest.corpora:
        if statuses[plan.corpus_stage(corpus)].state is State.DONE:
            found[corpus] = count_words(iter_texts(layout.stories(corpus)))
        elif corpus in plan.study.importing and plan.study.importing[corpus].stories is not None:
            found[corpus] = count_words(plan.import_texts(corpus, layout, sealed=False))
    return found


def workloads(
    plan: Plan,
    layout: Layout,
    statuses: Iterable[Status],
    sizes: Mapping[str, Architecture | None],
    words: Mapping[str, Words],
) -> list[Work]:
    """Return the work of every stage that a model does, finished ones included.

    Args:
        plan: of a study.
        layout: where the run lies.
        statuses: of its stages.
        sizes: each model's, None where its config is not at hand.
        words: of the corpora that are here.
    """
    found = []
    journals = _journals(plan, layout)
    for status in statuses:
        if status.stage.kind == "generate":
            found.append(_writing(plan, journals, status, sizes))
        elif status.stage.kind == "extract":
            found.append(_reading(plan, layout, status, sizes, words))
        elif status.stage.kind == "steer":
            found.append(_steering(plan, status, sizes))
    return found


@dataclass(frozen=True)
class Replies:
    """What a journal says of writing.

    Attributes:
        replies: all of them.
        passed: replies that pass the checks.
        texts: in those.
        prompt_tokens: of all prompts.
        output_tokens: of all replies.
    """

    replies: int
    passed: int
    texts: int
    prompt_tokens: float
    output_tokens: float

    @property
    def kept(self) -> float:
        """Share of the replies that pass."""
        return self.passed / self.replies


def _journals(plan: Plan, layout: Layout) -> dict[str, Replies]:
    """Return what the journals of these settings say, by corpus, where they say enough."""
    found = {}
    for corpus in plan.study.writing:
        journal = layout.journal(corpus)
        if journal_fingerprint(journal) == plan.journal_key(corpus):
            replies = _measured_writing(journal)
            if replies is not None:
                found[corpus] = replies
    return found


def _kept(plan: Plan, journals: Mapping[str, Replies], corpus: str) -> tuple[float, str]:
    """Return the share of replies to expect that pass, and what says so.

    Another journal of the same model in this run, the longest, knows better than the manifest.
    """
    spec = plan.study.writing[corpus].spec
    others = [name for name in journals if plan.study.writing[name].spec.model == spec.model]
    if not others:
        return spec.expected_kept, "expected_kept"
    best = max(others, key=lambda name: journals[name].replies)
    return journals[best].kept, best


def _writing(
    plan: Plan,
    journals: Mapping[str, Replies],
    status: Status,
    sizes: Mapping[str, Architecture | None],
) -> Work:
    corpus = status.stage.name
    writing = plan.study.writing[corpus]
    spec, model = writing.spec, writing.spec.model
    texts = len(writing.pairs()) * spec.stories_per_topic + spec.neutral
    each = spec.stories_per_prompt or spec.stories_per_topic
    prompts = len(writing.pairs()) * -(-spec.stories_per_topic // each) + spec.neutral
    measured = journals.get(corpus)
    if measured is None:
        kept, kept_from = _kept(plan, journals, corpus)
        output = texts * WORDS_A_TEXT * TOKENS_A_WORD / kept
        given = prompts * _prompt_words(writing) * TOKENS_A_WORD / kept
        requests, source = round(prompts / kept), "expected"
    else:
        kept, kept_from = measured.kept, corpus
        share = max(1.0, texts / measured.texts)
        requests = round(measured.replies * share)
        given, output = measured.prompt_tokens * share, measured.output_tokens * share
        source = "done" if status.state is State.DONE else "measured"
    size = sizes[model]
    length = (given + output) / max(1, requests)
    flops = None
    if size is not None:
        flops = size.read_flops(given, length) + size.write_flops(output, length)
    return Work(
        stage=status.stage.id,
        model=model,
        dtype=plan.study.manifest.models[model].dtype,
        writes=True,
        requests=requests,
        tokens=given + output,
        output_tokens=output,
        flops=flops,
        source=source,
        kept=kept,
        kept_from=kept_from,
    )


def _measured_writing(journal: Path) -> Replies | None:
    """Return what a journal says; None where its replies are too few, or none of them passes."""
    replies = passed = texts = 0
    given = written = 0.0
    for row in read_journal(journal, odd_reply):
        if "reply" not in row:
            continue
        replies += 1
        given += row.get("prompt_tokens", 0)
        written += row.get("output_tokens", 0)
        if row["outcome"] in ("kept", "ahead"):
            passed, texts = passed + 1, texts + len(row["stories"])
    if replies < MIN_REPLIES or not texts:
        return None
    return Replies(replies, passed, texts, given, written)


def _prompt_words(writing: Writing) -> int:
    prompts = writing.prompts
    each = writing.spec.stories_per_prompt or writing.spec.stories_per_topic
    return len((prompts.stories if each > 1 else prompts.story).split())


def _reading(
    plan: Plan,
    layout: Layout,
    status: Status,
    sizes: Mapping[str, Architecture | None],
    words: Mapping[str, Words],
) -> Work:
    cell = plan.cell(status.stage.name)
    extraction = plan.study.manifest.extraction_of(cell.model)
    record = status.record
    texts: int | None
    if record is not None and {"texts", "tokens"} <= record.figures.keys():
        texts, tokens = int(record.figures["texts"]), float(record.figures["tokens"])
        source = "done"
    else:
        known = words.get(cell.corpus)
        if known is None:
            texts = plan.n_texts(cell.corpus, layout)
            tokens, source = (texts or 0) * WORDS_A_TEXT * TOKENS_A_WORD, "expected"
        else:
            texts = known.texts
            ratio = _tokens_a_word(plan, cell.model, known)
            tokens = known.words * (ratio or TOKENS_A_WORD)
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


def _steering(plan: Plan, status: Status, sizes: Mapping[str, Architecture | None]) -> Work:
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


@lru_cache(maxsize=2)
def _counter(file: Path) -> TokenCounter:
    """Return a tokenizer; cells of one model come together."""
    return TokenCounter(file)


def _tokens_a_word(plan: Plan, model: str, words: Words) -> float | None:
    """Return tokens for each word of a corpus by a model's tokenizer; None where it is not here."""
    file = tokenizer_at_hand(plan.study, model)
    if file is None:
        return None
    tokens = sum(_counter(file.resolve()).count(words.some))
    return float(tokens / sum(len(text.split()) for text in words.some))
