"""Tables made model by model are those made at once."""

from __future__ import annotations

from pandas.testing import assert_frame_equal

from analysis.claim_tables import claims_table, profiles_table
from analysis.geometry_table import geometry_table
from analysis.joining import join_models
from analysis.peak_layers import cluster_table
from analysis.results import CellResults
from tests.planted import flat, planted_cell, planted_results
from tests.test_analysis import analysed, cell_of


def test_claims_and_profiles_of_each_model_are_those_of_all_in_the_same_order() -> None:
    cells = [
        planted_cell(planted_results(flat(0.8)), twin="random"),
        planted_cell(planted_results(flat(0.5), seed=1), model="other", writer="m"),
        planted_cell(planted_results(flat(0.3), seed=2), corpus="b"),
        planted_cell(planted_results(flat(0.2), seed=3), model="random"),
        planted_cell(planted_results(flat(0.6), seed=4), model="other", corpus="b"),
    ]
    models = {"random", "other", "m"}
    whole = claims_table(cells)
    assert set(whole["model"]) == models
    assert (whole["corpus_b"] == "b").any()
    assert_frame_equal(join_models([claims_table(cells, m) for m in models], cells), whole)
    of_each = [profiles_table([c for c in cells if c.model == m]) for m in models]
    assert_frame_equal(join_models(of_each, cells), profiles_table(cells))


def test_clusters_of_each_model_are_those_of_all() -> None:
    cells = []
    for n, (model, corpus) in enumerate((("m", "a"), ("n", "a"), ("m", "b"))):
        cell, ratings = cell_of(seed=3 + n)
        cells.append(CellResults(model, corpus, analysed(cell, ratings).results, f"{n}" * 64))

    def clusters(some: list[CellResults]):
        return cluster_table(some, geometry_table(some), seed=0, numbers=(2, 3))

    parts = [clusters([c for c in cells if c.model == model]) for model in ("n", "m")]
    assert_frame_equal(join_models(parts, cells), clusters(cells))
    none = clusters(cells).head(0)
    assert_frame_equal(join_models([none, none], cells), none)
