"""The one error for bad input: where it is, what is wrong, what would be right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_PROBLEMS = 50
"""Mistakes that are told one by one; the rest is counted."""

MAX_KEY, MAX_WHAT = 200, 1000
"""Characters of a problem's key and of its words that are shown."""


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
        key, what = _cut(self.key, MAX_KEY), _cut(self.what, MAX_WHAT)
        parts = [place, key, what] if key else [place, what]
        return ": ".join(one_line(part) for part in parts)


class InputError(Exception):
    """Bad input from a person: printed as one line a problem, exit code 2, nothing started."""

    def __init__(self, problems: Problem | Sequence[Problem]):
        found = (problems,) if isinstance(problems, Problem) else tuple(problems)
        if len(found) > MAX_PROBLEMS:
            rest = f"and {len(found) - MAX_PROBLEMS:,} more problems"
            found = (*found[:MAX_PROBLEMS], Problem(found[0].file, None, "", rest))
        self.problems = found
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[InputError], tuple[tuple[Problem, ...]]]:
        """Give what it is made again from in another process: workers raise it, too."""
        return InputError, (self.problems,)


def shorten(value: object, limit: int = 60) -> str:
    """Return repr(value) on one line, at most `limit` characters long."""
    try:
        return _cut(one_line(repr(value)), limit)
    except ValueError:  # Python writes out no integer of over 4,300 digits
        return f"a {type(value).__name__} with a huge number"


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def one_line(text: str) -> str:
    """Escape whatever would break the line or hide in it (control and bidi characters).

    For all that others may have named: keys, files, addresses. A terminal obeys such characters.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
