"""Directions and their cross-validation against scikit-learn and plain loops in d_model space."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA as SklearnPCA
from sklearn.linear_model import Ridge, RidgeCV

from analysis.directions import (
    ESTIMATORS,
    FOLDS,
    RIDGE_GRID,
    folds,
    held_out_r,
    rating_directions,
)

E, D = 40, 90
NAMES = [f"e{i}" for i in range(E)]


def planted(seed: int, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors [E, D] that carry two ratings [E, 2] along two orthogonal axes [2, D]."""
    rng = np.random.default_rng(seed)
    ratings = rng.normal(size=(E, 2))
    axes = np.linalg.qr(rng.normal(size=(D, 2)))[0].T
    x = 3 * ratings[:, :1] * axes[0] + 1.5 * ratings[:, 1:] * axes[1]
    return 5 + x + noise * rng.normal(size=(E, D)), ratings, axes


def rating_direction(
    estimator: str, x: np.ndarray, rating: np.ndarray, component: int = 0
) -> np.ndarray:
    return rating_directions(x, rating[:, None], [component])[0, ESTIMATORS.index(estimator)]


def held_out(estimator: str, x: np.ndarray, rating: np.ndarray, fold: np.ndarray) -> float:
    found = held_out_r(x @ x.T, rating[:, None], [0], fold)
    return float(found[0, ESTIMATORS.index(estimator)])


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_each_estimator_follows_its_definition() -> None:
    x, ratings, _ = planted(1, 0.3)
    y = ratings[:, 0].copy()
    y[[3, 17]] = np.nan
    rated = np.isfinite(y)
    xc, yc = x[rated] - x[rated].mean(0), y[rated] - y[rated].mean()
    np.testing.assert_allclose(
        rating_direction("covariance", x, y), (xc * yc[:, None]).mean(0), atol=1e-10
    )
    least = np.linalg.pinv(xc, rcond=1e-10) @ yc
    np.testing.assert_allclose(rating_direction("least-squares", x, y), least, atol=1e-8)
    alphas = RIDGE_GRID * np.linalg.eigvalsh(xc @ xc.T).mean()
    chosen = RidgeCV(alphas=alphas).fit(x[rated], y[rated])  # its default is leave-one-out
    ridge = Ridge(alpha=chosen.alpha_).fit(x[rated], y[rated])
    np.testing.assert_allclose(rating_direction("ridge", x, y), ridge.coef_, atol=1e-8)
    for component in (0, 1):
        unit = SklearnPCA(n_components=2, svd_solver="full").fit(x).components_[component]
        got = rating_direction("component", x, ratings[:, component], component)
        assert abs(unit @ got) == pytest.approx(1, abs=1e-10)
        assert np.corrcoef(x @ got, ratings[:, component])[0, 1] > 0


def test_the_papers_composite_is_the_component_where_it_is_significant() -> None:
    x, ratings, _ = planted(2, 0.3)
    unrelated = np.random.default_rng(0).normal(size=E)
    paper = rating_direction("paper", x, ratings[:, 0])
    np.testing.assert_allclose(paper, rating_direction("component", x, ratings[:, 0]), atol=1e-9)
    paper = rating_direction("paper", x, unrelated)
    np.testing.assert_allclose(paper, rating_direction("least-squares", x, unrelated), atol=1e-9)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("component", [0, 1])
def test_a_planted_axis_is_found(estimator: str, component: int) -> None:
    x, ratings, axes = planted(3, 0.1)
    found = rating_direction(estimator, x, ratings[:, component], component)
    limit = {"component": 0.95, "paper": 0.95, "ridge": 0.85}.get(estimator, 0.6)
    assert cosine(found, axes[component]) > limit


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_held_out_r_equals_a_loop_over_folds(estimator: str) -> None:
    x, ratings, _ = planted(4, 1.0)
    y = ratings[:, 0].copy()
    y[5] = np.nan
    fold = folds(NAMES, seed=3)
    assert sorted(np.bincount(fold)) == [4] * FOLDS
    projected = np.full(E, np.nan)
    for number in range(FOLDS):
        train = fold != number
        direction = rating_direction(estimator, x[train], y[train])
        test = fold == number
        spread = ((x[train] - x[train].mean(0)) @ direction).std()
        projected[test] = (x[test] - x[train].mean(0)) @ direction / spread
    rated = np.isfinite(y)
    want = np.corrcoef(projected[rated], y[rated])[0, 1]
    assert held_out(estimator, x, y, fold) == pytest.approx(want, abs=1e-9)
    assert want > 0.5


def test_held_out_r_finds_nothing_in_ratings_that_mean_nothing() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(E, D))
    ratings = rng.normal(size=(E, 60))
    found = held_out_r(x @ x.T, ratings, [0] * 60, folds(NAMES, 0))
    for estimator in ("covariance", "ridge", "least-squares"):
        assert -0.3 < found[:, ESTIMATORS.index(estimator)].mean() < 0.05
        fitted = [np.corrcoef(x @ rating_direction(estimator, x, y), y)[0, 1] for y in [x[:, 0]]]
        assert fitted[0] > 0.5


def test_rotation_and_order_of_emotions_change_nothing() -> None:
    x, ratings, _ = planted(6, 0.5)
    y, rng = ratings[:, 0], np.random.default_rng(8)
    rotation = np.linalg.qr(rng.normal(size=(D, D)))[0]
    order = rng.permutation(E)
    for estimator in ESTIMATORS:
        direction = rating_direction(estimator, x, y)
        rotated = rating_direction(estimator, x @ rotation, y)
        np.testing.assert_allclose(rotated, direction @ rotation, atol=1e-8)
        again = rating_direction(estimator, x[order], y[order])
        np.testing.assert_allclose(again, direction, atol=1e-8)


def test_too_few_rated_emotions_give_nothing() -> None:
    x, ratings, _ = planted(7, 0.5)
    y = np.full(E, np.nan)
    y[:9] = ratings[:9, 0]
    enough = np.where(np.arange(E) < 11, ratings[:, 0], np.nan)
    fold = folds(NAMES, 0)
    assert np.isfinite(held_out_r(x @ x.T, enough[:, None], [0], fold)).all()
    assert np.isnan(rating_directions(x, y[:, None], [0])).all()
    assert np.isnan(held_out_r(x @ x.T, y[:, None], [0], fold)).all()


def test_folds_follow_names_whatever_their_order() -> None:
    fold = dict(zip(NAMES, folds(NAMES, 1), strict=True))
    order = list(reversed(NAMES))
    assert dict(zip(order, folds(order, 1), strict=True)) == fold
    assert list(folds(NAMES, 2)) != list(fold.values())


def test_a_composite_that_changes_its_estimator_between_folds_is_held_out_like_its_parts() -> None:
    rng = np.random.default_rng(13)
    y, other = rng.normal(size=(2, E))
    axes = np.linalg.qr(rng.normal(size=(D, 2)))[0].T
    x = 6 * (0.35 * y + other)[:, None] * axes[0] + 2 * y[:, None] * axes[1]
    x += 0.3 * rng.normal(size=(E, D))
    fold = folds(NAMES, 0)
    significant = []
    for number in range(FOLDS):
        train = fold != number
        d = rating_directions(x[train], y[train, None], [0])[0]
        significant.append(np.array_equal(d[ESTIMATORS.index("paper")], d[0]))
    found = held_out_r(x @ x.T, y[:, None], [0], fold)[0]
    r = dict(zip(ESTIMATORS, found, strict=True))
    assert 0 < sum(significant) < FOLDS
    assert r["component"] < r["paper"] < r["least-squares"]
