"""What a run found, in sentences: the head of the page, and what `emovec status` says."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.activations import MOSTLY
from analysis.claims import CLAIMS
from analysis.exclusions import ranges
from analysis.geometry_table import peaks
from analysis.predicates import NO_BASELINE
from analysis.results import preferred_window
from analysis.verdicts import Verdict

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
    baselines: Collection[tuple[str | None, str]] = (),
) -> list[Said]:
    """Return what was found of every cell and of every pair of corpora.

    For the first contrast and norms and the preferred window, which the sentences name.

    Args:
        geometry: as `analysis.geometry_table.geometry_table` returns it.
        claims: as `analysis.claim_tables.summary_table` returns it.
        activations: as `analysis.tables.activation_table` returns it.
        detection: as `analysis.detection_table.detection_table` returns it.
        baselines: cells (model, corpus) that are only there as another's baseline and not told of.
    """
    contrast, norms = (str(geometry[key].iloc[0]) for key in ("contrast", "norms"))
    window = preferred_window([str(w) for w in dict.fromkeys(geometry["window"])])
    chosen = (geometry["contrast"] == contrast) & (geometry["norms"] == norms)
    best = peaks(geometry[chosen & (geometry["window"] == window)])
    at = {
        (str(row["model"]), str(row["corpus"])): {str(key): value for key, value in row.items()}
        for row in best.to_dict("records")
    }
    told = claims[
        [
            (model, corpus) not in baselines and summary != NO_BASELINE
            for model, corpus, summary in claims[["model", "corpus", "summary"]].itertuples(
                index=False
            )
        ]
    ]
    found = [Said("In all", (_counted(told),))]
    for model, corpus in dict.fromkeys(zip(geometry["model"], geometry["corpus"], strict=True)):
        if (model, corpus) in baselines:
            continue
        row = at.get((model, corpus))
        named = f"window {window}, contrast {contrast}, norms {norms}"
        if row is None:
            sentences = [f"No block has an r with valence ({named})."]
        else:
            sentences = _peak(row, named)
        sentences += _massive(activations, model, corpus)
        sentences += _detected(detection[detection["window"] == window], model, corpus)
        own = claims[(claims["model"] == model) & (claims["corpus"] == corpus)]
        sentences += _verdicts(own[own["corpus_b"] == ""])
        found.append(Said(f"{model} reads {corpus}", tuple(sentences), model))
    pairs = claims[claims["corpus_b"] != ""]
    for (model, a, b), rows in pairs.groupby(KEYS, sort=False):
        if (model, a) not in baselines:
            found.append(Said(f"{model}: {a} against {b}", tuple(_verdicts(rows)), str(model)))
    return found


def _counted(claims: pd.DataFrame) -> str:
    """Return how many verdicts there are of each kind."""
    holds, fails, undecided = (int(claims[verdict.value].sum()) for verdict in Verdict)
    return (
        f"Of {holds + fails + undecided:,} verdicts on {claims['claim'].nunique()} claims, under "
        "every choice of window, contrast, norms, dimensions and estimator, "
        f"{holds:,} hold, {fails:,} fail and {undecided:,} are undecided."
    )


def _peak(row: dict[str, Any], named: str) -> list[str]:
    """Say where PC1 follows valence best, and what does so without the model."""
    sentences = [
        f"PC1 follows valence most closely at layer {row['layer']} (depth {_r(row['depth'])}): "
        f"|r| = {_r(row['valence_r'])} over {row['n_emotions']} emotions "
        f"({_p(row['valence_p_corrected'])}; {named})."
    ]
    if row["valence_low"] == row["valence_low"]:
        sentences.append(
            f"95 % interval of what infinitely many such stories would give there: "
            f"{_r(row['valence_low'])} to {_r(row['valence_high'])}"
            + (" (below 0, PC1 would point the other way)." if row["valence_low"] < 0 else ".")
        )
    else:
        sentences.append("The stories leave nothing to draw anew, so there is no interval.")
    beside = [
        f"{name} {_r(row[f'valence_{key}_r'])}"
        for key, name in BESIDE.items()
        if row[f"valence_{key}_r"] == row[f"valence_{key}_r"]
    ]
    if beside:
        sentences.append(f"Beside it: {', '.join(beside)}.")
    if row["arousal_r"] == row["arousal_r"]:
        sentences.append(
            f"PC2 follows arousal there at {_r(row['arousal_r'])} "
            f"({_p(row['arousal_p_corrected'])})."
        )
    return sentences


def _massive(activations: pd.DataFrame, model: str, corpus: str) -> list[str]:
    """Warn of layers in which a mean over all tokens is mostly one token's."""
    here = (activations["model"] == model) & (activations["corpus"] == corpus)
    rows = activations[here & (activations["peak_share"] > MOSTLY)]
    if rows.empty:
        return []
    return [
        f"In layers {ranges([int(i) for i in rows['layer']])} one token carries most of a text's "
        f"norm (the first in {rows['first_token_peak'].median():.0%} of texts, median), so a mean "
        "over all tokens says little of the text there."
    ]


def _detected(detection: pd.DataFrame, model: str, corpus: str) -> list[str]:
    """Say at which block vectors tell stories on other topics apart best, and how well."""
    here = (detection["model"] == model) & (detection["corpus"] == corpus)
    rows = detection[here & (detection["layer"] >= 0)].dropna(subset="mean_reciprocal_rank")
    if rows.empty:
        return []
    best = rows.sort_values("mean_reciprocal_rank", kind="stable").iloc[-1]
    return [
        f"Vectors made from other topics tell stories apart best at layer {best['layer']}: among "
        f"{best['n_emotions']} emotions a story's own is first in {best['top_1']:.0%} (by chance "
        f"{best['top_1_chance']:.1%}) and among the first five in {best['top_5']:.0%} "
        f"({best['top_5_chance']:.1%})."
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


def _r(value: float) -> str:
    """Return r as .74, -.05 or 1.00."""
    return f"{value:.2f}".replace("0.", ".", 1)


def _p(value: float) -> str:
    if value != value:
        return "p not known"
    if value >= 0.9995:
        return "p = 1, corrected"
    return "p < .001, corrected" if value < 0.001 else f"p = {f'{value:.3f}'[1:]}, corrected"
