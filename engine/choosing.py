"""What options of the command line choose of a cell: layers and windows that it has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import xarray as xr

from manifests.errors import InputError, Problem, shorten


def parse_layers(text: str) -> tuple[int, ...] | None:
    """Return the layers that `all` or `3,10-20` names, None for all.

    Raises:
        InputError: it names none.
    """
    if text.strip() == "all":
        return None
    layers: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,4})\s*(?:-\s*(\d{1,4})\s*)?", part, re.ASCII)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if last < first:
            what = (
                f"{shorten(part)} names no block; write all, or numbers from 0 and ranges such as "
                "3,10-20 (the embedding output, -1, is none)"
            )
            raise InputError(Problem(Path("--layers"), None, "", what))
        layers.update(range(first, last + 1))
    return tuple(sorted(layers))


def chosen_layers(data: xr.Dataset, cell: str, wanted: tuple[int, ...] | None) -> list[int]:
    """Return the blocks wanted of a cell, all of its blocks where None are named.

    Raises:
        InputError: it lacks one.
    """
    there = [int(layer) for layer in data["layer"].to_numpy() if layer >= 0]
    if lacking := sorted(set(wanted or ()) - set(there)):
        said = ", ".join(map(str, there))
        what = f"{cell} has no block {', '.join(map(str, lacking))}; it has {said}"
        raise InputError(Problem(Path("--layers"), None, "", what))
    return [layer for layer in there if wanted is None or layer in wanted]


def chosen_window(data: xr.Dataset, name: str) -> dict[str, Any]:
    """Return a window of a cell as its manifest describes it.

    Raises:
        InputError: the cell has no such window.
    """
    windows = {window["name"]: window for window in data.attrs["extraction"]["windows"]}
    if name not in windows:
        what = f"no window {shorten(name)}; {data.attrs['cell']} has {', '.join(windows)}"
        raise InputError(Problem(Path("--window"), None, "", what))
    return dict(windows[name])
