"""Tidy tables of similarity, directions, activations and variance over all cells.

That of the geometry, with its intervals and baselines, is in `analysis.geometry_table`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr

from analysis.results import CellResults, labelled, ordered
from analysis.settings import AXES
from analysis.similarity import cka_grid
from analysis.variance import SHARES

MIN_HALF_COSINE = 0.2
"""Cosine of two halves of the stories below which nothing is divided by it."""

WITHOUT_FIRST = {"all": "no-first"}
"""Windows that differ by the first token only."""


def cka_table(cells: list[CellResults]) -> pd.DataFrame:
    """Return linear CKA, plain and debiased, for every pair of layers (layer <= layer_b)."""
    return _pairs(cells, ["cka", "cka_debiased"], ["window", "contrast"])


def direction_cosine_table(cells: list[CellResults], axis: str) -> pd.DataFrame:
    """Return the cosine of an axis' directions for every pair of layers (layer <= layer_b).

    `cosine_bounded` is the cosine between one half of the stories at one layer and the other half
    at the other, over the geometric mean of the same at each layer by itself: 1 where the layers
    differ by no more than the stories make one layer differ (correction for attenuation, Spearman
    1904). It is NaN where a layer's halves have less than MIN_HALF_COSINE in common: over so little
    it would be noise. A component's cosines are absolute, its sign being arbitrary. The contrast is
    named as used: `both` where the manifest says `neutral-pca`; the estimator is `pc1` or `pc2`
    where it is a component.
    """
    chosen = [
        replace(cell, results=with_bounded_cosines(cell.results.sel(axis=axis, drop=True)))
        for cell in cells
    ]
    names = ["cosine", "cosine_bounded"]
    return _as_used(_pairs(chosen, names, ["window", "contrast", "norms", "estimator"]), axis)


def direction_table(cells: list[CellResults]) -> pd.DataFrame:
    """Return how good each direction is: one row for each cell, choice, axis and layer.

    - held_out_r: r of ratings with projections on directions that never saw the emotion;
    - half_cosine, half_cosine_sd, reliability: cosine between the directions of two halves of the
      stories (an emotion's topics on either side), mean and SD over random splits, and what it
      makes of all stories (Spearman-Brown);
    - next_cosine, next_cosine_bounded: with the next layer's direction, raw and freed of noise as
      in `direction_cosine_table`.
    """
    keys = ["window", "contrast", "norms", "estimator"]
    tables = []
    for axis in AXES:
        frames = []
        for cell in cells:
            results = with_bounded_cosines(cell.results.sel(axis=axis, drop=True))
            following = xr.Dataset(
                {
                    f"next_{name}": results[name]
                    .shift(layer_b=-1)
                    .where(results["layer"] == results["layer_b"])
                    .max("layer_b")
                    for name in ("cosine", "cosine_bounded")
                }
            )
            quality = results[["held_out_r", "half_cosine", "half_cosine_sd", "reliability"]]
            frame = quality.merge(following).to_dataframe().reset_index()
            frames.append(labelled(frame.assign(axis=axis), cell))
        columns = [
            *("model", "corpus", *keys, "axis", "layer", "depth"),
            *("held_out_r", "half_cosine", "half_cosine_sd", "reliability"),
            *("next_cosine", "next_cosine_bounded"),
            "fingerprint",
        ]
        table = ordered(pd.concat(frames, ignore_index=True)[columns], cells, keys)
        tables.append(_as_used(table, axis))
    return pd.concat(tables, ignore_index=True)


def with_bounded_cosines(results: xr.Dataset) -> xr.Dataset:
    """Add the cosines between layers, raw and freed of the noise of either."""
    crossed = results["half_direction_cosine"].drop_vars("depth")
    own = crossed.where(results["layer"] == results["layer_b"]).max("layer_b")
    own = own.where(own >= MIN_HALF_COSINE).drop_vars("depth", errors="ignore")
    both = np.sqrt(own * own.rename(layer="layer_b"))
    return results.assign(
        cosine=results["direction_cosine"],
        cosine_bounded=results["half_direction_cosine"] / both,
    )


def _as_used(table: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Name contrast and estimator of a direction by what was used."""
    table["contrast"] = table["contrast"].replace({"neutral-pca": "both"})
    component = f"pc{AXES.index(axis) + 1}"
    table["estimator"] = table["estimator"].replace({"component": component})
    return table


def activation_table(cells: list[CellResults]) -> pd.DataFrame:
    """Return how unevenly tokens and dimensions carry each layer: one row for each cell and layer.

    The columns are those of `analysis.activations.massive_activations`, and for each of the largest
    dimensions its number and its share of the mean squared norm.
    """
    by_layer = ["peak_ratio", "peak_ratio_max", "peak_share", "first_token_peak"]
    frames = []
    for cell in cells:
        frame = cell.results[by_layer].to_dataframe().reset_index()
        frame["depth"] = cell.results["depth"].to_numpy()
        for rank in cell.results["rank"].to_numpy():
            top = cell.results.sel(rank=rank)
            frame[f"dimension_{rank}"] = top["top_dimension"].to_numpy()
            frame[f"dimension_{rank}_share"] = top["top_dimension_share"].to_numpy()
        frames.append(labelled(frame, cell))
    table = pd.concat(frames, ignore_index=True)
    dimensions = [name for name in table.columns if name.startswith("dimension_")]
    columns = ["model", "corpus", "layer", "depth", *by_layer, *dimensions, "fingerprint"]
    return ordered(table[columns], cells, [])


def variance_table(cells: list[CellResults]) -> pd.DataFrame:
    """Return where the variance of story vectors is: one row for each cell, window and layer.

    The columns are those of `analysis.variance.VarianceShares`.
    """
    frames = []
    for cell in cells:
        shares = cell.results[[f"variance_{name}" for name in SHARES]]
        frame = shares.to_dataframe().reset_index()
        frame = frame.rename(columns={f"variance_{name}": name for name in SHARES})
        frames.append(labelled(frame, cell))
    columns = ["model", "corpus", "window", "layer", "depth", *SHARES, "fingerprint"]
    return ordered(pd.concat(frames, ignore_index=True)[columns], cells, ["window"])


def left_out_table(cells: list[CellResults]) -> pd.DataFrame:
    """Return what the largest dimensions and the first token carry, and what is left without them.

    One row for each cell, window, contrast, norms and layer. The dimensions are those with the
    largest mean square over the emotion means; `dimensions_norm` is their share of it,
    `dimensions_variance` their share of the contrast vectors' variance, and `_without_dimensions`
    marks what is found when they are left out of the story vectors, the neutral basis included.
    `_without_first` is what the window that begins at the second token gives, for a window that has
    such a counterpart; `first_token_peak` is how often the first token is the longest, `peak_share`
    the longest token's share of a text's norms.
    """
    frames = []
    for cell in cells:
        results = cell.results
        rank = results["dropped_dimension"]
        figures = {
            **{f"dimension_{i}": rank.sel(rank=i, drop=True) for i in rank["rank"].to_numpy()},
            "dimensions_norm": results["dropped_norm"],
            "dimensions_variance": results["dropped_share"],
            "cka_without_dimensions": results["without_cka"],
            "cka_debiased_without_dimensions": results["without_cka_debiased"],
            "pc1_variance": results["explained_variance"].sel(component=1, drop=True),
            "pc1_variance_without_dimensions": results["without_variance"].sel(
                component=1, drop=True
            ),
            "cka_without_first": _cka_without_first(results),
            "cka_debiased_without_first": _cka_without_first(results, debiased=True),
        }
        for component, axis in enumerate(AXES, start=1):
            r = abs(results["r"].sel(component=component, drop=True))
            without = abs(results["without_r"].sel(component=component, drop=True))
            figures[f"{axis}_r"] = r
            figures[f"{axis}_r_without_dimensions"] = without
            figures[f"{axis}_r_without_first"] = _without_first(r)
        tokens = ["first_token_peak", "peak_share"]
        flat = xr.Dataset(figures).merge(results[tokens])
        frames.append(labelled(flat.to_dataframe().reset_index(), cell))
    table = pd.concat(frames, ignore_index=True)
    keys = ["window", "contrast", "norms"]
    lead = ["model", "corpus", *keys, "layer", "depth"]
    return ordered(table[[*lead, *figures, *tokens, "fingerprint"]], cells, keys)


def _without_first(values: xr.DataArray) -> xr.DataArray:
    """Return each window's values as its counterpart without the first token has them, or NaN."""
    windows = [str(w) for w in values["window"].to_numpy()]
    out = xr.full_like(values, np.nan)
    for window, counterpart in WITHOUT_FIRST.items():
        if window in windows and counterpart in windows:
            out.loc[{"window": window}] = values.sel(window=counterpart, drop=True)
    return out


def _cka_without_first(results: xr.Dataset, debiased: bool = False) -> xr.DataArray:
    """Return linear CKA between each window's contrast vectors and its counterpart's."""
    out = xr.full_like(results["without_cka"], np.nan)
    windows = [str(w) for w in results["window"].to_numpy()]
    for window, counterpart in WITHOUT_FIRST.items():
        if window not in windows or counterpart not in windows:
            continue
        for contrast in results["contrast"].to_numpy():
            for layer in results["layer"].to_numpy():
                at = {"contrast": contrast, "layer": layer}
                pair = [
                    results["gram"].sel(window=w, **at).to_numpy() for w in (window, counterpart)
                ]
                found = cka_grid(pair[0][None], pair[1][None], debiased)[0, 0]
                out.loc[{"window": window, **at}] = found
    return out


def _pairs(cells: list[CellResults], names: list[str], keys: list[str]) -> pd.DataFrame:
    frames = []
    for cell in cells:
        values = cell.results[names].drop_vars("depth")
        frame = values.to_dataframe().reset_index()
        frames.append(labelled(frame[frame["layer"] <= frame["layer_b"]], cell))
    columns = ["model", "corpus", *keys, "layer", "layer_b", *names, "fingerprint"]
    table = pd.concat(frames, ignore_index=True)[columns]
    return ordered(table, cells, [*keys, "layer"], last="layer_b")
