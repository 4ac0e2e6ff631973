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
from analysis.report.safe import is_hidden
from analysis.report.tints import COLOURS, FAINT, STRONG, tint
from engine.detection.output import About, TextMean
from engine.detection.reading import Piece

MAX_SHOWN = 20_000
"""Tokens of a text that are shown; all are counted."""

NAMED = 8
"""Emotions that a text's closing line names at either end."""


class TerminalWriter:
    """Prints each text once it is read whole: coloured, and the emotions that lead in it."""

    def __init__(self, console: Console, about: About):
        self._console, self._about = console, about
        self._names = [printable(emotion) for emotion in about.emotions]
        self._begin()

    def _begin(self) -> None:
        self._mean = TextMean(1, len(self._names))
        self._shown: list[str] = []
        self._scores: list[Float32[ndarray, "token emotion"]] = []
        self._n = 0

    def take(self, piece: Piece) -> None:
        """Keep tokens until their text ends."""
        self._mean.add(piece)
        room = MAX_SHOWN - len(self._shown)
        if room > 0:
            self._shown += piece.shown[:room]
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
        self._say(f"\n{printable(name)}", style="bold")
        unit = float(self._about.spread_LW[0, 0])
        self._console.print(_coloured(self._shown, score_TE, leading, unit))
        if (rest := self._n - len(self._shown)) > 0:
            self._say(f"… and {rest:,} further tokens; --to FILE.csv has them all")
        if not self._mean.n:
            window = printable(self._about.window)
            self._say(f"no token lies in the window {window}: no scores")
            return
        key = Text()
        for colour, row in zip(COLOURS, leading, strict=False):
            key.append(f" {self._names[row]} ", _style(colour, True))
            key.append(" ")
        self._console.print(key)
        mean_E = self._mean.mean()[0]
        order = np.argsort(-mean_E, kind="stable")
        n = min(NAMED, max(1, len(order) // 2))
        self._say(f"most   {_listed(self._names, mean_E, order[:n])}")
        if len(order) > n:
            self._say(f"least  {_listed(self._names, mean_E, order[::-1][:n])}")

    def _say(self, what: str, style: str | None = None) -> None:
        self._console.print(what, style=style, markup=False, soft_wrap=True)


def printable(text: str) -> str:
    """Return text that cannot command a terminal: what hides in it is shown by its code."""
    return "".join(c.encode("unicode_escape").decode() if is_hidden(c) else c for c in text)


def _coloured(
    shown: Sequence[str],
    score_TE: Float32[ndarray, "token emotion"],
    leading: Sequence[int],
    unit: float,
) -> Text:
    """Return the text with its tokens coloured, by how far tokens vary; none where it is NaN."""
    text = Text()
    for part, score_E in zip(shown, score_TE, strict=True):
        style = None
        if leading and np.isfinite(score_E[0]):
            at = int(np.argmax(score_E[list(leading)]))
            score = float(score_E[leading[at]]) / unit
            style = _style(COLOURS[at], score >= STRONG) if score >= FAINT else None
        text.append(printable(part), style)
    return text


def _style(colour: str, strong: bool) -> Style:
    return Style(color="black", bgcolor=Color.from_rgb(*tint(colour, strong)))


def _listed(names: Sequence[str], mean_E: ndarray, rows: Sequence[int]) -> str:
    return "  ".join(f"{names[row]} {mean_E[row]:+.1f}" for row in rows)
