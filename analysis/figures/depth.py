"""Curves over depth: components with ratings, beside baselines, and massive activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.activations import MASSIVE
from analysis.differences import BASELINES, Correlations, baselines, correlations
from analysis.figures.labels import GLYPHS, RING, Curve, decimal, label_ends, label_peaks
from analysis.figures.style import (
    Looks,
    cell_name,
    entry,
    extra_height,
    least,
    mixed,
    settle,
    span,
    styled,
)
from analysis.inference import SIGNIFICANT
from analysis.predicates import HALFWAY, PEAK_R
from analysis.results import CellResults
from analysis.settings import AXES

DEPTH = "depth (layer / layers)"
NAMES = {
    "embedding": "embedding output",
    "random": "random weights",
    "bag_of_words": "bag of words",
    "lexical": "ratings of the words",
}
GREYS: dict[str, dict[str, Any]] = {
    "embedding": {"color": "0.25", "linestyle": ":"},
    "random": {"color": "0.55", "linestyle": "-"},
    "bag_of_words": {"color": "0.25", "linestyle": "--"},
    "lexical": {"color": "0.45", "linestyle": "-."},
}
RANDOM_BAND: dict[str, Any] = {
    "facecolor": "none",
    "edgecolor": "0.6",
    "linewidth": 0.5,
    "hatch": "////",
}
"""Lines rather than a tint, which would mix with the tint of the interval over it."""

THRESHOLDS = f"claims' thresholds: r = {decimal(PEAK_R)}, depth {decimal(HALFWAY)}"


@styled
def trajectories(
    geometry: pd.DataFrame, contrast: str, norms: str, windows: list[str], looks: Looks
) -> Figure:
    """Draw how closely PC1 follows valence and PC2 arousal over depth, a row for each window.

    One colour for each model, one line style and marker for each corpus. A filled marker is a
    layer with corrected p < .05, a dotted line the embedding output with its corpus' marker and its
    |r| at the end, a ring the peak with its layer
    and |r|. Grey lines are at the r and the depth that claims are decided by.

    Args:
        geometry: as `geometry_table` returns it.
        contrast: contrast in the table.
        norms: norms in the table.
        windows: windows in the table.
        looks: of its models and corpora.

    Raises:
        ValueError: the table has no row for this contrast and these norms.
    """
    table = geometry[(geometry["contrast"] == contrast) & (geometry["norms"] == norms)]
    if table.empty:
        raise ValueError(f"the geometry has no row for contrast {contrast!r} and norms {norms!r}")
    one = len(windows) == 1
    figure = Figure(figsize=(8, 1.5 + (3.1 if one else 2.5) * len(windows)), layout="constrained")
    axes = figure.subplots(len(windows), 2, sharex=True, sharey=True, squeeze=False)
    n = span(table["n_emotions"])
    found = []
    for row, window in zip(axes, windows, strict=True):
        for ax, rating, component in zip(row, AXES, (1, 2), strict=True):
            lines, ends = [], []
            cells = table[table["window"] == window].groupby(["model", "corpus"], sort=False)
            _frame(ax)
            for (model, corpus), cell in cells:
                line, marker = looks.line[str(corpus)]
                colour = looks.colour[str(model)]
                lines.append(_trajectory(ax, cell, rating, colour, line, marker))
                ends += _embedding(ax, cell, rating, lines[-1], colour)
            label_ends(ax, ends)
            found.append((ax, lines))
            ax.set_title(f"PC{component} and {rating}" if one else f"window: {window}")
            ax.set_ylabel(f"|r|, PC{component} and {rating}\n({norms}, n = {n})")
            ax.tick_params(labelleft=True)
    for ax in axes[-1]:
        ax.set_xlabel(DEPTH)
    figure.legend(handles=_trajectory_legend(looks, table), ncols=3, loc="outside lower left")
    shown = f"window {windows[0]}, " if one else ""
    settle(figure, f"Valence and arousal over depth; {shown}contrast {contrast}")
    for ax, lines in found:
        label_peaks(ax, lines)
    return figure


@styled
def beside_baselines(
    cells: list[CellResults],
    others: list[CellResults],
    contrast: str,
    norms: str,
    window: str,
    looks: Looks,
) -> Figure:
    """Draw each cell's r with its interval, and beside it what gives r without the model's doing.

    The band is the interval of what infinitely many stories would give, so r may lie below it, and
    below 0 where the component may point the other way: each component is flipped to point its
    rating's way in the stories at hand. Filled marks are blocks with corrected p < .05. Baselines
    are grey: a hatched band over depth for the model with random weights, and lines.

    Args:
        cells: one row each.
        others: all cells of the run, those with random weights among them.
        contrast: contrast of the cells.
        norms: norms of the cells.
        window: window of the cells.
        looks: of the cells' models.
    """
    height = 0.9 + (2.3 + extra_height(cells)) * len(cells)
    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots(len(cells), 2, sharex=True, sharey=True, squeeze=False)
    at = {"contrast": contrast, "norms": norms, "window": window}
    named: set[str] = set()
    shown: list[tuple[Axes, list[tuple[str, float, Any]]]] = []
    least_low = 0.0
    for row, cell in zip(axes, cells, strict=True):
        n = int(cell.results["n_rated"].sel(at).max())
        for ax, axis, component in zip(row, AXES, (1, 2), strict=True):
            _frame(ax)
            ends = {}
            for name, other in baselines(cell, axis, others).items():
                chosen = _at(other, at)
                if np.isfinite(chosen.r).any():
                    ends[name] = _baseline(ax, cell, chosen, name)
            own = _at(correlations(cell, axis), at)
            depth, r, (low, high) = _over_depth(cell, own)
            colour = looks.colour[cell.model]
            ax.fill_between(depth, low, high, color=colour, alpha=0.25, linewidth=0)
            ax.plot(depth, r, color=colour)
            _marks(ax, depth, r, _p_corrected(cell, at, component) < SIGNIFICANT, colour, "o")
            least_low = min(least_low, least(low))
            ax.set_title(f"{cell_name(cell)}: {axis}")
            ax.set_ylabel(f"r, PC{component} and {axis}\n({norms}, n = {n})")
            ax.tick_params(labelleft=True)
            shown.append((ax, [(decimal(r), r, GREYS[name]["color"]) for name, r in ends.items()]))
            named |= set(ends)
    for ax in axes[-1]:
        ax.set_xlabel(DEPTH)
    bottom = max(-1.0, np.floor(5 * least_low) / 5)
    axes[0, 0].set(
        ylim=(bottom, 1.05), yticks=np.arange(bottom, 1.1, 0.2 if bottom > -0.5 else 0.5)
    )
    for ax, levels in shown:
        ax.spines["left"].set_bounds(bottom, 1)
        if bottom < 0:
            ax.axhline(0, color="0.6", linewidth=0.6, zorder=0)
        label_ends(ax, levels)
    handles: list[Any] = [
        entry("r in these stories, p < .05, corrected", linestyle="-", marker="o"),
        entry("p ≥ .05", marker="o", markerfacecolor="white"),
        Patch(facecolor="0.8", label="95 % interval, infinitely many stories"),
        entry(THRESHOLDS, linestyle="-", color="0.88"),
    ]
    for name in BASELINES:
        if name in named:
            handles.append(entry(NAMES[name], **GREYS[name]))
    if "random" in named:
        handles.append(Patch(label="their 95 % interval", **RANDOM_BAND))
    figure.legend(handles=handles, ncols=3, loc="outside lower left")
    settle(
        figure, f"r with its interval, beside its baselines; window {window}, contrast {contrast}"
    )
    return figure


@styled
def massive_activations(cells: list[CellResults], looks: Looks) -> Figure:
    """Draw over depth how much of a text's residuals one token, and three dimensions, carry."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    tokens, first, dimensions = figure.subplots(1, 3)
    for cell in cells:
        line, marker = looks.line[cell.corpus]
        look = {"color": looks.colour[cell.model], "linestyle": line, "marker": marker}
        blocks = cell.results.sel(layer=slice(0, None))
        depth = blocks["depth"].to_numpy()
        tokens.plot(depth, blocks["peak_ratio"].to_numpy(), **look)
        first.plot(depth, 100 * blocks["first_token_peak"].to_numpy(), **look)
        dimensions.plot(depth, 100 * blocks["top_dimension_share"].sum("rank").to_numpy(), **look)
    tokens.set_yscale("log")
    tokens.yaxis.set_major_formatter("{x:g}")
    tokens.axhline(MASSIVE, color="0.8", linewidth=0.8, zorder=0)
    tokens.set_title("How long a text's longest token is")
    tokens.set_ylabel("its norm / mean norm of the tokens\n(median over texts)")
    first.set_title("How often that is the first token")
    first.set_ylabel("texts (%)")
    dimensions.set_title("What three dimensions carry")
    dimensions.set_ylabel("mean squared norm (%)")
    for ax in (first, dimensions):
        ax.set_ylim(-3, 103)
    for ax in (tokens, first, dimensions):
        ax.set(xlabel=DEPTH, xlim=(-0.02, 1.02))
    models, corpora = (dict.fromkeys(getattr(c, key) for c in cells) for key in ("model", "corpus"))
    handles = [entry(model, color=looks.colour[model], linestyle="-") for model in models]
    handles += [corpus_entry(corpus, looks) for corpus in corpora]
    massive = f"massive: {MASSIVE:g} times the mean"
    handles.append(entry(massive, linestyle="-", color="0.8", linewidth=0.8))
    figure.legend(handles=handles, ncols=4, loc="outside lower left")
    settle(figure, "Massive activations: what one token and three dimensions carry, over depth")
    return figure


def _frame(ax: Axes) -> None:
    """Set the axes of r over depth, with the thresholds of the claims in grey."""
    ax.set(xlim=(-0.01, 1.01), ylim=(0, 1.1), yticks=np.linspace(0, 1, 6))
    ax.spines["left"].set_bounds(0, 1)
    ax.axhline(PEAK_R, color="0.88", linewidth=0.8, zorder=0)
    ax.plot([HALFWAY, HALFWAY], [0, 1], color="0.88", linewidth=0.8, zorder=0)


def _trajectory(
    ax: Axes, cell: pd.DataFrame, rating: str, colour: Any, line: Any, marker: str
) -> Curve:
    """Draw one curve with its baseline."""
    blocks = cell[cell["layer"] >= 0].sort_values("layer")
    x, y = blocks["depth"].to_numpy(), blocks[f"{rating}_r"].to_numpy()
    ax.plot(x, y, color=colour, linestyle=line)
    sure = (blocks[f"{rating}_p_corrected"] < SIGNIFICANT).to_numpy()
    _marks(ax, x, y, sure, colour, marker)
    return Curve(x, y, [int(i) for i in blocks["layer"]], mixed(colour, "black", 0.25), marker)


def _marks(ax: Axes, x: Any, y: Any, sure: Any, colour: Any, marker: str) -> None:
    """Draw marks, filled where sure."""
    for at, face in ((sure, colour), (~sure, "white")):
        ax.plot(x[at], y[at], marker, color=colour, markerfacecolor=face)


def _p_corrected(cell: CellResults, at: dict[str, str], component: int) -> Any:
    """Return a component's p at the blocks, corrected for the search over them."""
    found = cell.results["p_corrected"].sel(at, drop=True).sel(component=component, drop=True)
    return found.sel(layer=slice(0, None)).to_numpy()


def _embedding(
    ax: Axes, cell: pd.DataFrame, rating: str, curve: Curve, colour: Any
) -> list[tuple[str, float, Any]]:
    """Draw the embedding output's r; return what to write at its end: the corpus' marker and r."""
    levels = [float(r) for r in cell.loc[cell["layer"] == -1, f"{rating}_r"].dropna()]
    for level in levels:
        ax.axhline(level, color=colour, linestyle=":", linewidth=0.8)
    return [(f"{GLYPHS[curve.marker]} {decimal(r)}", r, curve.shade) for r in levels]


def _trajectory_legend(looks: Looks, table: pd.DataFrame) -> list[Line2D]:
    """Return what to read in the legend's three columns: models, corpora and marks."""
    models, corpora = (dict.fromkeys(table[key]) for key in ("model", "corpus"))
    columns = [
        [entry(m, color=looks.colour[m], linestyle="-", linewidth=2.5) for m in models],
        [corpus_entry(c, looks) for c in corpora],
        [
            entry("p < .05, corrected for the search", marker="o"),
            entry("p ≥ .05", marker="o", markerfacecolor="white"),
            entry("peak: layer and |r|", marker="o", **RING),
            entry("embedding output, with its |r|", linestyle=":", linewidth=0.8),
            entry(THRESHOLDS, linestyle="-", color="0.88"),
        ],
    ]
    height = max(len(column) for column in columns)
    return [e for column in columns for e in column + [entry("")] * (height - len(column))]


def corpus_entry(corpus: str, looks: Looks) -> Line2D:
    """Return what a legend says of a corpus."""
    line, marker = looks.line[corpus]
    return entry(corpus, linestyle=line, marker=marker)


def _at(found: Correlations, at: dict[str, str]) -> Correlations:
    """Return r and draws at a choice, over layers where they have any."""
    chosen = []
    for values in (found.r, found.draws):
        keys = {key: value for key, value in at.items() if key in values.dims}
        chosen.append(values.sel(keys, drop=True))
    return Correlations(*chosen)


def _over_depth(
    cell: CellResults, found: Correlations
) -> tuple[Any, Any, tuple[xr.DataArray, xr.DataArray]]:
    """Return depth, r and its interval at the blocks."""
    blocks = Correlations(*(v.sel(layer=slice(0, None)) for v in (found.r, found.draws)))
    depth = cell.results["depth"].sel(layer=slice(0, None)).to_numpy()
    return depth, blocks.r.to_numpy(), blocks.interval()


def _baseline(ax: Axes, cell: CellResults, found: Correlations, name: str) -> float:
    """Draw a baseline and return its r at the right edge."""
    if "layer" in found.r.dims:
        depth, r, (low, high) = _over_depth(cell, found)
        ax.fill_between(depth, low, high, zorder=0.5, **RANDOM_BAND)
        ax.plot(depth, r, linewidth=1, zorder=1, **GREYS[name])
        return float(r[-1])
    ax.axhline(float(found.r), linewidth=1, zorder=1, **GREYS[name])
    return float(found.r)
