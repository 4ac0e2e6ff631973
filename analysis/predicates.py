"""What decides each claim: functions from a cell under a choice, or two, to a finding.

r is that of PC1 with valence (or of PC2 with arousal) at a block which infinitely many stories
would give, and the peak the block with the largest; depth is block / number of blocks. Intervals of
r are over stories, those of CKA and silhouettes over emotions; a cosine lies between itself as it
is, which the stories' noise pulls down, and itself freed of that noise. The formulas in words are
in `analysis.claims`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from analysis.differences import baselines
from analysis.geometry import correlate
from analysis.inference import COLLAPSED, RUN, SIGNIFICANT, bounds, middle, peak_draws
from analysis.results import CellResults
from analysis.verdicts import (
    NO_FIGURE,
    Figure,
    Finding,
    Verdict,
    all_of,
    apart,
    at_least,
    at_most,
    jackknife,
)
from analysis.view import View

OfCell = Callable[[View, list[CellResults]], Finding]
OfPair = Callable[[View, View], Finding | None]

PEAK_R = 0.7
HALFWAY = 0.5
PHASES = 3
MIN_PHASE = 3
PHASE_GAP = 0.1
HIGH_CKA = 0.7
FAR = 0.5
LOW_COSINE = 0.3
AROUSAL_GAP = 0.1
COSINE_GAP = 0.05
SILHOUETTE_GAP = 0.05
ALIKE = 0.8
MIN_GRID = 4
ROUNDING = 1e-9
NO_BASELINE = "no such baseline"
DIFFERENT = "corpora of different emotions"


def valence_peak(view: View, _: list[CellResults]) -> Finding:
    """Decide whether the peak of PC1 with valence reaches PEAK_R."""
    found = view.profile("valence")
    figure = Figure(found.peak_infinite, found.peak_low, found.peak_high)
    return Finding(figure, _if_significant(at_least(figure, PEAK_R), found.peak_p), _at(found.peak))


def late_emergence(view: View, _: list[CellResults]) -> Finding:
    """Decide whether PC1 follows valence in the second half of the depth only."""
    found = view.profile("valence")
    figure = _peak_depth(view)
    if not np.isfinite(figure.low):
        return Finding(figure, Verdict.UNDECIDED, _at(found.peak))
    if found.onset < 0:
        weak = found.peak_high < PEAK_R
        return Finding(figure, Verdict.FAILS if weak else Verdict.UNDECIDED, _at(found.peak))
    onset = float(view.depth_L[view.layer_L == found.onset][0])
    early = Verdict.FAILS if onset < HALFWAY else Verdict.HOLDS
    reach_L = np.abs(bounds(view.draws("valence").T)).max(axis=0)[view.depth_L < HALFWAY]
    weak_L = reach_L < COLLAPSED * found.peak_infinite
    silent = Verdict.HOLDS if _runs(weak_L) else Verdict.UNDECIDED
    return Finding(figure, all_of(early, silent, at_least(figure, HALFWAY)), _at(found.peak))


def early_collapse(view: View, _: list[CellResults]) -> Finding:
    """Decide whether valence peaks in the first half and collapses after."""
    found = view.profile("valence")
    depth = _peak_depth(view)
    if not np.isfinite(depth.low):
        return Finding(NO_FIGURE, Verdict.UNDECIDED, _at(found.peak))
    early = at_most(depth, HALFWAY)
    draw_LB = view.draws("valence")
    middle_L = middle(draw_LB.T)
    after = _runs((view.layer_L > found.peak_from) & np.isfinite(middle_L))
    if not after:
        return Finding(NO_FIGURE, Verdict.FAILS, _at(found.peak))
    run = min(after, key=lambda run: middle_L[run].max())
    part_LB = draw_LB[run]
    figure = _widened(
        _share(part_LB.max(axis=0), peak_draws(draw_LB)),
        _share(_best_block(part_LB), _best_block(draw_LB)),
    )
    verdict = all_of(early, at_most(figure, COLLAPSED))
    at = f"{found.peak}; {_span(view, run)}"
    return Finding(figure, _if_significant(verdict, found.peak_p), at)


def collapse_and_return(view: View, _: list[CellResults]) -> Finding:
    """Decide whether valence is there, is lost over some blocks, and comes back."""
    draw_LB, p_L = view.draws("valence"), view.p("valence")
    middle_L = middle(draw_LB.T)
    there = np.flatnonzero(np.isfinite(middle_L))
    inner = np.isfinite(middle_L)
    inner[there[[0, -1]] if len(there) else []] = False  # there is a block before, and one after
    runs = _runs(inner)
    if not runs:
        return Finding(NO_FIGURE, Verdict.UNDECIDED)

    def depth_of_fall(run: list[int]) -> float:
        sides = min(np.nanmax(middle_L[: run[0]]), np.nanmax(middle_L[run[-1] + 1 :]))
        return float(middle_L[run].max() / sides) if sides > 0 else float("inf")

    run = min(runs, key=depth_of_fall)
    before, after = draw_LB[: run[0]], draw_LB[run[-1] + 1 :]
    sides_B = np.minimum(peak_draws(before), peak_draws(after))
    blocks_B = np.minimum(_best_block(before), _best_block(after))
    figure = _widened(
        _share(draw_LB[run].max(axis=0), sides_B), _share(_best_block(draw_LB[run]), blocks_B)
    )
    worse = max(np.nanmin(p_L[: run[0]]), np.nanmin(p_L[run[-1] + 1 :]))
    return Finding(figure, _if_significant(at_most(figure, COLLAPSED), worse), _span(view, run))


def three_phases(view: View, _: list[CellResults]) -> Finding:
    """Decide whether the CKA grid has three phases."""
    grid = view.cka
    if not np.isfinite(grid).all() or len(grid) < PHASES * MIN_PHASE:
        return Finding(NO_FIGURE, Verdict.UNDECIDED)
    best, cuts = max(
        (phase_gap(grid, (first, second)), (first, second))
        for first in range(MIN_PHASE, len(grid) - 2 * MIN_PHASE + 1)
        for second in range(first + MIN_PHASE, len(grid) - MIN_PHASE + 1)
    )
    figure = jackknife(best, np.array([phase_gap(g, cuts) for g in view.group_cka]))
    edges = [0, *cuts, len(grid)]
    phases = [f"{view.layer_L[a]}-{view.layer_L[b - 1]}" for a, b in pairwise(edges)]
    return Finding(figure, at_least(figure, PHASE_GAP), ", ".join(phases))


def phase_gap(grid: Float64[ndarray, "layer layer"], cuts: tuple[int, int]) -> float:
    """Return by how much CKA falls across the weaker of two boundaries between phases of layers.

    Pairs of layers are compared at the same distance, so that a grid in which CKA falls smoothly
    with distance has no phases: the mean, over distances that both have, of CKA within the two
    phases less CKA across their boundary.
    """
    edges = [0, *cuts, len(grid)]
    gaps = []
    for first, cut, last in zip(edges[:-2], edges[1:-1], edges[2:], strict=True):
        at_distance = []
        for distance in range(1, last - first):
            here = np.arange(first, last - distance)
            across = (here < cut) & (here + distance >= cut)
            values = grid[here, here + distance]
            if across.any() and not across.all():
                at_distance.append(values[~across].mean() - values[across].mean())
        gaps.append(float(np.mean(at_distance)))
    return min(gaps)


def cka_high(view: View, _: list[CellResults]) -> Finding:
    """Decide whether all blocks are alike."""
    grid = view.cka
    if not np.isfinite(grid).all() or len(grid) < 2:
        return Finding(NO_FIGURE, Verdict.UNDECIDED)
    a, b = np.unravel_index(grid.argmin(), grid.shape)
    figure = jackknife(grid[a, b], view.group_cka[:, a, b])
    return Finding(figure, at_least(figure, HIGH_CKA), f"{view.layer_L[a]} and {view.layer_L[b]}")


def axis_turns(view: View, _: list[CellResults]) -> Finding:
    """Decide whether distant blocks share the space and not the valence axis."""
    depth_L = view.depth_L
    far = np.triu(np.abs(depth_L[:, None] - depth_L) >= FAR - ROUNDING)
    if not far.any():
        return Finding(NO_FIGURE, Verdict.UNDECIDED)
    plain = View(view.cell, replace(view.choice, estimator="cka"))
    space = jackknife(float(np.median(plain.cka[far])), np.median(plain.group_cka[:, far], axis=1))
    cosine = _bracket(view, far)
    return Finding(cosine, all_of(at_least(space, HIGH_CKA), at_most(cosine, LOW_COSINE)))


def beyond(axis: str, baseline: str) -> OfCell:
    """Return what decides whether a cell's peak lies above a baseline."""

    def decide(view: View, cells: list[CellResults]) -> Finding:
        draw_LB = view.draws(axis)
        if not np.isfinite(draw_LB).any():
            return Finding(NO_FIGURE, Verdict.UNDECIDED)
        peak = view.profile(axis).peak
        if baseline == "random":
            twins = [c for c in cells if (c.model, c.corpus) == (view.cell.twin, view.cell.corpus)]
            other_B = peak_draws(View(twins[0], view.choice).draws(axis)) if twins else None
            beside_B = _best_block(View(twins[0], view.choice).draws(axis)) if twins else None
        else:
            found = baselines(view.cell, axis, cells)[baseline]
            other_B = beside_B = view.at_layer(found.draws, peak)
        if other_B is None or not np.isfinite(other_B).any():
            return Finding(NO_FIGURE, Verdict.UNDECIDED, NO_BASELINE)
        peak_B, block_B = peak_draws(draw_LB) - other_B, _best_block(draw_LB) - beside_B
        figure = _widened(_figure(peak_B), _figure(block_B))
        return Finding(figure, _above_zero(figure), _at(peak))

    return decide


def arousal_by_corpus(a: View, b: View) -> Finding:
    """Decide whether the peaks of PC2 with arousal differ between two corpora."""
    figure, at = _peak_difference(a, b, "arousal")
    return Finding(figure, apart(figure, AROUSAL_GAP), at)


def own_better(a: View, b: View) -> Finding | None:
    """Decide whether valence peaks higher in a model's own stories; None without such a corpus."""
    owns = [view.cell.writer is not None and view.cell.writer == view.cell.model for view in (a, b)]
    if owns[0] == owns[1]:
        return None
    own, other = (a, b) if owns[0] else (b, a)
    figure, at = _peak_difference(own, other, "valence")
    return Finding(figure, _above_zero(figure), at)


def cleaner(a: View, b: View) -> Finding:
    """Decide whether neighbouring blocks agree on the valence axis more with one corpus."""
    if a.emotions != b.emotions:
        return Finding(NO_FIGURE, Verdict.UNDECIDED, DIFFERENT)
    next_to = np.eye(len(a.layer_L), k=1, dtype=bool)
    if not next_to.any():
        return Finding(NO_FIGURE, Verdict.UNDECIDED)
    ways = [
        (np.median(x[next_to]), np.median(y[next_to]))
        for x, y in (
            (a.axis_cosine, b.axis_cosine),
            (a.bounded_axis_cosine, b.bounded_axis_cosine),
        )
    ]
    ends = [float(x - y) for x, y in ways]
    missing = np.isnan(ends[1])
    figure = Figure(ends[0], *((np.nan, np.nan) if missing else (min(ends), max(ends))))
    return Finding(figure, apart(figure, COSINE_GAP))


def clusters_apart(a: View, b: View) -> Finding:
    """Decide whether positive and negative emotions are further apart with one corpus."""
    peaks = [view.profile("valence").peak for view in (a, b)]
    if min(peaks) < 0 or a.emotions != b.emotions:
        at = DIFFERENT if a.emotions != b.emotions else ""
        return Finding(NO_FIGURE, Verdict.UNDECIDED, at)
    found = [view.silhouette(peak) for view, peak in zip((a, b), peaks, strict=True)]
    figure = jackknife(found[0][0] - found[1][0], found[0][1] - found[1][1])
    return Finding(figure, apart(figure, SILHOUETTE_GAP), f"{peaks[0]} and {peaks[1]}")


def grids_alike(a: View, b: View) -> Finding:
    """Decide whether two corpora give like CKA grids, beyond both falling with distance."""
    if a.emotions != b.emotions:
        return Finding(NO_FIGURE, Verdict.UNDECIDED, DIFFERENT)
    if len(a.layer_L) < MIN_GRID:
        return Finding(NO_FIGURE, Verdict.UNDECIDED)
    groups = [_alike(x, y) for x, y in zip(a.group_cka, b.group_cka, strict=True)]
    figure = jackknife(_alike(a.cka, b.cka), np.array(groups))
    return Finding(figure, at_least(figure, ALIKE))


def _alike(x: Float64[ndarray, "layer layer"], y: Float64[ndarray, "layer layer"]) -> float:
    """Return r of two grids over pairs of layers, each less its mean at the pair's distance."""
    sides: list[list[float]] = [[], []]
    for grid, side in zip((x, y), sides, strict=True):
        for distance in range(1, len(grid)):
            values = np.diagonal(grid, distance)
            side.extend(values - values.mean())
    return correlate(np.array(sides[0]), np.array(sides[1])).r


def _peak_difference(a: View, b: View, axis: str) -> tuple[Figure, str]:
    """Return by how much the peak of one corpus exceeds the other's, and where they are."""
    if a.emotions != b.emotions:
        return NO_FIGURE, DIFFERENT
    draws = [view.draws(axis) for view in (a, b)]
    if not all(np.isfinite(draw_LB).any() for draw_LB in draws):
        return NO_FIGURE, ""
    shifted = np.roll(peak_draws(draws[1]), 1)  # draws of two corpora are independent
    at = " and ".join(_at(view.profile(axis).peak) for view in (a, b))
    blocks = _best_block(draws[0]) - np.roll(_best_block(draws[1]), 1)
    return _widened(_figure(peak_draws(draws[0]) - shifted), _figure(blocks)), at


def _bracket(view: View, pairs: ndarray) -> Figure:
    """Return the median cosine of pairs of blocks, between raw and freed of the stories' noise.

    Where noise cannot be told from the rest, the freed one may be anything above the raw one.
    """
    raw = float(np.median(view.axis_cosine[pairs]))
    freed = float(np.median(view.bounded_axis_cosine[pairs]))
    return (
        Figure(raw, raw, 1.0) if np.isnan(freed) else Figure(raw, min(raw, freed), max(raw, freed))
    )


def _peak_depth(view: View) -> Figure:
    found = view.profile("valence")
    if found.peak < 0 or found.peak_from < 0:
        return NO_FIGURE
    depth = dict(zip(view.layer_L.tolist(), view.depth_L.tolist(), strict=True))
    return Figure(depth[found.peak], depth[found.peak_from], depth[found.peak_to])


def _figure(draw_B: Float64[ndarray, " draw"]) -> Figure:
    low, high = bounds(draw_B)
    return Figure(float(middle(draw_B)), float(low), float(high))


def _best_block(draw_LB: Float64[ndarray, "layer draw"]) -> Float64[ndarray, " draw"]:
    """Return the draws of the block whose middle is largest."""
    found: Float64[ndarray, " draw"] = draw_LB[int(np.nanargmax(middle(draw_LB.T)))]
    return found


def _widened(peak: Figure, block: Figure) -> Figure:
    """Return what peaks give, no surer than the blocks they are at: both intervals together."""
    low, high = np.minimum(peak.low, block.low), np.maximum(peak.high, block.high)
    return Figure(peak.value, float(low), float(high))  # NaN where either has none


def _share(part_B: Float64[ndarray, " draw"], whole_B: Float64[ndarray, " draw"]) -> Figure:
    """Return a share draw by draw; where the whole is not above 0, it says nothing."""
    return _figure(np.where(whole_B > 0, part_B / np.where(whole_B > 0, whole_B, 1), np.nan))


def _above_zero(figure: Figure) -> Verdict:
    if figure.low > 0:
        return Verdict.HOLDS
    return Verdict.FAILS if figure.high <= 0 else Verdict.UNDECIDED


def _if_significant(verdict: Verdict, p: float) -> Verdict:
    """Return a verdict, except that what holds of something within chance is undecided."""
    if verdict is Verdict.HOLDS and not p < SIGNIFICANT:
        return Verdict.UNDECIDED
    return verdict


def _runs(true_L: ndarray) -> list[list[int]]:
    """Return every RUN consecutive places that are all true."""
    n = len(true_L)
    return [list(range(i, i + RUN)) for i in range(n - RUN + 1) if true_L[i : i + RUN].all()]


def _at(layer: int) -> str:
    return "" if layer < 0 else str(layer)


def _span(view: View, run: list[int]) -> str:
    return f"{view.layer_L[run[0]]}-{view.layer_L[run[-1]]}"
