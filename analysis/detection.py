"""Emotion vectors as detectors: where a text lies along each of them, and how often that is right.

A score is a projection on an emotion's unit vector. It is 0 for the mean neutral text and for the
mean over emotions alike, and 1 is the standard deviation of the corpus' stories along that vector.
Scores are linear in the residual, so a text's score is the mean of its tokens'.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int
from numpy import ndarray

from analysis.contrasts import ContrastKind, contrast_vectors, neutral_basis
from analysis.geometry import NotEnough
from analysis.variance import group_sums

CONTRAST: ContrastKind = "both"
"""An uncentred emotion mean is mostly the grand mean, and detects nothing."""

FOLDS = 10
"""Groups of topics that are held out in turn."""

SPREAD_STORIES = 2000
"""Stories at most, evenly over the corpus, that the spread of a fold's detectors is taken over."""

TOP = (1, 5, 10)
"""A story counts as found where its emotion is among so many with the highest scores."""


@dataclass(frozen=True)
class Detector:
    """Vectors of one window and layer that score residuals.

    Attributes:
        unit_ED: unit vectors; NaN for an emotion without one.
        zero_E: projection of the mean neutral text, and of the mean over emotions.
        spread_E: standard deviation of the projections of stories, residual stream units.
    """

    unit_ED: Float64[ndarray, "emotion d_model"]
    zero_E: Float64[ndarray, " emotion"]
    spread_E: Float64[ndarray, " emotion"]

    def scores(self, x_ND: Float64[ndarray, "text d_model"]) -> Float64[ndarray, "text emotion"]:
        """Return the scores of residuals, or of means of residuals."""
        return (x_ND @ self.unit_ED.T - self.zero_E) / self.spread_E


@dataclass(frozen=True)
class Detection:
    """How well held-out stories are told apart at one window and layer.

    Attributes:
        n: stories with a rank.
        candidates: emotions that they are told from, in the fold that has fewest.
        top_K: share of stories whose emotion is among the TOP.
        low_K: lower end of its 95 % interval over emotions.
        high_K: upper end.
        chance_K: the share by chance.
        median_rank: of a story's own emotion, 1 the best.
        mean_reciprocal_rank: of the same.
        rank_E: median rank of each emotion's stories, NaN where it has none with a rank.
        missing: why there is nothing, "" where there is.
    """

    n: int
    candidates: int
    top_K: Float64[ndarray, " top"]
    low_K: Float64[ndarray, " top"]
    high_K: Float64[ndarray, " top"]
    chance_K: Float64[ndarray, " top"]
    median_rank: float
    mean_reciprocal_rank: float
    rank_E: Float64[ndarray, " emotion"]
    missing: str = ""


def detecting_vectors(
    u_ED: Float64[ndarray, "emotion d_model"],
    neutral_ND: Float64[ndarray, "text d_model"],
    basis_KD: Float64[ndarray, "component d_model"],
) -> tuple[Float64[ndarray, "emotion d_model"], Float64[ndarray, " emotion"]]:
    """Return the unit vectors of a detector, and what is zero along each.

    The vectors are the contrast `both`, less what they have along the direction from the mean
    neutral text to the mean over emotions: what all stories share is no emotion's, and would have
    the emotions that lean that way lead in every story.

    Args:
        u_ED: emotion means, NaN where an emotion has none.
        neutral_ND: the neutral texts' vectors, NaN where a text has none; one at least is there.
        basis_KD: their basis (`analysis.contrasts.neutral_basis`).

    Raises:
        NotEnough: fewer than two emotions have a vector.
    """
    there_E = np.isfinite(u_ED).all(axis=1)
    if there_E.sum() < 2:
        raise NotEnough(f"a detector needs at least 2 emotions, {there_E.sum()} have a vector")
    neutral_D = neutral_ND[np.isfinite(neutral_ND).all(axis=1)].mean(axis=0)
    shared_D = u_ED[there_E].mean(axis=0) - neutral_D
    shared_D = shared_D - (shared_D @ basis_KD.T) @ basis_KD
    x_ED = contrast_vectors(u_ED, basis_KD, CONTRAST)
    if (length := float(shared_D @ shared_D)) > 0:
        x_ED = x_ED - np.outer(x_ED @ shared_D, shared_D) / length
    norm_E = np.linalg.norm(x_ED, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit_ED = np.where(norm_E > 0, x_ED / norm_E, np.nan)
    return unit_ED, unit_ED @ neutral_D


def make_detector(
    u_ED: Float64[ndarray, "emotion d_model"],
    neutral_ND: Float64[ndarray, "text d_model"],
    basis_KD: Float64[ndarray, "component d_model"],
    stories: Iterable[Float64[ndarray, "text d_model"]],
) -> Detector:
    """Return what scores residuals of one window and layer.

    Args:
        u_ED: emotion means, NaN where an emotion has none.
        neutral_ND: the neutral texts' vectors.
        basis_KD: their basis.
        stories: all stories, in blocks; rows that are not finite are left out.

    Raises:
        NotEnough: fewer than two emotions have a vector.
    """
    unit_ED, zero_E = detecting_vectors(u_ED, neutral_ND, basis_KD)
    n, sum_E, square_E = 0, np.zeros_like(zero_E), np.zeros_like(zero_E)
    for x_ND in stories:
        along_NE = x_ND[np.isfinite(x_ND).all(axis=1)] @ unit_ED.T - zero_E
        n, sum_E = n + len(along_NE), sum_E + along_NE.sum(axis=0)
        square_E += (along_NE**2).sum(axis=0)
    return Detector(unit_ED, zero_E, _deviation(n, sum_E, square_E))


def _deviation(
    n: int, sum_E: Float64[ndarray, " emotion"], square_E: Float64[ndarray, " emotion"]
) -> Float64[ndarray, " emotion"]:
    """Return standard deviations from sums over n texts, NaN where nothing varies."""
    if n < 2:
        return np.full_like(sum_E, np.nan)
    variance_E = square_E / n - (sum_E / n) ** 2
    return np.sqrt(np.where(variance_E > 0, variance_E, np.nan))


def topic_folds(
    text_id: Sequence[str], emotion: Sequence[str], seed: int
) -> tuple[Int[ndarray, " text"], int]:
    """Return the fold of each text, -1 for a neutral one, and the number of folds.

    All stories on one topic are in one fold, whichever their emotion. Folds depend on the topics'
    names and the seed only.

    Args:
        text_id: of each text, `emotion/topic number/story number`.
        emotion: of each text, "" for a neutral one.
        seed: decides which topics go together.
    """
    topics = [
        key.rsplit("/", 2)[-2] if name else None for key, name in zip(text_id, emotion, strict=True)
    ]
    distinct = sorted(
        {topic for topic in topics if topic is not None},
        key=lambda topic: hashlib.sha256(f"{seed}:{topic}".encode()).digest(),
    )
    n_folds = min(FOLDS, len(distinct))
    fold_of = {topic: at % n_folds for at, topic in enumerate(distinct)}
    return np.array([-1 if t is None else fold_of[t] for t in topics]), n_folds


class HeldOut:
    """Detectors that never saw a story's topic, for every story of one window and layer.

    Texts come twice in blocks: first to be summed by fold and emotion, then to be ranked.
    """

    def __init__(
        self,
        fold_N: Int[ndarray, " text"],
        row_N: Int[ndarray, " text"],
        n_folds: int,
        n_emotions: int,
        d_model: int,
    ):
        """Make room for the sums.

        Args:
            fold_N: fold of each text, -1 for a neutral one.
            row_N: emotion of each text, -1 for a neutral one.
            n_folds: folds.
            n_emotions: emotions.
            d_model: width of the residual stream.
        """
        self._fold_N, self._row_N = fold_N, row_N
        self._n_folds, self._n_emotions = n_folds, n_emotions
        self._sum_KD = np.zeros((n_folds * n_emotions, d_model))
        self._count_K = np.zeros(n_folds * n_emotions)
        stories = np.flatnonzero(fold_N >= 0)
        self._sampled_N = np.zeros(len(fold_N), dtype=bool)
        self._sampled_N[stories[:: -(-len(stories) // SPREAD_STORIES) or 1]] = True
        self._sample: list[tuple[Int[ndarray, " text"], Float32[ndarray, "text d_model"]]] = []

    def add(
        self, texts: slice, x_ND: Float64[ndarray, "text d_model"], there_N: Bool[ndarray, " text"]
    ) -> None:
        """Add a block of texts; those that are not there have no vector."""
        fold_N, row_N = self._fold_N[texts], self._row_N[texts]
        rows = np.flatnonzero(there_N & (fold_N >= 0) & (row_N >= 0))
        key_N = fold_N[rows] * self._n_emotions + row_N[rows]
        here, place = np.unique(key_N, return_inverse=True)
        self._sum_KD[here] += group_sums(x_ND, place, len(here), rows)
        self._count_K[here] += np.bincount(place, minlength=len(here))
        chosen = rows[self._sampled_N[texts][rows]]
        self._sample.append((texts.start + chosen, x_ND[chosen].astype(np.float32)))

    def detection(
        self,
        pieces: Iterable[tuple[slice, Float64[ndarray, "text d_model"]]],
        neutral_ND: Float64[ndarray, "text d_model"],
        neutral_variance: float,
    ) -> Detection:
        """Rank every story's emotion by detectors made without its topic.

        Args:
            pieces: the same texts once more.
            neutral_ND: the neutral texts' vectors.
            neutral_variance: share of variance of the neutral basis.
        """
        if self._n_folds < 2:
            return no_detection(self._n_emotions, "all stories are on one topic")
        try:
            basis_KD, _ = neutral_basis(neutral_ND, neutral_variance)
            detectors = [
                make_detector(u_ED, neutral_ND, basis_KD, self._others(fold))
                for fold, u_ED in enumerate(self._means())
            ]
        except NotEnough as error:
            return no_detection(self._n_emotions, str(error))
        candidates_F = np.array([np.isfinite(d.spread_E).sum() for d in detectors])
        rank_N = np.full(len(self._fold_N), np.nan)
        for texts, x_ND in pieces:
            there_N = np.isfinite(x_ND).all(axis=1)
            fold_N = np.where(there_N, self._fold_N[texts], -1)
            for fold in np.unique(fold_N[fold_N >= 0]):
                rows = np.flatnonzero(fold_N == fold)
                own_N = self._row_N[texts][rows]
                rank_N[texts.start + rows] = _ranks(detectors[fold].scores(x_ND[rows]), own_N)
        return _summary(rank_N, candidates_F[self._fold_N], self._row_N, self._n_emotions)

    def _others(self, fold: int) -> Iterator[Float64[ndarray, "text d_model"]]:
        """Yield stories of all folds but one, of those that the spread is taken over."""
        for numbers, x_ND in self._sample:
            yield x_ND[self._fold_N[numbers] != fold].astype(np.float64)

    def _means(self) -> Float64[ndarray, "fold emotion d_model"]:
        """Return, for each fold, the emotion means over the stories of all others."""
        shape = (self._n_folds, self._n_emotions)
        sum_FED = self._sum_KD.reshape(*shape, -1)
        count_FE = self._count_K.reshape(shape)
        others_FE = count_FE.sum(axis=0) - count_FE
        with np.errstate(invalid="ignore", divide="ignore"):
            mean_FED = (sum_FED.sum(axis=0) - sum_FED) / others_FE[..., None]
        mean_FED[others_FE == 0] = np.nan
        return mean_FED


def leading_emotions(score_TE: Float32[ndarray, "token emotion"], n: int) -> list[int]:
    """Return the emotions that lead a text's tokens, by how much they do so, at most n.

    A token counts for the emotion of its highest score, with that score, where it is above 0.
    """
    inside = np.isfinite(score_TE).all(axis=1)
    if not inside.any():
        return []
    score_TE = score_TE[inside]
    first_T, best_T = score_TE.argmax(axis=1), score_TE.max(axis=1)
    total_E = np.bincount(first_T, np.maximum(best_T, 0), score_TE.shape[1])
    order = np.argsort(-total_E, kind="stable")[:n]
    return [int(row) for row in order if total_E[row] > 0]


def no_detection(n_emotions: int, why: str) -> Detection:
    """Return that nothing can be said, and why."""
    nan, nan_K = float("nan"), np.full(len(TOP), np.nan)
    rank_E = np.full(n_emotions, nan)
    return Detection(0, 0, nan_K, nan_K, nan_K, nan_K, nan, nan, rank_E, why)


def _ranks(
    score_NE: Float64[ndarray, "text emotion"], own_N: Int[ndarray, " text"]
) -> Float64[ndarray, " text"]:
    """Return the rank of each text's own emotion, equal scores shared; NaN without a score."""
    own = score_NE[np.arange(len(own_N)), own_N][:, None]
    above_N, equal_N = (score_NE > own).sum(axis=1), (score_NE == own).sum(axis=1)
    return np.where(np.isfinite(own[:, 0]), above_N + (equal_N + 1) / 2, np.nan)


def _summary(
    rank_N: Float64[ndarray, " text"],
    candidates_N: Int[ndarray, " text"],
    row_N: Int[ndarray, " text"],
    n_emotions: int,
) -> Detection:
    ranked_N = np.isfinite(rank_N)
    if not ranked_N.any():
        return no_detection(n_emotions, "no emotion has stories on several topics")
    rank_N, candidates_N, row_N = rank_N[ranked_N], candidates_N[ranked_N], row_N[ranked_N]
    rank_E = np.array(
        [np.median(r) if len(r := rank_N[row_N == row]) else np.nan for row in range(n_emotions)]
    )
    found_NK = rank_N[:, None] <= np.array(TOP)
    top_K = found_NK.mean(axis=0)
    half_K = np.array([_half_width(found_N, row_N) for found_N in found_NK.T])
    chance_NK = np.minimum(1, np.array(TOP) / candidates_N[:, None])
    return Detection(
        len(rank_N),
        int(candidates_N.min()),
        top_K,
        np.maximum(0, top_K - half_K),
        np.minimum(1, top_K + half_K),
        chance_NK.mean(axis=0),
        float(np.median(rank_N)),
        float((1 / rank_N).mean()),
        rank_E,
    )


def _half_width(found_N: Bool[ndarray, " text"], row_N: Int[ndarray, " text"]) -> float:
    """Return half of the 95 % interval of a share of stories, emotions drawn as wholes.

    The linearised variance of a ratio of sums over clusters (Cochran 1977, Sampling Techniques,
    section 6.4), with Student's t for as many clusters as there are emotions.
    """
    from scipy import stats  # a third of a second, which reading other texts has no use for

    _, place, n_E = np.unique(row_N, return_inverse=True, return_counts=True)
    if len(n_E) < 2:
        return float("nan")
    residual_E = np.bincount(place, weights=found_N - found_N.mean())
    variance = (residual_E**2).sum() * len(n_E) / (len(n_E) - 1) / len(found_N) ** 2
    return float(stats.t.ppf(0.975, len(n_E) - 1) * np.sqrt(variance))
