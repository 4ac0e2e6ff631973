"""Corrected p against a loop and under the null; onset, peak and collapse on planted profiles."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.inference import peak_draws, permutation_p, profile

RNG = np.random.default_rng(11)


def test_corrected_p_equals_a_loop_over_the_same_permutations() -> None:
    scores, rating = RNG.normal(size=(4, 2, 12)), RNG.normal(size=(12, 2))
    scores[2] += 0.8 * rating.T
    found = permutation_p(scores, rating, 200, seed=5)
    orders = np.random.default_rng(5).permuted(np.tile(np.arange(12), (200, 1)), axis=1)
    for c in range(2):
        reached = np.ones(4)
        own = [abs(stats.pearsonr(scores[layer, c], rating[:, c])[0]) for layer in range(4)]
        for order in orders:
            top = max(
                abs(stats.pearsonr(scores[layer, c], rating[order, c])[0]) for layer in range(4)
            )
            reached += top >= np.array(own) - 1e-12
        np.testing.assert_allclose(found[:, c], reached / 201)


def test_missing_layers_and_unrated_emotions_are_left_out_of_the_maximum() -> None:
    scores, rating = RNG.normal(size=(3, 2, 12)), RNG.normal(size=(12, 2))
    gap = np.concatenate([scores, np.full((1, 2, 12), np.nan)])
    padded = np.concatenate([gap, RNG.normal(size=(4, 2, 2))], axis=2)
    padded[3] = np.nan
    more = np.vstack([rating, [[np.nan, 0.3], [np.nan, np.nan]]])
    found = permutation_p(padded, more, 100, seed=1)
    np.testing.assert_array_equal(found[:3], permutation_p(scores, rating, 100, seed=1))
    assert np.isnan(found[3]).all()
    assert np.isnan(permutation_p(scores, np.full((12, 2), np.nan), 100, seed=1)).all()


@pytest.mark.slow
def test_corrected_p_of_the_best_layer_is_uniform_under_the_null() -> None:
    """Layers that share most of their scores, ratings that mean nothing."""
    lowest = []
    for run in range(1000):
        rng = np.random.default_rng(run)
        walk = rng.normal(size=(12, 2, 40)).cumsum(axis=0)
        lowest.append(permutation_p(walk, rng.normal(size=(40, 2)), 199, seed=run).min(axis=0))
    for c in range(2):
        p = np.array([low[c] for low in lowest])
        # p takes 200 values with ties at none; a discrete uniform against a continuous one
        found = stats.kstest(p - 0.5 / 200, "uniform")
        print(f"component {c + 1}: below .05 {np.mean(p <= 0.05):.3f}, KS p {found.pvalue:.3f}")
        assert found.pvalue > 0.01
        assert abs(np.mean(p <= 0.05) - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 1000)


LAYERS = np.arange(12)


def draws(r_L: np.ndarray, spread: float = 0.03) -> np.ndarray:
    """Draws of r over layers, independent between layers."""
    return r_L[:, None] + spread * RNG.normal(size=(len(r_L), 400))


def test_a_component_without_scores_at_one_layer_takes_no_part_in_the_search() -> None:
    scores, rating = RNG.normal(size=(4, 2, 40)), RNG.normal(size=(40, 2))
    scores[1, 1] = 0.0
    found = permutation_p(scores, rating, 200, seed=1)
    assert np.isnan(found[1, 1])
    kept = [0, 2, 3]
    np.testing.assert_array_equal(
        found[kept, 1], permutation_p(scores[kept], rating, 200, seed=1)[:, 1]
    )


def test_onset_needs_three_consecutive_layers() -> None:
    r = np.linspace(0.1, 0.8, 12)
    p = np.array([1, 0.01, 0.02, 1, 1, 0.04, 0.03, 0.01, 0.01, 0.01, 0.01, 0.01])
    assert profile(LAYERS, r, p, draws(r)).onset == 5
    assert profile(LAYERS, r, np.where(LAYERS % 3, 0.01, 1.0), draws(r)).onset == -1


def test_the_peak_has_an_interval_that_holds_rivals_and_not_others() -> None:
    r = np.full(12, 0.3)
    r[[4, 5]] = 0.70, 0.71
    found = profile(LAYERS, r, np.zeros(12), draws(r))
    assert (found.peak, found.peak_from, found.peak_to) == (5, 4, 5)
    assert found.peak_low < 0.71 < found.peak_high
    sharp = profile(LAYERS, r, np.zeros(12), draws(r, 0.001))
    assert (sharp.peak_from, sharp.peak_to) == (5, 5)


def test_a_collapse_comes_after_the_peak_takes_three_layers_and_their_intervals() -> None:
    r = np.array([0.1, 0.1, 0.1, 0.6, 0.8, 0.6, 0.2, 0.15, 0.1, 0.2, 0.6, 0.6])
    found = profile(LAYERS, r, np.zeros(12), draws(r))
    assert (found.collapse_from, found.collapse_to) == (6, 9)
    wide = profile(LAYERS, r, np.zeros(12), draws(r, 0.3))
    assert wide.collapse_from == -1
    short = r.copy()
    short[8:] = 0.6
    assert profile(LAYERS, short, np.zeros(12), draws(short)).collapse_from == -1
    turned = draws(r)  # an interval far on the other side is no collapse
    turned[6:10] = -0.6
    assert profile(LAYERS, r, np.zeros(12), turned).collapse_from == -1


def test_the_height_of_a_peak_is_freed_of_the_search_for_it() -> None:
    """Blocks of the same r, each with noise of its own: the worst case of a search.

    Half of what the search adds is seen and taken off.
    """
    heights, covered, naively = [], 0, 0
    for run in range(200):
        rng = np.random.default_rng(run)
        seen = 0.5 + 0.05 * rng.normal(size=12)
        drawn = seen[:, None] + 0.05 * rng.normal(size=(12, 400))
        found = peak_draws(drawn)
        heights.append((seen.max(), np.median(found)))
        low, high = np.quantile(found, [0.025, 0.975])
        covered += low <= 0.5 <= high
        naively += np.quantile(drawn.max(axis=0), 0.025) <= 0.5
    naive, freed = np.mean(heights, axis=0) - 0.5
    assert naive > 0.06
    assert abs(freed) < 0.6 * naive
    assert covered >= 130
    assert naively <= 20


def test_a_profile_without_numbers_is_missing() -> None:
    nan = np.full(12, np.nan)
    found = profile(LAYERS, nan, nan, np.full((12, 100), np.nan))
    assert (found.peak, found.onset, found.collapse_from) == (-1, -1, -1)
    assert np.isnan(found.peak_r)
    plain = profile(LAYERS, np.linspace(0, 0.7, 12), nan, np.full((12, 100), np.nan))
    assert (plain.peak, plain.peak_from) == (11, -1)
    assert np.isnan(plain.peak_low)
    part = np.where(LAYERS < 3, np.nan, 0.5)
    found = profile(LAYERS, part, part / 100, draws(part))
    assert found.peak >= 3
    assert found.peak_from >= 3
