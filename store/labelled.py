"""Opens labelled arrays of a run, and names those that are others than a run writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from manifests.errors import InputError, Problem, shorten
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
        raise odd_array(folder, "", f"its arrays cannot be opened together ({why})") from None


def check_arrays(
    folder: Place,
    opened: xr.Dataset,
    expected: Expected,
    names: Mapping[str, Sequence[Any]] | None = None,
    *,
    whole: bool = True,
) -> None:
    """Hold dimensions and types of arrays against what a run writes; only coordinates are read.

    Args:
        folder: of the arrays.
        opened: as `open_labelled` gives them.
        expected: dimensions and types by name.
        names: what coordinates hold, by their names.
        whole: all of them have to be there.

    Raises:
        InputError: naming the first that is missing, or another.
    """
    for name, (dimensions, kinds) in expected.items():
        if name not in opened.variables:
            if not whole:
                continue
            raise odd_array(folder, name, "there is no such array")
        found = opened.variables[name]
        if found.dims != dimensions:
            given = ", ".join(map(str, found.dims))
            raise odd_array(
                folder, name, f"expected dimensions {', '.join(dimensions)}, got {given}"
            )
        if found.dtype.kind not in kinds:
            raise odd_array(folder, name, f"values of an unexpected type ({found.dtype})")
        if dimensions == (name,) and not opened.indexes[name].is_unique:
            raise odd_array(folder, name, "a name stands there twice")
    for name, labels in (names or {}).items():
        if name in opened.variables and (held := opened[name].to_numpy().tolist()) != [*labels]:
            listed = ", ".join(map(str, labels))
            raise odd_array(folder, name, f"expected {listed}, got {shorten(held)}")


def check_attributes(
    folder: Place, attributes: Mapping[str, Any], parts: Mapping[str, Part], *, whole: bool
) -> None:
    """Hold the attributes of a group against what a run writes.

    Args:
        folder: of the group.
        attributes: of it.
        parts: what each has to be, and the words for it; `a.b` is the key `b` of `a`.
        whole: all of them have to be there; otherwise only those that are there are looked at.

    Raises:
        InputError: naming the first that is missing, or another.
    """
    for path, (is_right, words) in parts.items():
        value: Any = attributes
        for key in path.split("."):
            value = value.get(key, _GONE) if isinstance(value, Mapping) else _GONE
        if value is _GONE:
            if whole:
                raise odd_array(folder, path, f"there is no such attribute; {words} belongs there")
        elif not is_right(value):
            raise odd_array(folder, path, f"expected {words}, got {shorten(value)}")


_GONE = object()

Part = tuple[Callable[[Any], bool], str]
"""Tells whether an attribute is right, and what would be, in words."""


def odd_array(folder: Place, name: str, what: str) -> InputError:
    """Return the error that an array or an attribute is another than a run writes."""
    return InputError(Problem(Path(f"{folder}"), None, name, f"{what}; {MEND}"))
