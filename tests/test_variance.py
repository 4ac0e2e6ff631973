"""Shares of variance against dense design matrices, and components against what was planted."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.variance import VarianceShares, VarianceSums, story_design

D = 6


def corpus(
    n_emotions: int, n_topics: int, per_emotion: int, per_pair: int, seed: int
) -> tuple[list[str], list[str]]:
    """Return text ids and emotions: each emotion on topics drawn for it, neutral texts between."""
    rng = np.random.default_rng(seed)
    ids, emotions = ["neutral-000"], [""]
    for e in range(n_emotions):
        for t in rng.permutation(n_topics)[:per_emotion]:
            for s in range(per_pair):
                ids.append(f"e{e}/{t:03d}/{s}")
                emotions.append(f"e{e}")
        if e % 3 == 0:
            ids.append(f"neutral-{e + 1:03d}")
            emotions.append("")
    return ids, emotions


def shares(ids: list[str], emotions: list[str], x: np.ndarray, block: int = 7) -> VarianceShares:
    names = list(dict.fromkeys(e for e in emotions if e))
    sums = VarianceSums(story_design(ids, emotions, names), x.shape[1])
    for start in range(0, len(ids), block):
        part = slice(start, min(len(ids), start + block))
        sums.add(part, x[part], np.isfinite(x[part]).all(axis=1))
    return sums.shares()


def dense(ids: list[str], emotions: list[str], there: np.ndarray) -> dict[str, np.ndarray]:
    """Projections [story, story] on what is constant, on emotions, topics, both and pairs."""
    stories = zip(ids, emotions, there, strict=True)
    kept = [(e, i.split("/")[1]) for i, e, ok in stories if e and ok]

    def dummies(keys: list[object]) -> np.ndarray:
        distinct = list(dict.fromkeys(keys))
        return np.array([[key == other for other in distinct] for key in keys], dtype=float)

    z = {
        "emotion": dummies([e for e, _ in kept]),
        "topic": dummies([t for _, t in kept]),
        "pair": dummies(list(kept)),
        "mean": np.ones((len(kept), 1)),
    }
    z["both"] = np.hstack([z["emotion"], z["topic"]])
    return z | {f"p_{name}": m @ np.linalg.pinv(m) for name, m in z.items()}


def made(seed: int = 1, gap: bool = True) -> tuple[list[str], list[str], np.ndarray]:
    ids, emotions = corpus(12, 9, 3, 3, seed)
    x = np.random.default_rng(seed).normal(size=(len(ids), D)) + 1000
    if gap:
        x[[4, 5, 6, 20]] = np.nan  # a whole pair, and one story of another
    return ids, emotions, x


def test_sums_of_squares_equal_those_of_dense_projections() -> None:
    ids, emotions, x = made()
    there = np.isfinite(x).all(axis=1)
    found, p = shares(ids, emotions, x), dense(ids, emotions, there)
    y = x[there & (np.array(emotions) != "")]

    def ss(name: str) -> float:
        return float(np.square((p[f"p_{name}"] - p["p_mean"]) @ y).sum())

    total = float(np.square(y - y.mean(0)).sum())
    np.testing.assert_allclose(found.emotion_ss, ss("emotion") / total, rtol=1e-8)
    np.testing.assert_allclose(found.topic_ss, (ss("both") - ss("emotion")) / total, rtol=1e-8)
    np.testing.assert_allclose(found.pair_ss, (ss("pair") - ss("both")) / total, rtol=1e-8)
    np.testing.assert_allclose(found.rest_ss, 1 - ss("pair") / total, rtol=1e-8)
    np.testing.assert_allclose(
        found.emotion_beyond_topic_ss, (ss("both") - ss("topic")) / total, rtol=1e-8
    )
    assert (found.n_stories, found.n_pairs) == (len(y), p["pair"].shape[1])
    assert found.n_topics == p["topic"].shape[1]


def test_components_solve_the_expectations_of_the_dense_design() -> None:
    ids, emotions, x = made(2)
    there = np.isfinite(x).all(axis=1)
    found, p = shares(ids, emotions, x), dense(ids, emotions, there)
    y = x[there & (np.array(emotions) != "")]
    n = len(y)
    spaces = [
        np.eye(n) - p["p_pair"],
        p["p_pair"] - p["p_both"],
        p["p_both"] - p["p_emotion"],
        p["p_both"] - p["p_topic"],
    ]
    effects = [p["emotion"], p["topic"], p["pair"], np.eye(n)]
    expected = np.array([[np.trace(z.T @ space @ z) for z in effects] for space in spaces])
    component = np.linalg.solve(expected, [np.square(space @ y).sum() for space in spaces])
    ours = [found.emotion, found.topic, found.pair, found.rest]
    np.testing.assert_allclose(ours, component / component.sum(), rtol=1e-6)
    assert sum(ours) == pytest.approx(1)


def test_planted_components_are_recovered_where_topics_are_partly_crossed() -> None:
    ids, emotions = corpus(60, 30, 4, 3, 3)
    rng = np.random.default_rng(4)
    sd = {"emotion": 2.0, "topic": 1.0, "pair": 0.5, "rest": 1.0}
    width = 200
    keys = [i.split("/") if e else ["", "", ""] for i, e in zip(ids, emotions, strict=True)]
    x = sd["rest"] * rng.normal(size=(len(ids), width))
    for name, label in (
        ("emotion", [k[0] for k in keys]),
        ("topic", [k[1] for k in keys]),
        ("pair", [f"{k[0]}/{k[1]}" for k in keys]),
    ):
        effect = {value: sd[name] * rng.normal(size=width) for value in sorted(set(label))}
        x += np.array([effect[value] for value in label])
    found = shares(ids, emotions, x, block=64)
    total = sum(s**2 for s in sd.values())
    for name, s in sd.items():
        assert getattr(found, name) == pytest.approx(s**2 / total, abs=0.02), name


def test_a_design_says_what_it_does_not_identify() -> None:
    rng = np.random.default_rng(5)
    nested = [f"e{e}/{3 * e + t:03d}/{s}" for e in range(8) for t in range(3) for s in range(2)]
    labels = [i.split("/")[0] for i in nested]
    found = shares(nested, labels, rng.normal(size=(len(nested), D)))
    assert np.isnan(found.topic)
    assert found.emotion + found.pair + found.rest == pytest.approx(1)
    single = [f"e{e}/{t:03d}/0" for e in range(8) for t in range(3)]
    labels = [i.split("/")[0] for i in single]
    found = shares(single, labels, rng.normal(size=(len(single), D)))
    assert np.isnan(found.rest)
    assert found.emotion + found.topic + found.pair == pytest.approx(1)
    one_each = [f"e{e}/{e:03d}/{s}" for e in range(8) for s in range(3)]
    labels = [i.split("/")[0] for i in one_each]
    found = shares(one_each, labels, rng.normal(size=(len(one_each), D)))
    assert np.isnan([found.emotion, found.topic, found.pair]).all()  # emotions are topics there
    assert np.isfinite([found.rest, found.emotion_ss]).all()
    sparse, labels = corpus(10, 200, 3, 2, 1)
    found = shares(sparse, labels, rng.normal(size=(len(sparse), D)))
    assert (found.n_topics, found.n_pairs) == (29, 30)  # a single topic is shared
    assert np.isnan([found.emotion, found.topic, found.pair]).all()
    assert np.isfinite(found.rest)
    without = [f"e{e}/000/{s}" for e in range(8) for s in range(3)]
    labels = [i.split("/")[0] for i in without]
    found = shares(without, labels, rng.normal(size=(len(without), D)))
    assert np.isnan([found.topic, found.pair]).all()
    assert found.emotion + found.rest == pytest.approx(1)
    assert found.emotion_ss + found.pair_ss + found.rest_ss == pytest.approx(1)


def test_noise_alone_has_no_component_of_emotion_but_sums_of_squares() -> None:
    ids, emotions = corpus(30, 20, 3, 3, 6)
    x = np.random.default_rng(7).normal(size=(len(ids), 400))
    found = shares(ids, emotions, x)
    assert abs(found.emotion) < 0.01
    assert found.emotion_ss == pytest.approx(29 / (found.n_stories - 1), rel=0.05)


def test_order_of_texts_and_size_of_blocks_change_nothing() -> None:
    ids, emotions, x = made(8)
    order = np.random.default_rng(9).permutation(len(ids))
    a = shares(ids, emotions, x, block=len(ids))
    b = shares([ids[i] for i in order], [emotions[i] for i in order], x[order], block=5)
    np.testing.assert_allclose(list(vars(b).values()), list(vars(a).values()), rtol=1e-9, atol=1e-9)


def test_vectors_that_do_not_vary_and_stories_not_added_are_named() -> None:
    ids, emotions, x = made(10, gap=False)
    assert np.isnan(shares(ids, emotions, np.ones_like(x)).emotion)
    assert np.isnan(shares(ids, emotions, np.full_like(x, np.nan)).rest_ss)
    names = list(dict.fromkeys(e for e in emotions if e))
    with pytest.raises(ValueError, match="108 stories have not been added"):
        VarianceSums(story_design(ids, emotions, names), D).shares()
