"""Directions of valence in the residual stream, by several estimators side by side."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from analysis.geometry import PCA, correlate

ESTIMATORS = ("pc1", "covariance", "least-squares")
"""`pc1`: the first principal component, signed to correlate positively. `covariance`: the
ratings-weighted mean of the contrast vectors. `least-squares`: the minimum-norm solution, as in the
code released with arXiv 2606.26987; with fewer emotions than dimensions it fits any ratings."""


def rating_direction(
    estimator: str,
    x_ED: Float64[ndarray, "emotion d_model"],
    components: PCA,
    rating_E: Float64[ndarray, " emotion"],
) -> Float64[ndarray, " d_model"]:
    """Return the direction along which contrast vectors vary with a rating (not normalised).

    Args:
        estimator: one of ESTIMATORS.
        x_ED: contrast vectors.
        components: their principal components.
        rating_E: ratings, NaN where unrated; only rated emotions with a vector are used by
            `covariance` and `least-squares`, centred among themselves; NaN with fewer than two.

    Raises:
        ValueError: an unknown estimator.
    """
    if estimator == "pc1":
        r = correlate(components.scores_EC[:, 0], rating_E).r
        sign = -1.0 if r < 0 else 1.0
        return components.components_CD[0] * sign
    both = np.isfinite(rating_E) & np.isfinite(x_ED).all(axis=1)
    if both.sum() < 2:
        return np.full(x_ED.shape[1], np.nan)
    x = x_ED[both] - x_ED[both].mean(axis=0)
    y = rating_E[both] - rating_E[both].mean()
    if estimator == "covariance":
        direction: Float64[ndarray, " d_model"] = y @ x / len(y)
        return direction
    if estimator == "least-squares":
        return np.asarray(np.linalg.lstsq(x, y, rcond=None)[0], dtype=np.float64)
    raise ValueError(f"unknown estimator {estimator!r}; known: {', '.join(ESTIMATORS)}")
