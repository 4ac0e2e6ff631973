"""How every figure looks: colours, lines, heat maps, names; sizes are in `emovec.mplstyle`."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import xarray as xr
from matplotlib import colors, style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy import ndarray
from numpy.typing import ArrayLike

from analysis.figures.palette import palette_colour
from analysis.results import CellResults

STYLE = Path(__file__).with_name("emovec.mplstyle")
SIMILARITY = "cividis"
RATED = "RdBu_r"
"""Of ratings, whose halves of the scale the marks' shapes tell apart."""

SIGNED_COLOURS = ("#08264f", "#3a6bb0", "#9b9b9b", "#f0a868", "#fff3c9")
SIGNED = colors.LinearSegmentedColormap.from_list("signed", SIGNED_COLOURS)
"""From negative (dark blue) over 0 (grey) to positive (light orange): the lightness rises all the
way, so that the sign is read in grey too. The page has the same colours."""

SCARCE = 0.01
"""Share of values below 0 up to which a scale runs from the least value, not from both sides."""

LINES: tuple[Any, ...] = ("-", "--", "-.", (0, (6, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "D", "^", "v", "P", "X")

Cmap = str | colors.Colormap

_P = ParamSpec("_P")
_T = TypeVar("_T")
_style_lock = threading.RLock()
_number: ContextVar[str] = ContextVar("number", default="")


@contextmanager
def in_style() -> Iterator[None]:
    """Let matplotlib draw in our style only, which it keeps per process, hence the lock."""
    with _style_lock, style.context(STYLE, after_reset=True):
        yield


def styled(draw: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let a function draw in our style."""

    @functools.wraps(draw)
    def styled(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with in_style():
            return draw(*args, **kwargs)

    return styled


@contextmanager
def numbered(page: int, pages: int) -> Iterator[None]:
    """Have titles of figures say which of several pages they are."""
    token = _number.set(f", page {page} of {pages}" if pages > 1 else "")
    try:
        yield
    finally:
        _number.reset(token)


def settle(figure: Figure, title: str) -> None:
    """Add the title and arrange the axes for good: labels can be placed, saving moves nothing."""
    figure.suptitle(title + _number.get(), x=0.01, ha="left")
    FigureCanvasAgg(figure)
    layout = figure.get_layout_engine()
    assert layout is not None
    layout.execute(figure)
    figure.set_layout_engine("none")


def signed_look(values: ArrayLike, largest: float) -> tuple[Cmap, colors.Normalize]:
    """Return the colours and the scale of values that may lie on both sides of 0.

    Args:
        values: all that are drawn, NaN where one is missing.
        largest: where the scale ends.
    """
    numbers = np.asarray(values, dtype=float)
    numbers = numbers[np.isfinite(numbers)]
    if numbers.size and (numbers < 0).mean() <= SCARCE:
        return SIMILARITY, colors.Normalize(float(numbers.min()), largest)
    return SIGNED, colors.Normalize(-largest, largest)


def colour_bar(
    figure: Figure,
    axes: ndarray,
    cmap: Cmap,
    scale: colors.Normalize,
    label: str,
    extend: str = "neither",
) -> None:
    """Add one colour bar, as tall as one row of panels, for a grid of axes.

    `extend` is the end of the scale, `min` or `max`, that some values lie beyond.
    """
    figure.colorbar(
        ScalarMappable(scale, cmap),
        ax=axes,
        shrink=0.9 / len(axes),
        pad=0.02,
        label=label,
        extend=extend,
    )


def heat_map(
    ax: Axes, grid: xr.DataArray, cmap: Cmap, scale: colors.Normalize, first: bool
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


@dataclass(frozen=True)
class Looks:
    """What a model and a corpus look like, the same in every figure of a run.

    Attributes:
        place: of each model in the palette.
        line: line style and marker of each corpus.
    """

    place: dict[str, int]
    line: dict[str, tuple[Any, str]]

    @property
    def colour(self) -> dict[str, tuple[float, float, float]]:
        """Colour of each model on white."""
        return {model: palette_colour(place) for model, place in self.place.items()}


def looks_of(*runs: Sequence[tuple[str, str]]) -> Looks:
    """Return the looks of the cells of one run or several, given by model and corpus, in order.

    A model has the colour of its place in its run, since the first colours of the palette are the
    easiest to tell apart, and models added to the end of a manifest take no other's colour. Beside
    other runs a model keeps it unless a model of an earlier run has it; those that have to make
    way take the first colours that are free.
    """
    place: dict[str, int] = {}
    for models in [list(dict.fromkeys(model for model, _ in cells)) for cells in runs]:
        for own, model in enumerate(models):
            if model not in place and own not in place.values():
                place[model] = own
    every = dict.fromkeys(model for cells in runs for model, _ in cells)
    taken = set(place.values())
    free = (i for i in count() if i not in taken)
    place = {model: place[model] if model in place else next(free) for model in every}
    corpora = dict.fromkeys(corpus for cells in runs for _, corpus in cells)
    return Looks(
        place,
        {
            corpus: (LINES[i % len(LINES)], MARKERS[i % len(MARKERS)])
            for i, corpus in enumerate(corpora)
        },
    )


def mixed(colour: Any, other: Any, share: float) -> tuple[float, float, float]:
    """Return a colour with a share of another one."""
    both = zip(colors.to_rgb(colour), colors.to_rgb(other), strict=True)
    red, green, blue = (a + share * (b - a) for a, b in both)
    return red, green, blue


def cell_name(cell: CellResults) -> str:
    """Return the cell's name, on two lines if it is long."""
    short = len(cell.model) + len(cell.corpus) < 30
    return f"{cell.model}@{cell.corpus}" if short else f"{cell.model}\n@{cell.corpus}"


def blank_name(cell: CellResults) -> str:
    """Return as many line breaks as the cell's name has, for panels beside the named one."""
    return "\n" * cell_name(cell).count("\n")


def extra_height(cells: list[CellResults]) -> float:
    """Return the height in inches that long names take in the title of each row of panels."""
    return 0.14 * max(cell_name(cell).count("\n") for cell in cells)


def models_of(cells: list[CellResults]) -> list[str]:
    """Return each model once, in the order of the cells."""
    return list(dict.fromkeys(cell.model for cell in cells))


def span(numbers: Collection[int]) -> str:
    """Return `82`, or `80 to 82` where numbers differ."""
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def least(values: ArrayLike) -> float:
    """Return the smallest number that is there."""
    numbers = np.asarray(values)
    finite = numbers[np.isfinite(numbers)]
    return float(finite.min()) if finite.size else float("nan")


def entry(label: str, **look: Any) -> Line2D:
    """Return an entry of a legend."""
    return Line2D([], [], **({"color": "0.3", "linestyle": "none", "label": label} | look))


def blocks_of(grid: xr.DataArray) -> xr.DataArray:
    """Return a layer by layer grid without the embedding output."""
    grid = grid.sel(layer=grid["layer"] >= 0, layer_b=grid["layer_b"] >= 0)
    return grid.transpose("layer", "layer_b")
