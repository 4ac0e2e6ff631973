"""Labels in a figure that cover neither each other nor the data.

`place_labels` is plain geometry in any one unit of length; the others apply it to axes whose place
and limits will not change any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from numpy import ndarray

LABEL_POINTS = 6.5
MARK_POINTS = 2.2
"""Half the size of a mark that labels keep clear of, in points (1/72 inch)."""

RING: dict[str, Any] = {"markersize": 8, "markerfacecolor": "none", "markeredgewidth": 1.1}
RING_POINTS = 4.8

GAPS = np.array([0.0, 2, 4, 7, 11, 16, 22, 30, 40, 52, 66, 82, 100, 120, 145])
"""Distances to try, in points beyond the nearest; beyond the second a line leads to the label."""

GLYPHS = {"o": "●", "s": "■", "D": "◆", "^": "▲", "v": "▼", "P": "✚", "X": "✖"}
"""Markers as text."""

SIDES = np.array(
    [
        *[(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)],
        *[(0.5, 1), (-0.5, 1), (0.5, -1), (-0.5, -1)],
    ]
)
"""Sides of a point to try, best first: right, left, above, below, the corners, and between."""

PEAK_SIDES = np.array(
    [
        *[(0, 1), (0.25, 1), (-0.25, 1), (0.5, 1), (-0.5, 1), (1, 1), (-1, 1), (1, 0), (-1, 0)],
        *[(0, -1), (0.25, -1), (-0.25, -1), (0.5, -1), (-0.5, -1), (1, -1), (-1, -1)],
        *[(1, 0.5), (-1, 0.5), (1, -0.5), (-1, -0.5)],
    ]
)
"""The same for a peak: above first, so that a line to a far label is steep."""

END_GAP = 7.0
"""Points from one name at the right edge to the next."""

ROUNDS = 4
"""How often labels that must all be placed are placed anew, to make room for each other."""

STEPS = np.linspace(0.2, 1, 16)
"""Where small boxes stand for the straight way from an anchor (0) to its label (1)."""

LENGTH_WEIGHT = 0.0075
"""What the square of a label's distance counts beside the area that it covers, where all are
placed: next to nothing near by, more than a line of the data for one across the panel."""

LABEL_WEIGHT = 1000.0
"""How much worse it is to cover a label than to cover as much of the data."""


def place_labels(
    anchor_LX: Float64[ndarray, "label 2"],
    size_LX: Float64[ndarray, "label 2"],
    bounds: tuple[float, ...],
    obstacle_OB: Float64[ndarray, "obstacle 4"],
    distances: Sequence[float] | Float64[ndarray, " distance"],
    sides_SX: Float64[ndarray, "side 2"] = SIDES,
    keep_all: bool = False,
) -> Float64[ndarray, "label 2"]:
    """Place labels one after another, the first ones with the first choice of places.

    Each label takes the nearest free place: within bounds, on no obstacle and no other label; its
    straight way to its anchor crosses no other label or way.

    Args:
        anchor_LX: points the labels belong to.
        size_LX: width and height of each label.
        bounds: (left, bottom, right, top) that no label may leave.
        obstacle_OB: boxes (left, bottom, right, top) that no label should cover.
        distances: gaps between anchor and label to try, in order.
        sides_SX: where to put a label at each distance, in order; (1, 0) is right, (0, 1) above.
        keep_all: put a label without a free place where it covers least, and try again to make
            room for it.

    Returns:
        Lower-left corner of each label [label, 2]; NaN for one without a free place, and, however
        `keep_all` is set, for one too large for the bounds.
    """
    side_KX = np.tile(sides_SX, (len(distances), 1))
    gap_KX = np.repeat(distances, len(sides_SX))[:, None] * side_KX
    label_LB = np.full((len(anchor_LX), 4), np.nan)
    way_LTB = np.full((len(anchor_LX), len(STEPS), 4), np.nan)
    for i in np.tile(np.arange(len(anchor_LX)), ROUNDS if keep_all else 1):
        label_LB[i] = np.nan
        low_KX = anchor_LX[i] + gap_KX + (side_KX - 1) / 2 * size_LX[i]
        box_KB = np.hstack([low_KX, low_KX + size_LX[i]])
        box_KB = box_KB[((box_KB[:, :2] >= bounds[:2]) & (box_KB[:, 2:] <= bounds[2:])).all(axis=1)]
        if len(box_KB) == 0:
            continue
        way_KTB = _ways(anchor_LX[i], box_KB)
        placed_L = np.isfinite(label_LB[:, 0])
        label_PB, way_PTB = label_LB[placed_L], way_LTB[placed_L]
        taken_K = _overlap(box_KB, label_PB) + _overlap(box_KB, way_PTB.reshape(-1, 4))
        taken_K += _overlap(way_KTB.reshape(-1, 4), label_PB).reshape(len(box_KB), -1).sum(axis=1)
        taken_K += _crossings(way_KTB, way_PTB)
        cost_K = _overlap(box_KB, obstacle_OB) + LABEL_WEIGHT * taken_K
        if keep_all:
            long_K = np.abs(way_KTB[:, 0, :2] - way_KTB[:, -1, :2]).max(axis=1)
            cost_K += LENGTH_WEIGHT * long_K**2
        best = int(cost_K.argmin())
        if cost_K[best] == 0 or keep_all:
            label_LB[i], way_LTB[i] = box_KB[best], way_KTB[best]
    return label_LB[:, :2]


@dataclass(frozen=True)
class Curve:
    """A curve over depth: one value for each layer, NaN where there is none."""

    x: Float64[ndarray, " layer"]
    y: Float64[ndarray, " layer"]
    layers: list[int]
    shade: Any
    marker: str


def label_peaks(ax: Axes, curves: list[Curve], write: Callable[[float], str] | None = None) -> None:
    """Ring the highest point of each curve and write its layer and height where no curve runs.

    Args:
        ax: axes with the curves drawn.
        curves: what is drawn there.
        write: how a height is written; `decimal` unless told otherwise.
    """
    write = write or decimal
    glyph = len({curve.marker for curve in curves}) > 1
    texts, peaks, shades, ink = [], [], [], [np.empty((0, 2))]
    for curve in curves:
        between = np.arange(0, len(curve.y) - 1 + 1e-9, 0.2)
        places = np.arange(len(curve.y))
        ink.append(np.stack([np.interp(between, places, v) for v in (curve.x, curve.y)], axis=1))
        if not np.isfinite(curve.y).any():
            continue
        i = int(np.nanargmax(curve.y))
        ax.plot(curve.x[i], curve.y[i], "o", zorder=4, color=curve.shade, **RING)
        text = f"layer {curve.layers[i]}: {write(curve.y[i])}"
        texts.append(f"{GLYPHS[curve.marker]} {text}" if glyph else text)
        peaks.append((curve.x[i], curve.y[i]))
        shades.append(curve.shade)
    peak_LX = np.reshape(peaks, (-1, 2))
    ink_OX = np.concatenate([*ink, peak_LX])
    reach_O = np.repeat([MARK_POINTS, RING_POINTS], [len(ink_OX) - len(peak_LX), len(peak_LX)])
    nearest = RING_POINTS + 0.7
    _write(ax, texts, peak_LX, shades, ink_OX, reach_O, nearest, PEAK_SIDES, keep_all=True)


def label_ends(ax: Axes, ends: list[tuple[str, float, Any]]) -> None:
    """Write names of levels at the right edge, each beside its own as far as they stay apart.

    Args:
        ax: axes whose limits and place will not change any more, or not by much.
        ends: text, level in data units and colour of each.
    """
    low, high = ax.get_ylim()
    figure = cast(Figure, ax.get_figure(root=True))
    gap = END_GAP * figure.dpi / 72 / ax.bbox.height * (high - low)
    ordered = sorted(ends, key=lambda end: -end[1])
    at = [level for _, level, _ in ordered]
    for i in range(1, len(at)):
        at[i] = min(at[i], at[i - 1] - gap)
    lowest = low
    for i in reversed(range(len(at))):
        at[i] = max(at[i], lowest)
        lowest = at[i] + gap
    for y, (text, _, colour) in zip(at, ordered, strict=True):
        ax.annotate(
            text,
            (1, y),
            (3, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=LABEL_POINTS,
            color=colour,
            annotation_clip=False,
        )


def label_points(
    ax: Axes, texts: list[str], point_LX: Float64[ndarray, "label 2"], keep_all: bool
) -> None:
    """Write a label beside each point: from the outside in, or the most crowded first.

    Args:
        ax: axes with the points drawn.
        texts: label of each point.
        point_LX: points in data units; NaN rows are left out.
        keep_all: write every label, at the end of a thin line where there is no room near by; else
            only those with a free place right beside their point.
    """
    there = np.flatnonzero(np.isfinite(point_LX).all(axis=1))
    point_LX = point_LX[there]
    scaled_LX = point_LX / point_LX.std(axis=0)
    if keep_all:
        apart_LL = np.linalg.norm(scaled_LX[:, None] - scaled_LX, axis=2)
        rank = np.sort(apart_LL, axis=1)[:, :5].sum(axis=1)
    else:
        rank = -np.linalg.norm(scaled_LX, axis=1)
    order = np.argsort(rank, kind="stable")
    chosen = [texts[i] for i in there[order]]
    reach_O = np.full(len(there), MARK_POINTS)
    _write(
        ax, chosen, point_LX[order], ["0.15"] * len(there), point_LX, reach_O, 3, SIDES, keep_all
    )


def decimal(value: float) -> str:
    """Write a number between -1 and 1 as .83, -.05 or 1.00; a missing one as `none`."""
    return f"{value:.2f}".replace("0.", ".", 1) if np.isfinite(value) else "none"


def _write(
    ax: Axes,
    texts: list[str],
    anchor_LX: Float64[ndarray, "label 2"],
    shades: list[Any],
    ink_OX: Float64[ndarray, "mark 2"],
    reach_O: Float64[ndarray, " mark"],
    nearest: float,
    sides_SX: Float64[ndarray, "side 2"],
    keep_all: bool,
) -> None:
    """Write texts beside their anchors, clear of marks at `ink_OX` of half-size `reach_O` points.

    Anchors and marks are in data units; NaN marks are left out.
    """
    figure = cast(Figure, ax.get_figure(root=True))
    scale = 72 / figure.dpi  # points per pixel
    renderer = cast(Any, FigureCanvasAgg(figure)).get_renderer()
    font = FontProperties(size=LABEL_POINTS)
    measured = [renderer.get_text_width_height_descent(t, font, False)[:2] for t in ["lp", *texts]]
    size_LX = scale * np.array([(width, measured[0][1]) for width, _ in measured[1:]])
    at_LX, at_OX = (scale * ax.transData.transform(xy) for xy in (anchor_LX, ink_OX))
    box_OB = np.hstack([at_OX - reach_O[:, None], at_OX + reach_O[:, None]])
    box_OB = box_OB[np.isfinite(box_OB).all(axis=1)]
    bounds = tuple(scale * edge for edge in ax.bbox.extents)
    gaps = nearest + (GAPS if keep_all else GAPS[:2])
    corner_LX = place_labels(at_LX, size_LX, bounds, box_OB, gaps, sides_SX, keep_all)
    ground = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.2}
    leader = {"arrowstyle": "-", "linewidth": 0.4, "color": "0.5", "shrinkA": 0, "shrinkB": nearest}
    for i in np.flatnonzero(np.isfinite(corner_LX).all(axis=1)):
        offset = corner_LX[i] - at_LX[i]
        near = np.clip(-offset / size_LX[i], 0, 1)  # of the label, where the line starts
        far = np.abs(offset + near * size_LX[i]).max() > nearest + GAPS[1] + 0.1
        ax.annotate(
            texts[i],
            tuple(anchor_LX[i]),
            tuple(offset),
            textcoords="offset points",
            fontproperties=font,
            color=shades[i],
            ha="left",
            va="bottom",
            bbox=ground,
            arrowprops=leader | {"relpos": tuple(near)} if far else None,
        )


def _ways(
    anchor_X: Float64[ndarray, " 2"], box_KB: Float64[ndarray, "candidate 4"]
) -> Float64[ndarray, "candidate step 4"]:
    """Return small boxes along the straight way from an anchor to each box."""
    near_KX = np.clip(anchor_X, box_KB[:, :2], box_KB[:, 2:])
    way_KTX = anchor_X + STEPS[:, None] * (near_KX - anchor_X)[:, None]
    return np.concatenate([way_KTX - 0.4, way_KTX + 0.4], axis=2)


def _crossings(
    a_KTB: Float64[ndarray, "candidate step 4"], b_PTB: Float64[ndarray, "label step 4"]
) -> Float64[ndarray, " candidate"]:
    """Return how many of the straight ways `b_PTB` each of the ways `a_KTB` crosses."""
    a0, a1, b0, b1 = a_KTB[:, None, 0], a_KTB[:, None, -1], b_PTB[None, :, 0], b_PTB[None, :, -1]

    def side(p: ndarray, q: ndarray, r: ndarray) -> Float64[ndarray, "candidate label"]:
        area: ndarray = (q - p)[..., 0] * (r - p)[..., 1] - (q - p)[..., 1] * (r - p)[..., 0]
        return area

    apart_a = side(a0, a1, b0) * side(a0, a1, b1) < 0
    apart_b = side(b0, b1, a0) * side(b0, b1, a1) < 0
    count_K: Float64[ndarray, " candidate"] = (apart_a & apart_b).sum(axis=1).astype(np.float64)
    return count_K


def _overlap(
    a_KB: Float64[ndarray, "candidate 4"], b_OB: Float64[ndarray, "obstacle 4"]
) -> Float64[ndarray, " candidate"]:
    """Return the area of each box in `a_KB` that the boxes in `b_OB` cover, summed over them."""
    low_KOX = np.maximum(a_KB[:, None, :2], b_OB[None, :, :2])
    high_KOX = np.minimum(a_KB[:, None, 2:], b_OB[None, :, 2:])
    cost_K: Float64[ndarray, " candidate"] = (high_KOX - low_KOX).clip(min=0).prod(2).sum(1)
    return cost_K
