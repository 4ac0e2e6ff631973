"""Results on disk: one labelled data set for each cell, and tidy tables over all cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from store.atomic import written_whole
from store.labelled import Expected, check_arrays, check_attributes, open_labelled
from store.places import Place, replaced_folder, there, zarr_store
from store.result_shapes import ATTRIBUTES, NAMES

STRING = np.dtypes.StringDType()


def write_analysis(folder: Place, results: xr.Dataset) -> None:
    """Write a cell's results whole, replacing older ones; text as Zarr strings."""
    bare = results.drop_indexes(list(results.indexes))
    text = [name for name, values in bare.variables.items() if values.dtype.kind == "U"]
    bare = bare.assign({name: bare[name].astype(STRING) for name in text})
    with replaced_folder(folder) as partial:
        bare.to_zarr(partial, mode="w", consolidated=False, zarr_format=3)


def open_analysis(
    folder: Place,
    as_dask: bool = True,
    expected: Expected | None = None,
    names: Mapping[str, Sequence[Any]] | None = None,
    *,
    whole: bool = True,
) -> xr.Dataset:
    """Open a cell's results lazily, as Dask arrays or as plain arrays read when indexed.

    Args:
        folder: the `analysis.zarr`, or the `words.zarr` of a corpus.
        as_dask: give Dask arrays.
        expected: arrays that are asked for, of `store.result_shapes`.
        names: what coordinates among them hold, beside those that are always the same.
        whole: all of those have to be there; results of earlier versions had fewer.

    Raises:
        FileNotFoundError: the cell was not analysed.
        InputError: its arrays do not fit together, or are others than those asked for.
    """
    if not there(folder):
        raise FileNotFoundError(f"{folder}: nothing was analysed here")
    opened = open_labelled(folder, zarr_store(folder, read_only=True), as_dask)
    if expected is not None:
        opened = _in_order(opened, "norms", (names or {}).get("norms"))
        held = {**NAMES, **(names or {})}
        here = {name: wanted for name, wanted in held.items() if name in expected}
        check_arrays(folder, opened, expected, here, whole=whole)
        check_attributes(folder, opened.attrs, ATTRIBUTES, whole=False)
    return opened


def _in_order(opened: xr.Dataset, name: str, wanted: Sequence[Any] | None) -> xr.Dataset:
    """Return results with a coordinate in a manifest's order: another makes no results anew."""
    held = opened[name].to_numpy().tolist() if name in opened.indexes else []
    if wanted is None or held == [*wanted] or sorted(map(str, held)) != sorted(map(str, wanted)):
        return opened
    return opened.sel({name: [*wanted]})


def write_tables(folder: Path, tables: Mapping[str, pd.DataFrame]) -> list[Path]:
    """Write each table as `<name>.csv`; missing numbers are written as `nan`."""
    files = []
    for name, table in tables.items():
        file = folder / f"{name}.csv"
        with written_whole(file) as partial:
            table.to_csv(partial, index=False, na_rep="nan", lineterminator="\n")
        files.append(file)
    return files
