"""Comparisons of cells against the same numbers from the story vectors themselves."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from pandas.testing import assert_frame_equal

from analysis import across
from analysis.across import corpora_table, grids_table, models_table
from analysis.cell import join_layers
from analysis.layer import analyse_layer
from analysis.results import CellResults
from analysis.settings import Settings
from analysis.similarity import cka_grid, gram
from tests.made import FEW
from tests.test_analysis import E, cell_of

LAYERS = (-1, 0, 1, 2)


def made(model: str, corpus: str, seed: int, left_out: int = 0) -> tuple[CellResults, np.ndarray]:
    """A cell without its last `left_out` emotions, and its emotion means of window `all`."""
    cell, ratings = cell_of(seed=seed)
    emotions = [f"e{i}" for i in range(E - left_out)]
    keep = [label in (*emotions, "") for label in cell["emotion"].to_numpy()]
    cell = cell.isel(text=np.flatnonzero(keep))
    settings = Settings(("mean-centered",), 0.5, {"made": ratings[: len(emotions)]}, **FEW)
    parts = {("all", i): analyse_layer(cell, "all", i, settings) for i in LAYERS}
    labels = cell["emotion"].to_numpy()
    x = cell["residual_mean"].sel(window="all").to_numpy().astype(np.float64)
    means = np.stack([np.nanmean(x[labels == e], axis=0) for e in emotions], axis=1)
    found = join_layers(parts, emotions, 3, settings)
    return CellResults(model, corpus, found, f"{model}{corpus}"), means


def test_cells_are_compared_over_the_emotions_that_both_have() -> None:
    cells, means = zip(
        made("m", "a", 1), made("m", "b", 2, left_out=3), made("n", "a", 3), strict=True
    )
    n = E - 3
    grams = [np.array([gram(layer[:n]) for layer in side]) for side in means[:2]]
    for name, debiased in (("cka", False), ("cka_debiased", True)):
        want = np.diag(cka_grid(*grams, debiased=debiased))
        table = corpora_table(list(cells))
        assert table[["model", "corpus", "corpus_b"]].drop_duplicates().to_numpy().tolist() == [
            ["m", "a", "b"]
        ]
        np.testing.assert_allclose(table[name], want, atol=1e-12)
        assert (table["n_emotions"] == n).all()
        assert table["layer"].tolist() == list(LAYERS)

        table = models_table(list(cells)).set_index(["layer", "layer_b"])
        assert len(table) == len(LAYERS) ** 2
        full = [np.array([gram(layer) for layer in side]) for side in (means[0], means[2])]
        want = cka_grid(*full, debiased=debiased)
        assert table.loc[(0, 2), name] == pytest.approx(want[1, 3])
        assert (table["n_emotions"] == E).all()


def test_many_models_are_compared_in_any_order_of_work_and_by_corresponding_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cells = [made(f"m{n}", "a", n, left_out=n % 2)[0] for n in range(5)]
    whole = models_table(cells)
    names = [f"m{n}" for n in range(5)]
    pairs = whole[["model", "model_b"]].drop_duplicates().to_numpy().tolist()
    assert pairs == [[a, b] for a, b in combinations(names, 2)]
    monkeypatch.setattr(across, "AT_ONCE", 2)
    assert_frame_equal(models_table(cells), whole)

    few = models_table(cells, most=len(whole) - 1)
    keys = ["model", "model_b", "window", "contrast", "layer", "layer_b"]
    merged = few.merge(whole, on=keys, suffixes=("", "_whole"))
    assert len(merged) == len(few) < len(whole)
    np.testing.assert_array_equal(merged["cka"], merged["cka_whole"])
    for _, found in few.groupby([*keys[:5]]):
        (at,) = set(found["layer"])
        grid = whole.merge(found[keys[:5]].drop_duplicates(), on=keys[:5])
        alike = grid.loc[grid["cka_debiased"].idxmax(), "layer_b"]
        assert set(found["layer_b"]) == {at, alike}  # all have as many layers: depths are the same


def test_layers_that_are_like_none_are_paired_by_depth_only() -> None:
    cells = [made(f"m{n}", "a", n, left_out=left)[0] for n, left in enumerate((0, E - 3))]
    few = models_table(cells, most=0)
    assert len(few) == len(LAYERS)  # three emotions are too few for the debiased one
    assert few["cka_debiased"].isna().all()
    assert (few["layer"] == few["layer_b"]).all()


def test_grids_are_compared_over_pairs_of_blocks() -> None:
    (a, of_a), (b, of_b) = made("m", "a", 1), made("m", "b", 2, left_out=4)
    (row,) = grids_table([a, b]).to_dict("records")
    sides = []
    for means in (of_a, of_b):
        grams = np.array([gram(layer[: E - 4]) for layer in means])
        grid = cka_grid(grams, grams)
        sides.append([grid[i, j] for i in range(1, 4) for j in range(i + 1, 4)])
    assert row["n_emotions"] == E - 4
    assert row["cka_r"] == pytest.approx(np.corrcoef(sides)[0, 1])
    assert row["cka_difference"] == pytest.approx(np.abs(np.subtract(*sides)).mean())


def test_one_cell_gives_empty_tables_with_their_columns() -> None:
    cell, _ = made("m", "a", 1)
    for table in (corpora_table([cell]), models_table([cell]), grids_table([cell])):
        assert len(table) == 0
        assert {"window", "contrast", "n_emotions"} <= set(table.columns)
