"""Every cell of a run at a glance: a row each, |r| over depth as colour."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from analysis.figures.depth import DEPTH
from analysis.figures.labels import decimal
from analysis.figures.style import SIMILARITY, entry, settle, span, styled
from analysis.inference import SIGNIFICANT
from analysis.settings import AXES

ROW, GAP = 0.15, 0.35
"""Height of a row in inches, and of the gap between two models in rows."""


@styled
def overview(geometry: pd.DataFrame, contrast: str, norms: str, window: str) -> Figure:
    """Draw how closely PC1 follows valence and PC2 arousal: a row for each cell, depth across.

    A block's colour reaches from its depth to the next one's. The mark is the peak, whose layer
    and |r| stand at the end of the row; it is filled where corrected p < .05.

    Args:
        geometry: as `geometry_table` returns it.
        contrast: contrast in the table.
        norms: norms in the table.
        window: window in the table.
    """
    chosen = {"contrast": contrast, "norms": norms, "window": window}
    table = geometry[(geometry[list(chosen)] == pd.Series(chosen)).all(axis=1)]
    table = table[table["layer"] >= 0]
    cells = [
        (str(model), str(corpus), rows.sort_values("layer"))
        for (model, corpus), rows in table.groupby(["model", "corpus"], sort=False)
    ]
    models = [model for model, *_ in cells]
    changes = np.cumsum([0, *(a != b for a, b in pairwise(models))])
    at = np.arange(len(cells)) + GAP * changes
    figure = Figure(figsize=(8, 1.3 + ROW * (at[-1] + 1)), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    scale = colors.Normalize(0, 1)
    for ax, axis, component in zip(axes, AXES, (1, 2), strict=True):
        for y, (*_, rows) in zip(at, cells, strict=True):
            _row(ax, float(y), rows, axis, scale)
        ax.set(xlim=(0, 1), xlabel=DEPTH, ylim=(at[-1] + 0.5, -0.5))
        ax.set_title(f"PC{component} and {axis}")
        ax.spines["left"].set_visible(False)
        ax.tick_params(left=False)
    axes[0].set_yticks(at, [f"{model}@{corpus}" for model, corpus, _ in cells], fontsize=6)
    inches = figure.get_size_inches()[1]
    figure.colorbar(
        ScalarMappable(scale, SIMILARITY),
        ax=axes,
        shrink=min(0.9, 2.5 / inches),
        anchor=(0, 1),
        label="|r|",
    )
    marks = [
        entry("peak, p < .05, corrected for the search", **_mark(sure=True)),
        entry("peak, p ≥ .05", **_mark(sure=False)),
        entry("at the row's end: layer of the peak and its |r|"),
    ]
    figure.legend(handles=marks, ncols=3, loc="outside lower left")
    n = span(table["n_emotions"])
    settle(figure, f"|r| of every cell; window {window}, contrast {contrast}, {norms} (n = {n})")
    return figure


def _row(ax: Axes, y: float, rows: pd.DataFrame, axis: str, scale: colors.Normalize) -> None:
    """Draw one cell's |r| and its peak."""
    depth, r = rows["depth"].to_numpy(), rows[f"{axis}_r"].to_numpy()
    layers = rows["layer"].to_numpy()
    step = depth[-1] / layers[-1] if layers[-1] else 1.0
    edges = np.append(depth, min(1.0, depth[-1] + step))
    ax.fill_between(
        [0, 1],
        y - 0.46,
        y + 0.46,
        facecolor="none",
        edgecolor="0.8",
        hatch="////",
        linewidth=0,
        zorder=0,
    )
    ax.pcolormesh(edges, [y - 0.46, y + 0.46], r[None], cmap=SIMILARITY, norm=scale)
    if not np.isfinite(r).any():
        return
    peak = int(np.nanargmax(r))
    middle = (edges[peak] + edges[peak + 1]) / 2
    sure = bool(rows[f"{axis}_p_corrected"].to_numpy()[peak] < SIGNIFICANT)
    ax.plot(middle, y, **_mark(sure))
    ax.annotate(
        f"{layers[peak]}: {decimal(r[peak])}",
        (1, y),
        (3, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        fontsize=5.5,
        annotation_clip=False,
    )


def _mark(sure: bool) -> dict[str, Any]:
    face = "#D55E00" if sure else "white"
    return {
        "marker": "o",
        "markersize": 4,
        "color": "black",
        "markerfacecolor": face,
        "markeredgewidth": 0.6,
        "linestyle": "none",
    }
