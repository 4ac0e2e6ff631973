"""What the page says of steering: sentences and a table for each cell, and the figures."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pandas as pd

from analysis.effect_tests import MIN_CONTROLS
from analysis.effects import OTHER
from analysis.report.content import RunContent, SteeringContent

PICTURES = {
    "dose_response": "Change of each measure over strength, with intervals over prompts; grey: "
    "random directions of the same length",
    "transfer": "The direction found at one layer added at another: its effect on log-odds, beside "
    "the cosine of the directions of both layers",
}
COLUMNS = {
    "tested at": "strength, of a mean token norm",
    "log-odds": "self-reports, half the difference of both signs, nats",
    "p": "against random directions and random mixtures of emotions, the larger, corrected over "
    "directions and layers",
    "choices": "the same of pleasant against unpleasant choices, nats",
    "p of choices": "the same",
    "valence of words": "slope, for a strength of one mean token norm",
    "nats a token": "more than unsteered at the worse sign, at the strength tested",
    "held-out r": "of the direction with emotions that it never saw",
}
SIGNIFICANT = 0.05
NO_CONTROLS = (
    f"No direction was held against others: that takes {MIN_CONTROLS} or more of "
    "`steering.controls`."
)


def shown_steering(run: RunContent) -> dict[str, Any] | None:
    """Return what the template says of a run's steering, None where it has none."""
    if run.steering is None:
        return None
    keys = ["model", "corpus"]
    return {
        "cells": [
            {
                "name": f"{model} with directions of {corpus}",
                "said": steering_sentences(run.steering, str(model), str(corpus)),
                "rows": _rows(run.steering, str(model), str(corpus)),
            }
            for model, corpus in run.steering.trends[keys].drop_duplicates().to_numpy()
        ],
        "columns": COLUMNS,
        "pictures": [
            (says, base64.b64encode(run.steering.pictures[name]).decode())
            for name, says in PICTURES.items()
        ],
    }


def own_words_out(tests: pd.DataFrame) -> pd.DataFrame:
    """Return a row of log-odds for each direction and layer, its own words left out."""
    odds = tests[tests["measure"].isin(["log_odds", "log_odds" + OTHER])]
    return (
        odds.sort_values("measure")
        .drop_duplicates(["direction", "layer"], keep="last")
        .sort_index()
    )


def steering_sentences(steering: SteeringContent, model: str, corpus: str) -> list[str]:
    """Return what was found of a cell, in sentences."""
    tests, transfer, reached = (
        table[(table["model"] == model) & (table["corpus"] == corpus)]
        for table in (steering.tests, steering.transfer, steering.reached)
    )
    said = [] if len(tests) else [NO_CONTROLS]
    for measure, name, rows in (
        ("log_odds", "positive against negative self-reports", own_words_out(tests)),
        ("preference", "pleasant against unpleasant choices",
         tests[tests["measure"] == "preference"]),
    ):  # fmt: skip
        if rows.empty:
            continue
        moves = rows[rows["p_corrected"] < SIGNIFICANT]
        random = rows[rows["random_p"] < SIGNIFICANT]
        own = ", their own words left out," if measure == "log_odds" else ""
        said.append(
            f"Of {len(rows)} directions and layers, {len(moves)} move the log-odds of {name}{own} "
            "by more than random directions and random mixtures of the emotions' vectors do "
            f"(p < {SIGNIFICANT:g}, corrected for {len(rows)} tests); {len(random)} by more than "
            "random directions, uncorrected."
        )
    here = transfer[(transfer["measure"] == "log_odds") & transfer["relative"].notna()]
    for (direction, strength), rows in here.groupby(["direction", "strength"], sort=False):
        at = reached[
            (reached["measure"] == "log_odds")
            & (reached["direction"] == direction)
            & (reached["strength"] == strength)
        ]
        if at["random_p"].isna().all():  # also where there is no layer
            continue
        said.append(_transferred(str(direction), float(str(strength)), rows, at))
    return said


def _transferred(direction: str, strength: float, rows: pd.DataFrame, reached: pd.DataFrame) -> str:
    """Say how far from where it was found a direction works.

    Args:
        direction: its name.
        strength: of the addition.
        rows: of `transfer`.
        reached: of `transfer_layers`.
    """
    works = reached[reached["random_p"] < SIGNIFICANT]
    said = f"The direction of {direction} found at one layer and added at another ({strength:g}): "
    if works.empty:
        return said + (
            f"at none of {len(reached)} layers does the layer's own direction do more than random "
            "ones, so nothing can be said of its transfer."
        )
    rho = works["rho"]
    return said + (
        f"at {len(works)} of {len(reached)} layers the layer's own direction does more than random "
        f"ones (p < {SIGNIFICANT:g}, uncorrected). There, as a share of its effect at the median, "
        f"{_distances(rows[rows['layer'].isin(works['layer'])])}. Effects follow the "
        f"cosine of the two directions with a median rho of {rho.median():.2f} within a layer "
        f"({rho.min():.2f} to {rho.max():.2f})."
    )


def _distances(rows: pd.DataFrame) -> str:
    """Say what is left of the effect at some distances, of directions of earlier and later layers.

    The two differ: a direction may work where the stream has not come to it yet, and not behind.
    """
    found = []
    for name, distance in (
        ("earlier", rows["layer"] - rows["source_layer"]),
        ("later", rows["source_layer"] - rows["layer"]),
    ):
        parts = []
        for low, high, far in DISTANCES:
            there = rows[(distance >= low) & (distance <= high)]["relative"]
            if len(there):
                parts.append(f"{there.median():.2f} ({far} away)")
        if parts:
            found.append(f"directions found {name} do {', '.join(parts)}")
    return "; ".join(found)


DISTANCES = (
    (1, 1, "a block"),
    (2, 4, "2 to 4 blocks"),
    (5, 9, "5 to 9"),
    (10, np.inf, "10 or more"),
)


def _rows(steering: SteeringContent, model: str, corpus: str) -> list[tuple[str, int, list[str]]]:
    tests, trends = (
        table[(table["model"] == model) & (table["corpus"] == corpus)]
        for table in (steering.tests, steering.trends)
    )
    choices, words = (
        table[table["measure"] == measure].set_index(["direction", "layer"])
        for table, measure in ((tests, "preference"), (trends, "valence"))
    )
    out = []
    for _, odds in own_words_out(tests).iterrows():
        key = (odds["direction"], odds["layer"])
        choice = choices.loc[key] if key in choices.index else None
        slope = words.loc[key] if key in words.index else None
        out.append(
            (
                str(odds["direction"]),
                int(odds["layer"]),
                [
                    f"{odds['strength']:g}",
                    _interval(odds, "effect"),
                    _p(odds["p_corrected"]),
                    "-" if choice is None else _interval(choice, "effect"),
                    "-" if choice is None else _p(choice["p_corrected"]),
                    "-" if slope is None else _interval(slope, "slope"),
                    _number(odds["nll_change"]),
                    _number(odds["held_out_r"]),
                ],
            )
        )
    return out


def _interval(row: Any, name: str) -> str:
    if not np.isfinite(row["low"]):
        return _number(row[name])
    return f"{row[name]:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"


def _number(value: float) -> str:
    return f"{value:+.2f}" if np.isfinite(value) else "-"


def _p(value: float) -> str:
    return "-" if not np.isfinite(value) else f"{value:.3f}" if value >= 0.001 else "< .001"
