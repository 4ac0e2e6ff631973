"""What a run found, in sentences: the head of the page, and what `emovec status` says."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.activations import MOSTLY
from analysis.claims import CLAIMS, EXPECTED_PEAK
from analysis.exclusions import ranges
from analysis.geometry_table import peaks
from analysis.predicates import NO_BASELINE
from analysis.report.numbers import decimal, p_value, percent
from analysis.results import preferred_window
from analysis.settings import AXES
from analysis.verdicts import Verdict
from analysis.view import DIMENSIONS

BESIDE = {
    "embedding": "the embedding output",
    "random": "random weights",
    "bag_of_words": "a bag of words",
    "lexical": "the ratings of the stories' words",
}
KEYS = ["model", "corpus", "corpus_b"]


@dataclass(frozen=True)
class Said:
    """What is said of a cell, or of one model's cells with two corpora.

    Attributes:
        about: the cell.
        sentences: what was found.
        model: that reads, "" where it is about all.
    """

    about: str
    sentences: tuple[str, ...]
    model: str = ""


def summary(
    geometry: pd.DataFrame,
    claims: pd.DataFrame,
    activations: pd.DataFrame,
    detection: pd.DataFrame,
    profiles: pd.DataFrame,
    baselines: Collection[tuple[str | None, str]] = (),
) -> list[Said]:
    """Return what was found of every cell and of every pair of corpora, and last in all.

    For the first contrast and norms and the preferred window, which the sentences name.

    Args:
        geometry: as `analysis.geometry_table.geometry_table` returns it.
        claims: as `analysis.claim_tables.summary_table` returns it.
        activations: as `analysis.tables.activation_table` returns it.
        detection: as `analysis.detection_table.detection_table` returns it.
        profiles: as `analysis.claim_tables.profiles_table` returns it.
        baselines: cells (model, corpus) that are only there as another's baseline and not told of.
    """
    contrast, norms = (str(geometry[key].iloc[0]) for key in ("contrast", "norms"))
    window = preferred_window([str(w) for w in dict.fromkeys(geometry["window"])])
    chosen = (geometry["contrast"] == contrast) & (geometry["norms"] == norms)
    shown = geometry[chosen & (geometry["window"] == window)]
    expected = profiles[
        (profiles["contrast"] == contrast)
        & (profiles["norms"] == norms)
        & (profiles["window"] == window)
        & (profiles["dimensions"] == DIMENSIONS[0])
    ]
    told = claims[
        [
            (model, corpus) not in baselines and summary != NO_BASELINE
            for model, corpus, summary in claims[["model", "corpus", "summary"]].itertuples(
                index=False
            )
        ]
    ]
    found = []
    for model, corpus in dict.fromkeys(zip(geometry["model"], geometry["corpus"], strict=True)):
        if (model, corpus) in baselines:
            continue
        named = f"window {window}, contrast {contrast}, norms {norms}"
        rows, places = (
            table[(table["model"] == model) & (table["corpus"] == corpus)]
            for table in (shown, expected)
        )
        sentences = _peak(rows, named)
        sentences += _expected(places)
        sentences += _massive(activations, model, corpus)
        sentences += _detected(detection[detection["window"] == window], model, corpus)
        own = claims[(claims["model"] == model) & (claims["corpus"] == corpus)]
        sentences += _verdicts(own[own["corpus_b"] == ""])
        found.append(Said(f"{model} reads {corpus}", tuple(sentences), model))
    pairs = claims[claims["corpus_b"] != ""]
    for (model, a, b), rows in pairs.groupby(KEYS, sort=False):
        if (model, a) not in baselines:
            found.append(Said(f"{model}: {a} against {b}", tuple(_verdicts(rows)), str(model)))
    return [*found, Said("In all", (_counted(told),))]


def _counted(claims: pd.DataFrame) -> str:
    """Return how many verdicts there are of each kind."""
    holds, fails, undecided = (int(claims[verdict.value].sum()) for verdict in Verdict)
    return (
        f"Of {holds + fails + undecided:,} verdicts on {claims['claim'].nunique()} claims, under "
        "every choice of window, contrast, norms, dimensions and estimator, "
        f"{holds:,} hold, {fails:,} fail and {undecided:,} are undecided."
    )


def _peak(rows: pd.DataFrame, named: str) -> list[str]:
    """Say where PC1 follows valence best, what does so without the model, and PC2 likewise.

    Args:
        rows: of the geometry, one for each layer of a cell.
        named: the choice that they were made with.
    """
    if rows[rows["layer"] >= 0]["valence_r"].isna().all():
        return [f"No block has an r with valence ({named})."]
    row = _best(rows, "valence")
    sentences = [
        f"PC1 follows valence most closely at layer {row['layer']} (depth "
        f"{decimal(row['depth'])}): |r| = {decimal(row['valence_r'])} in these stories, over "
        f"{row['n_emotions']} emotions (p {p_value(row['valence_p_corrected'])}, corrected; "
        f"{named})."
    ]
    if row["valence_low"] == row["valence_low"]:
        sentences.append(
            "95 % interval of what infinitely many such stories would give there: "
            f"{decimal(row['valence_low'])} to {decimal(row['valence_high'])}"
            + (" (below 0, PC1 would point the other way)." if row["valence_low"] < 0 else ".")
        )
    else:
        sentences.append("The stories leave nothing to draw anew, so there is no interval.")
    beside = [
        f"{name} {decimal(row[f'valence_{key}_r'])}"
        for key, name in BESIDE.items()
        if row[f"valence_{key}_r"] == row[f"valence_{key}_r"]
    ]
    if beside:
        sentences.append(f"Beside it, |r| of: {', '.join(beside)}.")
    if rows[rows["layer"] >= 0]["arousal_r"].notna().any():
        own = _best(rows, "arousal")
        there = f"; at layer {row['layer']} {decimal(row['arousal_r'])}"
        sentences.append(
            f"PC2 follows arousal most closely at layer {own['layer']}: |r| = "
            f"{decimal(own['arousal_r'])} (p {p_value(own['arousal_p_corrected'])}, corrected)"
            f"{there if own['layer'] != row['layer'] else ''}."
        )
    return sentences


def _best(rows: pd.DataFrame, axis: str) -> dict[str, Any]:
    """Return the row of the block that follows an axis best; some block has an r with it."""
    best = peaks(rows.assign(valence_r=rows[f"{axis}_r"])).iloc[0]
    return {
        str(key): value for key, value in rows.loc[rows["layer"] == best["layer"]].iloc[0].items()
    }


def _expected(places: pd.DataFrame) -> list[str]:
    """Say where the peaks are that claims are about, for each axis, and how high.

    Args:
        places: of the profiles, one for each axis of a cell.
    """
    said = []
    for component, axis in enumerate(AXES, 1):
        for row in places[places["axis"] == axis].dropna(subset="peak").to_dict("records"):
            if row["peak_infinite"] != row["peak_infinite"]:  # no interval: nothing to draw anew
                continue
            span = f"{row['peak_from']:.0f} to {row['peak_to']:.0f}"
            said.append(
                f"of PC{component} with {axis} it is layer {row['peak']:.0f} (layers {span}), with "
                f"an r of {decimal(row['peak_infinite'])} ({decimal(row['peak_low'])} to "
                f"{decimal(row['peak_high'])}; in these stories {decimal(row['peak_r'])})"
            )
    if not said:
        return []
    return [
        f"Claims are not about the peak in these stories, but about {EXPECTED_PEAK}. With 95 % "
        f"intervals, {'; '.join(said)}."
    ]


def _massive(activations: pd.DataFrame, model: str, corpus: str) -> list[str]:
    """Warn of layers in which a mean over all tokens is mostly one token's."""
    here = (activations["model"] == model) & (activations["corpus"] == corpus)
    rows = activations[here & (activations["peak_share"] > MOSTLY)]
    if rows.empty:
        return []
    return [
        f"In layers {ranges([int(i) for i in rows['layer']])} one token carries most of a text's "
        f"norm (the first in {percent(rows['first_token_peak'].median())} of texts, median), so a "
        "mean over all tokens says little of the text there."
    ]


def _detected(detection: pd.DataFrame, model: str, corpus: str) -> list[str]:
    """Say at which block vectors tell stories on other topics apart best, and how well."""
    here = (detection["model"] == model) & (detection["corpus"] == corpus)
    rows = detection[here & (detection["layer"] >= 0)].dropna(subset="mean_reciprocal_rank")
    if rows.empty:
        return []
    best = rows.sort_values("mean_reciprocal_rank", kind="stable").iloc[-1]
    return [
        f"Vectors made from other topics tell stories apart best at layer {best['layer']} (largest "
        f"mean of 1 / rank): among {best['n_emotions']} emotions a story's own ranks first in "
        f"{percent(best['top_1'], 1)} of stories (by chance {percent(best['top_1_chance'], 1)}) "
        f"and among the first five in {percent(best['top_5'], 1)} "
        f"({percent(best['top_5_chance'], 1)})."
    ]


def _verdicts(rows: pd.DataFrame) -> list[str]:
    """Say which claims hold, fail, turn on a choice and are undecided."""
    rows = rows[rows["summary"] != NO_BASELINE]
    statements = {claim.name: claim.statement for claim in CLAIMS}
    kinds: dict[str, list[str]] = {"holds": [], "fails": [], "turns": [], "leans": [], "open": []}
    for row in rows.to_dict("records"):
        said = statements[row["claim"]]
        if row["summary"].startswith("turns on"):
            because = f" ({row['summary'].removeprefix('turns on ')}"
            because += f"; artefact: {row['artefact']})" if row["artefact"] else ")"
            kinds["turns"].append(said + because)
        elif row["summary"].endswith("under every choice"):
            verdict = row["summary"].partition(" ")[0]
            kinds["open" if verdict == "undecided" else verdict].append(said)
        else:
            kinds["leans"].append(said)
    heads = {
        "holds": "Holds under every choice",
        "fails": "Fails under every choice",
        "turns": "Turns on a choice",
    }
    sentences = [f"{head}: {'; '.join(kinds[key])}." for key, head in heads.items() if kinds[key]]
    some, none = len(kinds["leans"]), len(kinds["open"])
    rest = [f"{some} hold or fail under some choices and are undecided under others"] * (some > 0)
    rest += [f"{none} are undecided under all"] * (none > 0)
    if rest:
        sentences.append(f"Of {len(rows)} claims {' and '.join(rest)}.")
    return sentences
