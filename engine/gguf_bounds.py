"""Lengths in a GGUF file held against its size, before a library reads it.

The gguf package believes them: a list said to hold 2^62 numbers is read past the file's end until
memory is full. Nothing is parsed here but what is needed to walk from one length to the next.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by its type's number."""

STRING, LIST = 8, 9
MAX_NESTED, MAX_DIMENSIONS = 4, 8


def require_bounds(file: Path) -> None:
    """Refuse a GGUF file whose header speaks of more than the file holds.

    Raises:
        ValueError: naming the file.
    """
    with file.open("rb") as stream:
        try:
            _Walk(stream, file.stat().st_size).header()
        except _Beyond as error:
            raise ValueError(f"{file.name} is no whole GGUF file: {error}") from None


class _Beyond(Exception):
    """A header that cannot be; the message says where."""


class _Walk:
    def __init__(self, stream: BinaryIO, size: int):
        self._stream, self._size = stream, size

    def header(self) -> None:
        if self._stream.read(4) != b"GGUF":
            raise _Beyond("it does not begin as one")
        if self._number(4) not in (2, 3):
            raise _Beyond("its version is not known")
        n_tensors, n_keys = self._number(8), self._number(8)
        self._require(n_tensors * 24 + n_keys * 12, "keys and tensors")
        for _ in range(n_keys):
            self._text()
            self._value(self._number(4), MAX_NESTED)
        for _ in range(n_tensors):
            self._text()
            n_dimensions = self._number(4)
            if n_dimensions > MAX_DIMENSIONS:
                raise _Beyond(f"a tensor of {n_dimensions} dimensions")
            self._skip(8 * n_dimensions + 12, "a tensor")

    def _value(self, kind: int, nested: int) -> None:
        if kind == STRING:
            self._text()
        elif kind == LIST and nested:
            inner, n = self._number(4), self._number(8)
            if inner in SIZES:
                self._skip(n * SIZES[inner], "a list")
                return
            self._require(n * 8, "a list")
            for _ in range(n):
                self._value(inner, nested - 1)
        elif kind in SIZES:
            self._skip(SIZES[kind], "a value")
        else:
            raise _Beyond("a value of an unknown type")

    def _text(self) -> None:
        self._skip(self._number(8), "a text")

    def _number(self, size: int) -> int:
        self._require(size, "a number")
        return int.from_bytes(self._stream.read(size), "little")

    def _skip(self, n: int, what: str) -> None:
        self._require(n, what)
        self._stream.seek(n, 1)

    def _require(self, n: int, what: str) -> None:
        if n > self._size - self._stream.tell():
            raise _Beyond(f"{what} would take {n:,} bytes, beyond its end")
