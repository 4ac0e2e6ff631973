"""Silhouettes and clusters against scikit-learn on the vectors, and against what was planted."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import silhouette_samples, silhouette_score

from analysis import gram, principal_coordinates
from analysis.clusters import distances, gram_distances, kmeans_clusters, separation
from analysis.geometry_table import geometry_table
from analysis.peak_layers import FINE, cluster_table, cosine_table, shown_layers
from analysis.results import CellResults
from tests.test_analysis import E, analysed, cell_of

RNG = np.random.default_rng(3)


def grouped(n_groups: int, per_group: int, apart: float) -> np.ndarray:
    centres = apart * RNG.normal(size=(n_groups, 30))
    return np.repeat(centres, per_group, axis=0) + RNG.normal(size=(n_groups * per_group, 30))


def test_principal_coordinates_equal_the_vectors_own_components() -> None:
    from analysis import pca

    x = RNG.normal(size=(20, 50)) * np.linspace(4, 0.1, 50) + 7
    x[3] = np.nan
    scores, variance = principal_coordinates(gram(x), 4)
    own = pca(x, 4)
    np.testing.assert_allclose(variance, own.variance_C, rtol=1e-8)
    np.testing.assert_allclose(np.abs(scores), np.abs(own.scores_EC), atol=1e-7)
    with pytest.raises(ValueError, match="at least 3 emotions"):
        principal_coordinates(gram(x[1:4]))
    with pytest.raises(ValueError, match="all the same"):
        principal_coordinates(np.zeros((5, 5)))


def test_separation_equals_the_silhouette_of_rated_vectors() -> None:
    x, rating = grouped(2, 12, 3.0), np.repeat([2.0, 8.0], 12) + RNG.normal(size=24) * 0.3
    rating[[1, 20]], x[5] = np.nan, np.nan
    there = np.isfinite(rating) & np.isfinite(x[:, 0])
    high = rating > (np.nanmin(rating[there]) + np.nanmax(rating[there])) / 2
    want = silhouette_score(x[there], high[there])
    assert separation(gram_distances(gram(x)), rating) == pytest.approx(want, abs=1e-6)
    assert separation(distances(x), rating) == pytest.approx(want, abs=1e-6)
    assert want > 0.3


def test_separation_needs_two_emotions_on_each_side() -> None:
    x = RNG.normal(size=(6, 4))
    assert np.isnan(separation(distances(x), np.array([1, 1, 1, 1, 1, 9.0])))
    assert np.isnan(separation(distances(x), np.full(6, np.nan)))
    assert np.isfinite(separation(distances(x), np.array([1, 1, 1, 1, 9, 9.0])))


def test_planted_groups_are_found_with_their_number_and_members() -> None:
    x = grouped(4, 6, 4.0)[RNG.permutation(24)]
    x = np.insert(x, 7, np.nan, axis=0)
    by_number = kmeans_clusters(gram(x), range(2, 9), seed=0)
    assert max(by_number, key=lambda k: by_number[k].silhouette) == 4
    found = by_number[4]
    there = np.isfinite(x[:, 0])
    assert found.label_E[7] == -1
    assert sorted(np.bincount(found.label_E[there])) == [6, 6, 6, 6]
    own = silhouette_samples(x[there], found.label_E[there]).mean()
    assert found.silhouette == pytest.approx(own, abs=1e-9)
    rotation = np.linalg.qr(RNG.normal(size=(30, 30)))[0]
    again = kmeans_clusters(gram(x @ rotation), (4,), seed=5)[4]
    np.testing.assert_array_equal(_same(again.label_E), _same(found.label_E))
    assert kmeans_clusters(np.eye(3), (3, 4), 0) == {}


def _same(label: np.ndarray) -> np.ndarray:
    return label[:, None] == label


def test_clusters_are_numbered_by_size() -> None:
    x = np.concatenate([grouped(1, 3, 50.0), grouped(1, 9, 50.0), grouped(1, 6, 50.0)])
    found = kmeans_clusters(gram(x), (3,), seed=0)[3]
    assert found.label_E.tolist() == [2] * 3 + [0] * 9 + [1] * 6


def test_every_corpus_is_clustered_where_any_corpus_of_its_model_peaks() -> None:
    cells = []
    for corpus, seed in (("a", 3), ("b", 4)):
        cell, ratings = cell_of(seed=seed)
        cells.append(CellResults("m", corpus, analysed(cell, ratings).results, corpus * 64))
    geometry = geometry_table(cells)
    blocks = geometry[(geometry["layer"] >= 0) & (geometry["contrast"] == "neutral-pca")]
    table = cluster_table(cells, geometry, seed=0, numbers=(2, 3))
    for window in ("all", "no-first"):
        best = {
            corpus: int(rows.loc[rows["valence_r"].idxmax(), "layer"])
            for corpus, rows in blocks[blocks["window"] == window].groupby("corpus")
        }
        layers = shown_layers(geometry, "m", window, "neutral-pca", "made")
        assert {layer: set(who) for layer, who in layers.items()} == {
            layer: {c for c in best if best[c] == layer} for layer in sorted(set(best.values()))
        }
        rows = table[(table["window"] == window) & (table["contrast"] == "neutral-pca")]
        shown = set(zip(rows["corpus"], rows["layer"], strict=True))
        assert shown == {(corpus, layer) for corpus in best for layer in best.values()}
        assert (rows.groupby(["corpus", "layer"])["n_clusters"].nunique() == 2).all()
        assert set(rows["n_clusters"]) <= {2, 3, FINE}
        for _, members in rows.groupby(["corpus", "layer", "n_clusters"]):
            assert sorted(members["emotion"]) == sorted(f"e{i}" for i in range(E))
            assert members["cluster"].nunique() == members["n_clusters"].iloc[0]


def test_cosines_are_those_of_the_contrast_vectors_at_the_peak() -> None:
    from analysis import contrast

    cell, ratings = cell_of()
    results = analysed(cell, ratings)
    geometry = geometry_table([results])
    table = cosine_table([results], geometry)
    assert set(table["contrast"]) == {"both"}
    for window in ("all", "no-first"):
        rows = table[table["window"] == window]
        (layer,) = set(rows["layer"])
        best = geometry[(geometry["window"] == window) & (geometry["layer"] >= 0)]
        best = best[best["contrast"] == "neutral-pca"]
        assert layer == best.loc[best["valence_r"].idxmax(), "layer"]
        assert len(rows) == E * (E - 1) // 2
        x = contrast(cell, "both", window=window, layers=[layer]).isel(layer=0)
        unit = x / np.sqrt((x**2).sum("d_model"))
        for a, b in (("e0", "e1"), ("e3", "e17")):
            row = rows[(rows["emotion"] == a) & (rows["emotion_b"] == b)].iloc[0]
            want = float(unit.sel(emotion=a) @ unit.sel(emotion=b))
            assert row["cosine"] == pytest.approx(want, abs=1e-9)
