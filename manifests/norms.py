"""Human valence and arousal ratings, and which of them belongs to an emotion word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from manifests.document import Document, KeyPath
from manifests.errors import InputError, Problem, shorten
from manifests.files import refusal
from manifests.lists import HERE, is_path
from manifests.schema import wrong_word
from manifests.tables import csv_rows

MAX_BYTES = 1 << 27
MAX_RATING = 1e6
"""On any scale; what is beyond would overflow in a correlation."""

EMOTIONAL_SENSE: dict[str, dict[str, str]] = {
    "glasgow": {
        "content": "content (happy)",
        "kind": "kind (nice)",
        "patient": "patient (tolerant)",
        "mad": "mad (angry)",
        "upset": "upset (sad)",
        "tense": "tense (strained)",
    }
}
"""For norms that rate several senses of a word: the row of its emotional sense."""


@dataclass(frozen=True)
class Norms:
    """One set of ratings.

    Attributes:
        name: name in tables (`glasgow`, or the stem of a user's file).
        file: where the ratings were read.
        ratings: (valence, arousal) by lower-case word, in the norms' own scale.
        n_guesses: rows left out because their source says they are estimates.
    """

    name: str
    file: Path
    ratings: dict[str, tuple[float, float]]
    n_guesses: int

    @property
    def middle_valence(self) -> float:
        """The middle of the scale, as the lowest and the highest rating show it."""
        values = [valence for valence, _ in self.ratings.values()]
        return (min(values) + max(values)) / 2

    def rate(self, emotions: Sequence[str]) -> NDArray[np.float64]:
        """Return ratings as an array [emotion, 2] (valence, arousal), NaN where unrated."""
        senses = EMOTIONAL_SENSE.get(self.name, {})
        missing = (math.nan, math.nan)
        rows = [self.ratings.get(senses.get(e.lower(), e.lower()), missing) for e in emotions]
        return np.asarray(rows, dtype=np.float64).reshape(len(emotions), 2)


def shipped_norms() -> dict[str, Path]:
    """Return the shipped sets of ratings by name."""
    return {file.stem: file for file in sorted((HERE / "norms").glob("*.csv"))}


def read_norms(source: str, guesses: bool, base: Path, document: Document, path: KeyPath) -> Norms:
    """Read a shipped set by name or a CSV by path (columns word, valence, arousal[, source]).

    Raises:
        InputError: an unknown name, a missing file or column, a rating that is no number, a word
            rated twice.
    """
    known = shipped_norms()
    if is_path(source):
        file = base / source
        name = file.stem
        if name in known:
            what = f"a file named like the shipped norms {name!r}; rename it"
            raise InputError(document.problem(path, what))
        if (why := refusal(file)) is not None:
            raise InputError(document.problem(path, f"{why}: {file}"))
        if not name.isprintable():
            raise InputError(document.problem(path, f"{name!r} cannot be a name; rename the file"))
    elif source in known:
        file, name = known[source], source
    else:
        what = f"unknown norms {source!r}; shipped: {', '.join(known)}; a path ends in .csv"
        raise InputError(document.problem(path, what))
    ratings, n_guesses = _read_ratings(file, guesses)
    return Norms(name, file, ratings, n_guesses)


def _read_ratings(file: Path, guesses: bool) -> tuple[dict[str, tuple[float, float]], int]:
    ratings: dict[str, tuple[float, float]] = {}
    n_guesses = 0
    for line, row in csv_rows(file, MAX_BYTES, needed=("word", "valence", "arousal")):
        word = row["word"].strip().lower()
        if not word:
            raise InputError(Problem(file, line, "word", "empty"))
        if (why := wrong_word(word)) is not None:
            raise InputError(Problem(file, line, "word", why))
        if word in ratings:
            raise InputError(Problem(file, line, "word", f"{shorten(word)} rated twice"))
        if not guesses and row.get("source", "").startswith("estimate"):
            n_guesses += 1
            continue
        ratings[word] = (
            _number(file, line, "valence", row["valence"]),
            _number(file, line, "arousal", row["arousal"]),
        )
    if not ratings:
        raise InputError(Problem(file, None, "", "rates no word"))
    return ratings, n_guesses


def _number(file: Path, line: int, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(Problem(file, line, column, f"expected a number, got {shorten(text)}"))
    if abs(value) > MAX_RATING:
        what = f"{shorten(text)} is no rating; none is beyond {MAX_RATING:g}"
        raise InputError(Problem(file, line, column, what))
    return value
