"""Results on disk: one labelled data set for each cell, and tidy tables over all cells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from store.atomic import written_whole
from store.labelled import open_labelled
from store.places import Place, replaced_folder, there, zarr_store

STRING = np.dtypes.StringDType()


def write_analysis(folder: Place, results: xr.Dataset) -> None:
    """Write a cell's results whole, replacing older ones; text as Zarr strings."""
    bare = results.drop_indexes(list(results.indexes))
    text = [name for name, values in bare.variables.items() if values.dtype.kind == "U"]
    bare = bare.assign({name: bare[name].astype(STRING) for name in text})
    with replaced_folder(folder) as partial:
        bare.to_zarr(partial, mode="w", consolidated=False, zarr_format=3)


def open_analysis(folder: Place, as_dask: bool = True) -> xr.Dataset:
    """Open a cell's results lazily, as Dask arrays or as plain arrays read when indexed.

    Raises:
        FileNotFoundError: the cell was not analysed.
        InputError: its arrays do not fit together.
    """
    if not there(folder):
        raise FileNotFoundError(f"{folder}: nothing was analysed here")
    return open_labelled(folder, zarr_store(folder, read_only=True), as_dask)


def write_tables(folder: Path, tables: Mapping[str, pd.DataFrame]) -> list[Path]:
    """Write each table as `<name>.csv`; missing numbers are written as `nan`."""
    files = []
    for name, table in tables.items():
        file = folder / f"{name}.csv"
        with written_whole(file) as partial:
            table.to_csv(partial, index=False, na_rep="nan", lineterminator="\n")
        files.append(file)
    return files
