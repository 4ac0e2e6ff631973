"""The one error for bad input: where it is, what is wrong, what would be right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Problem:
    """One mistake in one input file.

    Attributes:
        file: the file that holds it, or the option of the command line.
        line: its 1-based line, or None where the file as a whole is meant.
        key: dotted path of the key or column, or "" where there is none.
        what: what is wrong, and what would be right, on one line.
    """

    file: Path
    line: int | None
    key: str
    what: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line is not None else f"{self.file}"
        parts = [place, self.key, self.what] if self.key else [place, self.what]
        return ": ".join(_one_line(part) for part in parts)


class InputError(Exception):
    """Bad input from a person: printed as one line a problem, exit code 2, nothing started."""

    def __init__(self, problems: Problem | Sequence[Problem]):
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def shorten(value: object, limit: int = 60) -> str:
    """Return repr(value) on one line, at most `limit` characters long."""
    text = _one_line(repr(value))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _one_line(text: str) -> str:
    """Escape whatever would break the line or hide in it (control and bidi characters)."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
