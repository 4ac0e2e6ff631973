"""Emotions on the plane of PC1 and PC2."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any, cast

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float64
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy import ndarray

from analysis.figures.labels import decimal, label_points
from analysis.figures.style import (
    RATED,
    cell_name,
    colour_bar,
    entry,
    models_of,
    settle,
    styled,
)
from analysis.peak_layers import shown_layers
from analysis.results import CellResults

MAX_ALL_LABELLED = 60
"""Up to this many emotions every one is labelled; of more, those whose label finds a free place."""


@styled
def pca_maps(
    cells: list[CellResults], geometry: pd.DataFrame, contrast: str, norms: str, window: str
) -> Figure:
    """Draw the emotions on PC1 and PC2 at each layer where a corpus of their model peaks.

    A peak is where PC1 follows valence best. A model's corpora stand side by side, in a row for
    each layer at which one of them peaks, so that they are seen at one layer too; where each model
    reads one corpus only, two share a row. Components point the way of their rating (r > 0). Up to
    MAX_ALL_LABELLED emotions all are named, of more those whose name finds a free place, from the
    outside in.

    Args:
        cells: cells of one run.
        geometry: the same cells' table, as `geometry_table` returns it.
        contrast: contrast of cells and table.
        norms: norms of cells and table.
        window: window of cells and table.
    """
    layers_of = {m: shown_layers(geometry, m, window, contrast, norms) for m in models_of(cells)}
    of_model = {m: [cell for cell in cells if cell.model == m] for m in layers_of}
    most = max(len(own) for own in of_model.values())
    panels: list[tuple[CellResults, int | None] | None] = []
    for model, own in of_model.items():
        for layer in layers_of[model] or [None]:
            panels += [(cell, layer) for cell in own]
            panels += [None] * (most - len(own))
    n_columns = most if most > 1 else min(2, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure = Figure(figsize=(0.9 + 5.6 * n_columns, 0.5 + 4.9 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    ratings = [c.results["rating"].sel(norms=norms, axis="valence").to_numpy() for c in cells]
    rated = np.concatenate(ratings)
    rated = rated[np.isfinite(rated)]
    scale = colors.Normalize(*((rated.min(), rated.max()) if len(rated) else (None, None)))
    found = []
    for ax, panel in zip_longest(axes.flat, panels):
        if panel is None:
            ax.set_axis_off()
            continue
        cell, layer = panel
        if layer is None:
            ax.set_title(f"{cell_name(cell)}\nno layer has an r with valence")
            ax.set_axis_off()
            continue
        own_peak = cell.corpus in layers_of[cell.model][layer]
        point = cell.results.sel(window=window, contrast=contrast, layer=layer)
        score_EX = _draw_map(ax, cell, point, norms, scale, own_peak)
        found.append((ax, [str(e) for e in point["emotion"].to_numpy()], score_EX))
    if found:
        colour_bar(figure, axes, RATED, scale, f"valence rating ({norms})")
        figure.legend(handles=_map_legend(), ncols=3, loc="outside lower left")
    what = "Emotions at the layers where PC1 follows valence best"
    settle(figure, f"{what}; window {window}, contrast {contrast}")
    for ax, emotions, score_EX in found:
        label_points(ax, emotions, score_EX, keep_all=len(emotions) <= MAX_ALL_LABELLED)
    return figure


def _draw_map(
    ax: Axes,
    cell: CellResults,
    point: xr.Dataset,
    norms: str,
    scale: colors.Normalize,
    own_peak: bool,
) -> Float64[ndarray, "emotion 2"]:
    """Draw one cell's emotions at one layer and return where they are."""
    r = point["r"].sel(norms=norms).to_numpy()
    score_EX = (point["score"].to_numpy() * np.where(r < 0, -1.0, 1.0)[:, None]).T
    rating_E = cell.results["rating"].sel(norms=norms, axis="valence").to_numpy()
    _emotion_map(ax, score_EX, rating_E, scale)
    n, (v, a) = int(point["n_rated"].sel(norms=norms)), (decimal(x) for x in abs(r))
    apart = [
        decimal(float(point["silhouette"].sel(norms=norms, space=s))) for s in ("plane", "all")
    ]
    layer = f"layer {int(point['layer'])}{', its peak' if own_peak else ''}"
    ax.set_title(
        f"{cell_name(cell)}: {layer}\nr (n = {n}): valence {v}, arousal {a}\n"
        f"positive against negative: silhouette {apart[0]} here, {apart[1]} in all dimensions"
    )
    for axis, share in zip((ax.xaxis, ax.yaxis), point["explained_variance"], strict=True):
        name = f"PC{int(share['component'])}"
        axis.set_label_text(f"{name} ({100 * float(share):.0f} % of variance)")
    return score_EX


def _emotion_map(
    ax: Axes,
    score_EX: Float64[ndarray, "emotion 2"],
    rating_E: Float64[ndarray, " emotion"],
    scale: colors.Normalize,
) -> None:
    """Draw emotions as points: the colour is the rating, the shape its half of the scale."""
    for at in (ax.axhline, ax.axvline):
        at(0, color="0.85", linewidth=0.6, zorder=0)
    middle = (cast(float, scale.vmin) + cast(float, scale.vmax)) / 2
    look: dict[str, Any] = {"cmap": RATED, "norm": scale, "edgecolors": "0.3", "linewidths": 0.4}
    for marker, some in {"^": rating_E >= middle, "v": rating_E < middle}.items():
        x, y = score_EX[some].T
        ax.scatter(x, y, s=20, c=rating_E[some], marker=marker, **look)
    x, y = score_EX[np.isnan(rating_E)].T
    ax.scatter(x, y, s=12, facecolors="none", edgecolors="0.6")
    ax.margins(0.07)


def _map_legend() -> list[Line2D]:
    return [
        entry("rated in the upper half of the scale shown", marker="^"),
        entry("in the lower half", marker="v"),
        entry("unrated", marker="o", markerfacecolor="none", color="0.6"),
    ]
