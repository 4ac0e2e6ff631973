"""Heat maps of layers against layers."""

from __future__ import annotations

import numpy as np
from matplotlib import colors
from matplotlib.figure import Figure

from analysis.figures.labels import decimal
from analysis.figures.style import (
    SIMILARITY,
    blank_name,
    blocks_of,
    cell_name,
    colour_bar,
    extra_height,
    heat_map,
    least,
    settle,
    signed_look,
    styled,
)
from analysis.results import CellResults

COMPOSITE = "paper"
"""An estimator that is another one at each layer, and not drawn."""


@styled
def cka_grids(cells: list[CellResults], contrast: str) -> Figure:
    """Draw linear CKA between every two layers: a row for each cell, a column for each window."""
    windows = [str(w) for w in cells[0].results["window"].to_numpy()]
    size = (0.9 + 2.3 * len(windows), 0.75 + (2.6 + extra_height(cells)) * len(cells))
    figure = Figure(figsize=size, layout="compressed")
    axes = figure.subplots(len(cells), len(windows), squeeze=False)
    scale = colors.Normalize(0, 1)
    for row, cell in zip(axes, cells, strict=True):
        for ax, window in zip(row, windows, strict=True):
            grid = blocks_of(cell.results["cka"].sel(contrast=contrast, window=window))
            heat_map(ax, grid, SIMILARITY, scale, first=ax is row[0])
            name = cell_name(cell) if ax is row[0] else blank_name(cell)
            ax.set_title(f"{name}\n{window}, min {decimal(least(grid))}")
            ax.set_xlabel("layer" if cell is cells[-1] else "")
    colour_bar(figure, axes, SIMILARITY, scale, "linear CKA")
    settle(figure, f"Similarity of layers; contrast {contrast}")
    return figure


@styled
def cka_estimators(cells: list[CellResults], contrast: str, window: str) -> Figure:
    """Draw CKA plain, debiased, and without each layer's largest dimensions: a row for each cell.

    Debiased CKA is what is left when as many emotions as dimensions can no longer look alike by
    chance; it may lie below 0, which is drawn as 0.
    """
    ways = {
        "cka": "plain",
        "cka_debiased": "debiased",
        "without_cka_grid": "3 dimensions left out",
    }
    size = (0.9 + 2.3 * len(ways), 0.75 + (2.6 + extra_height(cells)) * len(cells))
    figure = Figure(figsize=size, layout="compressed")
    axes = figure.subplots(len(cells), len(ways), squeeze=False)
    scale = colors.Normalize(0, 1)
    for row, cell in zip(axes, cells, strict=True):
        for ax, (name, way) in zip(row, ways.items(), strict=True):
            grid = blocks_of(cell.results[name].sel(contrast=contrast, window=window))
            heat_map(ax, grid, SIMILARITY, scale, first=ax is row[0])
            name = cell_name(cell) if ax is row[0] else blank_name(cell)
            ax.set_title(f"{name}\n{way}, min {decimal(least(grid))}")
            ax.set_xlabel("layer" if cell is cells[-1] else "")
    colour_bar(figure, axes, SIMILARITY, scale, "linear CKA")
    settle(figure, f"Similarity of layers, three ways; window {window}, contrast {contrast}")
    return figure


@styled
def valence_direction_cosines(
    cells: list[CellResults], contrast: str, norms: str, window: str
) -> Figure:
    """Draw cosines of valence directions between layers: a row per cell, a column per estimator.

    Where next to none is negative the colours begin at the least cosine.

    Below each heat map, the cosine of each layer's direction with the next one's.
    """
    shown = cells[0].results["estimator"].to_numpy()
    estimators = [str(e) for e in shown if e != COMPOSITE]
    where = {"contrast": contrast, "norms": norms, "window": window, "axis": "valence"}
    grids = [
        [blocks_of(c.results["direction_cosine"].sel(where | {"estimator": e})) for e in estimators]
        for c in cells
    ]
    lowest = least(np.concatenate([np.diagonal(grid, 1) for row in grids for grid in row]))
    size = (1.0 + 2.4 * len(estimators), 0.55 + (3.4 + extra_height(cells)) * len(cells))
    figure = Figure(figsize=size, layout="compressed")
    axes = figure.subplots(len(cells), len(estimators), squeeze=False)
    every = np.concatenate([grid.to_numpy().ravel() for row in grids for grid in row])
    cmap, scale = signed_look(every, 1.0)
    for row, cell, row_grids in zip(axes, cells, grids, strict=True):
        for ax, estimator, grid in zip(row, estimators, row_grids, strict=True):
            heat_map(ax, grid, cmap, scale, first=ax is row[0])
            name = cell_name(cell) if ax is row[0] else blank_name(cell)
            ax.set_title(f"{name}\n{'pc1' if estimator == 'component' else estimator}")
            ax.tick_params(labelbottom=False)
            below = ax.inset_axes((0, -0.36, 1, 0.3), sharex=ax)
            below.axhline(0, color="0.85", linewidth=0.6, zorder=0)
            step = np.diagonal(grid, 1)
            below.plot(np.arange(len(step)) + 0.5, step, color="0.2", marker=".", markersize=3)
            below.set(xlabel="layer", ylim=(-1.05 if lowest < 0 else 0, 1.05))
            below.tick_params(labelleft=ax is row[0])
            if ax is row[0]:
                below.set_ylabel("cosine with\nnext layer")
    colour_bar(figure, axes, cmap, scale, "cosine of valence directions")
    settle(figure, f"Valence directions over layers; window {window}, contrast {contrast}, {norms}")
    return figure
