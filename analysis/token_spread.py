"""How far single tokens vary along the detectors of a layer: the unit that tokens are coloured in.

A score's own unit is how far whole stories vary. Tokens vary several times as much, by a factor
that is another one for each model, layer and window, and less when they are smoothed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64
from numpy import ndarray

WIDTHS = (1, 5, 15, 45)
"""Tokens that scores may be smoothed over, 1 for as they are."""

MIDDLE = (0.1587, 0.8413)
"""Shares of a normal distribution below one standard deviation under and above its mean."""


def smoothed(
    score_TLE: Float32[ndarray, "token layer emotion"], width: int
) -> Float64[ndarray, "token layer emotion"]:
    """Return the means over `width` tokens around each, fewer where the text begins and ends.

    Args:
        score_TLE: scores of consecutive tokens, none missing.
        width: odd.
    """
    n, half = len(score_TLE), (width - 1) // 2
    sum_TLE = np.zeros((n + 1, *score_TLE.shape[1:]))
    np.cumsum(score_TLE, axis=0, out=sum_TLE[1:])
    first_T = np.maximum(np.arange(n) - half, 0)
    end_T = np.minimum(np.arange(n) + half + 1, n)
    mean_TLE = (sum_TLE[end_T] - sum_TLE[first_T]) / (end_T - first_T)[:, None, None]
    return np.asarray(mean_TLE)


def token_spread(
    scores: Sequence[Float32[ndarray, "token layer emotion"]],
) -> Float64[ndarray, "layer width"]:
    """Return how far tokens vary at each layer, in units of the scores.

    Args:
        scores: of the tokens of each text that lie in the window, one text at least.

    Returns:
        For each of WIDTHS, the standard deviation of an emotion's scores over the tokens of all
        texts when each text is smoothed over so many: its root mean square over emotions. It is
        taken as half the distance between the quantiles MIDDLE, which a few tokens with massive
        activations do not move. NaN where there are no two tokens.
    """
    spread_LW = np.full((scores[0].shape[1], len(WIDTHS)), np.nan)
    if sum(map(len, scores)) < 2:
        return spread_LW
    for at, width in enumerate(WIDTHS):
        smooth_TLE = np.concatenate([smoothed(score_TLE, width) for score_TLE in scores])
        low_LE, high_LE = np.quantile(smooth_TLE, MIDDLE, axis=0)
        spread_LW[:, at] = np.sqrt((((high_LE - low_LE) / 2) ** 2).mean(axis=1))
    return spread_LW
