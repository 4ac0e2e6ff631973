"""Files that a person names: opened only if they are files, and read within bounds.

A path may be anything (too long, a device, a pipe that nobody writes to, a circle of links), and a
file may hold one line of a hundred megabytes; each of these is one error here, at once.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from manifests.errors import InputError, Problem

MAX_LINE = 1 << 24
"""Bytes of one line of a table or of a list of texts."""


def refusal(path: Path, folder: bool = False) -> str | None:
    """Return why a path names no file that can be read, None where it does.

    Args:
        path: to look at; nothing is opened.
        folder: whether a folder will do, too.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "no such file"
    except OSError as error:  # too long, links in a circle, no permission
        return f"no file that can be read ({error.strerror})"
    except ValueError:  # a NUL, or half of a surrogate pair
        return "no such file, nor can there be one of such a name"
    if stat.S_ISREG(mode) or (folder and stat.S_ISDIR(mode)):
        return None
    return "a folder, not a file" if stat.S_ISDIR(mode) else "not a file"


def open_file(file: Path, max_bytes: int) -> BinaryIO:
    """Open a regular file for reading, never waiting for a pipe's writer.

    Raises:
        InputError: it is missing, unreadable, no regular file, or larger than `max_bytes`.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or "no such name is possible"
        what = "no such file" if isinstance(error, FileNotFoundError) else what
        raise InputError(Problem(file, None, "", f"cannot be read: {what}")) from None
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode):
        if found.st_size <= max_bytes:
            return os.fdopen(descriptor, "rb")
        what = f"larger than {max_bytes:,} bytes"
    else:
        folder = stat.S_ISDIR(found.st_mode)
        what = f"cannot be read: {'a folder, not a file' if folder else 'not a file'}"
    os.close(descriptor)
    raise InputError(Problem(file, None, "", what))


def read_text(file: Path, max_bytes: int) -> str:
    """Return a file's text (UTF-8, a byte-order mark dropped).

    Raises:
        InputError: the file is missing, unreadable, over `max_bytes`, or not UTF-8.
    """
    with open_file(file, max_bytes) as stream:
        raw = stream.read(max_bytes + 1)
    if len(raw) > max_bytes:  # it has grown
        raise InputError(Problem(file, None, "", f"larger than {max_bytes:,} bytes"))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(file, raw.count(b"\n", 0, error.start) + 1) from None


def read_lines(file: Path, max_bytes: int) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file (UTF-8) with their numbers from 1, ends of lines kept.

    One line is in memory at a time; a byte-order mark is dropped.

    Raises:
        InputError: as `read_text`, or a line is over `MAX_LINE` bytes.
    """
    with open_file(file, max_bytes) as stream:
        number = 0
        while raw := stream.readline(MAX_LINE + 1):
            number += 1
            if len(raw) > MAX_LINE:
                what = f"a line of over {MAX_LINE:,} bytes"
                raise InputError(Problem(file, number, "", what))
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise _not_utf8(file, number) from None


def _not_utf8(file: Path, line: int) -> InputError:
    return InputError(Problem(file, line, "", "not UTF-8 text; save it as UTF-8"))
