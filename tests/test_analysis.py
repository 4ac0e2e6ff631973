"""Every number against an independent computation: numpy, scipy, scikit-learn, or a definition."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from sklearn.decomposition import PCA as SklearnPCA

from analysis import (
    cka_grid,
    contrast,
    contrast_vectors,
    correlate,
    cosine_grid,
    gram,
    neutral_basis,
    pca,
    plane_alignment,
    rating_directions,
)
from analysis.activations import massive_activations
from analysis.cell import join_layers
from analysis.contrasts import layer_vectors, story_halves
from analysis.directions import ESTIMATORS
from analysis.geometry_table import geometry_table, peaks
from analysis.layer import SPLITS, analyse_layer
from analysis.results import CellResults
from analysis.settings import Settings
from analysis.tables import (
    activation_table,
    cka_table,
    direction_cosine_table,
    direction_table,
)
from analysis.variance import story_design
from tests.made import FEW

RNG = np.random.default_rng(7)
E, D = 20, 48


def planted(noise: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors [E, D] with valence and arousal along two orthogonal axes, and the axes."""
    ratings = RNG.normal(size=(E, 2))
    axes, _ = np.linalg.qr(RNG.normal(size=(D, 2)))
    x = 3 * ratings[:, :1] * axes[:, 0] + 1.5 * ratings[:, 1:] * axes[:, 1]
    return x + noise * RNG.normal(size=(E, D)), ratings, axes.T


def text_ids(labels: list[str]) -> list[str]:
    """Ids of texts, each emotion's stories on topics 0, 1 and 2 in turn, "" for a neutral text."""
    seen: Counter[str] = Counter()
    ids = []
    for label in labels:
        at = seen[label]
        ids.append(f"{label}/{at % 3:03d}/{at // 3}" if label else f"neutral-{at:03d}")
        seen[label] += 1
    return ids


def cell_of(n_stories: int = 3, seed: int = 3) -> tuple[xr.Dataset, np.ndarray]:
    """A made cell: E emotions, two windows, four layers, a story without tokens, six neutrals."""
    rng = np.random.default_rng(seed)
    ratings = rng.normal(size=(E, 2))
    labels = [f"e{i}" for i in range(E) for _ in range(n_stories)] + [""] * 6
    values = rng.normal(size=(len(labels), 2, 4, D)).astype(np.float32)
    for layer in range(4):
        axis = rng.normal(size=(2, D))
        values[: E * n_stories, :, layer] += np.repeat(ratings @ axis, n_stories, 0)[:, None]
    values[1, 1] = np.nan
    cell = xr.Dataset(
        {"residual_mean": (("text", "window", "layer", "d_model"), values)},
        coords={
            "text_id": ("text", text_ids(labels)),
            "emotion": ("text", labels),
            "window": ["all", "no-first"],
            "layer": [-1, 0, 1, 2],
        },
    )
    return cell, ratings


def test_neutral_basis_is_the_fewest_leading_directions() -> None:
    x = RNG.normal(size=(12, D)) * np.linspace(3, 0.1, D)
    basis, explained = neutral_basis(x, 0.5)
    model = SklearnPCA(svd_solver="full").fit(x)
    cumulative = np.cumsum(model.explained_variance_ratio_)
    k = int(np.argmax(cumulative >= 0.5)) + 1
    assert len(basis) == k
    assert explained == pytest.approx(cumulative[k - 1])
    np.testing.assert_allclose(np.abs(basis @ model.components_[:k].T), np.eye(k), atol=1e-10)


def test_neutral_basis_leaves_out_texts_without_tokens_and_refuses_too_few() -> None:
    x = RNG.normal(size=(6, D))
    with_gap = np.vstack([x, np.full(D, np.nan)])
    np.testing.assert_array_equal(neutral_basis(with_gap)[0], neutral_basis(x)[0])
    with pytest.raises(ValueError, match="at least 2 neutral texts, 1"):
        neutral_basis(x[:1])
    with pytest.raises(ValueError, match="all the same"):
        neutral_basis(np.ones((3, D)))


def test_contrasts_follow_their_definitions() -> None:
    u = RNG.normal(size=(E, D)) + 5
    basis, _ = neutral_basis(RNG.normal(size=(12, D)))
    projector = np.eye(D) - basis.T @ basis
    np.testing.assert_allclose(contrast_vectors(u, None, "mean-centered"), u - u.mean(0))
    np.testing.assert_allclose(contrast_vectors(u, basis, "neutral-pca"), u @ projector)
    np.testing.assert_allclose(
        contrast_vectors(u, basis, "both"), (u - u.mean(0)) @ projector, atol=1e-12
    )
    with pytest.raises(ValueError, match="needs a neutral basis"):
        contrast_vectors(u, None, "both")


def test_pca_equals_scikit_learns_full_solver() -> None:
    x, _, _ = planted()
    ours = pca(x, 3)
    model = SklearnPCA(n_components=3, svd_solver="full")
    theirs = model.fit_transform(x)
    np.testing.assert_allclose(np.abs(ours.scores_EC), np.abs(theirs), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(ours.variance_C, model.explained_variance_ratio_, rtol=1e-10)
    np.testing.assert_allclose(np.abs(ours.components_CD), np.abs(model.components_), atol=1e-9)


def test_pca_leaves_out_emotions_without_a_vector() -> None:
    x, _, _ = planted()
    gap = x.copy()
    gap[4] = np.nan
    ours = pca(gap)
    assert np.isnan(ours.scores_EC[4]).all()
    kept = np.delete(np.arange(E), 4)
    np.testing.assert_allclose(ours.scores_EC[kept], pca(x[kept]).scores_EC)
    with pytest.raises(ValueError, match="at least 3 emotions"):
        pca(gap[3:6])


def test_planted_axes_are_recovered_up_to_sign_and_rotation() -> None:
    x, ratings, axes = planted(noise=0.05)
    found = pca(x)
    assert abs(correlate(found.scores_EC[:, 0], ratings[:, 0]).r) > 0.9
    rotation, _ = np.linalg.qr(RNG.normal(size=(D, D)))
    rotated = pca(x @ rotation)
    np.testing.assert_allclose(np.abs(rotated.scores_EC), np.abs(found.scores_EC), atol=1e-9)
    order = RNG.permutation(E)
    np.testing.assert_allclose(pca(x[order]).variance_C, found.variance_C)
    plane = found.components_CD
    assert np.linalg.norm(axes @ plane.T, axis=1).min() > 0.99


def test_correlation_equals_scipy_over_rated_emotions() -> None:
    a, b = RNG.normal(size=(2, E))
    b[[2, 5]] = np.nan
    kept = np.isfinite(b)
    theirs = stats.pearsonr(a[kept], b[kept])
    ours = correlate(a, b)
    assert (ours.r, ours.p) == pytest.approx((theirs.statistic, theirs.pvalue), rel=1e-12)
    assert ours.n == E - 2
    assert np.isnan(correlate(a[:2], b[:2]).r)
    assert np.isnan(correlate(a, np.ones(E)).r)


def test_cka_equals_its_definition_with_d_by_d_products() -> None:
    layers = [RNG.normal(size=(E, d)) @ RNG.normal(size=(d, d)) for d in (D, D, 16)]
    grid = cka_grid(*[np.stack([gram(x) for x in layers])] * 2)
    for i, x in enumerate(layers):
        for j, y in enumerate(layers):
            xc, yc = x - x.mean(0), y - y.mean(0)
            top = np.linalg.norm(yc.T @ xc) ** 2
            bottom = np.linalg.norm(xc.T @ xc) * np.linalg.norm(yc.T @ yc)
            assert grid[i, j] == pytest.approx(top / bottom, rel=1e-10)
    np.testing.assert_allclose(np.diag(grid), 1)


def test_cka_leaves_out_emotions_missing_in_any_layer() -> None:
    layers = [RNG.normal(size=(E, D)) for _ in range(2)]
    kept = np.delete(np.arange(E), 7)
    want = cka_grid(*[np.stack([gram(x[kept]) for x in layers])] * 2)
    layers[1] = layers[1].copy()
    layers[1][7] = np.nan
    got = cka_grid(*[np.stack([gram(x) for x in layers])] * 2)
    np.testing.assert_allclose(got, want, rtol=1e-10)


def test_a_layer_without_emotions_is_missing_in_the_grid_and_harms_no_other() -> None:
    layers = [RNG.normal(size=(E, D)) for _ in range(3)]
    want = cka_grid(*[np.stack([gram(x) for x in layers[:2]])] * 2)
    grams = np.stack([*[gram(x) for x in layers[:2]], np.full((E, E), np.nan)])
    got = cka_grid(grams, grams)
    np.testing.assert_allclose(got[:2, :2], want)
    assert np.isnan(got[2]).all()
    assert np.isnan(cka_grid(grams[2:], grams[2:])).all()


def test_cosines_of_a_zero_row_are_missing_not_zero() -> None:
    v = np.vstack([np.eye(3), np.zeros(3)])
    grid = cosine_grid(v)
    np.testing.assert_array_equal(grid[:3, :3], np.eye(3))
    assert np.isnan(grid[3]).all()


def independent_geometry(
    cell: xr.Dataset, ratings: np.ndarray, window: int, layer: int, project: bool
) -> dict[str, float]:
    """One row of geometry.csv in plain numpy and scipy."""
    x = cell["residual_mean"].to_numpy()[:, window, layer].astype(np.float64)
    labels = cell["emotion"].to_numpy()
    u = np.stack([np.nanmean(x[labels == f"e{i}"], axis=0) for i in range(E)])
    neutral = x[labels == ""]
    _, s, vt = np.linalg.svd(neutral - neutral.mean(0))
    k = int(np.argmax(np.cumsum(s**2) / np.sum(s**2) >= 0.5)) + 1
    if project:
        u = u - u @ vt[:k].T @ vt[:k]
    scores = SklearnPCA(n_components=2, svd_solver="full").fit_transform(u)
    valence = stats.pearsonr(scores[:, 0], ratings[:, 0])
    arousal = stats.pearsonr(scores[:, 1], ratings[:, 1])
    rho = [stats.spearmanr(scores[:, i], ratings[:, i]) for i in (0, 1)]
    angles = np.radians(np.arange(0, 180, 0.05))
    scaled = scores / scores.std(axis=0)
    along = scaled[:, :1] * np.cos(angles) + scaled[:, 1:2] * np.sin(angles)
    turned = [abs(np.corrcoef(along.T, ratings[:, i])[-1, :-1]) for i in (0, 1)]
    best = [min(d, 180 - d) for d in (np.degrees(angles[t.argmax()]) for t in turned)]
    return {
        "valence_rho": abs(rho[0].statistic),
        "arousal_rho_p": rho[1].pvalue,
        "valence_plane_r": turned[0].max(),
        "arousal_plane_angle": best[1],
        "n_neutral_components": k if project else 0,
        "valence_r": abs(valence.statistic),
        "valence_p": valence.pvalue,
        "arousal_r": abs(arousal.statistic),
        "arousal_p": arousal.pvalue,
    }


def analysed(cell: xr.Dataset, ratings: np.ndarray) -> CellResults:
    settings = Settings(("neutral-pca", "mean-centered"), 0.5, {"made": ratings}, **FEW)
    keys = [(w, i) for w in ("all", "no-first") for i in (-1, 0, 1, 2)]
    parts = {key: analyse_layer(cell, *key, settings) for key in keys}
    found = join_layers(parts, [f"e{i}" for i in range(E)], 3, settings)
    return CellResults("m", "c", found, "f" * 64)


def test_the_geometry_table_equals_an_independent_computation() -> None:
    cell, ratings = cell_of()
    table = geometry_table([analysed(cell, ratings)])
    assert len(table) == 2 * 2 * 4
    for row in table.to_dict("records"):
        window = ["all", "no-first"].index(row["window"])
        project = row["contrast"] == "neutral-pca"
        want = independent_geometry(cell, ratings, window, row["layer"] + 1, project)
        for key, value in want.items():
            tolerance = {"valence_plane_r": 1e-6, "arousal_plane_angle": 0.1}.get(key, 1e-9)
            assert row[key] == pytest.approx(value, abs=tolerance), (row["layer"], key)
        assert row["depth"] == pytest.approx(row["layer"] / 3)
        assert row["n_emotions"] == E
    assert table["window"].tolist()[:1] == ["all"]
    assert peaks(table)["layer"].min() >= 0


def test_results_do_not_depend_on_the_order_of_texts() -> None:
    cell, ratings = cell_of()
    shuffled = cell.isel(text=np.random.default_rng(0).permutation(cell.sizes["text"]))
    a = analysed(cell, ratings).results
    settings = Settings(("neutral-pca", "mean-centered"), 0.5, {}, **FEW)
    order = list(dict.fromkeys(e for e in shuffled["emotion"].to_numpy() if e))
    settings.ratings["made"] = ratings[[int(e[1:]) for e in order]]
    part = analyse_layer(shuffled, "all", 1, settings)
    want = abs(a["r"].sel(window="all", layer=1).to_numpy())
    got = [abs(contrast.r_NX) for contrast in part.contrasts]
    np.testing.assert_allclose(got, want, atol=1e-9)


def test_tables_hold_each_pair_of_layers_once() -> None:
    cell, ratings = cell_of()
    results = analysed(cell, ratings)
    table = cka_table([results])
    assert len(table) == 2 * 2 * (4 * 5 // 2)
    assert (table["layer"] <= table["layer_b"]).all()
    same = table[table["layer"] == table["layer_b"]]
    np.testing.assert_allclose(same[["cka", "cka_debiased"]], 1)
    for axis, component in (("valence", "pc1"), ("arousal", "pc2")):
        directions = direction_cosine_table([results], axis)
        assert set(directions["contrast"]) == {"both", "mean-centered"}
        assert set(directions["estimator"]) == {component, *ESTIMATORS[1:]}
        assert len(directions) == len(ESTIMATORS) * len(table)
    assert len(direction_table([results])) == 2 * len(ESTIMATORS) * 2 * 2 * 4


def test_direction_tables_equal_directions_taken_one_by_one() -> None:
    cell, ratings = cell_of(n_stories=8)
    results = analysed(cell, ratings)
    cosines = direction_cosine_table([results], "arousal").set_index(
        ["window", "contrast", "estimator", "layer", "layer_b"]
    )
    quality = direction_table([results]).set_index(
        ["window", "contrast", "estimator", "axis", "layer"]
    )
    vectors = contrast(cell, "both", window="all")
    directions = {
        layer: rating_directions(vectors.sel(layer=layer).to_numpy(), ratings, [0, 1])
        for layer in (-1, 0, 1, 2)
    }
    for at, estimator in enumerate(("pc2", *ESTIMATORS[1:])):
        found = {layer: d[1, at] / np.linalg.norm(d[1, at]) for layer, d in directions.items()}
        for a, b in ((0, 0), (0, 1), (-1, 2)):
            row = cosines.loc[("all", "both", estimator, a, b)]
            want = found[a] @ found[b]
            want = abs(want) if estimator == "pc2" else want  # its sign is arbitrary
            assert row["cosine"] == pytest.approx(want, abs=1e-9)
        row = quality.loc[("all", "both", estimator, "arousal", 0)]
        assert row["next_cosine"] == cosines.loc[("all", "both", estimator, 0, 1), "cosine"]
        half = row["half_cosine"]
        assert row["reliability"] == pytest.approx(2 * half / (1 + half), nan_ok=half <= 0)
        splits = half_cosines(cell, ratings, directions[0], layer=0, estimator=at)
        assert half == pytest.approx(np.mean(splits), abs=1e-9)
        assert row["half_cosine_sd"] == pytest.approx(np.std(splits, ddof=1), abs=1e-9)
    same = cosines[cosines.index.get_level_values("layer") == cosines.index.get_level_values(4)]
    np.testing.assert_allclose(same["cosine_bounded"].dropna(), 1, atol=1e-6)
    last = quality.xs(2, level="layer")
    assert last["next_cosine"].isna().all()


def half_cosines(
    cell: xr.Dataset, ratings: np.ndarray, whole: np.ndarray, layer: int, estimator: int
) -> list[float]:
    """Cosines of the arousal directions of both halves of the stories, window `all`."""
    labels = [str(e) for e in cell["emotion"].to_numpy()]
    emotions = [f"e{i}" for i in range(E)]
    residual = cell["residual_mean"].sel(window="all", layer=layer)
    design = story_design(text_ids(labels), labels, emotions)
    found = layer_vectors(residual, labels, emotions, story_halves(design, SPLITS, 0))
    basis, _ = neutral_basis(found.neutral_ND, 0.5)
    cosines = []
    for halves in found.halves_SHED:
        pair = []
        for u in halves:
            d = rating_directions(contrast_vectors(u, basis, "both"), ratings, [0, 1])[1]
            is_component = np.array_equal(d[estimator], d[0])
            turned = is_component and d[0] @ whole[1, 0] < 0
            pair.append((-1 if turned else 1) * d[estimator] / np.linalg.norm(d[estimator]))
        cosines.append(float(pair[0] @ pair[1]))
    return cosines


def test_cosines_freed_of_noise_find_the_planted_rotation_between_layers() -> None:
    rng = np.random.default_rng(12)
    n_stories, wide = 12, 400
    axes = np.linalg.qr(rng.normal(size=(wide, 2)))[0].T
    ratings = rng.normal(size=(60, 2))
    labels = [f"e{i}" for i in range(60) for _ in range(n_stories)]
    turn = np.radians(40)
    directions = (axes[0], axes[0], np.cos(turn) * axes[0] + np.sin(turn) * axes[1])
    x = rng.normal(size=(len(labels), 1, 4, wide))
    for layer, direction in enumerate(directions):
        x[:, 0, layer] += 3 * np.repeat(ratings[:, :1] * direction, n_stories, axis=0)
    x[:, 0, 3] = x[:, 0, 2]  # the very same layer again
    cell = xr.Dataset(
        {"residual_mean": (("text", "window", "layer", "d_model"), x)},
        coords={
            "text_id": ("text", text_ids(labels)),
            "emotion": ("text", labels),
            "window": ["all"],
            "layer": [0, 1, 2, 3],
        },
    )
    settings = Settings(("mean-centered",), 0.5, {"made": ratings}, **FEW)
    parts = {("all", i): analyse_layer(cell, "all", i, settings) for i in range(4)}
    found = join_layers(parts, [f"e{i}" for i in range(60)], 4, settings)
    table = direction_table([CellResults("m", "c", found, "f" * 64)])
    for estimator in ("pc1", "covariance", "ridge"):
        rows = table[(table["estimator"] == estimator) & (table["axis"] == "valence")]
        raw, bounded = (rows[name].to_numpy() for name in ("next_cosine", "next_cosine_bounded"))
        assert bounded[:3] == pytest.approx([1, np.cos(turn), 1], abs=0.06)
        assert raw[0] < bounded[0] - 0.03  # noise makes equal directions look turned
        assert raw[2] == pytest.approx(1)


def test_halves_that_share_no_emotion_say_nothing() -> None:
    cell, ratings = cell_of(n_stories=1)
    settings = Settings(("neutral-pca", "mean-centered"), 0.5, {"made": ratings}, **FEW)
    part, _ = analyse_layer(cell, "all", 0, settings).contrasts
    assert np.isfinite(part.direction_NXTD).all()
    assert np.isnan(part.half_SHNXTD).all()


def test_reliability_grows_with_the_signal_and_sees_none_where_there_is_none() -> None:
    rng = np.random.default_rng(2)
    n_stories, axis = 6, np.linalg.qr(rng.normal(size=(D, 1)))[0][:, 0]
    ratings = rng.normal(size=(E, 2))
    labels = [f"e{i}" for i in range(E) for _ in range(n_stories)]
    noise = rng.normal(size=(len(labels), 1, 3, D))
    signal = np.repeat(ratings[:, 0], n_stories)[:, None] * axis
    for layer, strength in enumerate((0.0, 2.0, 20.0)):
        noise[:, 0, layer] += strength * signal
    cell = xr.Dataset(
        {"residual_mean": (("text", "window", "layer", "d_model"), noise)},
        coords={
            "text_id": ("text", text_ids(labels)),
            "emotion": ("text", labels),
            "window": ["all"],
            "layer": [0, 1, 2],
        },
    )
    settings = Settings(("mean-centered",), 0.5, {"made": ratings}, **FEW)
    parts = {("all", i): analyse_layer(cell, "all", i, settings) for i in (0, 1, 2)}
    found = join_layers(parts, [f"e{i}" for i in range(E)], 3, settings)
    where = {"window": "all", "contrast": "mean-centered", "norms": "made", "axis": "valence"}
    for estimator in ("covariance", "ridge"):
        at = where | {"estimator": estimator}
        none, some, strong = found["half_cosine"].sel(at).to_numpy()
        assert abs(none) < 0.25
        assert none < some < strong
        spread = found["half_cosine_sd"].sel(at).to_numpy()
        assert spread[2] < spread[0]
        assert found["reliability"].sel(at).to_numpy()[2] > 0.93
    held_out = found["held_out_r"].sel(where | {"estimator": "ridge"}).to_numpy()
    assert held_out[0] < 0.5
    assert held_out[2] > 0.95


def test_stories_are_reduced_as_a_loop_would_and_each_half_has_its_own() -> None:
    cell, _ = cell_of(n_stories=5)
    labels = [str(e) for e in cell["emotion"].to_numpy()]
    emotions = [f"e{i}" for i in range(E)]
    ids = text_ids(labels)
    design = story_design(ids, labels, emotions)
    halves = story_halves(design, 3, seed=1)
    residual = cell["residual_mean"].sel(window="no-first", layer=1)
    found = layer_vectors(residual, labels, emotions, halves)
    x = residual.to_numpy().astype(np.float64)
    for row, emotion in enumerate(emotions):
        mine = np.array([label == emotion for label in labels]) & np.isfinite(x).all(axis=1)
        np.testing.assert_allclose(found.u_ED[row], x[mine].mean(axis=0))
        for split in range(3):
            mine_first = {ids[at] for at in np.flatnonzero(halves[split]) if labels[at] == emotion}
            topics = {key.split("/")[1] for key in mine_first}
            assert 1 <= len(topics) <= 2  # of three
            whole = {key for key in ids if key.startswith(f"{emotion}/") and key[-5:-2] in topics}
            assert mine_first == whole
            for half, chosen in enumerate((halves[split], ~halves[split])):
                want = x[mine & chosen].mean(axis=0)
                np.testing.assert_allclose(found.halves_SHED[split, half, row], want, atol=1e-12)
    assert not halves[:, [label == "" for label in labels]].any()
    np.testing.assert_array_equal(halves, story_halves(design, 3, seed=1))


def test_stories_of_an_emotion_with_one_topic_are_halved() -> None:
    ids = [f"e{e}/000/{s}" for e in range(4) for s in range(5)]
    labels = [key[:2] for key in ids]
    halves = story_halves(story_design(ids, labels, sorted(set(labels))), 20, seed=0)
    per_emotion = halves.reshape(20, 4, 5).sum(axis=2)
    assert set(per_emotion.ravel()) == {2, 3}


def test_a_stable_component_without_valence_is_reliable_all_the_same() -> None:
    rng = np.random.default_rng(21)
    axis = np.linalg.qr(rng.normal(size=(D, 1)))[0][:, 0]
    hidden = rng.normal(size=E)
    ratings = rng.normal(size=(E, 2))
    hidden -= np.polyval(np.polyfit(ratings[:, 0], hidden, 1), ratings[:, 0])  # r = 0
    labels = [f"e{i}" for i in range(E) for _ in range(6)]
    x = 0.5 * rng.normal(size=(len(labels), 1, 2, D))
    x += 5 * np.repeat(hidden[:, None] * axis, 6, axis=0)[:, None, None]
    cell = xr.Dataset(
        {"residual_mean": (("text", "window", "layer", "d_model"), x)},
        coords={
            "text_id": ("text", text_ids(labels)),
            "emotion": ("text", labels),
            "window": ["all"],
            "layer": [0, 1],
        },
    )
    settings = Settings(("mean-centered",), 0.5, {"made": ratings}, **FEW)
    parts = {("all", i): analyse_layer(cell, "all", i, settings) for i in (0, 1)}
    found = join_layers(parts, [f"e{i}" for i in range(E)], 2, settings)
    table = direction_table([CellResults("m", "c", found, "f" * 64)])
    rows = table[(table["estimator"] == "pc1") & (table["layer"] == 0)]
    row = rows[rows["axis"] == "valence"].iloc[0]
    assert row["half_cosine"] > 0.95
    assert row["half_cosine_sd"] < 0.05
    assert row["next_cosine"] > 0.95
    assert row["next_cosine_bounded"] == pytest.approx(1, abs=0.05)


def test_a_swap_of_the_two_components_is_seen_for_what_it_is() -> None:
    rng = np.random.default_rng(3)
    valence = rng.normal(size=200)
    scores = np.stack([rng.normal(size=200), valence + 0.1 * rng.normal(size=200)], axis=1)
    swapped = plane_alignment(3 * scores, valence)
    assert swapped.r > 0.99
    assert swapped.angle > 80
    unit = scores / scores.std(axis=0)
    between = plane_alignment(scores * [10, 1], unit[:, 0] - unit[:, 1])
    assert between.r == pytest.approx(1)
    assert between.angle == pytest.approx(45)
    fit = np.column_stack([scores, np.ones(200)])
    noisy = valence + rng.normal(size=200)
    predicted = fit @ np.linalg.lstsq(fit, noisy, rcond=None)[0]
    want = np.corrcoef(predicted, noisy)[0, 1]
    assert plane_alignment(scores, noisy).r == pytest.approx(want)
    assert np.isnan(plane_alignment(scores[:3], valence[:3]).r)


def test_without_neutral_texts_numbers_are_missing_and_say_why() -> None:
    cell, ratings = cell_of()
    settings = Settings(("neutral-pca",), 0.5, {"made": ratings}, **FEW)
    without = cell.isel(text=cell["emotion"].to_numpy() != "")
    (part,) = analyse_layer(without, "all", 0, settings).contrasts
    assert "a neutral basis needs at least 2" in part.missing
    assert np.isnan(part.r_NX).all()


def test_contrasts_for_notebooks_are_labelled() -> None:
    cell, _ = cell_of()
    vectors = contrast(cell, "both", window="no-first", layers=[0, 2])
    assert vectors.dims == ("layer", "emotion", "d_model")
    assert vectors["emotion"].to_numpy().tolist()[:2] == ["e0", "e1"]
    np.testing.assert_allclose(vectors.mean("emotion"), 0, atol=1e-12)


def test_public_names_are_functions_whatever_was_imported_first() -> None:
    import analysis
    import analysis.cell

    assert all(callable(getattr(analysis, name)) for name in analysis.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = analysis.nothing


def test_activations_say_which_tokens_and_dimensions_carry_a_layer() -> None:
    rng = np.random.default_rng(11)
    lengths, n_layers, shards = [5, 9, 30, 12, 7], 3, [slice(0, 3), slice(3, 5)]
    tokens = [rng.normal(size=(n_layers, n, D)) for n in lengths]
    for i, text in enumerate(tokens):
        text[1, 0 if i < 4 else 2] *= 200  # a massive token, once not the first
        text[2, :, 7] += 50  # a massive dimension
    norms = [np.linalg.norm(text, axis=2) for text in tokens]

    def square(span: slice) -> np.ndarray:
        return (np.concatenate(tokens[span], axis=1) ** 2).mean(axis=1)

    cell = xr.Dataset(
        {
            "peak_norm": (("text", "layer"), [n.max(axis=1) for n in norms]),
            "mean_norm": (("text", "layer"), [n.mean(axis=1) for n in norms]),
            "peak_position": (("text", "layer"), [n.argmax(axis=1) for n in norms]),
            "mean_square": (("shard", "layer", "d_model"), [square(s) for s in shards]),
            "shard_tokens": ("shard", [sum(lengths[s]) for s in shards]),
            "tokens_read": ("text", lengths),
        },
        coords={"layer": [-1, 0, 1]},
    )
    found = massive_activations(cell)
    shares = np.array([n.max(axis=1) / n.sum(axis=1) for n in norms])
    np.testing.assert_allclose(found["peak_share"], np.median(shares, axis=0))
    assert (found["peak_share"].to_numpy() > 0.5).tolist() == [False, True, False]
    ratios = np.array([n.max(axis=1) / n.mean(axis=1) for n in norms])
    np.testing.assert_allclose(found["peak_ratio"], np.median(ratios, axis=0))
    np.testing.assert_allclose(found["peak_ratio_max"], ratios.max(axis=0))
    assert found["first_token_peak"].sel(layer=0) == 0.8
    energy = (np.concatenate(tokens, axis=1) ** 2).sum(axis=1)
    assert (found["top_dimension"][:, 0] == energy.argmax(axis=1)).all()
    assert found["top_dimension"][2, 0] == 7
    share = np.sort(energy, axis=1)[:, ::-1][:, :3] / energy.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found["top_dimension_share"], share)

    results = found.assign_coords(depth=("layer", [-0.5, 0, 0.5]))
    table = activation_table([CellResults("m", "c", results, "f" * 64)])
    assert table["layer"].tolist() == [-1, 0, 1]
    assert table["dimension_1"].tolist() == energy.argmax(axis=1).tolist()
    np.testing.assert_allclose(table["dimension_3_share"], share[:, 2])


def unbiased_hsic(k: np.ndarray, m: np.ndarray) -> float:
    """Song et al. 2012, eq. 5, written out."""
    n = len(k)
    k, m = (g - np.diag(np.diag(g)) for g in (k, m))
    sums = k.sum() * m.sum() / ((n - 1) * (n - 2))
    return float((np.trace(k @ m) + sums - 2 / (n - 2) * (k @ m).sum()) / (n * (n - 3)))


def test_debiased_cka_is_its_u_statistic_and_has_no_bias() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, 5, 15, 60))
    y[0] = x[0] @ np.linalg.qr(rng.normal(size=(60, 60)))[0]
    grams = [np.array([gram(layer) for layer in side]) for side in (x, y)]
    got = cka_grid(*grams, debiased=True)
    for i in range(5):
        for j in range(5):
            k, m = x[i] @ x[i].T, y[j] @ y[j].T  # not centred: the estimator does not need it
            pair = unbiased_hsic(k, m) / np.sqrt(unbiased_hsic(k, k) * unbiased_hsic(m, m))
            assert got[i, j] == pytest.approx(pair, abs=1e-10)
    assert got[0, 0] == pytest.approx(1)
    unrelated = [np.array([gram(rng.normal(size=(15, 60))) for _ in range(40)]) for _ in range(2)]
    assert abs(cka_grid(*unrelated, debiased=True).mean()) < 0.01
    assert cka_grid(*unrelated).mean() > 0.7  # 15 items in 60 dimensions: the plain one is blind
    assert np.isnan(cka_grid(*(g[:, :3, :3] for g in unrelated), debiased=True)).all()
