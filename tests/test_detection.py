"""Emotion vectors as detectors, held to a plain computation story by story."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from analysis.cell import join_layers
from analysis.contrasts import contrast_vectors, neutral_basis
from analysis.detection import FOLDS, TOP, Detection, HeldOut, make_detector, topic_folds
from analysis.detection_table import best_layer, detected_emotions_table, detection_table
from analysis.exclusions import exclusions_table
from analysis.geometry import NotEnough
from analysis.layer import analyse_layer
from analysis.results import CellResults
from analysis.settings import Settings
from tests.made import FEW

NAMES, D, LAYERS = [f"e{i}" for i in range(14)], 20, (-1, 0, 1)
STRENGTH = {-1: 0.0, 0: 0.6, 1: 1.6}


def ids_and_labels(topics: dict[str, list[int]], stories: int = 2) -> tuple[list[str], list[str]]:
    ids = [
        f"{n}/{t:03d}/{s}" for n, chosen in topics.items() for t in chosen for s in range(stories)
    ]
    labels = [key.partition("/")[0] for key in ids] + [""] * 9
    return ids + [f"neutral/{i:03d}" for i in range(9)], labels


def design(seed: int = 0) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    return ids_and_labels({n: sorted(rng.choice(25, 3, replace=False)) for n in NAMES})


def made_cell(ids: list[str], labels: list[str], seed: int = 1) -> xr.Dataset:
    """Emotions lie along directions of their own, ever further over the layers."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(len(NAMES), D))
    x = rng.normal(size=(len(ids), len(LAYERS), D)) * np.linspace(2, 0.5, D) + 3
    for at, layer in enumerate(LAYERS):
        for row, label in enumerate(labels):
            if label:
                x[row, at] += STRENGTH[layer] * own[NAMES.index(label)]
    return xr.Dataset(
        {"residual_mean": (("text", "window", "layer", "d_model"), x[:, None].astype(np.float32))},
        coords={
            "text_id": ("text", ids),
            "emotion": ("text", labels),
            "window": ["all"],
            "layer": list(LAYERS),
        },
    )


def plain_ranks(x_ND: np.ndarray, ids: list[str], labels: list[str], seed: int) -> np.ndarray:
    """One story at a time: every mean anew from the texts that are left."""
    fold_N, _ = topic_folds(ids, labels, seed)
    labels_N = np.array(labels)
    neutral = x_ND[labels_N == ""]
    _, s, v = np.linalg.svd(neutral - neutral.mean(axis=0), full_matrices=False)
    k = int(np.argmax(np.cumsum(s**2) >= 0.5 * (s**2).sum())) + 1
    out = np.full(len(ids), np.nan)
    for i in np.flatnonzero(labels_N != ""):
        others = (labels_N != "") & (fold_N != fold_N[i])
        means = {}
        for name in NAMES:
            left = (labels_N == name) & others
            if left.any():
                means[name] = x_ND[left].mean(axis=0)
        if labels[i] not in means:
            continue
        grand = np.mean(list(means.values()), axis=0)
        shared = grand - neutral.mean(axis=0)
        shared = shared - v[:k].T @ (v[:k] @ shared)
        shared /= np.linalg.norm(shared)
        scores = {}
        for name, mean in means.items():
            vector = mean - grand
            vector = vector - v[:k].T @ (v[:k] @ vector)
            vector = vector - shared * (shared @ vector)
            vector /= np.linalg.norm(vector)
            spread = np.std(x_ND[others] @ vector)
            scores[name] = ((x_ND[i] - neutral.mean(axis=0)) @ vector) / spread
        out[i] = 1 + sum(score > scores[labels[i]] for score in scores.values())
    return out


def analysed(cell: xr.Dataset, seed: int = 3) -> xr.Dataset:
    rating = np.random.default_rng(0).normal(size=(len(NAMES), 2))
    settings = Settings(("neutral-pca",), 0.5, {"made": rating}, seed=seed, **FEW)
    parts = {("all", layer): analyse_layer(cell, "all", layer, settings) for layer in LAYERS}
    return join_layers(parts, NAMES, 2, settings)


def test_ranks_of_held_out_stories_are_those_of_a_plain_computation() -> None:
    ids, labels = design()
    cell = made_cell(ids, labels)
    results = analysed(cell)
    for at, layer in enumerate(LAYERS):
        x_ND = cell["residual_mean"].to_numpy()[:, 0, at].astype(np.float64)
        rank_N = plain_ranks(x_ND, ids, labels, 3)
        there = np.isfinite(rank_N)
        found = results.sel(window="all", layer=layer)
        assert int(found["detected_n"]) == there.sum() > 60
        for top in TOP:
            share = np.mean(rank_N[there] <= top)
            np.testing.assert_allclose(found["detected"].sel(top=top), share, atol=1e-12)
        np.testing.assert_allclose(found["detected_rank"], np.median(rank_N[there]))
        np.testing.assert_allclose(found["detected_reciprocal_rank"], np.mean(1 / rank_N[there]))
        for row, name in enumerate(NAMES):
            mine = rank_N[(np.array(labels) == name) & there]
            want = np.median(mine) if len(mine) else np.nan
            np.testing.assert_allclose(found["detected_emotion"].isel(emotion=row), want)


def test_planted_emotions_are_found_and_noise_is_not() -> None:
    ids, labels = design()
    results = analysed(made_cell(ids, labels)).sel(window="all")
    noise, weak, strong = (results.sel(layer=layer, top=1) for layer in LAYERS)
    assert float(strong["detected"]) > 0.8
    assert float(weak["detected"]) < float(strong["detected"])
    assert float(noise["detected_low"]) < float(noise["detected_by_chance"])
    assert abs(float(noise["detected"]) - 1 / len(NAMES)) < 0.1
    assert best_layer(results.expand_dims("window"), "all") == 1


def test_a_story_is_never_ranked_by_vectors_that_saw_its_topic() -> None:
    """Where a topic decides a story's place, vectors that had seen it would find the emotion."""
    topics = {name: [3 * i, 3 * i + 1, 3 * i + 2] for i, name in enumerate(NAMES)}
    ids, labels = ids_and_labels(topics)
    rng = np.random.default_rng(5)
    of_topic = rng.normal(size=(3 * len(NAMES), D)) * 4
    x = rng.normal(size=(len(ids), D))
    for row, key in enumerate(ids):
        if labels[row]:
            x[row] += of_topic[int(key.split("/")[1])]
    held = found_by(x, ids, labels, topic_folds(ids, labels, 0))
    leaky_N = np.array(
        [-1 if not name else int(key[-1]) for key, name in zip(ids, labels, strict=True)]
    )
    leaky = found_by(x, ids, labels, (leaky_N, 2))
    assert leaky.top_K[0] > 0.7
    assert held.low_K[0] < held.chance_K[0]


def found_by(
    x_ND: np.ndarray, ids: list[str], labels: list[str], folds: tuple[np.ndarray, int]
) -> Detection:
    row_N = np.array([NAMES.index(name) if name else -1 for name in labels])
    held_out = HeldOut(folds[0], row_N, folds[1], len(NAMES), x_ND.shape[1])
    for start in range(0, len(ids), 7):
        texts = slice(start, min(len(ids), start + 7))
        held_out.add(texts, x_ND[texts], np.isfinite(x_ND[texts]).all(axis=1))
    neutral_ND = x_ND[np.array(labels) == ""]
    return held_out.detection([(slice(0, len(ids)), x_ND)], neutral_ND, 0.5)


def test_folds_hold_whole_topics_and_do_not_depend_on_the_order() -> None:
    ids, labels = design()
    fold_N, n_folds = topic_folds(ids, labels, 7)
    assert n_folds == FOLDS
    assert set(fold_N[np.array(labels) == ""]) == {-1}
    by_topic = {}
    for key, label, fold in zip(ids, labels, fold_N, strict=True):
        if label:
            assert by_topic.setdefault(key.split("/")[1], fold) == fold
    order = np.random.default_rng(0).permutation(len(ids))
    again, _ = topic_folds([ids[i] for i in order], [labels[i] for i in order], 7)
    np.testing.assert_array_equal(again, fold_N[order])
    other, _ = topic_folds(ids, labels, 8)
    assert (other != fold_N).any()


def test_an_emotion_whose_topics_are_held_out_together_has_no_rank_and_is_named() -> None:
    topics = {name: [0, 1, 2, 3] for name in NAMES}
    topics["e4"] = [0]
    ids, labels = ids_and_labels(topics)
    results = analysed(made_cell(ids, labels))
    assert np.isnan(results["detected_emotion"].sel(emotion="e4")).all()
    assert int(results["detected_n"].max()) == 8 * 13
    cell = CellResults("m", "c", with_texts(results), "f" * 64)
    (row,) = [r for r in exclusions_table([cell]).to_dict("records") if "held out" in r["why"]]
    assert (row["names"], row["n"], row["window"]) == ("e4", 1, "all")


def test_one_topic_and_too_few_neutral_texts_are_named() -> None:
    ids, labels = ids_and_labels({name: [0] for name in NAMES})
    results = analysed(made_cell(ids, labels))
    assert set(results["detected_missing"].to_numpy().ravel()) == {"all stories are on one topic"}
    assert np.isnan(results["detected"]).all()
    assert best_layer(results, "all") is None
    table = detected_emotions_table([CellResults("m", "c", results, "f" * 64)])
    assert table.empty
    assert "median_rank" in table
    ids, labels = design()
    kept = [i for i, label in enumerate(labels) if label] + [len(ids) - 1]
    results = analysed(made_cell(ids, labels).isel(text=kept))
    assert "at least 2 neutral texts" in str(results["detected_missing"].to_numpy()[0, 0])


def test_tables_say_what_the_results_say() -> None:
    ids, labels = design()
    results = analysed(made_cell(ids, labels))
    cells = [CellResults("m", "c", results, "f" * 64)]
    table = detection_table(cells)
    assert list(table["layer"]) == list(LAYERS)
    for row in table.to_dict("records"):
        at = results.sel(window="all", layer=row["layer"])
        for top in TOP:
            here = at.sel(top=top)
            assert row[f"top_{top}"] == float(here["detected"])
            assert row[f"top_{top}_low"] <= row[f"top_{top}"] <= row[f"top_{top}_high"]
            assert row[f"top_{top}_chance"] == float(here["detected_by_chance"])
        assert row["n_stories"] == int(at["detected_n"])
    emotions = detected_emotions_table(cells)
    assert set(emotions["layer"]) == {1}
    assert sorted(emotions["emotion"]) == sorted(NAMES)


def test_what_all_stories_share_leads_to_no_emotion() -> None:
    """Stories lie far from the neutral texts, along a direction that one emotion leans to."""
    ids, labels = design()
    cell = made_cell(ids, labels)
    shift = np.random.default_rng(9).normal(size=D) * 6
    x = cell["residual_mean"].to_numpy()
    is_story = np.array(labels) != ""
    x[is_story] += shift.astype(np.float32)
    x[np.array(labels) == "e5"] += (0.4 * shift).astype(np.float32)
    found = analysed(cell).sel(window="all", layer=1)
    assert float(found["detected"].sel(top=1)) > 0.7


def test_scores_are_zero_for_neutral_texts_and_one_is_the_spread_of_stories() -> None:
    rng = np.random.default_rng(2)
    u_ED, neutral_ND = rng.normal(size=(9, D)) * 3 + 5, rng.normal(size=(12, D)) + 5
    u_ED[4] = np.nan
    basis, _ = neutral_basis(neutral_ND, 0.5)
    story_ND = rng.normal(size=(50, D)) * 2 + 5
    story_ND[7] = np.nan
    detector = make_detector(u_ED, neutral_ND, basis, [story_ND[:20], story_ND[20:]])
    assert np.isnan(detector.unit_ED[4]).all()
    there = np.arange(9) != 4
    np.testing.assert_allclose(detector.scores(neutral_ND).mean(axis=0)[there], 0, atol=1e-12)
    np.testing.assert_allclose(np.nanstd(detector.scores(story_ND)[:, there], axis=0), 1)
    token_TD = rng.normal(size=(30, D)) * 4
    np.testing.assert_allclose(
        detector.scores(token_TD).mean(axis=0), detector.scores(token_TD.mean(axis=0)[None])[0]
    )
    np.testing.assert_allclose(detector.scores(u_ED[there]).mean(axis=0)[there], 0, atol=1e-12)
    shared = u_ED[there].mean(axis=0) - neutral_ND.mean(axis=0)
    away = np.linalg.qr(np.vstack([basis, shared]).T)[0]  # what no vector has anything of
    np.testing.assert_allclose(detector.unit_ED[there] @ away, 0, atol=1e-12)
    want = contrast_vectors(u_ED, basis, "both")[there]
    want = want - want @ away @ away.T
    want /= np.linalg.norm(want, axis=1, keepdims=True)
    np.testing.assert_allclose(detector.unit_ED[there], want, atol=1e-12)
    with pytest.raises(NotEnough, match="at least 2 emotions"):
        make_detector(np.where(np.arange(9)[:, None] == 0, u_ED, np.nan), neutral_ND, basis, [])


def with_texts(results: xr.Dataset) -> xr.Dataset:
    """Add what the store says of its texts."""
    n = results.sizes["window"]
    return results.assign(
        texts_without_token=("window", np.zeros(n, dtype=int)),
        texts_without_token_names=("window", [""] * n),
    )
