"""The numbers behind what can be moved on the page, packed as JSON.

r and p are given to six digits, cosines, CKA and shares in thousandths, scores in thousandths of
the largest of their layer. Grids are symmetric, so of each the rows are kept from the diagonal on.
Nothing here is text of a story. Of many cells not everything fits on a page: `payload` says what it
leaves out.
"""

from __future__ import annotations

import base64
import functools
import gzip
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.colors import to_hex
from numpy import ndarray

from analysis.differences import BASELINES, baselines
from analysis.figures.grids import COMPOSITE
from analysis.figures.palette import dark_colour, palette_colour
from analysis.figures.style import Looks, looks_of
from analysis.inference import SIGNIFICANT
from analysis.report.content import RunContent
from analysis.results import CellResults, preferred_window, without_twins
from analysis.settings import AXES

Way = tuple[str, ...]
"""Window, contrast and norms; joined by `|`, a key of what the script draws from."""

ROOM_FOR_WORDS = 4_000
"""Bytes kept for what `left` says."""

N_BANDS = 5
"""Bands of the ratings' order that colour the map; ratings may not be ours to pass on."""

GRIDS = {"cka": "cka", "cka_debiased": "cka_debiased", "without": "without_cka_grid"}
DASHES = {"-": "solid", "--": "dash", "-.": "dashdot"}
SYMBOLS = {
    "o": "circle",
    "s": "square",
    "D": "diamond",
    "^": "triangle-up",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
}


@dataclass(frozen=True)
class _Part:
    """What a page may carry of a cell beside its curves at the choice that is shown first.

    Attributes:
        what: name of its kind.
        where: the table or the store that has it whole.
        cell: number of the cell.
        values: gives keys and values by the dict of the cell that they go to.
    """

    what: str
    where: str
    cell: int
    values: Callable[[], dict[str, dict[str, Any]]]


def payload(runs: list[RunContent], limit: float = math.inf) -> dict[str, Any]:
    """Return what the page's script draws from.

    `cells` are in the order of the runs; `windows`, `contrasts` and `norms` are those of any cell,
    the shown ones first. Every cell's curves at the shown choice are there; then maps and grids of
    that choice, curves of the others, their maps and grids, and last maps and grids of models with
    random weights, cell by cell, up to the first that does not fit. `left` says what was left out.

    Args:
        runs: what is shown.
        limit: bytes that `packed` may make of it.
    """
    one = len(runs) == 1
    owned = [(run, cell) for run in runs for cell in run.cells]
    names_of = [cell.corpus if one else f"{run.name} {cell.corpus}" for run, cell in owned]
    shown = {id(cell) for run in runs for cell in without_twins(run.cells)}
    looks = looks_of(
        *(
            [
                (cell.model, cell.corpus if one else f"{run.name} {cell.corpus}")
                for cell in [*without_twins(run.cells), *run.cells]
            ]
            for run in runs
        )
    )
    cells = [
        _cell(cell, looks, look) | {"run": run.name, "twin": id(cell) not in shown}
        for (run, cell), look in zip(owned, names_of, strict=True)
    ]
    names = {
        key: list(dict.fromkeys(name for cell in cells for name in cell[key]))
        for key in ("windows", "contrasts", "norms")
    }
    first = (preferred_window(names["windows"]), names["contrasts"][0], names["norms"][0])
    shown_first: list[Way] = []
    for found, (run, cell) in zip(cells, owned, strict=True):
        ways = list(product(*(found[key] for key in ("windows", "contrasts", "norms"))))
        shown_first.append(first if first in ways else ways[0])
        _add(found, _curves(cell, run, shown_first[-1:]))
    parts = _parts(cells, owned, shown_first)
    data = {"cells": cells, "window": first[0], **names, "left": []}
    room = limit - len(packed(data)) - ROOM_FOR_WORDS
    for taken, part in enumerate(parts):
        values = part.values()
        room -= len(packed(values))
        if room < 0:
            data["left"] = _left(parts, taken, [f"{c['model']}@{c['corpus']}" for c in cells])
            break
        _add(cells[part.cell], values)
    return data


def _add(cell: dict[str, Any], values: dict[str, dict[str, Any]]) -> None:
    for key, more in values.items():
        cell[key].update(more)


def _left(parts: list[_Part], taken: int, cells: list[str]) -> list[str]:
    """Say what the parts after the first `taken` are, of which cells, and where they lie."""
    said = []
    for what in dict.fromkeys(part.what for part in parts[taken:]):
        out = [part for part in parts[taken:] if part.what == what]
        every = sum(part.what == what for part in parts)
        of = "all" if len(out) == every else f"from {cells[out[0].cell]} on, {len(out)}"
        said.append(f"{what}: {of} of {every} cells; {out[0].where} has them")
    return said


def _parts(
    cells: list[dict[str, Any]],
    owned: list[tuple[RunContent, CellResults]],
    shown_first: list[Way],
) -> list[_Part]:
    """Return everything that is not in the cells yet, in the order in which it is added."""

    def chosen(i: int, first: bool) -> list[Way]:
        ways = product(*(cells[i][key] for key in ("windows", "contrasts", "norms")))
        return [way for way in ways if (way == shown_first[i]) == first]

    def stage(what: str, where: str, values: Any, first: bool, twins: bool) -> list[_Part]:
        return [
            _Part(what, where, i, functools.partial(values, *reversed(owned[i]), chosen(i, first)))
            for i, cell in enumerate(cells)
            if cell["twin"] == twins and chosen(i, first)
        ]

    maps = ("maps of emotions", "analysis.zarr of the cell (`open_analysis`, `score`)", _maps_of)
    grids = ("similarity of layers", "tables/cka.csv", _grids_of)
    cosines = ("cosines of directions", "tables/valence_directions.csv", _cosines_of)
    found = []
    for twins, suffix in ((False, ""), (True, ", random weights")):
        for what, where, values in (maps, grids, cosines):
            found += stage(f"{what}{suffix}", where, values, True, twins)
        of_curves = f"curves at other windows, contrasts and norms{suffix}"
        found += stage(of_curves, "tables/geometry.csv", _curves, False, twins)
        for what, where, values in (maps, grids, cosines):
            more = f"{what} at other windows, contrasts and norms{suffix}"
            found += stage(more, where, values, False, twins)
    return found


def packed(value: Any) -> str:
    """Return JSON, gzipped, in base64: letters, digits, `+`, `/` and `=` only."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return packed_bytes(text.encode())


def packed_bytes(content: bytes) -> str:
    """Return bytes gzipped, in base64; the same bytes give the same text."""
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()


def _cell(cell: CellResults, looks: Looks, look: str) -> dict[str, Any]:
    """Return what is small of a cell, with empty dicts for what is not."""
    results = cell.results
    line, marker = looks.line[look]
    names = {
        key: [str(v) for v in results[key[:-1] if key != "norms" else key].to_numpy()]
        for key in ("windows", "contrasts", "norms")
    }
    return {
        "model": cell.model,
        "corpus": cell.corpus,
        **names,
        "colour": to_hex(palette_colour(looks.place[cell.model])),
        "dark": to_hex(dark_colour(looks.place[cell.model])),
        "dash": DASHES.get(line, "longdash"),
        "symbol": SYMBOLS[marker],
        "layers": [int(i) for i in results["layer"].to_numpy()],
        "depth": _rounded(results["depth"].to_numpy()),
        "emotions": [str(e) for e in results["emotion"].to_numpy()],
        "estimators": [e for e in map(str, results["estimator"].to_numpy()) if e != COMPOSITE],
        "bands": {n: _bands(results["rating"].sel(norms=n).to_numpy()) for n in names["norms"]},
        "activations": {
            "ratio": _rounded(results["peak_ratio"].to_numpy()),
            "first": _rounded(results["first_token_peak"].to_numpy()),
            "dimensions": _rounded(results["top_dimension_share"].sum("rank").to_numpy()),
        },
        **{key: {} for key in ("curves", "beside", "maps", "signs", "grids", "cosines")},
    }


def _maps_of(cell: CellResults, run: RunContent, ways: list[Way]) -> dict[str, dict[str, Any]]:
    """Return maps by window and contrast, and their signs by norms too."""
    found: dict[str, dict[str, Any]] = {"maps": {}, "signs": {}}
    for way in ways:
        window, contrast, norms = way
        at = cell.results.sel(window=window, contrast=contrast)
        if f"{window}|{contrast}" not in found["maps"]:
            found["maps"][f"{window}|{contrast}"] = _maps(at)
        found["signs"]["|".join(way)] = _signs(at["r"].sel(norms=norms))
    return found


def _grids_of(cell: CellResults, run: RunContent, ways: list[Way]) -> dict[str, dict[str, Any]]:
    """Return the three kinds of CKA by window and contrast."""
    found = {}
    for window, contrast in dict.fromkeys(way[:2] for way in ways):
        at = cell.results.sel(window=window, contrast=contrast)
        found[f"{window}|{contrast}"] = {key: _triangle(at[name]) for key, name in GRIDS.items()}
    return {"grids": found}


def _cosines_of(cell: CellResults, run: RunContent, ways: list[Way]) -> dict[str, dict[str, Any]]:
    """Return cosines of valence directions by window, contrast, norms and estimator."""
    found = {}
    for way in ways:
        window, contrast, norms = way
        at = {"window": window, "contrast": contrast, "norms": norms, "axis": "valence"}
        grids = cell.results["direction_cosine"].sel(at)
        for estimator in map(str, cell.results["estimator"].to_numpy()):
            if estimator != COMPOSITE:
                found["|".join([*way, estimator])] = _triangle(grids.sel(estimator=estimator))
    return {"cosines": found}


def _curves(cell: CellResults, run: RunContent, ways: list[Way]) -> dict[str, dict[str, Any]]:
    """Return r over layers, from the table, and the baselines beside it."""
    geometry = run.tables["geometry"]
    own = geometry[(geometry["model"] == cell.model) & (geometry["corpus"] == cell.corpus)]
    found: dict[str, Any] = {}
    for key, rows in own.groupby(["window", "contrast", "norms"], sort=False):
        if key not in ways:
            continue
        ordered = rows.sort_values("layer")
        found["|".join(map(str, key))] = {
            "n": int(ordered["n_emotions"].max()),
            **{
                axis: {
                    "sure": [bool(p < SIGNIFICANT) for p in ordered[f"{axis}_p_corrected"]],
                    **{
                        name: _rounded(ordered[f"{axis}_{column}"].to_numpy(), 6)
                        for name, column in (
                            *(("r", "r"), ("low", "low"), ("high", "high")),
                            *(("p", "p_corrected"), ("overlap", "overlap")),
                        )
                    },
                }
                for axis in AXES
            },
        }
    beside = _beside(cell, run.cells)
    names = ["|".join(way) for way in ways]
    return {
        "curves": found,
        "beside": {key: by for key, by in beside.items() if key.rpartition("|")[0] in names},
    }


def _beside(cell: CellResults, others: list[CellResults]) -> dict[str, Any]:
    """Return the baselines' r by window, contrast, norms and axis; over layers where they vary."""
    found: dict[str, Any] = {}
    for axis in AXES:
        for name, other in baselines(cell, axis, others).items():
            r = other.r
            if not bool(np.isfinite(r).any()):
                continue
            like = cell.results["r"].isel(component=0, layer=0, drop=True)
            wide = r.broadcast_like(like)
            for w, c, n in product(*(like[k].to_numpy() for k in ("window", "contrast", "norms"))):
                at = wide.sel(window=w, contrast=c, norms=n)
                numbers = _rounded(np.atleast_1d(at.to_numpy()), 6)
                shown = numbers if "layer" in at.dims else numbers[0]
                found.setdefault(f"{w}|{c}|{n}|{axis}", {})[name] = shown
    assert set(BASELINES) >= {name for by in found.values() for name in by}
    return found


def _maps(at: xr.Dataset) -> list[Any]:
    """Return [largest |score|, PC1, PC2, shares of variance] of each layer, None without scores."""
    found: list[Any] = []
    scores = at["score"].transpose("layer", "component", "emotion").to_numpy()
    shares = at["explained_variance"].transpose("layer", "component").to_numpy()
    for score_XE, share_X in zip(scores, shares, strict=True):
        if not np.isfinite(score_XE).any():
            found.append(None)
            continue
        largest = float(np.nanmax(np.abs(score_XE)))
        ones = [_whole(row / (largest or 1)) for row in score_XE]
        found.append([float(f"{largest:.4g}"), *ones, _whole(share_X)])
    return found


def _signs(r: xr.DataArray) -> list[list[int]]:
    """Return for each layer which way each component points."""
    values = r.transpose("layer", "component").to_numpy()
    return [[-1 if value < 0 else 1 for value in row] for row in values]


def _triangle(grid: xr.DataArray) -> list[list[int | None]]:
    """Return each row from the diagonal on, the embedding output left out."""
    blocks = grid.sel(layer=grid["layer"] >= 0, layer_b=grid["layer_b"] >= 0)
    values = blocks.transpose("layer", "layer_b").to_numpy()
    return [_whole(row[i:]) for i, row in enumerate(values)]


def _bands(rating_EX: ndarray) -> list[int | None]:
    """Return the band of each emotion's valence, from 0 for the most unpleasant; None unrated."""
    valence_E = rating_EX[:, AXES.index("valence")]
    there = np.isfinite(valence_E)
    ranks = pd.Series(valence_E[there]).rank(method="average", pct=True).to_numpy()
    bands: list[int | None] = [None] * len(valence_E)
    for at, rank in zip(np.flatnonzero(there), ranks, strict=True):
        bands[at] = min(N_BANDS - 1, int(rank * N_BANDS - 1e-9))
    return bands


def _whole(values: Any) -> list[int | None]:
    """Return thousandths, None for what is missing."""
    return [
        round(1000 * float(v)) if np.isfinite(v) else None for v in np.asarray(values, dtype=float)
    ]


def _rounded(values: ndarray, digits: int = 4) -> list[float | None]:
    """Return numbers to some digits, None for what is missing."""
    numbers = values.astype(float)
    return [float(f"{v:.{digits}g}") if np.isfinite(v) else None for v in numbers]
