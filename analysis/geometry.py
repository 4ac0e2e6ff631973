"""Principal components of contrast vectors and their correlation with human ratings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from scipy import special, stats


class NotEnough(ValueError):
    """There are too few vectors for a number, or they do not vary; the message says which."""


@dataclass(frozen=True)
class PCA:
    """Principal components of E emotions in D dimensions.

    Attributes:
        scores_EC: coordinates of each emotion on each component, NaN for an emotion left out.
        variance_C: share of the variance each component explains.
        components_CD: unit directions.
    """

    scores_EC: Float64[ndarray, "emotion component"]
    variance_C: Float64[ndarray, " component"]
    components_CD: Float64[ndarray, "component d_model"]


@dataclass(frozen=True)
class Correlation:
    """Pearson's r, its two-sided p and the number of emotions behind it."""

    r: float
    p: float
    n: int


def centred(x_ED: Float64[ndarray, "row d_model"]) -> Float64[ndarray, "row d_model"]:
    """Return rows with the mean over those that are not NaN taken off."""
    there = np.isfinite(x_ED).all(axis=1)
    return x_ED - x_ED[there].mean(axis=0) if there.any() else x_ED


def pca(x_ED: Float64[ndarray, "emotion d_model"], n_components: int = 2) -> PCA:
    """Return the leading principal components by full SVD of the centred matrix, in float64.

    Emotions whose row is NaN are left out. A component's sign is arbitrary here; it is set so that
    the entry of largest magnitude in its scores is positive.

    Raises:
        NotEnough: fewer than three emotions left, or emotions that do not vary.
    """
    there = np.isfinite(x_ED).all(axis=1)
    x = centred(x_ED[there])
    if len(x) < 3:
        raise NotEnough(f"PCA needs at least 3 emotions with a vector, {len(x)} have one")
    u_EC, s_C, v_CD = np.linalg.svd(x, full_matrices=False)
    total = float((s_C**2).sum())
    if total == 0:
        raise NotEnough("the emotions' vectors are all the same")
    k = min(n_components, len(s_C))
    scores = u_EC[:, :k] * s_C[:k]
    signs = np.sign(scores[np.abs(scores).argmax(axis=0), np.arange(k)])
    scores_EC = np.full((len(x_ED), n_components), np.nan)
    scores_EC[there, :k] = scores * signs
    variance_C = np.full(n_components, np.nan)
    variance_C[:k] = s_C[:k] ** 2 / total
    components_CD = np.full((n_components, x.shape[1]), np.nan)
    components_CD[:k] = v_CD[:k] * signs[:, None]
    return PCA(scores_EC, variance_C, components_CD)


def principal_coordinates(
    gram_EE: Float64[ndarray, "emotion emotion"], n_components: int = 2
) -> tuple[Float64[ndarray, "emotion component"], Float64[ndarray, " component"]]:
    """Return scores on the leading components and their shares of variance, from a Gram matrix.

    The same as `pca` of the vectors behind it, to the square root of the arithmetic's precision for
    components without variance. Emotions whose row is NaN are left out and get NaN.

    Raises:
        NotEnough: fewer than three emotions left, or emotions that do not vary.
    """
    there = np.isfinite(np.diag(gram_EE))
    if there.sum() < 3:
        raise NotEnough(f"PCA needs at least 3 emotions with a vector, {there.sum()} have one")
    gram = gram_EE[np.ix_(there, there)]
    rows = gram.mean(axis=0, keepdims=True)
    values, vectors = np.linalg.eigh(gram - rows - rows.T + gram.mean())
    values, vectors = np.clip(values[::-1], 0, None), vectors[:, ::-1]
    if values[0] == 0:
        raise NotEnough("the emotions' vectors are all the same")
    k = min(n_components, len(values))
    scores_EC = np.full((len(gram_EE), n_components), np.nan)
    scores_EC[there, :k] = vectors[:, :k] * np.sqrt(values[:k])
    variance_C = np.full(n_components, np.nan)
    variance_C[:k] = values[:k] / values.sum()
    return scores_EC, variance_C


def correlate(
    x_E: Float64[ndarray, " emotion"], y_E: Float64[ndarray, " emotion"], ranks: bool = False
) -> Correlation:
    """Return Pearson's r, or Spearman's of the ranks, over the emotions that have both numbers.

    p is that of Student's t with n - 2 degrees of freedom, as scipy's `pearsonr` and `spearmanr`
    give it; done by hand because it is called a hundred times a layer. r and p are NaN where fewer
    than three have both, or one of the two does not vary.
    """
    both = np.isfinite(x_E) & np.isfinite(y_E)
    n = int(both.sum())
    if n < 3 or np.ptp(x_E[both]) == 0 or np.ptp(y_E[both]) == 0:
        return Correlation(float("nan"), float("nan"), n)
    x, y = x_E[both], y_E[both]
    if ranks:
        x, y = stats.rankdata(x), stats.rankdata(y)
    x, y = x - x.mean(), y - y.mean()
    r = float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1, 1))
    with np.errstate(divide="ignore"):
        t = abs(r) * np.sqrt(np.divide(n - 2, 1 - r * r))
    return Correlation(r, float(2 * special.stdtr(n - 2, -t)), n)


@dataclass(frozen=True)
class Alignment:
    """The direction within the plane of PC1 and PC2 that correlates most with a rating.

    Attributes:
        r: the correlation there, at least as large as that of either component.
        angle: degrees between that direction and PC1, 0 to 90, both scores scaled to the same
            spread: near 0 the rating lies along PC1, near 90 along PC2, so a swap of the two
            components is seen for what it is.
        p: of r, a multiple correlation with two scores (F-test): never below |r| of either, so it
            needs a p of its own.
    """

    r: float
    angle: float
    p: float


def plane_alignment(
    score_EC: Float64[ndarray, "emotion component"], rating_E: Float64[ndarray, " emotion"]
) -> Alignment:
    """Return the best alignment of a rating within the plane of the first two components.

    It is the multiple correlation of the rating with the two scores; NaN with fewer than four
    emotions that have a score and a rating, or scores or ratings that do not vary.
    """
    both = np.isfinite(score_EC[:, :2]).all(axis=1) & np.isfinite(rating_E)
    scores, y = score_EC[both, :2], rating_E[both]
    if len(y) < 4 or np.ptp(y) == 0 or (np.ptp(scores, axis=0) == 0).any():
        return Alignment(float("nan"), float("nan"), float("nan"))
    scores = (scores - scores.mean(axis=0)) / scores.std(axis=0)  # PC1 is longer, not nearer
    weights = np.linalg.lstsq(scores, y - y.mean(), rcond=None)[0]
    r = correlate(scores @ weights, y).r
    free = len(y) - 3
    with np.errstate(divide="ignore"):
        f = (r**2 / 2) / np.divide(1 - r**2, free)
    angle = float(np.degrees(np.arctan2(*np.abs(weights[::-1]))))
    return Alignment(r, angle, float(stats.f.sf(f, 2, free)))
