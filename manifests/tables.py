"""Rows of CSV files, read one at a time and within bounds."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from manifests.errors import InputError, Problem, shorten
from manifests.files import MAX_LINE, read_lines

MAX_COLUMNS = 10_000

Row = tuple[int, dict[str, str]]
"""Line on which a row ends, and its fields by column."""


def csv_rows(
    file: Path, max_bytes: int, delimiter: str = ",", needed: Sequence[str] = ()
) -> Iterator[Row]:
    """Yield the rows of a CSV file that has a header, empty lines left out.

    Raises:
        InputError: it cannot be read or is no CSV, a column is there twice or a needed one is not,
            or a row has another number of fields than the header.
    """
    csv.field_size_limit(MAX_LINE)
    reader = csv.reader(_lines(file, max_bytes), delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    try:
        for fields in reader:
            if not fields:
                continue
            if columns is None:
                columns = _checked(file, reader.line_num, fields, needed)
            elif len(fields) != len(columns):
                what = f"not as many fields as the header has columns ({len(columns)})"
                raise InputError(Problem(file, reader.line_num, "", what))
            else:
                yield reader.line_num, dict(zip(columns, fields, strict=True))
    except csv.Error as error:
        raise InputError(Problem(file, reader.line_num, "", f"not valid CSV: {error}")) from None
    if columns is None:
        _checked(file, 1, [], needed)


def _checked(file: Path, line: int, columns: list[str], needed: Sequence[str]) -> list[str]:
    for column in needed:
        if column not in columns:
            raise InputError(Problem(file, line, column, "this column is missing"))
    if len(columns) > MAX_COLUMNS:
        raise InputError(Problem(file, line, "", f"over {MAX_COLUMNS:,} columns"))
    seen: dict[str, int] = {}
    for number, column in enumerate(columns, start=1):
        if column in seen and column.strip():
            what = f"the column {shorten(column)} stands here twice"
            raise InputError(Problem(file, line, column, what))
        if column in seen:
            what = f"has no name, nor has column {seen[column]}; name them, or take them out"
            raise InputError(Problem(file, line, f"column {number}", what))
        seen[column] = number
    return columns


def _lines(file: Path, max_bytes: int) -> Iterator[str]:
    """Yield the lines of a file, also where a carriage return alone ends them."""
    for _, line in read_lines(file, max_bytes):
        if "\r" in line[:-2]:
            yield from re.split(r"(?<=\r)(?!\n)", line)
        else:
            yield line
