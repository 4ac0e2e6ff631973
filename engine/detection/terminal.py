"""Scored texts on a terminal: each token on the colour of the emotion that leads there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32
from numpy import ndarray
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from analysis.detection import leading_emotions
from engine.detection.output import About, TextMean
from engine.detection.reading import Piece

COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999")
"""Okabe & Ito's palette, which is safe for the colour blind."""

FAINT, STRONG = 1.0, 2.5
"""Scores from which a token is coloured faintly, and strongly."""

MAX_SHOWN = 20_000
"""Tokens of a text that are shown; all are counted."""

NAMED = 8
"""Emotions that a text's closing line names at either end."""


class TerminalWriter:
    """Prints each text once it is read whole: coloured, and the emotions that lead in it."""

    def __init__(self, console: Console, about: About):
        self._console, self._about = console, about
        self._begin()

    def _begin(self) -> None:
        self._mean = TextMean(1, len(self._about.emotions))
        self._shown: list[tuple[str, int, int]] = []
        self._scores: list[Float32[ndarray, "token emotion"]] = []
        self._n = 0

    def take(self, piece: Piece) -> None:
        """Keep tokens until their text ends."""
        self._mean.add(piece.score)
        room = MAX_SHOWN - len(self._shown)
        if room > 0:
            tokens = zip(piece.token, piece.start, piece.end, strict=True)
            self._shown += list(tokens)[:room]
            self._scores.append(piece.score[:room, 0])
        self._n += len(piece.token)
        if piece.last:
            self._print(piece.name)
            self._begin()

    def end(self) -> None:
        """Nothing is left to print."""

    def _print(self, name: str) -> None:
        score_TE = np.concatenate(self._scores)
        leading = leading_emotions(score_TE, len(COLOURS))
        text = _coloured(self._shown, score_TE, leading)
        console, emotions = self._console, self._about.emotions
        console.print(f"\n{printable(name)}", style="bold", markup=False, soft_wrap=True)
        console.print(text, soft_wrap=False)
        if self._n > len(self._shown):
            rest = self._n - len(self._shown)
            console.print(f"… and {rest:,} further tokens; --to FILE.csv has them all")
        key = Text()
        for colour, row in zip(COLOURS, leading, strict=False):
            key.append(f" {emotions[row]} ", _style(colour, True))
            key.append(" ")
        console.print(key)
        mean_E = self._mean.mean()[0]
        if not self._mean.n:
            console.print(f"no token lies in the window {self._about.window}: no scores")
            return
        order = np.argsort(-mean_E, kind="stable")
        n = min(NAMED, max(1, len(order) // 2))
        console.print(f"most   {_listed(emotions, mean_E, order[:n])}", soft_wrap=True)
        if len(order) > n:
            console.print(f"least  {_listed(emotions, mean_E, order[::-1][:n])}", soft_wrap=True)


def printable(text: str) -> str:
    """Return text that cannot command a terminal: what is not printed is shown by its code."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def _coloured(
    tokens: Sequence[tuple[str, int, int]],
    score_TE: Float32[ndarray, "token emotion"],
    leading: Sequence[int],
) -> Text:
    """Return the text with its tokens coloured; what several tokens share is shown once."""
    text, shown = Text(), 0
    for (token, start, end), score_E in zip(tokens, score_TE, strict=True):
        if start < 0 or end <= shown:
            continue
        style = None
        if leading and np.isfinite(score_E[0]):
            at = int(np.argmax(score_E[list(leading)]))
            score = float(score_E[leading[at]])
            style = _style(COLOURS[at], score >= STRONG) if score >= FAINT else None
        text.append(printable(token[max(0, shown - start) :]), style)
        shown = end
    return text


def _style(colour: str, strong: bool) -> Style:
    white = 0.15 if strong else 0.6
    mixed = [round(int(colour[i : i + 2], 16) * (1 - white) + 255 * white) for i in (1, 3, 5)]
    return Style(color="black", bgcolor=Color.from_rgb(*mixed))


def _listed(emotions: Sequence[str], mean_E: ndarray, rows: Sequence[int]) -> str:
    return "  ".join(f"{emotions[row]} {mean_E[row]:+.1f}" for row in rows)
