"""From texts to scored tokens: tokenised, cut into contexts, read in batches, given out in order.

What is held at once is a text's tokens and a block of contexts, however many texts there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

from engine.detection.contexts import Context, contexts
from engine.detection.texts import GivenText
from engine.reading.windows import Span
from manifests.errors import InputError, Problem

BLOCK_BYTES = 1 << 28
"""What a block's scores may take in float32."""


@dataclass(frozen=True)
class Piece:
    """Consecutive tokens of a text with their scores.

    Attributes:
        text: the text's number.
        name: its name.
        first: position in the text of the first token, special ones counted.
        token: what each token stands for in the text; special tokens by their name.
        shown: what each token adds to the text, what lies between tokens included, so that all of
            them joined are the text; "" for a special one.
        start: character of the text that each begins with, -1 for a special token.
        end: character behind it.
        score: float32 [token, layer, emotion]; NaN for tokens outside of the token window.
        inside: which tokens are in the window, [token].
        last: it is the text's last piece.
    """

    text: int
    name: str
    first: int
    token: list[str]
    shown: list[str]
    start: list[int]
    end: list[int]
    score: Float32[ndarray, "token layer emotion"]
    inside: Bool[ndarray, " token"]
    last: bool


class Tokenizer(Protocol):
    """What is used of a tokenizer of transformers."""

    def __call__(self, text: str, **options: Any) -> Any:
        """Return ids, offsets and which tokens are special."""
        ...

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        """Return the names of tokens."""
        ...


Score = Callable[[Sequence[Sequence[int]]], list[Float32[ndarray, "token layer emotion"]]]


@dataclass
class _Tokens:
    """A text's tokens: the tokenizer's own before and behind those of the text itself."""

    number: int
    given: GivenText
    ids: list[int]
    spans: list[tuple[int, int]]
    n_before: int
    n_own: int
    shown_to: int = 0

    def context_ids(self, context: Context) -> list[int]:
        first = self.n_before + context.first
        own = self.ids[first : first + context.n_tokens]
        return [*self.ids[: self.n_before], *own, *self.ids[self.n_before + self.n_own :]]

    def shown(self, at: int) -> str:
        """Return what a token adds to the text; asked for one after another."""
        if not self.n_before <= at < self.n_before + self.n_own:
            return ""
        whole = at == self.n_before + self.n_own - 1
        end = len(self.given.text) if whole else max(self.shown_to, self.spans[at][1])
        begin, self.shown_to = self.shown_to, end
        return self.given.text[begin:end]


def read_texts(
    texts: Iterable[GivenText],
    tokenizer: Tokenizer,
    score: Score,
    span: Span,
    max_tokens: int,
    block_tokens: int,
    n_scores: int,
) -> Iterator[Piece]:
    """Yield the scored tokens of texts, in order.

    A text of more than `max_tokens` tokens is read in contexts of as many, each with the
    tokenizer's own special tokens, that overlap by a quarter: a token is scored in the first one
    that holds it.

    Args:
        texts: to read.
        tokenizer: of the model, a fast one.
        score: gives the scores of token sequences.
        span: the token window that counts.
        max_tokens: of one context, special tokens counted.
        block_tokens: tokens that are read before any are given out, where memory allows it.
        n_scores: layers times emotions.

    Raises:
        InputError: a text without a token of its own, or a long one whose contexts would be
            spent on what the window leaves out.
    """
    limit = max(max_tokens, min(block_tokens, BLOCK_BYTES // (4 * n_scores)))
    block: list[tuple[_Tokens, Context, bool]] = []
    held = 0
    for number, given in enumerate(texts):
        tokens = _tokenized(number, given, tokenizer)
        room = max_tokens - (len(tokens.ids) - tokens.n_own)
        found = _contexts(tokens, room, max(0, span.start - tokens.n_before))
        for at, context in enumerate(found):
            block.append((tokens, context, at == len(found) - 1))
            held += context.n_tokens
            if held >= limit:
                yield from _scored(block, tokenizer, score, span)
                block, held = [], 0
    if block:
        yield from _scored(block, tokenizer, score, span)


def _contexts(tokens: _Tokens, room: int, at_least: int) -> list[Context]:
    try:
        return contexts(tokens.n_own, room, at_least)
    except ValueError as error:
        what = f"is too long for the cell's max_tokens and this window: {error}"
        raise InputError(Problem(Path(tokens.given.name), None, "", what)) from None


def _tokenized(number: int, given: GivenText, tokenizer: Tokenizer) -> _Tokens:
    encoded = tokenizer(
        given.text, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
    )
    ids, spans = list(encoded["input_ids"]), [tuple(s) for s in encoded["offset_mapping"]]
    own = [at for at, special in enumerate(encoded["special_tokens_mask"]) if not special]
    if not own:
        raise InputError(Problem(Path(given.name), None, "", "has no token that the model reads"))
    n_before, n_own = own[0], own[-1] + 1 - own[0]
    return _Tokens(number, given, ids, spans, n_before, n_own)


def _scored(
    block: Sequence[tuple[_Tokens, Context, bool]],
    tokenizer: Tokenizer,
    score: Score,
    span: Span,
) -> Iterator[Piece]:
    scores = score([tokens.context_ids(context) for tokens, context, _ in block])
    for (tokens, context, last), score_TLE in zip(block, scores, strict=True):
        n_before, behind = tokens.n_before, tokens.n_before + tokens.n_own
        # What is new in this context, and the special tokens where the text begins and ends.
        begin = n_before + context.n_known if context.n_known or context.first else 0
        end = n_before + context.n_tokens + (len(tokens.ids) - behind if last else 0)
        first = context.first + begin
        positions = np.arange(first, first + end - begin)
        inside = (positions >= span.start) & (span.end is None or positions < span.end)
        kept_TLE = np.where(inside[:, None, None], score_TLE[begin:end], np.float32(np.nan))
        ids = [tokens.ids[at] for at in positions]
        special = [at < n_before or at >= behind for at in positions]
        places = [tokens.spans[at] for at in positions]
        names = tokenizer.convert_ids_to_tokens(ids) if any(special) else []
        yield Piece(
            tokens.number,
            tokens.given.name,
            first,
            [
                names[at] if special[at] else tokens.given.text[start:stop]
                for at, (start, stop) in enumerate(places)
            ],
            [tokens.shown(at) for at in positions],
            [-1 if special[at] else start for at, (start, _) in enumerate(places)],
            [-1 if special[at] else stop for at, (_, stop) in enumerate(places)],
            kept_TLE,
            inside,
            last,
        )
