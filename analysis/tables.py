"""Tidy tables from the results of all cells, one row for each thing measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import xarray as xr

from analysis.layer import AXES
from analysis.similarity import cka_grid
from analysis.variance import SHARES

FINGERPRINT_DIGITS = 16
"""Hexadecimal digits of the analysis' fingerprint in each row of a table."""


MIN_HALF_COSINE = 0.2
"""Cosine of two halves of the stories below which nothing is divided by it."""

WITHOUT_FIRST = {"all": "no-first"}
"""Windows that differ by the first token only."""


@dataclass(frozen=True)
class CellResults:
    """A cell's results with the fingerprint that made them."""

    model: str
    corpus: str
    results: xr.Dataset
    fingerprint: str


def geometry_table(cells: list[CellResults]) -> pd.DataFrame:
    """Return one row for each model, corpus, window, contrast, norms and layer.

    A component's sign is arbitrary, so valence_r and arousal_r are |r|: each component is flipped
    to point the rating's way; rho is Spearman's, likewise. plane_r is the best r of a rating within
    the plane of PC1 and PC2, plane_angle where it lies (0 degrees is PC1, 90 is PC2) and plane_p
    its own p; pc2_valence_r and pc1_arousal_r are those of the pairing turned around. silhouette
    tells positive from negative emotions apart, in all dimensions and on the plane. Depth is layer
    / number of layers; layer -1 is the embedding output.
    """
    frames = []
    for cell in cells:
        results = cell.results
        flat = xr.Dataset(
            {
                "n_emotions": results["n_rated"],
                "n_neutral_components": results["n_neutral_components"],
                "neutral_variance_explained": results["neutral_variance_explained"],
                "pc1_variance": results["explained_variance"].sel(component=1, drop=True),
                "pc2_variance": results["explained_variance"].sel(component=2, drop=True),
                "valence_r": abs(results["r"].sel(component=1, drop=True)),
                "valence_p": results["p"].sel(component=1, drop=True),
                "arousal_r": abs(results["r"].sel(component=2, drop=True)),
                "arousal_p": results["p"].sel(component=2, drop=True),
                "valence_rho": abs(results["rho"].sel(component=1, drop=True)),
                "valence_rho_p": results["rho_p"].sel(component=1, drop=True),
                "arousal_rho": abs(results["rho"].sel(component=2, drop=True)),
                "arousal_rho_p": results["rho_p"].sel(component=2, drop=True),
                **{
                    f"{axis}_{name}": results[name].sel(axis=axis, drop=True)
                    for axis in AXES
                    for name in ("plane_r", "plane_angle", "plane_p")
                },
                "pc2_valence_r": abs(results["cross_r"].sel(axis="valence", drop=True)),
                "pc1_arousal_r": abs(results["cross_r"].sel(axis="arousal", drop=True)),
                "n_neutral": results["n_neutral"],
                "silhouette": results["silhouette"].sel(space="all", drop=True),
                "silhouette_plane": results["silhouette"].sel(space="plane", drop=True),
                "n_corpus_emotions": results["score"]
                .isel(component=0, drop=True)
                .notnull()
                .sum("emotion"),
            }
        )
        frame = flat.to_dataframe().reset_index()
        frames.append(_labelled(frame, cell))
    columns = [
        *("model", "corpus", "window", "contrast", "norms", "layer", "depth"),
        *("n_emotions", "n_corpus_emotions"),
        *("n_neutral", "n_neutral_components", "neutral_variance_explained"),
        *("pc1_variance", "pc2_variance", "valence_r", "valence_p", "arousal_r", "arousal_p"),
        *("valence_rho", "valence_rho_p", "arousal_rho", "arousal_rho_p"),
        *("pc2_valence_r", "pc1_arousal_r"),
        *("valence_plane_r", "valence_plane_angle", "valence_plane_p"),
        *("arousal_plane_r", "arousal_plane_angle", "arousal_plane_p"),
        *("silhouette", "silhouette_plane", "fingerprint"),
    ]
    keys = ["window", "contrast", "norms"]
    return _ordered(pd.concat(frames, ignore_index=True)[columns], cells, keys)


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
        replace(cell, results=_bounded(cell.results.sel(axis=axis, drop=True))) for cell in cells
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
            results = _bounded(cell.results.sel(axis=axis, drop=True))
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
            frames.append(_labelled(frame.assign(axis=axis), cell))
        columns = [
            *("model", "corpus", *keys, "axis", "layer", "depth"),
            *("held_out_r", "half_cosine", "half_cosine_sd", "reliability"),
            *("next_cosine", "next_cosine_bounded"),
            "fingerprint",
        ]
        table = _ordered(pd.concat(frames, ignore_index=True)[columns], cells, keys)
        tables.append(_as_used(table, axis))
    return pd.concat(tables, ignore_index=True)


def _bounded(results: xr.Dataset) -> xr.Dataset:
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
        frames.append(_labelled(frame, cell))
    table = pd.concat(frames, ignore_index=True)
    dimensions = [name for name in table.columns if name.startswith("dimension_")]
    columns = ["model", "corpus", "layer", "depth", *by_layer, *dimensions, "fingerprint"]
    return _ordered(table[columns], cells, [])


def variance_table(cells: list[CellResults]) -> pd.DataFrame:
    """Return where the variance of story vectors is: one row for each cell, window and layer.

    The columns are those of `analysis.variance.VarianceShares`.
    """
    frames = []
    for cell in cells:
        shares = cell.results[[f"variance_{name}" for name in SHARES]]
        frame = shares.to_dataframe().reset_index()
        frame = frame.rename(columns={f"variance_{name}": name for name in SHARES})
        frames.append(_labelled(frame, cell))
    columns = ["model", "corpus", "window", "layer", "depth", *SHARES, "fingerprint"]
    return _ordered(pd.concat(frames, ignore_index=True)[columns], cells, ["window"])


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
        frames.append(_labelled(flat.to_dataframe().reset_index(), cell))
    table = pd.concat(frames, ignore_index=True)
    keys = ["window", "contrast", "norms"]
    lead = ["model", "corpus", *keys, "layer", "depth"]
    return _ordered(table[[*lead, *figures, *tokens, "fingerprint"]], cells, keys)


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


def peaks(geometry: pd.DataFrame) -> pd.DataFrame:
    """Return the row with the largest valence_r of each cell, window, contrast and norms.

    The embedding output (layer -1) is a baseline and cannot be a peak.
    """
    keys = ["model", "corpus", "window", "contrast", "norms"]
    blocks = geometry[geometry["layer"] >= 0].dropna(subset="valence_r")
    rows = blocks.groupby(keys, sort=False)["valence_r"].idxmax()
    return geometry.loc[rows.to_numpy()].reset_index(drop=True)


def _pairs(cells: list[CellResults], names: list[str], keys: list[str]) -> pd.DataFrame:
    frames = []
    for cell in cells:
        values = cell.results[names].drop_vars("depth")
        frame = values.to_dataframe().reset_index()
        frames.append(_labelled(frame[frame["layer"] <= frame["layer_b"]], cell))
    columns = ["model", "corpus", *keys, "layer", "layer_b", *names, "fingerprint"]
    table = pd.concat(frames, ignore_index=True)[columns]
    return _ordered(table, cells, [*keys, "layer"], last="layer_b")


def _labelled(frame: pd.DataFrame, cell: CellResults) -> pd.DataFrame:
    return frame.assign(
        model=cell.model, corpus=cell.corpus, fingerprint=cell.fingerprint[:FINGERPRINT_DIGITS]
    )


def _ordered(
    table: pd.DataFrame, cells: list[CellResults], keys: list[str], last: str = "layer"
) -> pd.DataFrame:
    """Order rows as the manifest does: cells, then each key in its own order, then layers."""
    order = {(cell.model, cell.corpus): i for i, cell in enumerate(cells)}
    rank = pd.DataFrame(index=table.index)
    rank["cell"] = [order[key] for key in zip(table["model"], table["corpus"], strict=True)]
    for key in [*keys, last]:
        values = table[key]
        rank[key] = values if values.dtype.kind in "if" else pd.factorize(np.asarray(values))[0]
    return table.loc[rank.sort_values(list(rank.columns)).index].reset_index(drop=True)
