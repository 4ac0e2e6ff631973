"""What is to be read: files, standard input, or lines of either, as texts with names."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from manifests.errors import InputError, Problem

MAX_BYTES = 100_000_000
"""The largest file that is read whole, some 25 million tokens."""

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class GivenText:
    """A text to read.

    Attributes:
        name: its file, with the line's number where each line is a text.
        text: what it says; never empty.
    """

    name: str
    text: str


def given_texts(files: Sequence[Path], by_line: bool) -> Iterator[GivenText]:
    """Yield the texts of files in order.

    Args:
        files: `-` for standard input.
        by_line: each line is a text; lines of white space only are none.

    Raises:
        InputError: a file that is not there, too large, empty or not UTF-8 text.
    """
    for file in files:
        text = _read(file)
        if not by_line:
            yield GivenText(str(file), text)
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                yield GivenText(f"{file}:{number}", line)


def require_readable(files: Sequence[Path]) -> None:
    """Refuse files that are no text before a model is loaded; standard input is not touched.

    Raises:
        InputError: as `given_texts`.
    """
    if len(files) != len(set(files)):
        twice = next(file for file in files if files.count(file) > 1)
        raise InputError(Problem(twice, None, "", "is given twice"))
    for file in files:
        if str(file) != STANDARD_INPUT:
            _read(file)


def _read(file: Path) -> str:
    if str(file) == STANDARD_INPUT:
        content = sys.stdin.buffer.read(MAX_BYTES + 1)
    else:
        try:
            if not file.is_file():
                what = "is no file" if file.exists() else "is not there"
                raise InputError(Problem(file, None, "", what))
            with file.open("rb") as stream:
                content = stream.read(MAX_BYTES + 1)
        except OSError as error:
            what = f"cannot be read: {error.strerror or error}"
            raise InputError(Problem(file, None, "", what)) from None
    if len(content) > MAX_BYTES:
        what = f"is larger than {MAX_BYTES // 1_000_000} MB; split it"
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
