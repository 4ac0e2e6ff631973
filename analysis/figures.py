"""Pictures of a run, each a pure function from labelled results to a matplotlib figure.

What is drawn is decided here and how it looks in `emovec.mplstyle`. A value that is missing is
a gap, in lines and in heat maps, and never a zero. Nothing here opens a window or keeps a figure.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, ParamSpec, cast

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float64
from matplotlib import colors, rcParams, style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy import ndarray
from numpy.typing import ArrayLike

from analysis.labels import RING, Curve, decimal, label_peaks, label_points
from analysis.layer import GEOMETRY
from analysis.peak_layers import shown_layers
from analysis.tables import CellResults

STYLE = Path(__file__).with_name("emovec.mplstyle")
SIGNIFICANT = 0.05
MAX_ALL_LABELLED = 60
"""Up to this many emotions every one is labelled; of more, those whose label finds a free place."""

SIMILARITY, SIGNED = "cividis", "RdBu_r"
LINES: tuple[Any, ...] = ("-", "--", "-.", (0, (6, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
PREFERRED_WINDOW = "no-first"
COMPOSITE = "paper"
"""An estimator that is another one at each layer, and not drawn."""

_P = ParamSpec("_P")
_style_lock = threading.RLock()


def _styled(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """Draw in our style only; matplotlib keeps styles per process, hence the lock."""

    @functools.wraps(draw)
    def styled(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        with _style_lock, style.context(STYLE, after_reset=True):
            return draw(*args, **kwargs)

    return styled


@_styled
def trajectories(geometry: pd.DataFrame, contrast: str, norms: str) -> Figure:
    """Draw how closely PC1 follows valence and PC2 arousal over depth, a row for each window.

    One colour for each model, one line style and marker for each corpus. A filled marker is a
    layer with p < .05, a dotted line the embedding output, a ring the peak with its layer and |r|.

    Args:
        geometry: as `geometry_table` returns it.
        contrast: contrast in the table.
        norms: norms in the table.

    Raises:
        ValueError: the table has no row for this contrast and these norms.
    """
    table = geometry[(geometry["contrast"] == contrast) & (geometry["norms"] == norms)]
    if table.empty:
        raise ValueError(f"the geometry has no row for contrast {contrast!r} and norms {norms!r}")
    windows = list(dict.fromkeys(table["window"]))
    colour_of = {model: _colour(i) for i, model in enumerate(dict.fromkeys(geometry["model"]))}
    look_of = {
        corpus: (LINES[i % len(LINES)], MARKERS[i % len(MARKERS)])
        for i, corpus in enumerate(dict.fromkeys(geometry["corpus"]))
    }
    figure = Figure(figsize=(8, 1.5 + 2.5 * len(windows)), layout="constrained")
    axes = figure.subplots(len(windows), 2, sharex=True, sharey=True, squeeze=False)
    n = _span(table["n_emotions"])
    found = []
    for row, window in zip(axes, windows, strict=True):
        for ax, rating, component in zip(row, ("valence", "arousal"), (1, 2), strict=True):
            lines = []
            cells = table[table["window"] == window].groupby(["model", "corpus"], sort=False)
            for (model, corpus), cell in cells:
                line, marker = look_of[corpus]
                lines.append(_trajectory(ax, cell, rating, colour_of[model], line, marker))
            found.append((ax, lines))
            ax.set_title(f"window: {window}")
            ax.set_ylabel(f"|r|, PC{component} and {rating}\n({norms}, n = {n})")
            ax.tick_params(labelleft=True)
            ax.set(xlim=(-0.01, 1.01), ylim=(0, 1.1), yticks=np.linspace(0, 1, 6))
            ax.spines["left"].set_bounds(0, 1)
    for ax in axes[-1]:
        ax.set_xlabel("depth (layer / layers)")
    figure.legend(handles=_trajectory_legend(colour_of, look_of), ncols=3, loc="outside lower left")
    _settle(figure, f"Valence and arousal over depth; contrast {contrast}")
    for ax, lines in found:
        label_peaks(ax, lines)
    return figure


@_styled
def cka_grids(cells: list[CellResults], contrast: str) -> Figure:
    """Draw linear CKA between every two layers: a row for each cell, a column for each window."""
    windows = [str(w) for w in cells[0].results["window"].to_numpy()]
    size = (0.9 + 2.3 * len(windows), 0.75 + (2.45 + _extra(cells)) * len(cells))
    figure = Figure(figsize=size, layout="compressed")
    axes = figure.subplots(len(cells), len(windows), squeeze=False)
    scale = colors.Normalize(0, 1)
    for row, cell in zip(axes, cells, strict=True):
        for ax, window in zip(row, windows, strict=True):
            grid = _blocks(cell.results["cka"].sel(contrast=contrast, window=window))
            _heat_map(ax, grid, SIMILARITY, scale, first=ax is row[0])
            ax.set_title(f"{_name(cell)}\n{window}, min {decimal(_least(grid))}")
            ax.set_xlabel("layer" if cell is cells[-1] else "")
    _colour_bar(figure, axes, SIMILARITY, scale, "linear CKA")
    _settle(figure, f"Similarity of layers; contrast {contrast}")
    return figure


@_styled
def valence_direction_cosines(
    cells: list[CellResults], contrast: str, norms: str, window: str
) -> Figure:
    """Draw cosines of valence directions between layers: a row per cell, a column per estimator.

    Below each heat map, the cosine of each layer's direction with the next one's.
    """
    shown = cells[0].results["estimator"].to_numpy()
    estimators = [str(e) for e in shown if e != COMPOSITE]
    where = {"contrast": contrast, "norms": norms, "window": window, "axis": "valence"}
    grids = [
        [_blocks(c.results["direction_cosine"].sel(where | {"estimator": e})) for e in estimators]
        for c in cells
    ]
    lowest = _least(np.concatenate([np.diagonal(grid, 1) for row in grids for grid in row]))
    size = (1.0 + 2.4 * len(estimators), 0.55 + (3.4 + _extra(cells)) * len(cells))
    figure = Figure(figsize=size, layout="compressed")
    axes = figure.subplots(len(cells), len(estimators), squeeze=False)
    scale = colors.Normalize(-1, 1)
    for row, cell, row_grids in zip(axes, cells, grids, strict=True):
        for ax, estimator, grid in zip(row, estimators, row_grids, strict=True):
            _heat_map(ax, grid, SIGNED, scale, first=ax is row[0])
            ax.set_title(f"{_name(cell)}\n{'pc1' if estimator == 'component' else estimator}")
            ax.tick_params(labelbottom=False)
            below = ax.inset_axes((0, -0.36, 1, 0.3), sharex=ax)
            below.axhline(0, color="0.85", linewidth=0.6, zorder=0)
            step = np.diagonal(grid, 1)
            below.plot(np.arange(len(step)) + 0.5, step, color="0.2", marker=".", markersize=3)
            below.set(xlabel="layer", ylim=(-1.05 if lowest < 0 else 0, 1.05))
            below.tick_params(labelleft=ax is row[0])
            if ax is row[0]:
                below.set_ylabel("cosine with\nnext layer")
    _colour_bar(figure, axes, SIGNED, scale, "cosine of valence directions")
    used = GEOMETRY.get(contrast, contrast)
    _settle(figure, f"Valence directions over layers; window {window}, contrast {used}, {norms}")
    return figure


@_styled
def pca_maps(
    cells: list[CellResults], geometry: pd.DataFrame, contrast: str, norms: str, window: str
) -> Figure:
    """Draw the emotions on PC1 and PC2 at each layer where a corpus of their model peaks.

    A peak is where PC1 follows valence best. A row for each cell, with its own peak and those of
    its model's other corpora, so that corpora are seen at one layer too; where every model has one
    such layer, two cells share a row. Components point the way of their rating (r > 0). Up to
    MAX_ALL_LABELLED emotions all are named, of more those whose name finds a free place, from the
    outside in.

    Args:
        cells: cells of one run.
        geometry: the same cells' table, as `geometry_table` returns it.
        contrast: contrast of cells and table.
        norms: norms of cells and table.
        window: window of cells and table.
    """
    layers_of = {m: shown_layers(geometry, m, window, contrast, norms) for m in _models(cells)}
    most = max(len(layers) for layers in layers_of.values())
    panels: list[tuple[CellResults, int | None] | None] = []
    for cell in cells:
        own: list[tuple[CellResults, int | None] | None] = [
            (cell, layer) for layer in layers_of[cell.model]
        ] or [(cell, None)]
        panels += own + [None] * (most - len(own))
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
            ax.set_title(f"{_name(cell)}\nno layer has an r with valence")
            ax.set_axis_off()
            continue
        own_peak = cell.corpus in layers_of[cell.model][layer]
        point = cell.results.sel(window=window, contrast=contrast, layer=layer)
        score_EX = _draw_map(ax, cell, point, norms, scale, own_peak)
        found.append((ax, [str(e) for e in point["emotion"].to_numpy()], score_EX))
    if found:
        _colour_bar(figure, axes, SIGNED, scale, f"valence rating ({norms})")
        figure.legend(handles=_map_legend(), ncols=3, loc="outside lower left")
    what = "Emotions at the layers where PC1 follows valence best"
    _settle(figure, f"{what}; window {window}, contrast {contrast}")
    for ax, emotions, score_EX in found:
        label_points(ax, emotions, score_EX, keep_all=len(emotions) <= MAX_ALL_LABELLED)
    return figure


def _models(cells: list[CellResults]) -> list[str]:
    return list(dict.fromkeys(cell.model for cell in cells))


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
        f"{_name(cell)}: {layer}\nr (n = {n}): valence {v}, arousal {a}\n"
        f"positive against negative: silhouette {apart[0]} here, {apart[1]} in all dimensions"
    )
    for axis, share in zip((ax.xaxis, ax.yaxis), point["explained_variance"], strict=True):
        name = f"PC{int(share['component'])}"
        axis.set_label_text(f"{name} ({100 * float(share):.0f} % of variance)")
    return score_EX


def draw_all(cells: list[CellResults], geometry: pd.DataFrame) -> dict[str, Figure]:
    """Draw every figure by name, for the first contrast and norms of the run.

    The figures of one window show `no-first` where it was kept, else the first window.

    Raises:
        ValueError: there is no cell to draw.
    """
    if not cells:
        raise ValueError("there is no cell to draw")
    results = cells[0].results
    contrast, norms = (str(results[name].to_numpy()[0]) for name in ("contrast", "norms"))
    windows = [str(w) for w in results["window"].to_numpy()]
    window = PREFERRED_WINDOW if PREFERRED_WINDOW in windows else windows[0]
    return {
        "trajectories": trajectories(geometry, contrast, norms),
        "cka": cka_grids(cells, contrast),
        "valence_directions": valence_direction_cosines(cells, contrast, norms, window),
        "pca_map": pca_maps(cells, geometry, contrast, norms, window),
    }


def save_figures(folder: Path, figures: Mapping[str, Figure]) -> list[Path]:
    """Write each figure as `<name>.png` (200 dots per inch) and `<name>.pdf`, each file whole.

    The same figure gives the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    metadata: dict[str, Any] = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
    for name, figure in figures.items():
        for kind, about in metadata.items():
            file = folder / f"{name}.{kind}"
            partial = folder / f"{file.name}.partial"
            with _style_lock, style.context(STYLE, after_reset=True):
                figure.savefig(partial, format=kind, dpi=200, metadata=about)
            partial.replace(file)
            files.append(file)
    return files


def _settle(figure: Figure, title: str) -> None:
    """Add the title and arrange the axes for good: labels can be placed, saving moves nothing."""
    figure.suptitle(title, x=0.01, ha="left")
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def _colour_bar(
    figure: Figure, axes: ndarray, cmap: str, scale: colors.Normalize, label: str
) -> None:
    """Add one colour bar, as tall as one row of panels, for a grid of axes."""
    mappable = ScalarMappable(scale, cmap)
    figure.colorbar(mappable, ax=axes, shrink=0.9 / len(axes), pad=0.02, label=label)


def _colour(i: int) -> tuple[float, float, float]:
    """Return the i-th colour of the palette; once it is used up, the same in a paler shade."""
    palette = rcParams["axes.prop_cycle"].by_key()["color"]
    return _mixed(palette[i % len(palette)], "white", 1 - 0.6 ** (i // len(palette)))


def _mixed(colour: Any, other: Any, share: float) -> tuple[float, float, float]:
    """Return a colour with a share of another one."""
    both = zip(colors.to_rgb(colour), colors.to_rgb(other), strict=True)
    red, green, blue = (a + share * (b - a) for a, b in both)
    return red, green, blue


def _name(cell: CellResults) -> str:
    """Return the cell's name, on two lines if it is long."""
    short = len(cell.model) + len(cell.corpus) < 30
    return f"{cell.model}@{cell.corpus}" if short else f"{cell.model}\n@{cell.corpus}"


def _extra(cells: list[CellResults]) -> float:
    """Return the height in inches that long names take in the title of each row of panels."""
    return 0.14 * max(_name(cell).count("\n") for cell in cells)


def _span(numbers: Iterable[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def _least(values: ArrayLike) -> float:
    numbers = np.asarray(values)
    finite = numbers[np.isfinite(numbers)]
    return float(finite.min()) if finite.size else float("nan")


def _trajectory(
    ax: Axes, cell: pd.DataFrame, rating: str, colour: Any, line: Any, marker: str
) -> Curve:
    """Draw one curve with its baseline."""
    blocks = cell[cell["layer"] >= 0].sort_values("layer")
    x, y = blocks["depth"].to_numpy(), blocks[f"{rating}_r"].to_numpy()
    ax.plot(x, y, color=colour, linestyle=line)
    sure = (blocks[f"{rating}_p"] < SIGNIFICANT).to_numpy()
    for at, face in ((sure, colour), (~sure, "white")):
        ax.plot(x[at], y[at], marker, color=colour, markerfacecolor=face)
    for baseline in cell.loc[cell["layer"] == -1, f"{rating}_r"].dropna():
        ax.axhline(baseline, color=colour, linestyle=":", linewidth=0.8)
    return Curve(x, y, [int(i) for i in blocks["layer"]], _mixed(colour, "black", 0.25), marker)


def _entry(label: str, **look: Any) -> Line2D:
    return Line2D([], [], **({"color": "0.3", "linestyle": "none", "label": label} | look))


def _trajectory_legend(
    colour_of: Mapping[str, Any], look_of: Mapping[str, tuple[Any, str]]
) -> list[Line2D]:
    """Return what to read in the legend's three columns: models, corpora and marks."""
    columns = [
        [_entry(m, color=c, linestyle="-", linewidth=2.5) for m, c in colour_of.items()],
        [_entry(c, linestyle=line, marker=m) for c, (line, m) in look_of.items()],
        [
            _entry("p < .05, each layer by itself", marker="o"),
            _entry("p ≥ .05", marker="o", markerfacecolor="white"),
            _entry("peak: layer and |r|", marker="o", **RING),
            _entry("embedding output", linestyle=":", linewidth=0.8),
        ],
    ]
    height = max(len(column) for column in columns)
    return [e for column in columns for e in column + [_entry("")] * (height - len(column))]


def _map_legend() -> list[Line2D]:
    return [
        _entry("rated in the upper half of the scale shown", marker="^"),
        _entry("in the lower half", marker="v"),
        _entry("unrated", marker="o", markerfacecolor="none", color="0.6"),
    ]


def _blocks(grid: xr.DataArray) -> xr.DataArray:
    """Return a layer by layer grid without the embedding output."""
    grid = grid.sel(layer=grid["layer"] >= 0, layer_b=grid["layer_b"] >= 0)
    return grid.transpose("layer", "layer_b")


def _heat_map(
    ax: Axes, grid: xr.DataArray, cmap: str, scale: colors.Normalize, first: bool
) -> None:
    """Draw a layer by layer grid; missing values show the hatched ground."""
    layers = grid["layer"].to_numpy()
    ax.patch.set(hatch="////", edgecolor="0.6")
    ax.imshow(grid.to_numpy(), cmap=cmap, norm=scale)
    step = next(s for s in (1, 2, 5, 10, 20, 50, len(layers)) if len(layers) <= 7 * s)
    at = np.arange(0, len(layers), step)
    ax.set_xticks(at, [str(layers[i]) for i in at])
    ax.set_yticks(at, [str(layers[i]) for i in at])
    ax.tick_params(labelleft=first)
    ax.set_ylabel("layer" if first else "")


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
    look: dict[str, Any] = {"cmap": SIGNED, "norm": scale, "edgecolors": "0.3", "linewidths": 0.4}
    for marker, some in {"^": rating_E >= middle, "v": rating_E < middle}.items():
        x, y = score_EX[some].T
        ax.scatter(x, y, s=20, c=rating_E[some], marker=marker, **look)
    x, y = score_EX[np.isnan(rating_E)].T
    ax.scatter(x, y, s=12, facecolors="none", edgecolors="0.6")
    ax.margins(0.07)
