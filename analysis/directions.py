"""Directions along which contrast vectors vary with a rating, by several estimators side by side.

Every estimator's direction is a weighted sum of the emotions' vectors, with weights that follow
from their Gram matrix: so does everything here, cross-validation too, whatever d_model is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import get_args

import numpy as np
from jaxtyping import Bool, Float64, Int
from numpy import ndarray

from analysis.geometry import correlate
from manifests.schema import Estimator

ESTIMATORS: tuple[str, ...] = get_args(Estimator)
"""`component`: the principal component that the axis is paired with (PC1 valence, PC2 arousal),
signed to correlate positively. `covariance`: the ratings-weighted mean of the contrast vectors.
`ridge`: its strength chosen by leave-one-out error over emotions, the cross-validation that has no
folds to draw. `least-squares`: the minimum-norm solution, as
in the code released with arXiv 2606.26987; with fewer emotions than dimensions it fits any ratings.
`paper`: `component` where its correlation is significant, else `least-squares`, as in its text."""

SIGNIFICANT = 0.05
RIDGE_GRID = np.logspace(-4, 4, 33)
"""Strengths tried, in units of the mean eigenvalue of the centred Gram matrix."""

SMALLEST_EIGENVALUE = 1e-12
"""Eigenvalues below this share of the largest count as zero."""

FOLDS = 10
MIN_RATED = 10
"""Rated emotions below which nothing is estimated from ratings."""

Gram = Float64[ndarray, "emotion emotion"]
Ratings = Float64[ndarray, "emotion rating"]


def rating_directions(
    x_ED: Float64[ndarray, "emotion d_model"], rating_EA: Ratings, components: Sequence[int]
) -> Float64[ndarray, "rating estimator d_model"]:
    """Return the directions along which contrast vectors vary with ratings (not normalised).

    Args:
        x_ED: contrast vectors; emotions whose row is NaN are left out.
        rating_EA: ratings, NaN where unrated; an unrated emotion counts for the principal
            components only.
        components: the principal component that each rating is paired with, from 0.

    Returns:
        One direction for each rating and each of ESTIMATORS, NaN with fewer than MIN_RATED rated
        emotions.
    """
    there = np.isfinite(x_ED).all(axis=1)
    x = x_ED[there] - x_ED[there].mean(axis=0)  # a large mean would drown small eigenvalues
    weights_ATE = dual_weights(x @ x.T, rating_EA[there], components)
    directions: Float64[ndarray, "rating estimator d_model"] = weights_ATE @ x
    directions[np.isnan(weights_ATE).all(axis=2)] = np.nan  # also where there is no emotion at all
    return directions


def dual_weights(
    gram_EE: Gram, rating_EA: Ratings, components: Sequence[int], least: int = MIN_RATED
) -> Float64[ndarray, "rating estimator emotion"]:
    """Return the weights of the emotions' vectors in each direction; they add up to 0.

    Args:
        gram_EE: inner products of the emotions' vectors, their mean taken off or small.
        rating_EA: ratings, NaN where unrated.
        components: the principal component that each rating is paired with, from 0.
        least: rated emotions below which the weights are NaN.
    """
    spectra = _Spectra(gram_EE)
    weights_ATE = np.full((rating_EA.shape[1], len(ESTIMATORS), len(gram_EE)), np.nan)
    for axis, (rating_E, paired) in enumerate(zip(rating_EA.T, components, strict=True)):
        rated = np.isfinite(rating_E)
        if rated.sum() < least:
            continue
        values, vectors = spectra.of(np.ones(len(gram_EE), dtype=bool))
        scores = vectors[:, -1 - paired]
        found = correlate(scores, rating_E)
        component = (-1.0 if found.r < 0 else 1.0) * scores / np.sqrt(values[-1 - paired])
        y = rating_E[rated] - rating_E[rated].mean()
        by_name = {"covariance": y / len(y)}
        values, vectors = spectra.of(rated)
        along = vectors.T @ y
        by_name["ridge"] = vectors @ (along / (values + _ridge_strength(values, vectors, y)))
        some = values > values[-1] * SMALLEST_EIGENVALUE
        by_name["least-squares"] = vectors[:, some] @ (along[some] / values[some])
        for name, weights in by_name.items():
            weights_ATE[axis, ESTIMATORS.index(name)] = 0.0
            weights_ATE[axis, ESTIMATORS.index(name), rated] = weights
        weights_ATE[axis, ESTIMATORS.index("component")] = component
        paper = "component" if found.p < SIGNIFICANT else "least-squares"
        weights_ATE[axis, ESTIMATORS.index("paper")] = weights_ATE[axis, ESTIMATORS.index(paper)]
    return weights_ATE


def held_out_r(
    gram_EE: Gram,
    rating_EA: Ratings,
    components: Sequence[int],
    fold_E: Int[ndarray, " emotion"],
) -> Float64[ndarray, "rating estimator"]:
    """Return Pearson's r between ratings and projections on directions that never saw them.

    The emotions of a fold are projected on the direction estimated without them, from the mean of
    those that are left, in units of how those that are left spread along it, so that folds can be
    correlated together. Where ratings mean nothing it lies below 0 rather than around it: an
    emotion left out pulls what is left the other way.

    Args:
        gram_EE: inner products of the emotions' vectors.
        rating_EA: ratings, NaN where unrated.
        components: the principal component that each rating is paired with, from 0.
        fold_E: fold of each emotion, as `folds` gives them.
    """
    projection_ATE = np.full((rating_EA.shape[1], len(ESTIMATORS), len(gram_EE)), np.nan)
    for fold in np.unique(fold_E[fold_E >= 0]):
        test = fold_E == fold
        gram = gram_EE[np.ix_(~test, ~test)]
        weights_ATE = dual_weights(gram, rating_EA[~test], components, MIN_RATED // 2)
        across = gram_EE[np.ix_(~test, test)] - gram.mean(axis=1, keepdims=True)
        spread_AT1 = (weights_ATE @ gram).std(axis=2, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            projection_ATE[:, :, test] = weights_ATE @ across / spread_AT1
    projection_ATE[np.isfinite(rating_EA).sum(axis=0) < MIN_RATED] = np.nan
    return np.array(
        [
            [correlate(projection_E, rating_EA[:, axis]).r for projection_E in projection_TE]
            for axis, projection_TE in enumerate(projection_ATE)
        ]
    )


def folds(emotions: Sequence[str], seed: int) -> Int[ndarray, " emotion"]:
    """Deal emotions out to FOLDS folds of like size, by their names and the seed only.

    Two corpora of the same emotions in another order, or other norms, get the same folds.
    """
    ranked = sorted(range(len(emotions)), key=lambda at: _digest(f"{seed}:{emotions[at]}"))
    fold_E = np.empty(len(emotions), dtype=int)
    fold_E[ranked] = np.arange(len(emotions)) % FOLDS
    return fold_E


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


class _Spectra:
    """Eigenvalues and eigenvectors, ascending, of a Gram matrix centred over chosen emotions."""

    def __init__(self, gram_EE: Gram):
        self._gram_EE = gram_EE
        self._found: dict[bytes, tuple[Float64[ndarray, " n"], Float64[ndarray, "n n"]]] = {}

    def of(
        self, chosen_E: Bool[ndarray, " emotion"]
    ) -> tuple[Float64[ndarray, " n"], Float64[ndarray, "n n"]]:
        """Return those of the emotions chosen; each subset is decomposed once."""
        key = chosen_E.tobytes()
        if key not in self._found:
            gram = self._gram_EE[np.ix_(chosen_E, chosen_E)]
            rows = gram.mean(axis=0, keepdims=True)
            values, vectors = np.linalg.eigh(gram - rows - rows.T + gram.mean())
            self._found[key] = np.clip(values, 0, None), vectors
        return self._found[key]


def _ridge_strength(
    values: Float64[ndarray, " n"], vectors: Float64[ndarray, "n n"], y: Float64[ndarray, " n"]
) -> float:
    """Return the strength with the least leave-one-out error, the intercept left unpenalised."""
    strengths_S = RIDGE_GRID * values.mean()
    shrunk_SN = values / (values + strengths_S[:, None])
    fitted_SN = (shrunk_SN * (vectors.T @ y)) @ vectors.T
    leverage_SN = 1 / len(y) + shrunk_SN @ (vectors**2).T
    error_S = (((y - fitted_SN) / (1 - leverage_SN)) ** 2).sum(axis=1)
    return float(strengths_S[error_S.argmin()])
