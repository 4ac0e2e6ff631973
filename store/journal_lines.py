"""A journal's rows as bytes: one line of JSON each, with a CRC-32 over all that stands before it.

A checksum of 32 bits tells every single flipped bit of a line up to 11 kB from every other, so
such a line can be mended exactly. A line that cannot be mended is blanked: a row of the same
length that readers pass over, since offsets into the journal have to stay.
"""

from __future__ import annotations

import json
import re
from typing import Any
from zlib import crc32

Row = dict[str, Any]

FORMAT = 2
"""Of journals all of whose rows carry a checksum; rows of format 1 may lack it."""

KEY = "crc32"
_CLOSE = re.compile(rb', "crc32": "([0-9a-f]{8})"\}')
_END = re.compile(_CLOSE.pattern + rb"\n")
_END_LENGTH = len(b', "crc32": "00000000"}\n')
MEND_BYTES = 1 << 16
"""Damage that spans more than this is not searched for the bit that was flipped."""


def encode_row(row: Row) -> bytes:
    """Return a row, which has a key at least, as a line with its checksum."""
    return _closed(json.dumps(row, ensure_ascii=True).encode()[:-1])


def _closed(opened: bytes) -> bytes:
    return opened + b', "crc32": "%08x"}\n' % crc32(opened)


def decode_row(line: bytes, checked: bool) -> Row:
    """Return the row that a whole line is, without its checksum.

    Args:
        line: with its newline.
        checked: a line without a checksum is damaged.

    Raises:
        ValueError: the line is damaged.
    """
    try:
        row = json.loads(line.decode())  # given bytes, it looks for their encoding first
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(row, dict):
        raise ValueError("not an object")
    if row.pop(KEY, None) is None:
        if checked or is_checked(row):
            raise ValueError("no checksum")
    elif not _sound(line):
        raise ValueError("its checksum differs")
    return row


def is_checked(header: Row) -> bool:
    """Tell whether every row behind this header carries a checksum."""
    return bool(header.get("journal", 1) != 1)


def _sound(line: bytes) -> bool:
    """Tell whether a line ends with the right checksum of what stands before it."""
    end = _END.fullmatch(line, max(0, len(line) - _END_LENGTH))
    return end is not None and int(end.group(1), 16) == crc32(line[: end.start()])


def mended(damaged: bytes) -> bytes | None:
    """Return damaged lines with the one bit turned back that was flipped, or None.

    Args:
        damaged: adjacent lines, a flipped newline joining two or parting one included.
    """
    if len(damaged) > MEND_BYTES:
        return None
    tried = bytearray(damaged)
    for place in range(len(tried)):
        for bit in range(8):
            tried[place] ^= 1 << bit
            if tried.endswith(b"\n") and all(map(_sound, bytes(tried).splitlines(keepends=True))):
                return bytes(tried)
            tried[place] ^= 1 << bit
    return None


def ended(torn: bytes) -> bytes | None:
    """Return the whole rows of a line without an end, each with its newline, None for no such row.

    A newline that was flipped, or not written any more, is all that such rows lack: their checksums
    say that they are whole. Behind them may come what an interrupted write left, which is left out.
    """
    rows, start = b"", 0
    for close in _CLOSE.finditer(torn):
        if int(close.group(1), 16) == crc32(torn[start : close.start()]):
            rows += torn[start : close.end()] + b"\n"
            start = close.end() + 1
    return rows or None


def blanked(damaged: bytes) -> bytes | None:
    """Return one row of the same length that readers pass over, None for what is too short."""
    opened, close = b'{"journal": %d' % FORMAT, b""
    if len(damaged) >= len(_closed(opened + _LOST + b'"')):
        opened, close = opened + _LOST, b'"'
    room = len(damaged) - len(_closed(opened + close))
    filling = b"." if close else b" "
    return None if room < 0 else _closed(opened + filling * room + close)


_LOST = b', "lost": "'
