"""Correlations of components with ratings when stories, or emotions, are drawn anew.

Everything happens between emotions and between what is drawn; d_model enters once, through Gram
matrices. A drawn component is signed like the full sample's, by their dot product and never by its
correlation, so that an interval may cover zero.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int
from numpy import ndarray
from scipy.linalg import eigh

from analysis.variance import group_sums

MAX_UNITS = 8
"""Units of an emotion; topics beyond are put together at random, so that Gram matrices stay small
whatever the corpus."""

CHUNK = 100
"""Draws whose Gram matrices are held at once."""

LEAST_RATED = 4
"""Rated emotions below which a draw says nothing."""

MAX_UNDRAWN = 0.1
"""Share of emotions with a single unit beyond which no interval over stories is given."""

SMALLEST = 1e-12
"""Eigenvalues below this share of the largest count as zero."""

LARGEST = 1 - 1e-12
"""Correlations are cut here before Fisher's z, which is infinite at 1."""

Gram = Float64[ndarray, "e e"]
Scores = Float64[ndarray, "emotion component"]
ByNorms = Float64[ndarray, "norms emotion component"]


@dataclass(frozen=True)
class Units:
    """What the bootstrap over stories draws: an emotion's topics, each with all its stories.

    Stories of one topic come from one prompt, often from one reply, and go together. How they vary
    among themselves is already in how the means of topics vary. An emotion with a single topic has
    its stories drawn.

    Attributes:
        unit_N: unit of each text, -1 for a neutral one.
        emotion_U: emotion of each unit, in ascending order.
        crossed: all emotions are on the same topics, which are then drawn for all at once: what a
            topic does to every emotion is no noise of any.
    """

    unit_N: Int[ndarray, " text"]
    emotion_U: Int[ndarray, " unit"]
    crossed: bool = False


def resampling_units(
    text_id: Sequence[str], emotion: Sequence[str], emotions: Sequence[str], seed: int
) -> Units:
    """Return the units of a corpus, which depend on ids and the seed and not on the texts' order.

    Args:
        text_id: of each text, `emotion/topic number/story number`.
        emotion: of each text, "" for a neutral one.
        emotions: emotions in the wanted order.
        seed: decides which topics go together where there are more than MAX_UNITS.
    """
    by_emotion: dict[str, list[tuple[str, str, int]]] = {name: [] for name in emotions}
    for at, (key, name) in enumerate(zip(text_id, emotion, strict=True)):
        if name:
            by_emotion[name].append((key.rsplit("/", 2)[-2], key, at))
    topics = [{topic for topic, _, _ in stories} for stories in by_emotion.values()]
    crossed = len(topics) > 1 and len(topics[0]) > 1 and all(t == topics[0] for t in topics)
    unit_N = np.full(len(text_id), -1)
    emotion_U: list[int] = []
    for row, name in enumerate(emotions):
        stories = by_emotion[name]
        one_topic = len({topic for topic, _, _ in stories}) == 1
        groups = [key if one_topic else topic for topic, key, _ in stories]
        own = "" if crossed else name
        ranked = sorted(set(groups), key=lambda group: _digest(f"{seed}:{own}:{group}"))
        unit_of = {group: at % MAX_UNITS for at, group in enumerate(ranked)}
        for group, (_, _, at) in zip(groups, stories, strict=True):
            unit_N[at] = len(emotion_U) + unit_of[group]
        emotion_U += [row] * min(MAX_UNITS, len(ranked))
    return Units(unit_N, np.array(emotion_U, dtype=int), crossed)


class UnitSums:
    """Sums of story vectors by unit, added block by block."""

    def __init__(self, units: Units, d_model: int):
        self._unit_N = units.unit_N
        self.sum_UD = np.zeros((len(units.emotion_U), d_model))
        self.count_U = np.zeros(len(units.emotion_U))

    def add(
        self, texts: slice, x_ND: Float64[ndarray, "text d_model"], there_N: Bool[ndarray, " text"]
    ) -> None:
        """Add a block of texts; those that are not there have no vector."""
        unit_N = self._unit_N[texts]
        rows = np.flatnonzero(there_N & (unit_N >= 0))
        here, place = np.unique(unit_N[rows], return_inverse=True)
        self.sum_UD[here] += group_sums(x_ND, place, len(here), rows)
        self.count_U[here] += np.bincount(place, minlength=len(here))


def draw_weights(
    units: Units,
    count_U: Float64[ndarray, " unit"],
    emotions: Sequence[str],
    n: int,
    seed: int,
) -> Float64[ndarray, "draw unit"]:
    """Return the weight of each unit's mean in its emotion's, for n draws.

    Of an emotion's k units k - 1 are drawn with replacement, so that the variance over draws is
    that of the mean (Rao & Wu 1988); all k would make it too small by the factor (k - 1) / k, a
    third for three topics. A unit counts with its stories, as in the mean over all. An emotion
    with a single unit keeps it; with more than MAX_UNDRAWN of such emotions all weights are NaN,
    for nothing would be known of the noise. Draws depend on the seed and the emotion's name (where
    topics are crossed, on the seed only), so that the same stories read by two models, or at two
    layers, are drawn alike.

    Args:
        units: as `resampling_units` gives them.
        count_U: stories behind each unit; a unit without any is not drawn.
        emotions: names of the emotions that the units count from 0.
        n: draws.
        seed: of the draws.
    """
    weight_BU = np.zeros((n, len(count_U)))
    there = np.bincount(units.emotion_U[count_U > 0], minlength=len(emotions))
    if (there == 1).sum() > MAX_UNDRAWN * (there > 0).sum():
        return np.full_like(weight_BU, np.nan)
    for emotion in np.unique(units.emotion_U):
        here = np.flatnonzero((units.emotion_U == emotion) & (count_U > 0))
        if len(here) == 0:
            continue
        digest = _digest(f"{seed}:{'' if units.crossed else emotions[emotion]}")
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        drawn = rng.integers(len(here), size=(n, max(1, len(here) - 1)))
        for column in drawn.T:
            weight_BU[np.arange(n), here[column]] += count_U[here[column]]
        weight_BU[:, here] /= weight_BU[:, here].sum(axis=1, keepdims=True)
    return weight_BU


@dataclass(frozen=True)
class Draws:
    """Correlations over draws.

    Attributes:
        r_BNX: of PC1 and PC2 with the ratings they are paired with, by norms.
        overlap_X: how far a drawn component is the full sample's, mean |cosine| over draws.
    """

    r_BNX: Float64[ndarray, "draw norms component"]
    overlap_X: Float64[ndarray, " component"]


def bootstrap_stories(
    gram_UU: Float64[ndarray, "unit unit"],
    emotion_U: Int[ndarray, " unit"],
    weight_BU: Float64[ndarray, "draw unit"],
    whole_EX: Scores,
    rating_NEX: ByNorms,
) -> Draws:
    """Return r of PC1 and PC2 with their ratings when stories are drawn anew.

    Args:
        gram_UU: inner products of the units' means, projected as the contrast is.
        emotion_U: emotion of each unit, ascending; every emotion has one.
        weight_BU: as `draw_weights` gives them.
        whole_EX: scores over all stories, which give the components' signs.
        rating_NEX: ratings by norms, NaN where unrated.
    """
    if np.isnan(weight_BU).any():
        nan = np.full((len(weight_BU), len(rating_NEX), whole_EX.shape[1]), np.nan)
        return Draws(nan, nan[0, 0])
    unit_EX = whole_EX / np.linalg.norm(whole_EX, axis=0)
    scores = [
        component_scores(gram_EE)
        for grams_BEE in drawn_grams(gram_UU, emotion_U, weight_BU)
        for gram_EE in grams_BEE
    ]
    score_BEX = np.array(scores)
    along_BX = np.einsum("bex,ex->bx", score_BEX, unit_EX)
    signed_BEX = score_BEX * np.where(along_BX < 0, -1.0, 1.0)[:, None]
    weight_BE = np.ones(score_BEX.shape[:2])
    r = [weighted_r(signed_BEX, rating_EX, weight_BE) for rating_EX in rating_NEX]
    return Draws(np.stack(r, axis=1), np.abs(along_BX).mean(axis=0))


def bootstrap_emotions(
    gram_EE: Gram, whole_EX: Scores, rating_NEX: ByNorms, n: int, seed: int
) -> Draws:
    """Return r of PC1 and PC2 with their ratings when emotions are drawn anew, with replacement.

    An emotion drawn c times counts c times in the mean, the components and r. A drawn component is
    signed, and its overlap measured, by the cosine of its direction with the full sample's. A draw
    of fewer than LEAST_RATED emotions, or without variance along a component, is NaN.

    Args:
        gram_EE: of the contrast vectors, centred over all emotions.
        whole_EX: scores over all emotions.
        rating_NEX: ratings by norms, NaN where unrated.
        n: draws.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    n_emotions = len(gram_EE)
    weights_EX = whole_EX / (whole_EX**2).sum(axis=0)  # of the vectors in the whole's directions
    count_BE = rng.multinomial(n_emotions, np.full(n_emotions, 1 / n_emotions), size=n)
    score_BEX = np.full((n, n_emotions, whole_EX.shape[1]), np.nan)
    along_BX = np.full((n, whole_EX.shape[1]), np.nan)
    for draw, count_E in enumerate(count_BE):
        here = np.flatnonzero(count_E)
        if len(here) < LEAST_RATED:
            continue
        count = count_E[here].astype(float)
        gram = gram_EE[np.ix_(here, here)]
        mean = gram @ count / n_emotions
        centred = gram - mean - mean[:, None] + mean @ count / n_emotions
        root = np.sqrt(count)
        values, vectors = _leading(centred * root * root[:, None], whole_EX.shape[1])
        values = np.where(values > SMALLEST * values[0], values, np.nan)
        score_BEX[draw] = 0.0  # for emotions that were not drawn, whose weight is 0
        score_BEX[draw, here] = vectors / root[:, None]
        score_BEX[draw, :, np.isnan(values)] = np.nan
        dual = vectors * root[:, None]
        along_BX[draw] = (dual * (gram_EE[here] @ weights_EX)).sum(axis=0) / np.sqrt(values)
    signed_BEX = score_BEX * np.where(along_BX < 0, -1.0, 1.0)[:, None]
    r = [weighted_r(signed_BEX, rating_EX, count_BE.astype(float)) for rating_EX in rating_NEX]
    return Draws(np.stack(r, axis=1), _mean(np.abs(along_BX)))


def freed_of_drawing(
    draw_B: Float64[ndarray, "draw ..."], whole: Float64[ndarray, ...], overlap: ndarray
) -> Float64[ndarray, "draw ..."]:
    """Return draws of r recentred and rescaled, whose quantiles are an interval.

    Stories drawn anew carry the sample's noise and as much again, which pulls r towards 0: draws
    lie below r as r lies below what infinitely many stories would give. So on Fisher's z their mean
    goes as far above r as it was below (bias correction, Efron & Tibshirani 1993, eq. 10.41), and
    their spread is divided by the square of the mean cosine between drawn component and full one,
    the share of its variance that a drawn component keeps: where components trade places in
    drawing, little is known of either.

    Args:
        draw_B: r over draws.
        whole: r of the full sample.
        overlap: of drawn components with the full sample's, as in `Draws`; 1 where no component is
            estimated.
    """
    z_B = np.arctanh(np.clip(draw_B, -LARGEST, LARGEST))
    z, mean = np.arctanh(np.clip(whole, -LARGEST, LARGEST)), _mean(z_B)
    return np.tanh(2 * z - mean + (z_B - mean) / overlap**2)


def drawn_grams(
    gram_UU: Float64[ndarray, "unit unit"],
    emotion_U: Int[ndarray, " unit"],
    weight_BU: Float64[ndarray, "draw unit"],
) -> Iterator[Float64[ndarray, "draw emotion emotion"]]:
    """Yield Gram matrices of emotion means over draws, CHUNK draws at a time.

    Args:
        gram_UU: inner products of the units' means.
        emotion_U: emotion of each unit, ascending; an emotion without a unit has no row.
        weight_BU: weights of the units in their emotion's mean.
    """
    starts = np.flatnonzero(np.diff(emotion_U, prepend=-1))
    spans = list(zip(starts, [*starts[1:], len(emotion_U)], strict=True))
    for at in range(0, len(weight_BU), CHUNK):
        weights = weight_BU[at : at + CHUNK]
        out = np.empty((len(weights), len(spans), len(spans)))
        for row, (first, last) in enumerate(spans):
            toward_BU = weights[:, first:last] @ gram_UU[first:last]
            out[:, row] = np.add.reduceat(toward_BU * weights, starts, axis=1)
        yield out


def component_scores(gram_EE: Gram, n_components: int = 2) -> Scores:
    """Return unit scores on the leading principal components of vectors with this Gram matrix."""
    rows = gram_EE.mean(axis=0, keepdims=True)
    return _leading(gram_EE - rows - rows.T + gram_EE.mean(), n_components)[1]


def weighted_r(
    score_BEX: Float64[ndarray, "draw emotion component"],
    rating_EX: Float64[ndarray, "emotion component"],
    weight_BE: Float64[ndarray, "draw emotion"],
) -> Float64[ndarray, "draw component"]:
    """Return r of each component with its rating, over the rated emotions with their weights.

    NaN where fewer than LEAST_RATED of them have a weight, or one side does not vary.
    """
    found = np.full((len(score_BEX), rating_EX.shape[1]), np.nan)
    for component, rating_E in enumerate(rating_EX.T):
        rated = np.isfinite(rating_E)
        weight = weight_BE[:, rated]
        x, y = score_BEX[:, rated, component], np.broadcast_to(rating_E[rated], weight.shape)
        total = weight.sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            x, y = (v - (weight * v).sum(axis=1, keepdims=True) / total for v in (x, y))
            xx, yy, xy = ((weight * v).sum(axis=1) for v in (x * x, y * y, x * y))
            enough = (weight > 0).sum(axis=1) >= LEAST_RATED
            found[:, component] = np.where(enough, xy / np.sqrt(xx * yy), np.nan)
    return found


def _mean(x_B: Float64[ndarray, "draw ..."]) -> Float64[ndarray, ...]:
    """Return the mean over draws that say something, NaN where fewer than half do."""
    there = np.isfinite(x_B)
    n = there.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(there, x_B, 0).sum(axis=0) / n
    return np.where(2 * n >= len(x_B), mean, np.nan)


def _leading(gram: Gram, n: int) -> tuple[Float64[ndarray, " n"], Float64[ndarray, "e n"]]:
    """Return the n largest eigenvalues and their eigenvectors, the largest first."""
    last = len(gram) - 1
    values, vectors = eigh(gram, subset_by_index=(last - n + 1, last), check_finite=False)
    return values[::-1], vectors[:, ::-1]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
