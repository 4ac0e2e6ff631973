"""Draws against loops that draw vectors, and intervals against what they must cover."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from analysis import correlate, gram, pca
from analysis.inference import bounds
from analysis.resampling import (
    MAX_UNITS,
    Draws,
    Units,
    UnitSums,
    bootstrap_emotions,
    bootstrap_stories,
    component_scores,
    draw_weights,
    drawn_grams,
    freed_of_drawing,
    resampling_units,
)

RNG = np.random.default_rng(4)
E, D, T = 25, 40, 3
NAMES = [f"e{e}" for e in range(E)]


def texts(n_emotions: int, n_topics: int, n_stories: int) -> tuple[list[str], list[str]]:
    """Ids and emotions of a design, two neutral texts at the end."""
    ids = [
        f"e{e}/{t:03d}/{s}"
        for e in range(n_emotions)
        for t in range(n_topics)
        for s in range(n_stories)
    ]
    return [*ids, "neutral-0", "neutral-1"], [*(i.partition("/")[0] for i in ids), "", ""]


def even(n_topics: int) -> Units:
    """Units of E emotions, no texts behind them."""
    return Units(np.zeros(0, dtype=int), np.repeat(np.arange(E), n_topics))


def test_units_are_topics_until_there_are_too_many() -> None:
    ids, labels = texts(4, 3, 2)
    units = resampling_units(ids, labels, NAMES[:4], seed=0)
    assert len(units.emotion_U) == 12
    assert (units.unit_N[-2:] == -1).all()
    for unit in range(12):
        mine = {ids[at].rsplit("/", 1)[0] for at in np.flatnonzero(units.unit_N == unit)}
        assert len(mine) == 1
    ids, labels = texts(4, 3 * MAX_UNITS, 1)
    units = resampling_units(ids, labels, NAMES[:4], seed=0)
    assert len(units.emotion_U) == 4 * MAX_UNITS
    assert set(np.bincount(units.unit_N[:-2])) == {3}


def test_stories_of_an_emotion_with_one_topic_are_units() -> None:
    ids, labels = texts(2, 1, 5)
    units = resampling_units(ids, labels, NAMES[:2], seed=0)
    assert list(units.emotion_U) == [0] * 5 + [1] * 5
    assert sorted(units.unit_N[:-2]) == list(range(10))


def test_units_and_draws_do_not_depend_on_the_order_of_texts() -> None:
    ids, labels = texts(4, 3, 2)
    order = RNG.permutation(len(ids))
    here = resampling_units(ids, labels, NAMES[:4], seed=1)
    there = resampling_units([ids[i] for i in order], [labels[i] for i in order], NAMES[:4], 1)
    np.testing.assert_array_equal(here.unit_N[order], there.unit_N)


def test_sums_by_unit_equal_a_loop_and_skip_what_is_not_there() -> None:
    ids, labels = texts(4, 3, 2)
    units = resampling_units(ids, labels, NAMES[:4], seed=1)
    x = RNG.normal(size=(len(ids), D))
    there = np.ones(len(ids), dtype=bool)
    there[3] = False
    sums = UnitSums(units, D)
    for start in range(0, len(ids), 7):
        block = slice(start, start + 7)
        sums.add(block, x[block], there[block])
    for unit in range(12):
        mine = (units.unit_N == unit) & there
        np.testing.assert_allclose(sums.sum_UD[unit], x[mine].sum(axis=0), atol=1e-12)
        assert sums.count_U[unit] == mine.sum()


def test_draws_have_the_variance_of_the_mean() -> None:
    sizes = [3, 5, 1, *[2] * 8]
    units = Units(np.zeros(0, dtype=int), np.repeat(np.arange(11), sizes))
    weights = draw_weights(units, np.ones(sum(sizes)), NAMES[:11], 40_000, seed=1)
    starts = np.cumsum([0, *sizes[:-1]])
    np.testing.assert_allclose(np.add.reduceat(weights, starts, axis=1), 1, atol=1e-12)
    values = RNG.normal(size=9)
    for here in (slice(0, 3), slice(3, 8)):
        drawn = weights[:, here] @ values[here]
        want = values[here].var(ddof=1) / len(values[here])
        assert drawn.var() == pytest.approx(want, rel=0.05)
    assert (weights[:, 8] == 1).all()


def test_topics_that_all_emotions_are_on_are_drawn_for_all_at_once() -> None:
    ids, labels = texts(12, 3, 2)
    units = resampling_units(ids, labels, NAMES[:12], seed=0)
    assert units.crossed
    weights = draw_weights(units, np.full(36, 2.0), NAMES[:12], 60, seed=0).reshape(60, 12, 3)
    assert (weights == weights[:, :1]).all()
    topic = [ids[np.flatnonzero(units.unit_N == unit)[0]].split("/")[1] for unit in range(36)]
    assert topic[:3] * 12 == topic
    partly = resampling_units(ids[2:], labels[2:], NAMES[:12], seed=0)
    assert not partly.crossed
    apart = draw_weights(partly, np.full(35, 2.0), NAMES[:12], 60, seed=0)
    assert (apart[:, 2:5] != apart[:, 5:8]).any()


def test_no_interval_is_given_where_most_emotions_have_nothing_to_draw() -> None:
    units = even(1)
    weights = draw_weights(units, np.ones(E), NAMES, 10, seed=0)
    assert np.isnan(weights).all()
    x, rating = planted()
    means = x.reshape(E, T, D).mean(axis=1)
    scores = pca(means).scores_EC
    found = bootstrap_stories(means @ means.T, units.emotion_U, weights, scores, rating[None])
    freed = freed_of_drawing(found.r_BNX, np.full((1, 2), 0.5), found.overlap_X)
    assert np.isnan(bounds(freed)).all()


@pytest.mark.parametrize("n", [3, 4, 5, 6, 8, 9])
def test_few_emotions_give_wide_intervals_or_none(n: int) -> None:
    rng = np.random.default_rng(n)
    means, rating = rng.normal(size=(n, D)), rng.normal(size=(n, 2))
    whole = pca(means)
    found = bootstrap_emotions(gram(means), whole.scores_EC, rating[None], 300, seed=0)
    r = np.array([correlate(whole.scores_EC[:, c], rating[:, c]).r for c in range(2)])
    low, high = bounds(freed_of_drawing(found.r_BNX[:, 0], r, found.overlap_X))
    missing = np.isnan(low)
    if n < 4:
        assert missing.all()
    if n > 5:
        assert not missing.any()
    assert (found.overlap_X[~missing] <= 1).all()
    assert (high[~missing] - low[~missing] > 0.1).all()


def test_a_unit_without_stories_is_not_drawn_and_changes_no_other_emotions_draws() -> None:
    units, counts = even(3), np.full(3 * E, 3.0)
    whole = draw_weights(units, counts, NAMES, 50, seed=1)
    counts[4] = 0
    gap = draw_weights(units, counts, NAMES, 50, seed=1)
    assert (gap[:, 4] == 0).all()
    np.testing.assert_allclose(gap[:, 3:6].sum(axis=1), 1)
    others = np.delete(np.arange(3 * E), [3, 4, 5])
    np.testing.assert_array_equal(gap[:, others], whole[:, others])


def planted(noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors [E * T, D] and ratings [E, 2], some unrated."""
    rating = RNG.normal(size=(E, 2))
    axes = np.linalg.qr(RNG.normal(size=(D, 2)))[0].T
    mean = rating * [3.0, 1.5] @ axes
    x = np.repeat(mean, T, axis=0) + noise * RNG.normal(size=(E * T, D))
    rating[3], rating[7, 1] = np.nan, np.nan
    return x, rating


def test_story_draws_equal_a_loop_over_drawn_vectors() -> None:
    x, rating = planted()
    units = even(T)
    weights = draw_weights(units, np.ones(E * T), NAMES, 150, seed=2)
    means = x.reshape(E, T, D).mean(axis=1)
    whole = pca(means)
    found = bootstrap_stories(x @ x.T, units.emotion_U, weights, whole.scores_EC, rating[None])
    overlaps = []
    for draw, weight in enumerate(weights):
        drawn = np.stack([weight[units.emotion_U == e] @ x[units.emotion_U == e] for e in range(E)])
        scores = pca(drawn).scores_EC
        for c in range(2):
            way = scores[:, c] @ whole.scores_EC[:, c]
            r = correlate(np.sign(way) * scores[:, c], rating[:, c]).r
            assert found.r_BNX[draw, 0, c] == pytest.approx(r, abs=1e-8)
        unit = scores / np.linalg.norm(scores, axis=0)
        own = whole.scores_EC / np.linalg.norm(whole.scores_EC, axis=0)
        overlaps.append(np.abs((unit * own).sum(axis=0)))
    np.testing.assert_allclose(found.overlap_X, np.mean(overlaps, axis=0), atol=1e-8)


def test_emotion_draws_equal_a_loop_over_drawn_vectors() -> None:
    x, rating = planted()
    means = x.reshape(E, T, D).mean(axis=1)
    whole = pca(means)
    found = bootstrap_emotions(gram(means), whole.scores_EC, rating[None], 60, seed=3)
    counts = np.random.default_rng(3).multinomial(E, np.full(E, 1 / E), size=60)
    overlaps = []
    for draw, count in enumerate(counts):
        rows = np.repeat(np.arange(E), count)
        drawn = pca(means[rows])
        dots = (drawn.components_CD * whole.components_CD).sum(axis=1)
        for c in range(2):
            r = correlate(np.sign(dots[c]) * drawn.scores_EC[:, c], rating[rows, c]).r
            assert found.r_BNX[draw, 0, c] == pytest.approx(r, abs=1e-8)
        overlaps.append(np.abs(dots))
    np.testing.assert_allclose(found.overlap_X, np.mean(overlaps, axis=0), atol=1e-8)


def test_grams_of_draws_equal_those_of_drawn_means() -> None:
    x, _ = planted()
    units = even(T)
    weights = draw_weights(units, np.ones(E * T), NAMES, 7, seed=2)
    found = np.concatenate(list(drawn_grams(x @ x.T, units.emotion_U, weights)))
    for draw, weight in enumerate(weights):
        means = np.stack([weight[units.emotion_U == e] @ x[units.emotion_U == e] for e in range(E)])
        np.testing.assert_allclose(found[draw], means @ means.T, atol=1e-10)


def test_component_scores_are_pcas_up_to_length_and_sign() -> None:
    x = RNG.normal(size=(E, D)) * np.linspace(3, 0.1, D)
    found, own = component_scores(x @ x.T), pca(x).scores_EC
    for c in range(2):
        assert abs(found[:, c] @ own[:, c]) / np.linalg.norm(own[:, c]) == pytest.approx(1)


def test_draws_are_recentred_as_far_above_r_as_they_lay_below() -> None:
    draws = np.tanh(np.arctanh(0.5) + RNG.normal(0, 0.1, size=5000))
    freed = np.arctanh(freed_of_drawing(draws, np.array(0.6), np.array(0.8)))
    mean = np.arctanh(draws).mean()
    assert freed.mean() == pytest.approx(2 * np.arctanh(0.6) - mean)
    assert freed.std() == pytest.approx(np.arctanh(draws).std() / 0.8**2)


@dataclass(frozen=True)
class Case:
    """A population that stories and emotions are drawn from.

    Attributes:
        noise: SD of a topic's mean around its emotion's, in the noisiest dimension.
        valence: SD of the emotions' means along the axis that follows valence.
        arousal: along the one that follows arousal.
        others: along three axes that follow neither.
        rho: true correlations of the two axes with their ratings.
    """

    noise: float
    valence: float = 3.0
    arousal: float = 1.8
    others: tuple[float, ...] = (1.2, 0.8, 0.6)
    rho: tuple[float, float] = (0.85, 0.7)


CASES = {
    "little noise": Case(0.8),
    "noise as in the published stories": Case(1.8),
    "much noise": Case(3.0),
    "weak components": Case(1.8, arousal=1.3),
    "no arousal": Case(1.8, rho=(0.4, 0.0)),
}
EMOTIONS, TOPICS, DIMENSIONS, RUNS = 80, 3, 60, 400


def population(case: Case, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Means [n, D] of emotions without noise, along fixed axes, and ratings [n, 2]."""
    rating, rho = rng.normal(size=(n, 2)), np.array(case.rho)
    along = rho * rating + np.sqrt(1 - rho**2) * rng.normal(size=(n, 2))
    means = np.zeros((n, DIMENSIONS))
    means[:, :2] = along * [case.valence, case.arousal]
    means[:, 2:5] = rng.normal(size=(n, 3)) * case.others
    return means, rating


def covered(drawn: Draws, whole: np.ndarray, true: np.ndarray) -> np.ndarray:
    low, high = bounds(freed_of_drawing(drawn.r_BNX[:, 0], whole, drawn.overlap_X))
    return (low <= true) & (true <= high)


def noisy(case: Case, means: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    spread = case.noise * np.linspace(1, 0.25, DIMENSIONS)[rng.permutation(DIMENSIONS)]
    return np.repeat(means, TOPICS, axis=0) + spread * rng.normal(
        size=(len(means) * TOPICS, DIMENSIONS)
    )


def signed_r(scores: np.ndarray, toward: np.ndarray, rating: np.ndarray) -> np.ndarray:
    ways = np.sign((scores * toward).sum(axis=0))
    return np.array([correlate(ways[c] * scores[:, c], rating[:, c]).r for c in range(2)])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_intervals_over_stories_cover_the_r_of_infinitely_many(name: str) -> None:
    case, units = CASES[name], Units(np.zeros(0, int), np.repeat(np.arange(EMOTIONS), TOPICS))
    names = [f"e{e}" for e in range(EMOTIONS)]
    hits = []
    for run in range(RUNS):
        rng = np.random.default_rng([run, 1])
        means, rating = population(case, EMOTIONS, rng)
        x = noisy(case, means, rng)
        scores = pca(x.reshape(EMOTIONS, TOPICS, -1).mean(axis=1)).scores_EC
        true = signed_r(pca(means).scores_EC, scores, rating)
        weights = draw_weights(units, np.ones(len(x)), names, 200, seed=run)
        drawn = bootstrap_stories(x @ x.T, units.emotion_U, weights, scores, rating[None])
        hits.append(covered(drawn, signed_r(scores, scores, rating), true))
    rates = np.mean(hits, axis=0)
    print(f"stories, {name}: PC1 {rates[0]:.3f}, PC2 {rates[1]:.3f}")
    assert (rates >= 0.92).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_intervals_over_emotions_cover_the_r_of_infinitely_many(name: str) -> None:
    case, hits = CASES[name], []
    for run in range(RUNS):
        rng = np.random.default_rng([run, 2])
        means, rating = population(case, EMOTIONS, rng)
        spread = case.noise / np.sqrt(TOPICS) * np.linspace(1, 0.25, DIMENSIONS)
        x = means + spread * rng.normal(size=means.shape)
        many, rated = population(case, 4000, rng)
        many += spread * rng.normal(size=many.shape)
        whole, infinite = pca(x), pca(many)
        ways = np.sign((whole.components_CD * infinite.components_CD).sum(axis=1))
        true = signed_r(infinite.scores_EC, infinite.scores_EC * ways, rated)
        drawn = bootstrap_emotions(gram(x), whole.scores_EC, rating[None], 200, seed=run)
        hits.append(covered(drawn, signed_r(whole.scores_EC, whole.scores_EC, rating), true))
    rates = np.mean(hits, axis=0)
    print(f"emotions, {name}: PC1 {rates[0]:.3f}, PC2 {rates[1]:.3f}")
    assert (rates >= 0.92).all()
