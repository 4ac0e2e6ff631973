"""Opens labelled arrays of a run, and names those that are others than a run writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from manifests.errors import InputError, Problem
from store.places import Place

TEXT = "OTU"
"""Kinds of numpy's types that text may have."""

Expected = Mapping[str, tuple[tuple[str, ...], str]]
"""Dimensions, and the kinds of numpy's types that are taken, by name."""

UNREADABLE = (ValueError, KeyError, TypeError, IndexError, AttributeError)
"""What xarray and Zarr raise for metadata that does not fit together."""

MEND = "look with `emovec verify MANIFEST`; what is removed, the next run makes again"


def open_labelled(folder: Place, store: Any, as_dask: bool) -> xr.Dataset:
    """Open a group of arrays lazily, as Dask arrays or as plain arrays read when indexed.

    Raises:
        InputError: its arrays do not fit together.
    """
    chunks: Any = {} if as_dask else None
    try:
        return xr.open_zarr(store, consolidated=False, chunks=chunks, zarr_format=3)
    except UNREADABLE as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise _odd(folder, "", f"its arrays cannot be opened together ({why})") from None


def check_arrays(folder: Place, opened: xr.Dataset, expected: Expected) -> None:
    """Hold dimensions and types of arrays against what a run writes; nothing is read.

    Raises:
        InputError: naming the first that is missing, or another.
    """
    for name, (dimensions, kinds) in expected.items():
        if name not in opened.variables:
            raise _odd(folder, name, "there is no such array")
        found = opened.variables[name]
        if found.dims != dimensions:
            given = ", ".join(map(str, found.dims))
            raise _odd(folder, name, f"expected dimensions {', '.join(dimensions)}, got {given}")
        if found.dtype.kind not in kinds:
            raise _odd(folder, name, f"values of an unexpected type ({found.dtype})")


def _odd(folder: Place, name: str, what: str) -> InputError:
    return InputError(Problem(Path(f"{folder}"), None, name, f"{what}; {MEND}"))
