"""What the page says of steering: sentences and a table for each cell, and the figures."""

from __future__ import annotations

import base64
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd

from analysis.effect_tests import MIN_CONTROLS
from analysis.effects import OTHER
from analysis.report.content import RunContent, SteeringContent
from analysis.report.numbers import MISSING, decimal, p_value
from analysis.report.pictures import fitting

PICTURES = {
    "dose_response": "Change of each measure over strength (in mean norms of a token's residual), "
    "with 95 % intervals over prompts; grey: random directions of the same length",
    "transfer": "The direction found at one layer added at another: its effect on log-odds, beside "
    "the cosine of the directions of both layers",
}
COLUMNS = {
    "tested at": "the strength, in mean norms of a token's residual at that layer",
    "log-odds": "of positive against negative self-reports, a direction's own word left out: half "
    "the difference between adding and subtracting the direction, in nats, with its interval over "
    "prompts",
    "p": "against random directions and random mixtures of the emotions' vectors, the larger of "
    "the two, corrected over directions and layers",
    "choices": "the same of pleasant against unpleasant choices, in nats",
    "p of choices": "the same",
    "valence of words": "slope of the written words' rated valence, in points for a strength of 1",
    "nats a token": "by how much the unsteered model is more surprised by what was written, at the "
    "worse sign: where it is large, the model is broken rather than moved",
    "held-out r": "of the direction with the ratings of emotions that it never saw",
}
SIGNIFICANT = 0.05
NO_CONTROLS = (
    f"No direction was held against others: that takes {MIN_CONTROLS} or more of "
    "`steering.controls`."
)


def shown_steering(run: RunContent, room: int) -> dict[str, Any] | None:
    """Return what the template says of a run's steering, None where it has none.

    Args:
        run: that is shown.
        room: bytes that its pictures may have in base64.
    """
    if run.steering is None:
        return None
    pictures, left = fitting(run.steering.pictures, max(0, room) * 3 // 4)
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
            (_caption(name, run.steering.pictures), base64.b64encode(picture).decode())
            for name, picture in pictures.items()
        ],
        "left": left,
    }


def _caption(name: str, pictures: Collection[str]) -> str:
    """Say what a picture is, and which page of how many."""
    figure, _, number = name.partition("-")
    pages = sum(other.partition("-")[0] == figure for other in pictures)
    return PICTURES[figure] + (f"; page {number or 1} of {pages}" if pages > 1 else "")


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
        own = " (a direction's own word left out)" if measure == "log_odds" else ""
        verb = "moves" if len(moves) < 2 else "move"
        said.append(
            f"{len(moves) or 'None'} of the {_combinations(rows)} {verb} the "
            f"log-odds of {name}{own} by more than random directions and random mixtures of the "
            f"emotions' vectors do (p < {decimal(SIGNIFICANT)}, corrected for {len(rows)} tests); "
            f"{len(random) or 'none'} by more than random directions alone, uncorrected."
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


def _combinations(rows: pd.DataFrame) -> str:
    """Return `12 combinations (4 directions × 3 layers)`."""
    counts = [rows[key].nunique() for key in ("direction", "layer")]
    named = [
        f"{n} {key}{'' if n == 1 else 's'}"
        for n, key in zip(counts, ("direction", "layer"), strict=True)
    ]
    every = len(rows) == counts[0] * counts[1]
    product = " \N{MULTIPLICATION SIGN} ".join(named)
    whole = f" ({product})" if every else " of a direction and a layer"
    return f"{len(rows)} combination{'' if len(rows) == 1 else 's'}{whole}"


def _transferred(direction: str, strength: float, rows: pd.DataFrame, reached: pd.DataFrame) -> str:
    """Say how far from where it was found a direction works.

    Args:
        direction: its name.
        strength: of the addition.
        rows: of `transfer`.
        reached: of `transfer_layers`.
    """
    works = reached[reached["random_p"] < SIGNIFICANT]
    said = f"The direction of {direction} found at one layer and added at another, "
    said += f"by {strength:g} of a mean token norm: "
    if works.empty:
        return said + (
            f"at none of {len(reached)} layers does the layer's own direction do more than random "
            "ones, so nothing can be said of its transfer."
        )
    rho = works["rho"]
    return said + (
        f"at {len(works)} of {len(reached)} layers the layer's own direction does more than random "
        f"ones (p < {decimal(SIGNIFICANT)}, uncorrected). There, as a share of that effect, at the "
        f"median, {_distances(rows[rows['layer'].isin(works['layer'])])}. Within a layer effects "
        "follow the cosine of the two directions with Spearman's rho, over the layers that they "
        f"are taken from, of {decimal(rho.median())} at the median ({decimal(rho.min())} to "
        f"{decimal(rho.max())})."
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
                parts.append(f"{decimal(there.median())} ({far} away)")
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
                    MISSING if choice is None else _interval(choice, "effect"),
                    MISSING if choice is None else _p(choice["p_corrected"]),
                    MISSING if slope is None else _interval(slope, "slope"),
                    _number(odds["nll_change"]),
                    _number(odds["held_out_r"]),
                ],
            )
        )
    return out


def _interval(row: Any, name: str) -> str:
    if not np.isfinite(row["low"]):
        return _number(row[name])
    return f"{_number(row[name])} [{_number(row['low'])}, {_number(row['high'])}]"


def _number(value: float) -> str:
    return decimal(value, sign=True)


def _p(value: float) -> str:
    return MISSING if not np.isfinite(value) else p_value(value).removeprefix("= ")
