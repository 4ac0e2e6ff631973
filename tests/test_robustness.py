"""What is found under draws and without groups or dimensions, against loops over vectors."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import silhouette_score

from analysis import contrast_vectors, correlate, neutral_basis, pca
from analysis.cell import join_layers
from analysis.directions import FOLDS, folds
from analysis.inference import permutation_p
from analysis.layer import N_DROPPED, analyse_layer
from analysis.resampling import draw_weights, freed_of_drawing, resampling_units
from analysis.settings import Settings
from tests.made import FEW

E, TOPICS, STORIES, D, NEUTRAL, MISSING = 24, 3, 2, 30, 9, 5
NAMES = [f"e{e}" for e in range(E)]
LAYERS = (-1, 0, 1)
CONTRASTS = ("neutral-pca", "mean-centered")


@pytest.fixture(scope="module")
def analysed() -> tuple[xr.Dataset, np.ndarray, list[str], list[str], Settings]:
    """Results, story vectors [text, layer, d], ids, labels and settings; one emotion has none."""
    rng = np.random.default_rng(21)
    rating = rng.normal(size=(E, 2))
    rating[7] = np.nan
    ids = [f"{n}/{t:03d}/{s}" for n in NAMES for t in range(TOPICS) for s in range(STORIES)]
    labels = [key.partition("/")[0] for key in ids] + [""] * NEUTRAL
    ids += [f"neutral-{i}" for i in range(NEUTRAL)]
    x = rng.normal(size=(len(ids), len(LAYERS), D)) * np.linspace(2, 0.3, D)
    for at in range(len(LAYERS)):
        axis = rng.normal(size=(2, D))
        signal = np.nan_to_num(rating) @ axis
        x[: len(ids) - NEUTRAL, at] += np.repeat(signal, TOPICS * STORIES, axis=0)
    x[np.array(labels) == NAMES[MISSING]] = np.nan
    x[3] = np.nan  # and one story of another emotion
    cell = xr.Dataset(
        {"residual_mean": (("text", "window", "layer", "d_model"), x[:, None].astype(np.float32))},
        coords={
            "text_id": ("text", ids),
            "emotion": ("text", labels),
            "window": ["all"],
            "layer": list(LAYERS),
        },
    )
    settings = Settings(CONTRASTS, 0.5, {"made": rating}, seed=2, middle={"made": 0.1}, **FEW)
    parts = {("all", layer): analyse_layer(cell, "all", layer, settings) for layer in LAYERS}
    found = join_layers(parts, NAMES, 2, settings).sel(window="all", norms="made")
    return found, cell["residual_mean"].to_numpy()[:, 0].astype(np.float64), ids, labels, settings


def vectors(
    x_ND: np.ndarray, labels: list[str], kind: str, weight_N: np.ndarray | None = None
) -> np.ndarray:
    """Contrast vectors [emotion, d]; texts may be weighted, neutral ones never are."""
    weight = np.ones(len(x_ND)) if weight_N is None else weight_N
    rows = []
    for name in NAMES:
        mine = (np.array(labels) == name) & np.isfinite(x_ND[:, 0])
        rows.append(
            np.average(x_ND[mine], axis=0, weights=weight[mine])
            if mine.any()
            else np.full(x_ND.shape[1], np.nan)
        )
    if kind == "mean-centered":
        return contrast_vectors(np.array(rows), None, "mean-centered")
    basis, _ = neutral_basis(x_ND[np.array(labels) == ""], 0.5)
    return contrast_vectors(np.array(rows), basis, "both")


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    cross, own, other = (np.linalg.norm(a.T @ b) ** 2 for a, b in ((x, y), (x, x), (y, y)))
    return float(cross / np.sqrt(own * other))


def signed(scores: np.ndarray, toward: np.ndarray, rating: np.ndarray) -> list[float]:
    both = np.isfinite(scores[:, 0]) & np.isfinite(toward[:, 0])
    ways = np.sign((scores[both] * toward[both]).sum(axis=0))
    return [correlate(ways[c] * scores[:, c], rating[:, c]).r for c in range(2)]


@pytest.mark.parametrize("kind", CONTRASTS)
@pytest.mark.parametrize("without", [False, True])
def test_story_draws_equal_a_loop_over_weighted_stories(
    analysed: tuple[xr.Dataset, np.ndarray, list[str], list[str], Settings],
    kind: str,
    without: bool,
) -> None:
    found, x, ids, labels, settings = analysed
    at = found.sel(contrast=kind, layer=1)
    x_ND = x[:, 2]
    if without:
        dropped = [int(i) for i in found["dropped_dimension"].sel(layer=1)]
        assert len(dropped) == N_DROPPED
        x_ND = np.delete(x_ND, dropped, axis=1)
    rating = settings.ratings["made"]
    units = resampling_units(ids, labels, NAMES, settings.seed)
    there = np.isfinite(x_ND[:, 0]) & (units.unit_N >= 0)
    counts = np.bincount(units.unit_N[there], minlength=len(units.emotion_U)).astype(float)
    weights = draw_weights(units, counts, NAMES, settings.bootstraps, settings.seed)
    whole = pca(vectors(x_ND, labels, kind)).scores_EC
    drawn, overlaps = [], []
    for weight in weights:
        of_text = np.where(there, weight[units.unit_N] / np.maximum(counts[units.unit_N], 1), 1)
        scores = pca(vectors(x_ND, labels, kind, of_text)).scores_EC
        drawn.append(signed(scores, whole, rating))
        kept = np.isfinite(scores[:, 0])
        unit = [v[kept] / np.linalg.norm(v[kept], axis=0) for v in (scores, whole)]
        overlaps.append(np.abs((unit[0] * unit[1]).sum(axis=0)))
    own = np.array(signed(whole, whole, rating))
    want = np.abs(freed_of_drawing(np.array(drawn), own, np.mean(overlaps, axis=0)))
    ours = np.abs(at["without_draw" if without else "story_draw"].to_numpy())
    np.testing.assert_allclose(ours.T, want, atol=2e-4)
    r = at["without_r" if without else "r"].to_numpy()
    np.testing.assert_allclose(np.abs(r), np.abs(own), atol=1e-6)
    if not without:
        np.testing.assert_allclose(at["story_overlap"], np.mean(overlaps, axis=0), atol=1e-5)


@pytest.mark.parametrize("kind", CONTRASTS)
def test_grids_and_silhouettes_without_groups_equal_those_of_the_vectors_left(
    analysed: tuple[xr.Dataset, np.ndarray, list[str], list[str], Settings], kind: str
) -> None:
    found, x, _, labels, settings = analysed
    at = found.sel(contrast=kind)
    fold = folds(NAMES, settings.seed)
    rating = settings.ratings["made"][:, 0]
    by_layer = [vectors(x[:, i], labels, kind) for i in range(len(LAYERS))]
    there = np.isfinite(by_layer[0][:, 0])
    assert not there[MISSING]
    for group in range(FOLDS):
        kept = there & (fold != group)
        grid = at["group_cka"].sel(group=group).to_numpy()
        want = [[linear_cka(a[kept], b[kept]) for b in by_layer] for a in by_layer]
        np.testing.assert_allclose(grid, want, atol=1e-6)
        rated = kept & np.isfinite(rating)
        score = silhouette_score(by_layer[2][rated], rating[rated] > 0.1)
        plane = pca(by_layer[2][kept]).scores_EC[np.isfinite(rating[kept])]
        flat = silhouette_score(plane, rating[rated] > 0.1)
        ours = at["group_silhouette"].sel(group=group, layer=1)
        assert float(ours.sel(space="all")) == pytest.approx(score, abs=1e-6)
        assert float(ours.sel(space="plane")) == pytest.approx(flat, abs=1e-6)
    kept_vectors = []
    for i, layer in enumerate(LAYERS):
        dropped = [int(d) for d in found["dropped_dimension"].sel(layer=layer)]
        kept_vectors.append(vectors(np.delete(x[:, i], dropped, axis=1), labels, kind)[there])
    want = [[linear_cka(a, b) for b in kept_vectors] for a in kept_vectors]
    np.testing.assert_allclose(at["without_cka_grid"], want, atol=1e-6)
    without = [v[fold[there] != 4] for v in kept_vectors]
    want = [[linear_cka(a, b) for b in without] for a in without]
    np.testing.assert_allclose(at["without_group_cka"].sel(group=4), want, atol=1e-6)
    debiased = at["group_cka_debiased"]
    assert not np.allclose(debiased, at["group_cka"])
    np.testing.assert_allclose(np.diagonal(debiased, axis1=1, axis2=2), 1, atol=1e-9)


def test_corrected_p_is_over_the_blocks_alone(
    analysed: tuple[xr.Dataset, np.ndarray, list[str], list[str], Settings],
) -> None:
    found, x, _, labels, settings = analysed
    at = found.sel(contrast="mean-centered")
    scores = np.stack([pca(vectors(x[:, i], labels, "mean-centered")).scores_EC.T for i in (1, 2)])
    want = permutation_p(scores, settings.ratings["made"], settings.permutations, settings.seed)
    np.testing.assert_array_equal(at["p_corrected"].sel(layer=[0, 1]).to_numpy(), want)
    assert at["p_corrected"].sel(layer=-1).isnull().all()
    assert not np.array_equal(at["without_p_corrected"].sel(layer=[0, 1]).to_numpy(), want)
