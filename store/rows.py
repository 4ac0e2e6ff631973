"""Rows of the tables that corpora come in: JSONL, CSV, Parquet, and data sets of `datasets`.

Nothing is believed of what a file says of itself, and a mistake is a line of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.errors import InputError, Problem, shorten
from manifests.files import read_lines, refusal
from manifests.resolve import Importing
from manifests.tables import csv_rows

MAX_BYTES = 1 << 32
MAX_PROBLEMS = 20
"""Broken rows that are named one by one; the rest is counted."""
MAX_BROKEN = 10_000
"""Broken rows after which a table is read no further."""
MAX_DIGITS = 64
"""Of a number in JSON."""
BATCH = 512
"""Rows of a Parquet file or a data set that are taken at once."""
UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError)
"""What Arrow raises for bytes that are not what their file says."""

Row = tuple[int, dict[str, Any]]
"""Line (or row, from 1, where a file has no lines) and its columns."""


class Problems:
    """What is wrong with a corpus: the first mistakes, and how many there are."""

    def __init__(self, origin: Path):
        self._origin = origin
        self._first: list[Problem] = []
        self._n = 0

    def add(self, file: Path, line: int | None, key: str, what: str) -> None:
        """Note one; the first `MAX_PROBLEMS` are kept.

        Raises:
            InputError: there are too many to go on.
        """
        self._n += 1
        if len(self._first) < MAX_PROBLEMS:
            self._first.append(Problem(file, line, key, what))
        if self._n == MAX_BROKEN:
            rest = f"{MAX_BROKEN:,} such problems so far; read no further"
            raise InputError([*self._first, Problem(self._origin, None, "", rest)])

    def __bool__(self) -> bool:
        return self._n > 0

    def refuse(self) -> None:
        """Raise them, if there are any.

        Raises:
            InputError: naming them.
        """
        if self._n > MAX_PROBLEMS:
            rest = f"and {self._n - MAX_PROBLEMS} more such problems"
            raise InputError([*self._first, Problem(self._origin, None, "", rest)])
        if self._n:
            raise InputError(self._first)


def rows_of(source: Importing, table: Path | None, problems: Problems) -> Iterator[Row]:
    """Yield the rows of a table, of a saved data set or, without a path, of one on the hub.

    Lines that are no rows are added to `problems`.

    Raises:
        InputError: the table cannot be read at all.
    """
    if table is not None and (why := refusal(table, folder=True)) is not None:
        raise InputError(Problem(table, None, "", f"cannot be read: {why}"))
    if table is None or table.is_dir():
        yield from _data_set_rows(source, table)
    elif table.suffix == ".parquet":
        yield from _parquet_rows(table)
    elif table.suffix in (".csv", ".tsv"):
        yield from csv_rows(table, MAX_BYTES, "\t" if table.suffix == ".tsv" else ",")
    elif table.suffix in (".jsonl", ".json", ".ndjson"):
        yield from _json_rows(table, problems)
    else:
        what = "unknown kind of table; known: .jsonl, .csv, .tsv, .parquet, a folder of `datasets`"
        raise InputError(Problem(table, None, "", what))


def _json_rows(file: Path, problems: Problems) -> Iterator[Row]:
    for number, line in read_lines(file, MAX_BYTES):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_object, parse_int=_integer)
        except (ValueError, RecursionError) as error:
            deep = isinstance(error, RecursionError)
            why = "nested too deep" if deep else getattr(error, "msg", str(error))
            problems.add(file, number, "", f"not valid JSON: {why}")
            continue
        if not isinstance(row, dict):
            problems.add(file, number, "", f"expected an object, got {shorten(row)}")
            continue
        yield number, row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"the key {shorten(repeated)} stands there twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _parquet_rows(file: Path) -> Iterator[Row]:
    try:
        with pq.ParquetFile(file) as parquet:
            _check_columns(file, parquet.schema_arrow.names)
            yield from enumerate(_in_batches(parquet.iter_batches(BATCH)), start=1)
    except UNREADABLE as error:
        what = f"not a Parquet file of texts: {_first_line(error)}"
        raise InputError(Problem(file, None, "", what)) from None


def _in_batches(batches: Iterable[Any]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        yield from batch.to_pylist()


def _check_columns(file: Path, names: list[str]) -> None:
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated:
        what = f"the column {shorten(repeated[0])} is there twice"
        raise InputError(Problem(file, None, repeated[0], what))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or repr(error)


def _data_set_rows(source: Importing, folder: Path | None) -> Iterator[Row]:
    import datasets

    spec = source.spec
    split = spec.split or "train"
    origin = folder or Path(f"hf:{spec.hf}")
    saved = folder is not None and any(
        (folder / name).is_file() for name in ("state.json", "dataset_dict.json")
    )
    try:
        if saved:
            found = datasets.load_from_disk(str(folder))
        else:
            where = spec.hf if folder is None else str(folder)
            found = datasets.load_dataset(where, spec.config, revision=spec.revision)
    except Exception as error:  # the library raises whatever its loaders raise
        what = f"cannot be loaded as a data set: {_first_line(error)}"
        raise InputError(Problem(origin, None, "", what)) from None
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            what = f"has no split {split!r}; it has {', '.join(found)}"
            raise InputError(Problem(origin, None, "", what))
        found = found[split]
    labels = {
        name: feature for name, feature in found.features.items() if hasattr(feature, "int2str")
    }
    try:  # as Arrow has them: pictures and sounds beside the texts are not decoded
        batches = found.with_format("arrow").iter(BATCH)
        for number, row in enumerate(_in_batches(batches), start=1):
            for name, feature in labels.items():
                if row[name] is not None and row[name] >= 0:
                    row[name] = feature.int2str(row[name])
            yield number, row
    except UNREADABLE as error:
        what = f"cannot be read as a data set: {_first_line(error)}"
        raise InputError(Problem(origin, None, "", what)) from None
