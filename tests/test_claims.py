"""Every claim on planted results that pass, fail and leave it undecided; what verdicts turn on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from analysis.activations import massive_activations
from analysis.cell import join_layers
from analysis.claim_tables import claims_table, norms_table, profiles_table, summary_table
from analysis.claims import CLAIMS
from analysis.differences import BASELINES
from analysis.layer import analyse_layer
from analysis.markdown import claims_markdown
from analysis.predicates import phase_gap
from analysis.results import CellResults
from analysis.settings import Settings
from analysis.verdicts import Figure, Verdict, all_of, apart, at_least, at_most, jackknife
from tests.made import FEW
from tests.planted import BLOCKS, flat, grid, peaked, planted_cell, planted_results, planted_words
from tests.test_analysis import text_ids

HOLDS, FAILS, UNDECIDED = (verdict.value for verdict in Verdict)
DEPTH = np.arange(BLOCKS) / BLOCKS
LATE = np.where(DEPTH >= 0.5, 0.8, 0.1)
LATE_P = np.where(DEPTH >= 0.5, 0.001, 0.9)
FALLEN = np.array([0.5, 0.6, 0.7, 0.8, 0.7, 0.6, 0.2, 0.1, 0.1, 0.2, 0.6, 0.7])


def phases(within: float, across: float) -> np.ndarray:
    """A CKA grid of three phases of four blocks."""
    phase = np.arange(BLOCKS) // 4
    found = np.where(phase[:, None] == phase, within, across)
    np.fill_diagonal(found, 1)
    return found


def smooth(rate: float) -> np.ndarray:
    """A CKA grid that falls with distance alone."""
    place = np.arange(BLOCKS)
    return np.exp(-np.abs(place[:, None] - place) / rate)


def one(claim: str, *cells: CellResults) -> pd.Series:
    """The only row of a claim under the first choices."""
    table = claims_table(list(cells))
    rows = table[
        (table["claim"] == claim)
        & (table["window"] == "no-first")
        & (table["dimensions"] == "all")
        & table["estimator"].isin(["", "cka", "covariance"])
        & (table["model"] == "m")
    ]
    assert len(rows) == 1
    return rows.iloc[0]


OF_CELL: list[tuple[str, str, dict[str, Any]]] = [
    ("valence-peak", HOLDS, {"valence": flat(0.8)}),
    ("valence-peak", HOLDS, {"valence": flat(-0.8)}),
    ("valence-peak", FAILS, {"valence": flat(0.5)}),
    ("valence-peak", UNDECIDED, {"valence": peaked(0.7)}),
    ("valence-peak", UNDECIDED, {"valence": flat(0.8), "p": flat(0.2)}),
    ("valence-peak", UNDECIDED, {"valence": flat(np.nan)}),
    ("collapse-and-return", HOLDS, {"valence": FALLEN}),
    ("collapse-and-return", HOLDS, {"valence": FALLEN[::-1]}),
    ("collapse-and-return", FAILS, {"valence": flat(0.7)}),
    ("collapse-and-return", FAILS, {"valence": LATE}),
    ("collapse-and-return", UNDECIDED, {"valence": FALLEN, "spread": 0.15}),
    ("collapse-and-return", UNDECIDED, {"valence": FALLEN, "p": flat(0.2)}),
    ("late-emergence", HOLDS, {"valence": LATE, "p": LATE_P}),
    ("late-emergence", FAILS, {"valence": LATE, "p": flat(0.001)}),
    ("late-emergence", FAILS, {"valence": LATE[::-1], "p": LATE_P[::-1]}),
    ("late-emergence", FAILS, {"valence": flat(0.2), "p": flat(0.9)}),
    ("late-emergence", UNDECIDED, {"valence": LATE, "p": LATE_P, "spread": 0.3}),
    ("late-emergence", UNDECIDED, {"valence": LATE, "p": flat(0.9)}),
    ("early-collapse", HOLDS, {"valence": FALLEN}),
    ("early-collapse", FAILS, {"valence": FALLEN[::-1]}),
    ("early-collapse", FAILS, {"valence": np.where(FALLEN < 0.5, 0.6, FALLEN)}),
    ("early-collapse", UNDECIDED, {"valence": FALLEN, "spread": 0.15}),
    ("early-collapse", UNDECIDED, {"valence": np.append(FALLEN[:-1], 0.801)}),  # as high again
    ("early-collapse", FAILS, {"valence": np.append(FALLEN[:-1], 0.95)}),
    ("early-collapse", UNDECIDED, {"valence": FALLEN, "p": flat(0.2)}),
    ("three-cka-phases", HOLDS, {"cka": phases(0.95, 0.5)}),
    ("three-cka-phases", FAILS, {"cka": grid(0.8)}),
    ("three-cka-phases", FAILS, {"cka": smooth(5.0)}),
    ("three-cka-phases", UNDECIDED, {"cka": phases(0.9, 0.8), "group_spread": 0.05}),
    ("cka-high", HOLDS, {"cka": grid(0.8)}),
    ("cka-high", FAILS, {"cka": phases(0.95, 0.5)}),
    ("cka-high", UNDECIDED, {"cka": grid(0.71), "group_spread": 0.05}),
    ("axis-turns-space-stays", HOLDS, {"cka": grid(0.9), "cosine": smooth(1.5)}),
    ("axis-turns-space-stays", FAILS, {"cka": grid(0.9), "cosine": grid(0.8)}),
    ("axis-turns-space-stays", FAILS, {"cka": smooth(2.0), "cosine": smooth(1.5)}),
    (
        "axis-turns-space-stays",
        UNDECIDED,  # what the stories' noise does alone
        {"cka": grid(0.9), "cosine": smooth(1.5), "freed": grid(0.9)},
    ),
    (
        "axis-turns-space-stays",
        UNDECIDED,  # no telling what the noise does
        {"cka": grid(0.9), "cosine": smooth(1.5), "freed": grid(np.nan)},
    ),
]


@pytest.mark.parametrize(("claim", "verdict", "planted"), OF_CELL)
def test_claims_about_a_cell(claim: str, verdict: str, planted: dict[str, Any]) -> None:
    found = one(claim, planted_cell(planted_results(**planted)))
    assert found["verdict"] == verdict, found.to_dict()


@pytest.mark.parametrize("gap", [0, 4, 7, BLOCKS - 1])
def test_a_block_without_numbers_takes_no_part(gap: int) -> None:
    """Not in a fall, at its sides, or as a block that is missing at the end."""
    valence = FALLEN.copy()
    valence[gap] = np.nan
    cell = planted_cell(planted_results(valence))
    assert one("valence-peak", cell)["verdict"] == HOLDS
    whole = one("collapse-and-return", cell)
    assert whole["verdict"] == (FAILS if gap == 7 else HOLDS)  # one block and two are no run
    assert np.isfinite(whole["figure"])


def pair(a: dict[str, Any], b: dict[str, Any], writer: str | None = None) -> list[CellResults]:
    """One model's cells with two corpora, the first of which `writer` wrote."""
    return [
        planted_cell(planted_results(**a, seed=1), corpus="a", writer=writer),
        planted_cell(planted_results(**b, seed=2), corpus="b", writer="another"),
    ]


OF_PAIR: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("arousal-by-corpus", HOLDS, {"arousal": flat(0.6)}, {"arousal": flat(0.3)}),
    ("arousal-by-corpus", HOLDS, {"arousal": flat(0.3)}, {"arousal": flat(-0.6)}),
    ("arousal-by-corpus", FAILS, {"arousal": flat(0.5)}, {"arousal": flat(0.51)}),
    ("arousal-by-corpus", UNDECIDED, {"arousal": flat(0.5)}, {"arousal": flat(0.4)}),
    ("own-corpus-better", HOLDS, {"valence": flat(0.8)}, {"valence": flat(0.6)}),
    ("own-corpus-better", FAILS, {"valence": flat(0.6)}, {"valence": flat(0.8)}),
    ("own-corpus-better", UNDECIDED, {"valence": flat(0.7)}, {"valence": flat(0.7)}),
    ("cleaner-directions", HOLDS, {"cosine": grid(0.9)}, {"cosine": grid(0.7)}),
    ("cleaner-directions", FAILS, {"cosine": grid(0.9)}, {"cosine": grid(0.9)}),
    (
        "cleaner-directions",
        UNDECIDED,
        {"cosine": grid(0.7), "freed": grid(0.9)},
        {"cosine": grid(0.9), "freed": grid(0.9)},
    ),
    ("clusters-apart", HOLDS, {"silhouette": 0.4}, {"silhouette": 0.1}),
    ("clusters-apart", FAILS, {"silhouette": 0.2}, {"silhouette": 0.21}),
    (
        "clusters-apart",
        UNDECIDED,
        {"silhouette": 0.2, "group_spread": 0.05},
        {"silhouette": 0.15, "group_spread": 0.05},
    ),
    ("cka-grids-alike", HOLDS, {"cka": phases(0.9, 0.5)}, {"cka": phases(0.8, 0.4)}),
    ("cka-grids-alike", FAILS, {"cka": phases(0.9, 0.5)}, {"cka": smooth(3.0)}),
    (
        "cka-grids-alike",
        UNDECIDED,
        {"cka": phases(0.9, 0.5), "group_spread": 0.2},
        {"cka": phases(0.8, 0.4), "group_spread": 0.2},
    ),
]


@pytest.mark.parametrize(("claim", "verdict", "a", "b"), OF_PAIR)
def test_claims_about_two_corpora(
    claim: str, verdict: str, a: dict[str, Any], b: dict[str, Any]
) -> None:
    found = one(claim, *pair(a, b, writer="m"))
    assert found["verdict"] == verdict, found.to_dict()
    assert (found["corpus"], found["corpus_b"]) == ("a", "b")


def test_own_stories_are_compared_only_where_the_writer_is_known() -> None:
    table = claims_table(pair({}, {}))
    assert "own-corpus-better" not in set(table["claim"])
    turned = pair({"valence": peaked(0.6)}, {"valence": peaked(0.8)}, writer="m")[::-1]
    found = claims_table(turned)
    rows = found[found["claim"] == "own-corpus-better"]
    assert set(rows["verdict"]) == {FAILS}
    assert rows["figure"].iloc[0] == pytest.approx(-0.2, abs=0.01)


@pytest.mark.parametrize(("r", "verdict"), [(0.4, HOLDS), (0.8, FAILS), (0.6, UNDECIDED)])
@pytest.mark.parametrize("axis", ["valence", "arousal"])
@pytest.mark.parametrize("baseline", BASELINES)
def test_peaks_are_held_to_baselines(baseline: str, axis: str, r: float, verdict: str) -> None:
    embedding = r if baseline == "embedding" else 0.0
    results = planted_results(embedding=embedding)
    words = planted_words(r) if baseline in ("bag_of_words", "lexical") else None
    cells = [planted_cell(results, words=words, twin="random")]
    if baseline == "random":
        cells.append(
            planted_cell(planted_results(peaked(r), peaked(r), seed=9), model="random", corpus="a")
        )
    found = one(f"{axis}-beyond-{baseline.replace('_', '-')}", *cells)
    assert found["verdict"] == verdict
    assert found["figure"] == pytest.approx(0.6 - r, abs=0.02)


def test_a_missing_baseline_leaves_its_claims_undecided() -> None:
    found = one("valence-beyond-random", planted_cell())
    assert found["verdict"] == UNDECIDED
    assert found["at"] == "no such baseline"
    assert np.isnan(found["figure"])
    cells = [planted_cell()]
    summary = summary_table(claims_table(cells), cells).set_index("claim")["summary"]
    assert summary["valence-beyond-random"] == "no such baseline"
    assert summary["valence-beyond-embedding"] == "holds under every choice"


def test_two_models_that_differ_by_chance_only_seldom_beat_each_other() -> None:
    """Each block's r is a draw of its own: the search over blocks must not decide."""
    held = 0
    for run in range(40):
        rng = np.random.default_rng(run)
        noisy = [flat(0.5) + 0.05 * rng.normal(size=BLOCKS) for _ in range(2)]
        cells = [
            planted_cell(planted_results(noisy[0], spread=0.05, seed=run), twin="random"),
            planted_cell(
                planted_results(noisy[1], spread=0.05, seed=run + 99), model="random", corpus="a"
            ),
        ]
        held += one("valence-beyond-random", *cells)["verdict"] == HOLDS
    assert held <= 4


def test_corpora_of_different_emotions_are_not_compared() -> None:
    cells = pair({}, {}, writer="m")
    names = [f"other{e}" for e in range(9)]
    cells[1] = planted_cell(planted_results().assign_coords(emotion=names), corpus="b")
    rows = claims_table(cells)
    rows = rows[rows["corpus_b"] == "b"]
    assert set(rows["verdict"]) == {UNDECIDED}
    assert set(rows["at"]) == {"corpora of different emotions"}


def test_a_summary_says_what_random_weights_come_to() -> None:
    cells = [
        planted_cell(planted_results(flat(0.8)), twin="random"),
        planted_cell(planted_results(flat(0.3), seed=3), model="random"),
    ]
    found = summary_table(claims_table(cells), cells).set_index(["claim", "model"])
    assert found.loc[("valence-peak", "m"), "random_twin"] == "fails under every choice"
    assert found.loc[("valence-peak", "random"), "random_twin"] == ""


def test_every_claim_was_planted() -> None:
    known = {row[0] for row in [*OF_CELL, *OF_PAIR]}
    for claim in CLAIMS:
        assert claim.name in known or "-beyond-" in claim.name
    for name in known:
        seen = {row[1] for row in [*OF_CELL, *OF_PAIR] if row[0] == name}
        assert seen == {HOLDS, FAILS, UNDECIDED}, name


def with_window(whole: xr.Dataset, window: str, other: xr.Dataset) -> xr.Dataset:
    """The first results with one window's arrays of the second ones."""
    mixed = whole.copy(deep=True)
    for name, values in mixed.data_vars.items():
        if "window" in values.dims:
            mixed[name] = xr.where(values["window"] == window, other[name], values).transpose(
                *values.dims
            )
    return mixed


def test_a_first_token_that_turns_a_verdict_is_named() -> None:
    sound = planted_results(flat(0.8), peak_ratio=90.0)
    mixed = with_window(sound, "all", planted_results(FALLEN, peak_ratio=90.0))
    cells = [planted_cell(mixed)]
    claims = claims_table(cells)
    found = summary_table(claims, cells).set_index("claim").loc["early-collapse"]
    assert found["summary"] == "turns on window"
    assert found["artefact"] == "first token"
    plain = [planted_cell(with_window(planted_results(flat(0.8)), "all", planted_results(FALLEN)))]
    quiet = summary_table(claims_table(plain), plain).set_index("claim").loc["early-collapse"]
    assert quiet["summary"] == "turns on window"
    assert quiet["artefact"] == ""


def test_a_lean_is_no_turn_and_names_no_culprit() -> None:
    sound = planted_results(flat(0.8), peak_ratio=90.0)
    mixed = with_window(sound, "all", planted_results(peaked(0.7), peak_ratio=90.0))
    cells = [planted_cell(mixed)]
    found = summary_table(claims_table(cells), cells).set_index("claim").loc["valence-peak"]
    assert found["summary"] == "holds or undecided"
    assert found["turns_on"] == "(window)"
    assert found["artefact"] == ""


def test_dimensions_that_turn_a_verdict_are_named() -> None:
    results = planted_results(flat(0.8))
    low = planted_results(flat(0.4))
    for name in ("r", "story_draw"):
        without = {"r": "without_r", "story_draw": "without_draw"}[name]
        results[without] = low[name]
    cells = [planted_cell(results)]
    found = summary_table(claims_table(cells), cells).set_index("claim").loc["valence-peak"]
    assert found["summary"] == "turns on dimensions"
    assert found["artefact"] == "largest dimensions"
    assert (found["holds"], found["fails"], found["undecided"]) == (2, 2, 0)


def test_choices_that_coincide_are_counted_once() -> None:
    cells = [planted_cell(planted_results(norms=("one", "two")))]
    claims = claims_table(cells)
    summary = summary_table(claims, cells).set_index("claim")
    assert summary.loc["valence-peak", "choices"] == 8  # windows, norms, dimensions
    assert summary.loc["cka-high", "choices"] == 6  # needs no norms; debiased with all dimensions
    assert summary.loc["valence-beyond-embedding", "choices"] == 4  # dimensions not looked at
    assert set(claims[claims["claim"] == "cka-high"]["norms"]) == {""}
    assert summary.loc["cka-high", "summary"] == "holds under every choice"
    agreement = norms_table(cells).set_index("axis")["r"]
    second = claims[(claims["claim"] == "valence-peak") & (claims["norms"] == "two")]
    assert set(second["norms_agreement"]) == {agreement["valence"]}


def test_the_page_has_every_claim_with_its_formula() -> None:
    cells = pair({}, {}, writer="m")
    page = claims_markdown(summary_table(claims_table(cells), cells))
    for claim in CLAIMS:
        assert f"({claim.name})" in page
        assert claim.formula in page
    assert "| m | a, b |" in page


def test_profiles_have_a_row_for_each_choice_and_axis() -> None:
    cells = [planted_cell(planted_results(FALLEN, np.where(DEPTH > 2, 0.5, 0.3)))]
    table = profiles_table(cells)
    assert len(table) == 2 * 2 * 2  # windows, dimensions, axes
    valence = table[table["axis"] == "valence"].iloc[0]
    assert (valence["peak"], valence["onset"], valence["collapse_from"]) == (3, 0, 6)
    missing = profiles_table([planted_cell(planted_results(flat(np.nan)))])
    assert missing[missing["axis"] == "valence"][["peak", "onset"]].isna().all(axis=None)


def test_verdicts_are_decided_by_whole_intervals() -> None:
    figure = Figure(0.5, 0.4, 0.6)
    assert [at_least(figure, t).value for t in (0.4, 0.5, 0.61)] == [HOLDS, UNDECIDED, FAILS]
    assert [at_most(figure, t).value for t in (0.6, 0.5, 0.39)] == [HOLDS, UNDECIDED, FAILS]
    assert [apart(figure, t).value for t in (0.3, 0.5, 0.7)] == [HOLDS, UNDECIDED, FAILS]
    assert apart(Figure(-0.5, -0.6, -0.4), 0.3) is Verdict.HOLDS
    nan = Figure(0.5, np.nan, np.nan)
    assert {at_least(nan, 0.1), at_most(nan, 0.9), apart(nan, 0.1)} == {Verdict.UNDECIDED}
    assert all_of(Verdict.HOLDS, Verdict.UNDECIDED) is Verdict.UNDECIDED
    assert all_of(Verdict.FAILS, Verdict.UNDECIDED) is Verdict.FAILS


def test_the_jackknife_of_a_mean_gives_its_interval() -> None:
    values = np.random.default_rng(2).normal(size=(10, 30))
    without = np.array([np.delete(values, group, axis=0).mean() for group in range(10)])
    found = jackknife(values.mean(), without)
    error = values.mean(axis=1).std(ddof=1) / np.sqrt(10)
    assert found.high - found.value == pytest.approx(2.262 * error, rel=1e-3)


def test_phases_are_told_from_a_smooth_fall() -> None:
    assert phase_gap(phases(0.95, 0.5), (4, 8)) == pytest.approx(0.45)
    assert abs(phase_gap(smooth(4.0), (4, 8))) < 1e-12


def test_a_first_token_planted_in_stories_is_named_from_the_analysis_on() -> None:
    """Story vectors whose window `all` is drowned by one token from block 0 on."""
    rng = np.random.default_rng(3)
    names = [f"e{e}" for e in range(20)]
    rating = rng.normal(size=(20, 2))
    axes = np.linalg.qr(rng.normal(size=(40, 3)))[0].T
    labels = [name for name in names for _ in range(6)] + [""] * 12
    x = 0.3 * rng.normal(size=(len(labels), 2, 4, 40))
    x[:120] += np.repeat(rating * [3.0, 1.0] @ axes[:2], 6, axis=0)[:, None, None]
    x[:, 0, 1:] += (60 * rng.normal(size=len(labels)))[:, None, None] * axes[2]
    cell = xr.Dataset(
        {"residual_mean": (("text", "window", "layer", "d_model"), x.astype(np.float32))},
        coords={
            "text_id": ("text", text_ids(labels)),
            "emotion": ("text", labels),
            "window": ["all", "no-first"],
            "layer": [-1, 0, 1, 2],
        },
    )
    settings = Settings(("mean-centered",), 0.5, {"made": rating}, **FEW)
    keys = [(w, layer) for w in ("all", "no-first") for layer in (-1, 0, 1, 2)]
    parts = {key: analyse_layer(cell, *key, settings) for key in keys}
    by_text = np.broadcast_to([2.0, 400.0, 400.0, 400.0], (len(labels), 4))
    tokens = xr.Dataset(
        {
            "peak_norm": (("text", "layer"), by_text),
            "mean_norm": (("text", "layer"), np.ones_like(by_text)),
            "peak_position": (("text", "layer"), np.zeros(by_text.shape, dtype=int)),
            "mean_square": (("shard", "layer", "d_model"), np.ones((1, 4, 40))),
            "tokens_read": ("text", np.full(len(labels), 500)),
            "shard_tokens": ("shard", [500]),
        },
        coords={"layer": [-1, 0, 1, 2]},
    )
    found = join_layers(parts, names, 3, settings).merge(massive_activations(tokens))
    cells = [CellResults("m", "a", found, "0" * 64)]
    summary = summary_table(claims_table(cells), cells).set_index("claim").loc["valence-peak"]
    assert "window" in summary["turns_on"].split()
    assert "first token" in summary["artefact"]
