"""What is to be read: files, standard input, or lines of either, as texts with names."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from manifests.errors import InputError, Problem

MAX_TEXT = 20_000_000
"""Bytes of the longest text, some five million tokens. Tokenising takes some 150 bytes of memory
for each of its bytes."""

MAX_BYTES = 1_000_000_000
"""The largest file whose lines are texts."""

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class GivenText:
    """A text to read.

    Attributes:
        name: its file, with the line's number where each line is a text.
        text: what it says, without a byte order mark and with line feeds alone; never empty.
    """

    name: str
    text: str


class GivenTexts:
    """The texts of some files. All files are looked at before any is read by a model."""

    def __init__(self, files: Sequence[Path], by_line: bool):
        """Look at the files.

        Args:
            files: `-` for standard input, which is kept.
            by_line: each line is a text; lines of white space only are none.

        Raises:
            InputError: a file that is not there, too large, empty or not UTF-8 text.
        """
        self._files, self._by_line = list(files), by_line
        if twice := [file for file in files if list(files).count(file) > 1]:
            raise InputError(Problem(twice[0], None, "", "is given twice"))
        self._kept = {}
        for file in files:
            text = self._read(file)
            if str(file) == STANDARD_INPUT:
                self._kept[file] = text

    def __iter__(self) -> Iterator[GivenText]:
        """Yield the texts in order, files read when their turn comes."""
        for file in self._files:
            text = self._kept.get(file) or self._read(file)
            name = os.fsencode(file).decode("utf-8", "backslashreplace")
            if not self._by_line:
                yield GivenText(name, text)
                continue
            for number, line in enumerate(text.split("\n"), start=1):
                if line.strip():
                    yield GivenText(f"{name}:{number}", line)

    def _read(self, file: Path) -> str:
        limit = MAX_BYTES if self._by_line else MAX_TEXT
        content = _content(file, limit)
        if len(content) > limit:
            advice = "split it" if self._by_line else "split it, or read its --lines"
            what = f"is larger than {limit // 1_000_000} MB; {advice}"
            raise InputError(Problem(file, None, "", what))
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            what = f"is not UTF-8 text: byte 0x{content[error.start]:02x} at {error.start}"
            raise InputError(Problem(file, None, "", what)) from None
        if (at := text.find("\0")) >= 0:
            line = text.count("\n", 0, at) + 1
            raise InputError(Problem(file, line, "", "is binary: a NUL byte"))
        if not text.strip():
            raise InputError(Problem(file, None, "", "is empty"))
        return text.replace("\r\n", "\n")


def _content(file: Path, limit: int) -> bytes:
    """Return the bytes of a file, one more than `limit` at most; only regular files are opened."""
    if str(file) == STANDARD_INPUT:
        return b"" if sys.stdin is None else sys.stdin.buffer.read(limit + 1)
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise InputError(Problem(file, None, "", "is no file"))
        with file.open("rb") as stream:
            return stream.read(limit + 1)
    except FileNotFoundError:
        raise InputError(Problem(file, None, "", "is not there")) from None
    except (OSError, ValueError) as error:
        what = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise InputError(Problem(file, None, "", what)) from None
