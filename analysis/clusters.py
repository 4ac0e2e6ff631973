"""How emotions group: those rated positive against negative, and k-means clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int
from numpy import ndarray

from analysis.geometry import principal_coordinates

MIN_ON_A_SIDE = 2
STARTS = 10
"""Random starts of k-means, of which the tightest is kept."""


@dataclass(frozen=True)
class Clusters:
    """Clusters of emotions.

    Attributes:
        label_E: cluster of each emotion, from 0, the largest first; -1 for one without a vector.
        silhouette: mean silhouette over emotions (Rousseeuw 1987).
    """

    label_E: Int[ndarray, " emotion"]
    silhouette: float


def distances(x_ED: Float64[ndarray, "emotion dimension"]) -> Float64[ndarray, "emotion emotion"]:
    """Return Euclidean distances between rows; NaN rows and columns where a row is NaN."""
    return gram_distances(x_ED @ x_ED.T)


def gram_distances(gram_EE: Float64[ndarray, "e e"]) -> Float64[ndarray, "emotion emotion"]:
    """Return the Euclidean distances that a Gram matrix means."""
    own_E = np.diag(gram_EE)
    found = np.sqrt(np.clip(own_E[:, None] + own_E - 2 * gram_EE, 0, None))
    np.fill_diagonal(found, 0)
    found[np.isnan(own_E), np.isnan(own_E)] = np.nan
    return found


def separation(
    distance_EE: Float64[ndarray, "emotion emotion"],
    rating_E: Float64[ndarray, " emotion"],
    middle: float | None = None,
) -> float:
    """Return the mean silhouette of emotions rated above the middle against those below.

    1 is two tight groups far apart, 0 none; NaN with fewer than two emotions on a side. Unrated
    emotions and those without a vector are left out.

    Args:
        distance_EE: distances between emotions.
        rating_E: ratings, NaN where unrated.
        middle: of the ratings' scale; of the rated emotions' own range when None.
    """
    from sklearn.metrics import silhouette_score

    there = np.isfinite(rating_E) & np.isfinite(np.diag(distance_EE))
    rating = rating_E[there]
    if len(rating) == 0:
        return float("nan")
    high = rating > ((rating.min() + rating.max()) / 2 if middle is None else middle)
    if min(high.sum(), (~high).sum()) < MIN_ON_A_SIDE:
        return float("nan")
    return float(silhouette_score(distance_EE[np.ix_(there, there)], high, metric="precomputed"))


def kmeans_clusters(
    gram_EE: Float64[ndarray, "e e"], ks: Sequence[int], seed: int
) -> dict[int, Clusters]:
    """Return k-means clusters for each number of clusters that lies below that of emotions.

    Clusters are of all dimensions, not of the leading plane: a Gram matrix fixes the vectors up to
    a rotation, which changes no distance. So few points keep one thread busy; more of them would
    wait for each other.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score
    from threadpoolctl import threadpool_limits

    there = np.isfinite(np.diag(gram_EE))
    gram = gram_EE[np.ix_(there, there)]
    points, _ = principal_coordinates(gram, len(gram))
    found = {}
    for k in [k for k in ks if 2 <= k < len(points)]:
        with threadpool_limits(1):
            label = KMeans(k, n_init=STARTS, random_state=seed).fit(points).labels_
        order = np.argsort(-np.bincount(label), kind="stable")
        label_E = np.full(len(gram_EE), -1)
        label_E[there] = np.argsort(order)[label]
        found[k] = Clusters(label_E, float(silhouette_score(points, label)))
    return found
