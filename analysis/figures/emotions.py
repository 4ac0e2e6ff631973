"""Emotions against emotions: cosines of their contrast vectors."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.style import (
    cell_name,
    colour_bar,
    extra_height,
    settle,
    signed_look,
    styled,
)
from analysis.peak_layers import shown_layers
from analysis.results import CellResults
from analysis.similarity import gram_cosines

MAX_NAMES = 30
"""Names that fit beside a heat map; of more emotions, as many at even steps."""


@styled
def emotion_cosines(
    cells: list[CellResults], geometry: pd.DataFrame, contrast: str, norms: str, window: str
) -> Figure:
    """Draw cosines between emotions at each cell's peak, sorted by their valence.

    Rated emotions only, since the others have no place in the order. The colours reach as far as
    the largest |cosine| of two different emotions in any panel, so that the diagonal lies beyond.

    Args:
        cells: cells of one run.
        geometry: the same cells' table, as `geometry_table` returns it.
        contrast: contrast of cells and table.
        norms: norms of cells and table.
        window: window of cells and table.
    """
    panels = []
    for cell in cells:
        layers = shown_layers(geometry, cell.model, window, contrast, norms)
        peak = next((i for i, corpora in layers.items() if cell.corpus in corpora), None)
        panels.append((cell, peak, *_sorted(cell, contrast, norms, window, peak)))
    apart = np.concatenate([_apart(grid) for *_, grid in panels])
    cmap, scale = signed_look(apart, float(np.abs(apart).max(initial=0)) or 1.0)
    n_columns = min(2, len(panels))
    n_rows = -(-len(panels) // n_columns)
    size = (1 + 4.1 * n_columns, 0.6 + (4.1 + extra_height(cells)) * n_rows)
    figure = Figure(figsize=size, layout="compressed")
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, (cell, peak, names, grid) in zip(axes.flat, panels, strict=False):
        if peak is None:
            ax.set_title(f"{cell_name(cell)}\nno layer has an r with valence")
            ax.set_axis_off()
            continue
        ax.imshow(grid, cmap=cmap, norm=scale)
        step = -(-len(names) // MAX_NAMES)
        at = np.arange(0, len(names), step)
        shown = [names[i] for i in at]
        ax.set_xticks(at, shown, rotation=90, fontsize=5.5)
        ax.set_yticks(at, shown, fontsize=5.5)
        unrated = cell.results.sizes["emotion"] - len(names)
        left = f" ({unrated} unrated or without a vector are left out)" if unrated else ""
        ax.set_title(f"{cell_name(cell)}: layer {peak}, its peak\n{len(names)} emotions{left}")
    label = "cosine (1 on the diagonal)"
    colour_bar(figure, axes, cmap, scale, label, extend="max")
    what = f"Cosines between emotions, sorted by valence ({norms}: unpleasant first)"
    steps = sorted({-(-len(names) // MAX_NAMES) for _, _, names, _ in panels if names})
    every = f"; one name in {steps[-1]}" if steps and steps[-1] > 1 else ""
    settle(figure, f"{what}{every}; window {window}, contrast {contrast}")
    return figure


def _sorted(
    cell: CellResults, contrast: str, norms: str, window: str, layer: int | None
) -> tuple[list[str], np.ndarray]:
    """Return the rated emotions with a vector, the most unpleasant first, and their cosines."""
    rating_E = cell.results["rating"].sel(norms=norms, axis="valence").to_numpy()
    emotions = cell.results["emotion"].to_numpy()
    if layer is None:
        return [], np.empty((0, 0))
    gram = cell.results["gram"].sel(contrast=contrast, window=window, layer=layer).to_numpy()
    there = np.flatnonzero(np.isfinite(rating_E) & np.isfinite(np.diag(gram)))
    order = there[np.argsort(rating_E[there], kind="stable")]
    return [str(e) for e in emotions[order]], gram_cosines(gram)[np.ix_(order, order)]


def _apart(grid: np.ndarray) -> np.ndarray:
    """Return the entries of two different emotions."""
    return grid[~np.eye(len(grid), dtype=bool)]
