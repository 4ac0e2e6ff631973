"""The numbers behind what can be moved on the page, packed as JSON.

r and p are given to six digits, cosines, CKA and shares in thousandths, scores in thousandths of
the largest of their layer. Grids are symmetric, so of each the rows are kept from the diagonal on.
Nothing here is text of a story.
"""

from __future__ import annotations

import base64
import gzip
import json
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.colors import to_hex
from numpy import ndarray

from analysis.differences import BASELINES, baselines
from analysis.figures.grids import COMPOSITE
from analysis.figures.style import Looks, looks_of
from analysis.inference import SIGNIFICANT
from analysis.report.content import RunContent
from analysis.results import CellResults, preferred_window, without_twins
from analysis.settings import AXES

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


def payload(runs: list[RunContent]) -> dict[str, Any]:
    """Return what the page's script draws from.

    `cells` are in the order of the runs; `windows`, `contrasts` and `norms` are those of any cell,
    the shown ones first.
    """
    one = len(runs) == 1
    looks = looks_of(
        [
            (c.model, c.corpus if one else f"{run.name} {c.corpus}")
            for run in runs
            for c in run.cells
        ]
    )
    cells = []
    for run in runs:
        shown = {id(cell) for cell in without_twins(run.cells)}
        for cell in run.cells:
            look = cell.corpus if one else f"{run.name} {cell.corpus}"
            found = _cell(cell, run, looks, look)
            found["run"] = run.name
            found["twin"] = id(cell) not in shown
            cells.append(found)
    names = {
        key: list(dict.fromkeys(name for cell in cells for name in cell[key]))
        for key in ("windows", "contrasts", "norms")
    }
    return {"cells": cells, "window": preferred_window(names["windows"]), **names}


def packed(value: Any) -> str:
    """Return JSON, gzipped, in base64: letters, digits, `+`, `/` and `=` only."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return packed_bytes(text.encode())


def packed_bytes(content: bytes) -> str:
    """Return bytes gzipped, in base64; the same bytes give the same text."""
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()


def _cell(cell: CellResults, run: RunContent, looks: Looks, look: str) -> dict[str, Any]:
    results = cell.results
    line, marker = looks.line[look]
    names = {
        key: [str(v) for v in results[key[:-1] if key != "norms" else key].to_numpy()]
        for key in ("windows", "contrasts", "norms")
    }
    ways = list(product(names["windows"], names["contrasts"]))
    estimators = [e for e in map(str, results["estimator"].to_numpy()) if e != COMPOSITE]
    return {
        "model": cell.model,
        "corpus": cell.corpus,
        **names,
        "colour": to_hex(looks.colour[cell.model]),
        "dash": DASHES.get(line, "longdash"),
        "symbol": SYMBOLS[marker],
        "layers": [int(i) for i in results["layer"].to_numpy()],
        "depth": _rounded(results["depth"].to_numpy()),
        "emotions": [str(e) for e in results["emotion"].to_numpy()],
        "estimators": estimators,
        "curves": _curves(cell, run),
        "beside": _beside(cell, run.cells),
        "maps": {f"{w}|{c}": _maps(results.sel(window=w, contrast=c)) for w, c in ways},
        "signs": {
            f"{w}|{c}|{n}": _signs(results["r"].sel(window=w, contrast=c, norms=n))
            for w, c in ways
            for n in names["norms"]
        },
        "grids": {
            f"{w}|{c}": {
                key: _triangle(results[name].sel(window=w, contrast=c))
                for key, name in GRIDS.items()
            }
            for w, c in ways
        },
        "cosines": {
            f"{w}|{c}|{n}|{e}": _triangle(
                results["direction_cosine"].sel(
                    window=w, contrast=c, norms=n, estimator=e, axis="valence"
                )
            )
            for w, c in ways
            for n in names["norms"]
            for e in estimators
        },
        "bands": {n: _bands(results["rating"].sel(norms=n).to_numpy()) for n in names["norms"]},
        "activations": {
            "ratio": _rounded(results["peak_ratio"].to_numpy()),
            "first": _rounded(results["first_token_peak"].to_numpy()),
            "dimensions": _rounded(results["top_dimension_share"].sum("rank").to_numpy()),
        },
    }


def _curves(cell: CellResults, run: RunContent) -> dict[str, Any]:
    """Return r over layers by window, contrast, norms and axis, from the table."""
    geometry = run.tables["geometry"]
    own = geometry[(geometry["model"] == cell.model) & (geometry["corpus"] == cell.corpus)]
    found: dict[str, Any] = {}
    for (window, contrast, norms), rows in own.groupby(["window", "contrast", "norms"], sort=False):
        ordered = rows.sort_values("layer")
        found[f"{window}|{contrast}|{norms}"] = {
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
    return found


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
