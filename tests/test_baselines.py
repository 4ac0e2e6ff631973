"""What words give without a model, against counts by hand; differences between paired draws."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from analysis import contrast_vectors, correlate, neutral_basis, pca
from analysis.baselines import DIMENSIONS, bag_of_words, corpus_baselines
from analysis.differences import BASELINES, baselines, correlations
from analysis.geometry_table import geometry_table
from analysis.inference import bounds
from analysis.resampling import draw_weights, freed_of_drawing, resampling_units
from analysis.settings import Settings
from manifests.norms import Norms
from store.corpus import Text
from tests.made import FEW
from tests.planted import flat, planted_cell, planted_results, planted_words
from tests.test_analysis import analysed, cell_of

RNG = np.random.default_rng(8)
GOOD, BAD, PLAIN = "bright warm sunny", "grim cold bitter", "table chair window door street"
RATINGS = {
    **dict.fromkeys(GOOD.split(), (8.0, 5.0)),
    **dict.fromkeys(BAD.split(), (2.0, 4.0)),
    "table": (5.0, 3.0),
}
E, TOPICS, STORIES = 16, 3, 2


def corpus() -> tuple[list[Text], list[str], Norms]:
    """Stories whose good and bad words follow their emotion's valence; arousal is nowhere."""
    names = [f"feeling{chr(97 + e)}" for e in range(E)]
    valence, arousal = np.linspace(1, 9, E), RNG.permutation(np.linspace(1, 9, E))
    ratings = {n: (float(v), float(a)) for n, v, a in zip(names, valence, arousal, strict=True)}
    norms = Norms("made", Path("made.csv"), ratings | RATINGS, 0)
    texts = []
    for name, good in zip(names, np.linspace(0.1, 0.9, E), strict=True):
        for topic in range(TOPICS):
            for number in range(STORIES):
                pools = [GOOD if RNG.random() < good else BAD for _ in range(20)]
                words = [str(RNG.choice(p.split())) for p in [*pools, *[PLAIN] * 20]]
                words.append(name)  # rated, but the emotion's own
                key = f"{name}/{topic:03d}/{number}"
                texts.append(Text(key, "emotion", name, str(topic), number, " ".join(words)))
    for at in range(6):
        words = [str(RNG.choice(PLAIN.split())) for _ in range(40)]
        texts.append(Text(f"neutral-{at:03d}", "neutral", None, "t", 0, " ".join(words)))
    return texts, names, norms


def settings_for(names: list[str], norms: Norms) -> Settings:
    return Settings(
        ("neutral-pca", "mean-centered"), 0.5, {norms.name: norms.rate(names)}, seed=3, **FEW
    )


def tfidf(texts: list[str]) -> np.ndarray:
    """TF-IDF by its definition: counts times ln((1 + n) / (1 + df)) + 1, rows of length 1."""
    counts = [Counter(text.split()) for text in texts]
    vocabulary = sorted({word for count in counts for word in count})
    df = np.array([sum(word in count for count in counts) for word in vocabulary])
    weights = np.array([[count[word] for word in vocabulary] for count in counts], dtype=float)
    weights *= np.log((1 + len(texts)) / (1 + df)) + 1
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def test_a_bag_of_words_is_the_best_plane_of_its_weights() -> None:
    texts = [text.text for text in corpus()[0]]
    points = bag_of_words(texts, seed=0)
    weights = tfidf(texts)
    n = min(DIMENSIONS, min(weights.shape) - 1)
    assert points.shape == (len(texts), n)
    u, s, _ = np.linalg.svd(weights, full_matrices=False)
    best = (u[:, :n] * s[:n] ** 2) @ u[:, :n].T
    np.testing.assert_allclose(points @ points.T, best, atol=1e-8)


def test_words_that_follow_valence_give_it_without_a_model() -> None:
    texts, names, norms = corpus()
    settings = settings_for(names, norms)
    found = corpus_baselines(texts, names, [norms], settings)
    points = bag_of_words([text.text for text in texts], settings.seed)
    means = np.stack([points[[t.emotion == n for t in texts]].mean(axis=0) for n in names])
    basis, _ = neutral_basis(points[[t.emotion is None for t in texts]])
    rating = norms.rate(names)
    for contrast, x in (
        ("neutral-pca", contrast_vectors(means, basis, "both")),
        ("mean-centered", means),
    ):
        at = found.sel(contrast=contrast, norms="made")
        for axis, name in enumerate(("valence", "arousal")):
            r = correlate(pca(x).scores_EC[:, axis], rating[:, axis]).r
            assert abs(float(at["bag_of_words_r"].sel(axis=name))) == pytest.approx(abs(r))
    r = found["bag_of_words_r"].sel(contrast="mean-centered", norms="made", axis="valence")
    draws = found["bag_of_words_draw"].sel(contrast="mean-centered", norms="made", axis="valence")
    assert abs(float(r)) > 0.8
    low, high = bounds(np.sign(float(r)) * draws.to_numpy())
    assert 0.5 < low < high


def test_lexical_draws_equal_a_loop_over_drawn_stories() -> None:
    texts, names, norms = corpus()
    settings = settings_for(names, norms)
    found = corpus_baselines(texts, names, [norms], settings).sel(norms="made", axis="valence")

    def valence(text: Text) -> float:
        rated = [RATINGS[word][0] for word in text.text.split() if word in RATINGS]
        return float(np.mean(rated))

    values = np.array([valence(t) if t.emotion else np.nan for t in texts])
    rating = norms.rate(names)[:, 0]
    mean = [values[[t.emotion == n for t in texts]].mean() for n in names]
    assert float(found["lexical_r"]) == pytest.approx(correlate(np.array(mean), rating).r)
    labels = [t.emotion or "" for t in texts]
    units = resampling_units([t.text_id for t in texts], labels, names, settings.seed)
    n_units = len(units.emotion_U)
    counts = np.array([(units.unit_N == unit).sum() for unit in range(n_units)], dtype=float)
    weights = draw_weights(units, counts, names, settings.bootstraps, settings.seed)
    by_unit = np.array([values[units.unit_N == unit].mean() for unit in range(n_units)])
    drawn = []
    for weight in weights:
        x = [(weight * by_unit)[units.emotion_U == e].sum() for e in range(E)]
        drawn.append(correlate(np.array(x), rating).r)
    want = freed_of_drawing(np.array(drawn), found["lexical_r"].to_numpy(), np.array(1.0))
    np.testing.assert_allclose(found["lexical_draw"], want, atol=1e-5)


def test_without_neutral_texts_one_contrast_is_missing_and_says_why() -> None:
    texts, names, norms = corpus()
    stories = [text for text in texts if text.emotion]
    found = corpus_baselines(stories, names, [norms], settings_for(names, norms))
    assert "neutral texts" in str(found["bag_of_words_missing"].sel(contrast="neutral-pca").item())
    assert found["bag_of_words_r"].sel(contrast="neutral-pca").isnull().all()
    assert found["bag_of_words_r"].sel(contrast="mean-centered").notnull().all()


def test_the_table_has_intervals_and_differences_of_paired_draws() -> None:
    results = planted_results(flat(-0.6), flat(0.4), embedding=0.3)
    twin = planted_results(flat(0.2), flat(0.2), seed=4)
    cells = [
        planted_cell(results, words=planted_words(0.5), twin="random"),
        planted_cell(twin, model="random"),
    ]
    for axis, own in (("valence", 0.6), ("arousal", 0.4)):
        found = correlations(cells[0], axis)
        low, high = found.interval()
        assert (low.sel(layer=3) < own).all()
        assert (high.sel(layer=3) > own).all()
        for name, other in baselines(cells[0], axis, cells).items():
            want = {"embedding": 0.3, "random": 0.2, "bag_of_words": 0.5, "lexical": 0.5}[name]
            difference, below, above = found.minus(other)
            np.testing.assert_allclose(difference.sel(layer=3), own - want, atol=1e-6)
            assert (below.sel(layer=3) < own - want).all()
            assert (above.sel(layer=3) > own - want).all()
        assert set(baselines(cells[0], axis, cells)) == set(BASELINES)
    same = baselines(planted_cell(results, twin="m"), "valence", [planted_cell(results)])["random"]
    difference, below, above = correlations(cells[0], "valence").minus(same)
    for values in (difference, below, above):
        np.testing.assert_allclose(values, 0, atol=1e-12)
    alone = baselines(planted_cell(results), "valence", [])
    assert alone["random"].r.isnull().all()
    assert alone["lexical"].r.isnull().all()


def test_geometry_has_a_column_for_each_baseline_and_axis() -> None:
    cell, ratings = cell_of()
    table = geometry_table([analysed(cell, ratings)])
    for axis in ("valence", "arousal"):
        at_top = table[table["layer"] >= 0]
        assert (at_top[f"{axis}_low"] <= at_top[f"{axis}_r_infinite"]).all()
        assert (at_top[f"{axis}_r_infinite"] <= at_top[f"{axis}_high"]).all()
        assert at_top[f"{axis}_p_corrected"].between(1 / 101, 1).all()
        embedding = table[table["layer"] == -1]
        assert (embedding[f"{axis}_minus_embedding"] == 0).all()
        assert embedding[f"{axis}_p_corrected"].isna().all()
        gone = [f"{axis}_random_r", f"{axis}_bag_of_words_r", f"{axis}_lexical_r"]
        assert table[gone].isna().all(axis=None)
        for (window, contrast), rows in table.groupby(["window", "contrast"]):
            base = embedding[(embedding["window"] == window) & (embedding["contrast"] == contrast)][
                f"{axis}_r"
            ].iloc[0]
            np.testing.assert_allclose(rows[f"{axis}_embedding_r"], base)
            np.testing.assert_allclose(
                rows[f"{axis}_minus_embedding"], rows[f"{axis}_r"] - base, atol=1e-12
            )
