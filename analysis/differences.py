"""r of a cell with its intervals, and beside what it would be without the model's doing.

Four baselines: the embedding output, the same model with random weights, a bag of words, and the
ratings of the stories' words. Stories are drawn alike in all of them, so that a difference has an
interval of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from analysis.inference import bounds
from analysis.results import CellResults
from analysis.settings import AXES

BASELINES = ("embedding", "random", "bag_of_words", "lexical")
"""Layer -1; the same layer of the model with random weights; and the words of the stories."""


@dataclass(frozen=True)
class Correlations:
    """r of an axis, flipped to be positive, and r over draws of stories, flipped likewise.

    Attributes:
        r: over window, layer, contrast and norms.
        draws: over those and `draw`.
    """

    r: xr.DataArray
    draws: xr.DataArray

    def interval(self) -> tuple[xr.DataArray, xr.DataArray]:
        """Return the ends of the interval of what infinitely many stories would give."""
        return _ends(self.draws)

    def minus(self, other: Correlations) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
        """Return the difference from another one's r, and the ends of its interval."""
        draws = (self.draws - other.draws).transpose(*self.draws.dims)
        return (self.r - other.r).transpose(*self.r.dims), *_ends(draws)


def correlations(cell: CellResults, axis: str, draws: str = "story_draw") -> Correlations:
    """Return r of the component that an axis is paired with.

    Args:
        cell: its results.
        axis: valence or arousal.
        draws: `story_draw`, `emotion_draw`, or `without_draw` without the largest dimensions.
    """
    at = {"component": AXES.index(axis) + 1}
    r = cell.results["without_r" if draws == "without_draw" else "r"].sel(at, drop=True)
    return _flipped(r, cell.results[draws].sel(at, drop=True))


def baselines(cell: CellResults, axis: str, others: list[CellResults]) -> dict[str, Correlations]:
    """Return what each of BASELINES gives for a cell, NaN for one that is not at hand.

    Args:
        cell: its results.
        axis: valence or arousal.
        others: all cells, that of the model with random weights among them.
    """
    own = correlations(cell, axis)
    nothing = Correlations(xr.full_like(own.r, np.nan), xr.full_like(own.draws, np.nan))
    found = dict.fromkeys(BASELINES, nothing)
    if -1 in own.r["layer"]:
        found["embedding"] = Correlations(
            own.r.sel(layer=-1, drop=True), own.draws.sel(layer=-1, drop=True)
        )
    twins = [o for o in others if o.model == cell.twin and o.corpus == cell.corpus]
    if twins:
        found["random"] = correlations(twins[0], axis)
    if cell.words is not None:
        for name in ("bag_of_words", "lexical"):
            words = cell.words.sel(axis=axis, drop=True)
            found[name] = _flipped(words[f"{name}_r"], words[f"{name}_draw"])
    return found


def _flipped(r: xr.DataArray, draws: xr.DataArray) -> Correlations:
    return Correlations(abs(r), draws * (1 - 2 * (r < 0)))


def _ends(draws: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    low, high = bounds(np.moveaxis(draws.to_numpy(), draws.dims.index("draw"), 0))
    like = draws.isel(draw=0, drop=True)
    return like.copy(data=low), like.copy(data=high)
