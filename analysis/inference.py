"""What is beyond chance, and where over depth: corrected p, onset, peak, collapse."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int
from numpy import ndarray

LEVEL = 0.95
"""Of every interval."""

SIGNIFICANT = 0.05
RUN = 3
"""Consecutive layers that make an onset or a collapse."""

COLLAPSED = 0.5
"""Share of the peak below which r has collapsed."""


def bounds(draw_B: Float64[ndarray, "draw ..."]) -> Float64[ndarray, "2 ..."]:
    """Return the ends of the interval that holds LEVEL of the draws.

    Draws that are NaN are left out; where more than half are, so are the ends.
    """
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    there = np.isfinite(draw_B)
    if there.all():
        found: Float64[ndarray, "2 ..."] = np.quantile(draw_B, tails, axis=0)
        return found
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # all of them NaN
        found = np.nanquantile(draw_B, tails, axis=0)
    return np.where(2 * there.sum(axis=0) >= len(draw_B), found, np.nan)


def permutation_p(
    score_LXE: Float64[ndarray, "layer component emotion"],
    rating_EX: Float64[ndarray, "emotion component"],
    n: int,
    seed: int,
) -> Float64[ndarray, "layer component"]:
    """Return p corrected for the search over layers, for each component and its rating.

    Rows of (valence, arousal) are permuted over the emotions that have both, one permutation for
    all layers; p is the share of permutations, the given order among them, whose largest |r| over
    layers is at least that of the layer (Westfall & Young 1993).

    Args:
        score_LXE: component scores; a layer whose scores are NaN stays NaN and counts in no
            maximum, and so does an emotion that any other layer lacks.
        rating_EX: ratings that the components are paired with, NaN where unrated.
        n: permutations.
        seed: of the permutations.
    """
    there_LE = np.isfinite(score_LXE).all(axis=1)
    layers: Bool[ndarray, " layer"] = there_LE.any(axis=1)
    out = np.full(score_LXE.shape[:2], np.nan)
    rated = np.isfinite(rating_EX).all(axis=1) & there_LE[layers].all(axis=0)
    if rated.sum() < 3 or not layers.any():
        return out
    x = _standardised(score_LXE[layers][:, :, rated])
    y_XE = _standardised(rating_EX[rated].T)
    rng = np.random.default_rng(seed)
    orders = rng.permuted(np.tile(np.arange(int(rated.sum())), (n, 1)), axis=1)
    for component in range(x.shape[1]):
        r_L = np.abs(x[:, component] @ y_XE[component])
        varies = np.isfinite(r_L)
        if not varies.any():
            continue
        null_B = np.abs(x[varies, component] @ y_XE[component][orders].T).max(axis=0)
        reached = (null_B >= r_L[:, None] * (1 - 1e-12)).sum(axis=1)
        out[layers, component] = np.where(np.isfinite(r_L), (1 + reached) / (1 + n), np.nan)
    return out


@dataclass(frozen=True)
class Profile:
    """How a correlation runs over a model's blocks.

    All but `peak_r` and `peak_p` are of what infinitely many stories would give, so that blocks are
    compared on one scale.

    Attributes:
        peak: block with the largest r, -1 where there is none.
        peak_r: r there over the stories at hand.
        peak_infinite: its height, freed of the search over blocks.
        peak_low: lower end of its interval over stories.
        peak_high: upper end.
        peak_p: p of `peak_r`, corrected for the search over blocks.
        peak_from: the interval of the peak's place over stories: first block.
        peak_to: last block.
        onset: first of RUN consecutive blocks with corrected p below SIGNIFICANT, -1 for none.
        collapse_from: first block of the longest run after `peak_from`, RUN blocks at least, whose
            intervals lie below COLLAPSED times the peak; -1 for none.
        collapse_to: last block of it.
    """

    peak: int
    peak_r: float
    peak_infinite: float
    peak_low: float
    peak_high: float
    peak_p: float
    peak_from: int
    peak_to: int
    onset: int
    collapse_from: int
    collapse_to: int


def profile(
    layer_L: Int[ndarray, " layer"],
    r_L: Float64[ndarray, " layer"],
    p_L: Float64[ndarray, " layer"],
    draw_LB: Float64[ndarray, "layer draw"],
) -> Profile:
    """Return onset, peak and collapse of a correlation over blocks.

    Consecutive blocks are those that follow each other among the layers kept. Without draws the
    peak is that of `r_L`, and it has no interval.

    Args:
        layer_L: numbers of the blocks, ascending.
        r_L: r, flipped to be positive; NaN where it is missing.
        p_L: p corrected for the search over blocks.
        draw_LB: draws of r over stories, flipped likewise, as `resampling.freed_of_drawing` gives
            them.
    """
    nan = float("nan")
    onset = next(
        (run[0] for run in _runs((p_L < SIGNIFICANT) & np.isfinite(r_L)) if len(run) >= RUN), None
    )
    first_onset = -1 if onset is None else int(layer_L[onset])
    drawn = np.isfinite(draw_LB).any(axis=1)
    if not drawn.any():
        at = int(np.nanargmax(r_L)) if np.isfinite(r_L).any() else -1
        peak = (-1, nan, nan) if at < 0 else (int(layer_L[at]), float(r_L[at]), float(p_L[at]))
        return Profile(peak[0], peak[1], nan, nan, nan, peak[2], -1, -1, first_onset, -1, -1)
    infinite_L = middle(draw_LB.T)
    at = int(np.nanargmax(infinite_L))
    peak_B = peak_draws(draw_LB)
    (low, high), (block_low, block_high) = bounds(peak_B), bounds(draw_LB[at])
    low, high = min(low, block_low), max(high, block_high)  # no surer of the best than of one block
    tops_B = np.where(np.isfinite(draw_LB), draw_LB, -np.inf).argmax(axis=0)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    first, last = np.quantile(tops_B, tails, method="inverted_cdf").astype(int)
    with np.errstate(invalid="ignore"):
        below_L = np.abs(bounds(draw_LB.T)).max(axis=0) < COLLAPSED * infinite_L[at]
    fallen = [run for run in _runs(below_L) if len(run) >= RUN and run[0] > first]
    fall = max(fallen, key=len, default=None)
    return Profile(
        peak=int(layer_L[at]),
        peak_r=float(r_L[at]),
        peak_infinite=float(middle(peak_B)),
        peak_low=float(low),
        peak_high=float(high),
        peak_p=float(p_L[at]),
        peak_from=int(layer_L[first]),
        peak_to=int(layer_L[last]),
        onset=first_onset,
        collapse_from=-1 if fall is None else int(layer_L[fall[0]]),
        collapse_to=-1 if fall is None else int(layer_L[fall[-1]]),
    )


def middle(draw_B: Float64[ndarray, "draw ..."]) -> Float64[ndarray, ...]:
    """Return the median of the draws that say something; NaN where none does."""
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        found: Float64[ndarray, ...] = np.nanmedian(draw_B, axis=0)
    return found


def peak_draws(draw_LB: Float64[ndarray, "layer draw"]) -> Float64[ndarray, " draw"]:
    """Return draws of the largest r over blocks, freed of what searching for it adds.

    The largest of several noisy numbers lies above the largest of what they estimate. By how much
    is seen between the draws' maxima and the largest middle of the draws, and taken off twice: once
    for the draws, once for the middle.
    """
    top_B = np.where(np.isfinite(draw_LB), draw_LB, -np.inf).max(axis=0)
    top_B = np.where(np.isfinite(top_B), top_B, np.nan)
    excess = np.nanmean(top_B) - np.nanmax(middle(draw_LB.T))
    found: Float64[ndarray, " draw"] = top_B - 2 * excess
    return found


def _runs(true_L: Bool[ndarray, " layer"]) -> list[list[int]]:
    """Return the places of consecutive true entries, run by run."""
    runs: list[list[int]] = []
    for at in np.flatnonzero(true_L):
        if runs and at == runs[-1][-1] + 1:
            runs[-1].append(int(at))
        else:
            runs.append([int(at)])
    return runs


def _standardised(x: Float64[ndarray, "... e"]) -> Float64[ndarray, "... e"]:
    """Return rows with mean 0 and length 1, whose products are correlations."""
    x = x - x.mean(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit: Float64[ndarray, "... e"] = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return unit
