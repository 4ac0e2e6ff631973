"""A corpus' journal: one JSON line for every reply, appended as it arrives, kept for good.

A line carries a checksum (`store.journal_lines`): no reply is read otherwise than it came. What
the rows hold is asked of whoever wrote them, too (`store.journal_shapes`).
Each row is handed to the operating system at once, so a killed process loses nothing; it is
synced to disk about `SYNC_SECONDS` later, by `append` or by `sync_soon`, and on closing, so a power
cut loses that much.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from manifests.errors import InputError, Problem
from store.atomic import sync_folder
from store.journal_lines import FORMAT, Row, decode_row, encode_row, ended, is_checked
from store.journal_shapes import Odd, Oddity
from store.lock import hold

SYNC_SECONDS = 1.0
WRITER_SECONDS = 60.0
"""How long a journal's earlier writer is waited for."""

MEND = "`emovec verify MANIFEST --repair` mends it, or move the folder away to begin anew"


class Journal:
    """An append-only journal with a header row that names the corpus' fingerprint."""

    def __init__(self, file: Path, fingerprint: str):
        """Open for appending; a torn last line, left by a crash in mid-write, is cut off.

        A row that is whole but for its newline is given it back: the reply was accepted.

        A journal has one writer. One that was killed a moment ago, perhaps on another machine, is
        given time to be gone.

        Raises:
            ValueError: the journal belongs to other settings.
            RunLocked: another process writes to it.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file
        self._stream = file.open("ab", buffering=0)
        try:
            hold(self._stream, file, WRITER_SECONDS)
            _end_last_line(file)
            found = journal_fingerprint(file)
            if found not in (None, fingerprint):
                raise ValueError(f"{file} was written under other settings ({found})")
        except BaseException:
            self._stream.close()
            raise
        self._end = self._stream.seek(0, os.SEEK_END)
        self._synced, self._synced_at = self._end, time.monotonic()
        if found is None:
            self.append({"journal": FORMAT, "fingerprint": fingerprint})
            self.sync()
            sync_folder(file.parent)

    def append(self, row: Row) -> int:
        """Append one row, hand it to the operating system and return its offset in bytes.

        Raises:
            OSError: the disk is full; a row written in part is cut off at the next opening.
        """
        offset = self._end
        line = encode_row(row)
        view = memoryview(line)
        try:
            while view:
                view = view[self._stream.write(view) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._file)) from None
        self._end += len(line)
        self.sync_soon()
        return offset

    def sync_soon(self) -> None:
        """Sync if rows have waited for a second; to be called while none arrive, too."""
        if self._synced < self._end and time.monotonic() - self._synced_at > SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Wait until every row is on disk."""
        os.fsync(self._stream.fileno())
        self._synced, self._synced_at = self._end, time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.sync()
        finally:
            self._stream.close()


def read_journal(file: Path, odd: Odd) -> Iterator[Row]:
    """Yield the rows of a journal in order of arrival, header and torn last line left out.

    Args:
        file: the journal.
        odd: tells what about a row is none of those that belong there (`store.journal_shapes`).

    Raises:
        InputError: a line in the middle is damaged, or a row is none that a run writes.
    """
    for _, row in journal_rows(file, odd):
        yield row


def journal_rows(file: Path, odd: Odd) -> Iterator[tuple[int, Row]]:
    """Yield (offset in bytes, row), as `read_journal` does."""
    if not file.exists():
        return
    offset, checked = 0, False
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                row = decode_row(line, checked)
            except ValueError:
                raise InputError(Problem(file, number, "", f"damaged line; {MEND}")) from None
            if not offset:
                checked = is_checked(_header(file, row))
            elif "journal" not in row:
                if (wrong := odd(row)) is not None:
                    key, what = wrong
                    raise InputError(Problem(file, number, key, f"{what}; {MEND}"))
                yield offset, row
            offset += len(line)


def row_at(stream: BinaryIO, offset: int) -> Row:
    """Return the row that begins at an offset of an open journal.

    Raises:
        InputError: it is damaged.
    """
    stream.seek(offset)
    try:
        return decode_row(stream.readline(), checked=False)
    except ValueError:
        what = f"damaged line at byte {offset}; {MEND}"
        raise InputError(Problem(Path(stream.name), None, "", what)) from None


def journal_fingerprint(file: Path) -> str | None:
    """Return the fingerprint in a journal's header, or None where there is no header.

    Raises:
        InputError: the first line is no header.
    """
    if not file.exists():
        return None
    with file.open("rb") as stream:
        line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    try:
        row = decode_row(line, checked=False)
    except ValueError:
        row = {}
    return str(_header(file, row)["fingerprint"])


def _header(file: Path, row: Row) -> Row:
    """Return a journal's first row, where it is a header.

    Raises:
        InputError: it is none.
    """
    if not _is_header(row):
        raise InputError(Problem(file, 1, "", f"not a journal's header; {MEND}"))
    return row


def _is_header(row: Row) -> bool:
    """Tell a header from other rows; its fingerprint becomes part of the name of a folder."""
    found = row.get("fingerprint")
    named = isinstance(found, str) and re.fullmatch("[0-9A-Za-z]+", found, re.ASCII) is not None
    return named and type(row.get("journal")) is int


@dataclass(frozen=True)
class Damage:
    """Adjacent damaged lines of a journal.

    Attributes:
        first: number of the first line, from 1.
        start: its offset in bytes.
        content: the lines.
        torn: the last line of the journal, which has no end: an interrupted write, or damage.
        odd: key, and what is wrong with it, of one whole row that no run writes.
    """

    first: int
    start: int
    content: bytes
    torn: bool = False
    odd: Oddity | None = None

    @property
    def good(self) -> bytes | None:
        """The whole rows of a torn line, with the newline that each lacks; None for no such row."""
        return ended(self.content) if self.torn else None


def damaged_lines(file: Path, odd: Odd) -> Iterator[Damage]:
    """Yield what is damaged in a journal, rows that no run writes, and its torn last line.

    Less is seen in one that was begun before rows carried checksums.
    """
    held: tuple[int, int, bytes] | None = None
    offset, checked = 0, False
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            whole, wrong = line.endswith(b"\n"), None
            try:
                row = decode_row(line, checked) if whole else {}
                good = whole and (offset > 0 or _is_header(row))
                checked = is_checked(row) if good and not offset else checked
                wrong = odd(row) if good and offset and "journal" not in row else None
            except ValueError:
                good = False
            if good or not whole:
                if held is not None:
                    yield Damage(*held)
                held = None
            if not whole:
                yield Damage(number, offset, line, torn=True)
            elif wrong is not None:
                yield Damage(number, offset, line, odd=wrong)
            elif not good:
                held = (number, offset, line) if held is None else (*held[:2], held[2] + line)
            offset += len(line)
    if held is not None:
        yield Damage(*held)


def _end_last_line(file: Path) -> None:
    """Cut off a torn last line; rows in it that lack nothing but their newline are given that."""
    if not file.exists():
        return
    with file.open("r+b") as stream:
        start = _last_line(stream)
        stream.seek(start)
        torn = stream.read()
        if torn:
            stream.seek(start)
            stream.write(ended(torn) or b"")
            stream.truncate()


def _last_line(stream: BinaryIO) -> int:
    """Return where the last line begins that has no newline, or the end of the file."""
    end = stream.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - (1 << 16))
        stream.seek(start)
        newline = stream.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
