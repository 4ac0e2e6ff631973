"""How a text too long for one pass is read: in contexts that overlap, each token scored once."""

from __future__ import annotations

from dataclasses import dataclass

OVERLAP = 4
"""One in so many of a context's tokens, its first ones, is scored in the context before."""


@dataclass(frozen=True)
class Context:
    """A run of a text's own tokens that is read at once, between the tokenizer's special ones.

    Attributes:
        first: its first token, counted over the text's own tokens.
        n_tokens: its tokens.
        n_known: how many of them, from the first on, an earlier context has scored.
    """

    first: int
    n_tokens: int
    n_known: int


def contexts(n_tokens: int, room: int, at_least: int) -> list[Context]:
    """Return the contexts of a text; one where it fits.

    Args:
        n_tokens: of the text, special ones left out.
        room: own tokens that a context holds.
        at_least: tokens that a context has before the first one it scores, for the token window.

    Raises:
        ValueError: of every context but the first less than a quarter would be new.
    """
    if n_tokens <= room:
        return [Context(0, n_tokens, 0)]
    known = max(room // OVERLAP, at_least)
    if room - known < max(1, room // OVERLAP):
        raise ValueError(f"of {room} tokens, {known} come before the first that is scored")
    found = [Context(0, room, 0)]
    while (end := found[-1].first + room) < n_tokens:
        first = min(end - known, n_tokens - room)  # the last one is as long as the others
        found.append(Context(first, room, end - first))
    return found
