"""What is left out, on purpose or for want of data: planted dimensions and tokens, exclusions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from analysis.cell import join_layers
from analysis.exclusions import MAX_NAMES, exclusions_table, join_names, ranges
from analysis.layer import analyse_layer
from analysis.results import CellResults
from analysis.settings import Settings
from analysis.tables import left_out_table, variance_table
from tests.made import FEW
from tests.test_analysis import D, E, cell_of, text_ids

WINDOWS = ("all", "no-first")


def results(cell: xr.Dataset, ratings: np.ndarray, **settings: object) -> CellResults:
    emotions = list(dict.fromkeys(str(e) for e in cell["emotion"].to_numpy() if e))
    chosen = Settings(("neutral-pca", "mean-centered"), 0.5, {"made": ratings}, **FEW, **settings)
    keys = [(w, int(i)) for w in cell["window"].to_numpy() for i in cell["layer"].to_numpy()]
    parts = {key: analyse_layer(cell, *key, chosen) for key in keys}
    found = join_layers(parts, emotions, 3, chosen)
    n_layers, n_windows = found.sizes["layer"], found.sizes["window"]
    found = found.assign(  # what a cell's store says of its tokens
        first_token_peak=("layer", np.ones(n_layers)),
        peak_share=("layer", np.linspace(0.1, 0.9, n_layers)),
        texts_without_token=("window", np.zeros(n_windows, dtype=int)),
        texts_without_token_names=("window", [""] * n_windows),
    )
    return CellResults("m", "c", found, "f" * 64)


def independent_r(x_ED: np.ndarray, rating: np.ndarray) -> float:
    centred = x_ED - x_ED.mean(0)
    score = np.linalg.svd(centred, full_matrices=False)[0][:, 0]
    return abs(float(np.corrcoef(score, rating)[0, 1]))


def one(table: pd.DataFrame, **where: object) -> pd.Series:
    rows = table[np.logical_and.reduce([table[k] == v for k, v in where.items()])]
    assert len(rows) == 1
    return rows.iloc[0]


def test_a_planted_massive_dimension_hides_valence_until_it_is_left_out() -> None:
    cell, ratings = cell_of()
    x = cell["residual_mean"].to_numpy()
    noise = np.random.default_rng(5).normal(size=len(x)).astype(np.float32)
    x[:, :, 2, 11] = 300 + 150 * noise[:, None]
    found = results(cell, ratings)
    row = one(left_out_table([found]), window="all", contrast="mean-centered", layer=1)
    assert row["dimension_1"] == 11
    assert row["dimensions_norm"] > 0.9
    assert row["dimensions_variance"] > 0.9
    assert row["valence_r"] < 0.5
    assert row["valence_r_without_dimensions"] > 0.7
    assert row["cka_without_dimensions"] < 0.5
    labels = cell["emotion"].to_numpy()
    u = np.stack([x[labels == f"e{i}", 0, 2].mean(0, dtype=np.float64) for i in range(E)])
    dropped = [int(row[f"dimension_{i}"]) for i in (1, 2, 3)]
    assert dropped == list(np.argsort(-(u**2).sum(0))[:3])
    kept = np.delete(u, dropped, axis=1)
    assert row["valence_r"] == pytest.approx(independent_r(u, ratings[:, 0]), abs=1e-9)
    without = independent_r(kept, ratings[:, 0])
    assert row["valence_r_without_dimensions"] == pytest.approx(without, abs=1e-9)
    norm = (u[:, dropped] ** 2).sum() / (u**2).sum()
    assert row["dimensions_norm"] == pytest.approx(norm, rel=1e-9)
    c = u - u.mean(0)
    share = (c[:, dropped] ** 2).sum() / (c**2).sum()
    assert row["dimensions_variance"] == pytest.approx(share, rel=1e-9)


def test_dimensions_are_left_out_of_the_neutral_basis_too() -> None:
    cell, ratings = cell_of()
    x = cell["residual_mean"].to_numpy()
    x[:, :, 2, 11] += 100 * np.random.default_rng(6).normal(size=len(x))[:, None]
    found = results(cell, ratings)
    row = one(left_out_table([found]), window="all", contrast="neutral-pca", layer=1)
    labels = cell["emotion"].to_numpy()
    dropped = [int(row[f"dimension_{i}"]) for i in (1, 2, 3)]
    kept = np.delete(x[:, 0, 2].astype(np.float64), dropped, axis=1)
    neutral = kept[labels == ""]
    _, s, v = np.linalg.svd(neutral - neutral.mean(0), full_matrices=False)
    k = int(np.argmax(np.cumsum(s**2) / (s**2).sum() >= 0.5)) + 1
    u = np.stack([kept[labels == f"e{i}"].mean(0) for i in range(E)])
    contrast = u - (u @ v[:k].T) @ v[:k]
    want = independent_r(contrast, ratings[:, 0])
    assert row["valence_r_without_dimensions"] == pytest.approx(want, abs=1e-9)


def test_a_planted_first_token_hides_valence_until_it_is_left_out() -> None:
    cell, ratings = cell_of()
    x = cell["residual_mean"].to_numpy()
    rng = np.random.default_rng(12)
    sink = np.zeros(D)
    sink[4] = 1
    x[:, 0, 2] += (150 * rng.normal(size=(len(x), 1)) * sink).astype(np.float32)
    table = left_out_table([results(cell, ratings)])
    row = one(table, window="all", contrast="mean-centered", layer=1)
    other = one(table, window="no-first", contrast="mean-centered", layer=1)
    assert row["valence_r"] < 0.5 < other["valence_r"]
    assert row["valence_r_without_first"] == other["valence_r"]
    assert row["arousal_r_without_first"] == other["arousal_r"]
    assert row["cka_without_first"] < 0.5
    assert np.isnan(other["valence_r_without_first"])
    assert np.isnan(other["cka_without_first"])
    quiet = one(table, window="all", contrast="mean-centered", layer=0)
    assert quiet["cka_without_first"] > 0.9


def test_a_known_neutral_subspace_is_projected_out_and_nothing_else() -> None:
    rng = np.random.default_rng(9)
    with_mean = np.hstack([np.ones((E, 1)), rng.normal(size=(E, 2))])
    ratings = np.sqrt(E) * np.linalg.qr(with_mean)[0][:, 1:]  # uncorrelated, so PCA finds them
    axes = np.linalg.qr(rng.normal(size=(D, 4)))[0].T
    labels = [f"e{i}" for i in range(E) for _ in range(3)] + [""] * 12
    x = 0.05 * rng.normal(size=(len(labels), D))
    topic = rng.normal(size=(len(labels), 2))
    x += 20 * topic @ axes[2:]  # stories and neutral texts vary along two common axes
    x[: 3 * E] += np.repeat(ratings @ (np.array([[3.0], [1.5]]) * axes[:2]), 3, axis=0)
    cell = xr.Dataset(
        {"residual_mean": (("text", "window", "layer", "d_model"), x[:, None, None])},
        coords={
            "text_id": ("text", text_ids(labels)),
            "emotion": ("text", labels),
            "window": ["all"],
            "layer": [0],
        },
    )
    settings = Settings(("neutral-pca", "mean-centered"), 0.9, {"made": ratings}, **FEW)
    projected, plain = analyse_layer(cell, "all", 0, settings).contrasts
    assert projected.n_neutral_components == 2
    assert projected.neutral_variance_explained > 0.99
    assert abs(projected.r_NX[0]).min() > 0.98
    assert abs(plain.r_NX[0]).max() < 0.8


def test_the_variance_table_finds_planted_shares() -> None:
    rng = np.random.default_rng(10)
    labels = [f"e{i}" for i in range(E) for _ in range(9)] + [""] * 6
    ids = text_ids(labels)
    topics = {str(t): rng.normal(size=400) for t in range(3)}
    x = rng.normal(size=(len(labels), 400))
    for at, (label, key) in enumerate(zip(labels, ids, strict=True)):
        if label:
            x[at] += topics[str(int(key.split("/")[1]))]
            x[at] += 2 * np.random.default_rng(int(label[1:])).normal(size=400)
    cell = xr.Dataset(
        {"residual_mean": (("text", "window", "layer", "d_model"), x[:, None, None])},
        coords={
            "text_id": ("text", ids),
            "emotion": ("text", labels),
            "window": ["all"],
            "layer": [0],
        },
    )
    row = one(variance_table([results(cell, rng.normal(size=(E, 2)))]), layer=0)
    assert (row["n_stories"], row["n_topics"], row["n_pairs"]) == (9 * E, 3, 3 * E)
    for name, share in {"emotion": 4 / 6, "topic": 1 / 6, "pair": 0, "rest": 1 / 6}.items():
        assert row[name] == pytest.approx(share, abs=0.03), name


def test_nothing_left_out_is_an_empty_table() -> None:
    cell, ratings = cell_of()
    cell["residual_mean"] = cell["residual_mean"].fillna(1.0)
    table = exclusions_table([results(cell, ratings)])
    assert len(table) == 0
    assert {"model", "what", "n", "names", "why"} <= set(table)


def test_unrated_emotions_and_too_few_rated_ones_are_named() -> None:
    cell, ratings = cell_of()
    ratings = ratings.copy()
    ratings[9:] = np.nan
    found = results(cell, ratings)
    table = exclusions_table([found])
    emotions = one(table, what="emotions", norms="made")
    assert emotions["n"] == E - 9
    assert emotions["names"].split("; ") == [f"e{i}" for i in range(9, E)]
    missing = one(table, what="results", norms="made")
    assert missing["why"] == "directions need 10 rated emotions, r rests on 9"
    assert found.results["held_out_r"].isnull().all()
    assert found.results["r"].notnull().all()


def test_corpora_with_nothing_to_draw_have_no_interval_and_say_so() -> None:
    cell, ratings = cell_of(n_stories=1)
    found = results(cell, ratings)
    row = one(exclusions_table([found]), what="intervals", window="all")
    assert row["layers"] == "-1 to 2"
    assert "a single text" in row["why"]
    assert found.results["story_draw"].isnull().all()
    assert found.results["emotion_draw"].notnull().any()


def test_norms_that_rate_nothing_give_no_correlation_and_say_so() -> None:
    cell, ratings = cell_of()
    found = results(cell, np.full_like(ratings, np.nan))
    assert one(exclusions_table([found]), what="emotions", norms="made")["n"] == E
    assert found.results["r"].isnull().all()
    assert found.results["score"].notnull().any()


def test_a_layer_that_is_all_nan_is_named_and_harms_no_other() -> None:
    cell, ratings = cell_of()
    whole = results(cell, ratings).results
    cell["residual_mean"].to_numpy()[:, 0, 2] = np.nan
    found = results(cell, ratings)
    rows = exclusions_table([found])
    rows = rows[(rows["what"] == "results") & (rows["window"] == "all")]
    assert set(rows["layers"]) == {"1"}
    assert set(rows["contrast"]) == {"neutral-pca", "mean-centered"}
    other = {"window": "all", "layer": [-1, 0, 2]}
    for name in ("r", "cka", "held_out_r", "direction_cosine", "variance_emotion"):
        pair = {"layer_b": [-1, 0, 2]} if "layer_b" in whole[name].dims else {}
        a, b = (r[name].sel({**other, **pair}).to_numpy() for r in (whole, found.results))
        np.testing.assert_allclose(a, b, rtol=1e-12, err_msg=name)
    assert found.results["r"].sel(window="all", layer=1).isnull().all()
    assert found.results["variance_emotion"].sel(window="all", layer=1).isnull()


def test_few_neutral_texts_are_named_and_centred_contrasts_go_on() -> None:
    cell, ratings = cell_of()
    keep = np.flatnonzero(cell["emotion"].to_numpy() != "")
    one_left = cell.isel(text=[*keep, cell.sizes["text"] - 1])
    found = results(one_left, ratings)
    row = one(exclusions_table([found]), what="results", window="no-first")
    assert row["why"] == "a neutral basis needs at least 2 neutral texts, 1 are there"
    assert (row["contrast"], row["layers"]) == ("neutral-pca", "-1 to 2")
    assert found.results["r"].sel(contrast="mean-centered").notnull().all()


def test_emotions_without_a_vector_and_those_of_one_corpus_are_named() -> None:
    cell, ratings = cell_of()
    of_first = np.flatnonzero(cell["emotion"].to_numpy() == "e0")
    cell["residual_mean"].to_numpy()[of_first, 1] = np.nan
    a = results(cell, ratings)
    kept = np.flatnonzero(cell["emotion"].to_numpy() != "e4")
    b = results(cell.isel(text=kept), np.delete(ratings, 4, axis=0))
    table = exclusions_table([a, CellResults("m", "d", b.results, "d" * 64)])
    rows = table[(table["corpus"] == "c") & (table["what"] == "emotions")]
    gone = rows[rows["why"].str.startswith("no story")]
    assert one(gone, window="no-first")["names"] == "e0"
    pair = one(rows, other="d")
    assert (pair["n"], pair["names"]) == (1, "e4")
    assert pair["why"] == "not in m@d, left out of comparisons with it"


def test_texts_without_a_token_are_counted_and_long_lists_say_how_much_is_cut() -> None:
    cell, ratings = cell_of()
    found = results(cell, ratings)
    counted = found.results.assign(
        texts_without_token=("window", [0, 3]),
        texts_without_token_names=("window", ["", "e1/000/0; e1/001/0; neutral-004"]),
    )
    table = exclusions_table([CellResults("m", "c", counted, "f" * 64)])
    row = one(table, what="texts")
    assert (row["window"], row["n"]) == ("no-first", 3)
    assert row["names"].endswith("neutral-004")
    many = join_names([f"e{i}" for i in range(MAX_NAMES + 5)])
    assert many.endswith(f"e{MAX_NAMES - 1}; and 5 more")


def test_stories_not_finite_at_one_layer_are_counted() -> None:
    cell, ratings = cell_of()
    cell["residual_mean"].to_numpy()[[3, 9], 0, 2] = np.inf
    row = one(exclusions_table([results(cell, ratings)]), what="texts")
    assert (row["window"], row["layers"], row["n"]) == ("all", "1", 2)


def test_a_neutral_basis_that_takes_all_there_is_is_named() -> None:
    cell, ratings = cell_of()
    keep = np.flatnonzero(cell["emotion"].to_numpy() != "")
    two_left = cell.isel(text=[*keep, cell.sizes["text"] - 2, cell.sizes["text"] - 1])
    row = one(exclusions_table([results(two_left, ratings)]), what="neutral basis", window="all")
    assert row["layers"] == "-1 to 2"
    assert "2 neutral texts span too few directions" in row["why"]


def test_an_emotion_with_one_story_is_in_no_half_and_named() -> None:
    cell, ratings = cell_of()
    keep = np.flatnonzero(cell["text_id"].to_numpy() != "")
    alone = cell.isel(text=[at for at in keep if at not in (0, 1)])
    table = exclusions_table([results(alone, ratings)])
    halves = table[table["why"].str.startswith("too few stories for two halves")]
    row = one(halves, what="emotions", window="all")
    whole = table[table["why"].str.startswith("all its stories are held out at once")]
    held_out = one(whole, what="emotions", window="all")
    assert held_out["names"] == row["names"]
    assert (row["n"], row["names"]) == (1, "e0")
    assert "too few stories for two halves" in row["why"]


def test_an_error_in_the_code_is_no_missing_result(monkeypatch: pytest.MonkeyPatch) -> None:
    cell, ratings = cell_of()
    with pytest.raises(ValueError, match=r"shape|broadcast|index"):
        results(cell, ratings[:5])


def test_runs_of_layers_are_written_short() -> None:
    assert ranges([-1, 0, 1, 4, 7, 8]) == "-1 to 1, 4, 7-8"
