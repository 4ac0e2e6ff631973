"""What is to be read: files, standard input, or lines of either, as texts with names."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO

from manifests.errors import InputError, Problem

MAX_TEXT = 20_000_000
"""Bytes of the longest text, some five million tokens. Tokenising takes some 150 bytes of memory
for each of its bytes."""

MAX_BYTES = 1_000_000_000
"""The largest file whose lines are texts."""

STANDARD_INPUT = "-"

PIECE = 1 << 20
"""Bytes of standard input that are taken at once."""


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
    """The texts of some files. All files are looked at before any is read by a model.

    One text is held at a time: files are read again when their turn comes, standard input is kept,
    on disk where it is larger than a text may be.
    """

    def __init__(self, files: Sequence[Path], by_line: bool):
        """Look at the files.

        Args:
            files: `-` for standard input.
            by_line: each line is a text; lines of white space only are none.

        Raises:
            InputError: a file that is not there, too large, empty or not UTF-8 text, or a line of
                one that is too long.
        """
        self._files, self._by_line = list(files), by_line
        if twice := [file for file in files if list(files).count(file) > 1]:
            raise InputError(Problem(twice[0], None, "", "is given twice"))
        self._kept: IO[bytes] | None = None
        for file in files:
            if str(file) == STANDARD_INPUT:
                self._kept = _kept_input(MAX_BYTES if by_line else MAX_TEXT)
            if not sum(1 for _ in self._texts(file)):
                raise InputError(Problem(file, None, "", "is empty"))

    def __iter__(self) -> Iterator[GivenText]:
        """Yield the texts in order, files read when their turn comes."""
        for file in self._files:
            yield from self._texts(file)

    def _texts(self, file: Path) -> Iterator[GivenText]:
        """Yield the texts of a file, none where it is empty."""
        name = os.fsencode(file).decode("utf-8", "backslashreplace")
        with self._opened(file) as stream:
            if self._by_line:
                for number, line in _lines(file, stream):
                    if line.strip():
                        yield GivenText(f"{name}:{number}", line)
                return
            content = stream.read(MAX_TEXT + 1)
            if len(content) > MAX_TEXT:
                raise _too_large(file, MAX_TEXT, "split it, or read its --lines")
            text = _decoded(file, None, content, 0, first=True).replace("\r\n", "\n")
            if text.strip():
                yield GivenText(name, text)

    @contextmanager
    def _opened(self, file: Path) -> Iterator[IO[bytes]]:
        """Give the bytes of a file from its beginning; only regular files are opened."""
        if self._kept is not None and str(file) == STANDARD_INPUT:
            self._kept.seek(0)
            yield self._kept
            return
        try:
            if not stat.S_ISREG(file.stat().st_mode):
                raise InputError(Problem(file, None, "", "is no file"))
            with file.open("rb") as stream:
                yield stream
        except FileNotFoundError:
            raise InputError(Problem(file, None, "", "is not there")) from None
        except (OSError, ValueError) as error:
            what = f"cannot be read: {getattr(error, 'strerror', None) or error}"
            raise InputError(Problem(file, None, "", what)) from None


def _kept_input(limit: int) -> IO[bytes]:
    """Return a copy of standard input, one byte more than `limit` at most."""
    kept = SpooledTemporaryFile(MAX_TEXT)  # noqa: SIM115 - kept until the last text is read
    left = limit + 1
    while left and sys.stdin is not None and (piece := sys.stdin.buffer.read(min(left, PIECE))):
        kept.write(piece)
        left -= len(piece)
    return kept


def _lines(file: Path, stream: IO[bytes]) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file with their numbers, from 1; one is held at a time.

    Raises:
        InputError: a line that is too long or not UTF-8 text, or a file that is too large.
    """
    number, offset = 0, 0
    while raw := stream.readline(MAX_TEXT + 2):
        number += 1
        if offset + len(raw) > MAX_BYTES:
            raise _too_large(file, MAX_BYTES, "split it")
        line = raw.removesuffix(b"\n").removesuffix(b"\r") if raw.endswith(b"\n") else raw
        if len(line) > MAX_TEXT:
            what = f"a line of over {MAX_TEXT // 1_000_000} MB; split it"
            raise InputError(Problem(file, number, "", what))
        yield number, _decoded(file, number, line, offset, first=number == 1)
        offset += len(raw)


def _decoded(file: Path, line: int | None, content: bytes, offset: int, *, first: bool) -> str:
    """Return a file, or a line of it, as text.

    Args:
        file: named in what is refused.
        line: its number, None for the whole file.
        content: its bytes.
        offset: bytes of the file before it.
        first: the file begins with it, perhaps with a byte order mark.
    """
    try:
        text = content.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        at = offset + len(content) - len(error.object) + error.start  # the mark is counted, too
        what = f"is not UTF-8 text: byte 0x{byte:02x} at {at}"
        raise InputError(Problem(file, line, "", what)) from None
    if (at := text.find("\0")) >= 0:
        where = line or text.count("\n", 0, at) + 1
        raise InputError(Problem(file, where, "", "is binary: a NUL byte"))
    return text


def _too_large(file: Path, limit: int, advice: str) -> InputError:
    what = f"is larger than {limit // 1_000_000} MB; {advice}"
    return InputError(Problem(file, None, "", what))
