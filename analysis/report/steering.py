"""What the page says of steering: a sentence and a table for each cell, and the figures."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pandas as pd

from analysis.effects import is_random
from analysis.report.content import RunContent

PICTURES = {
    "dose_response": "Change of each measure over strength, with intervals over prompts; grey: "
    "random directions of the same length",
    "transfer": "The direction found at one layer added at another: its effect on log-odds, beside "
    "the cosine of the directions of both layers",
}
MEASURES = {
    "log_odds": "log-odds, self-report",
    "preference": "log-odds, choices",
    "valence": "valence of words",
    "nll": "nats a token",
}
SIGNIFICANT = 0.05


def shown_steering(run: RunContent) -> dict[str, Any] | None:
    """Return what the template says of a run's steering, None where it has none."""
    if run.steering is None:
        return None
    trends = run.steering.trends
    return {
        "cells": [
            {"name": f"{model} with directions of {corpus}", **_cell(rows)}
            for (model, corpus), rows in trends.groupby(["model", "corpus"], sort=False)
        ],
        "measures": list(MEASURES.values()),
        "pictures": [
            (says, base64.b64encode(run.steering.pictures[name]).decode())
            for name, says in PICTURES.items()
        ],
    }


def _cell(trends: pd.DataFrame) -> dict[str, Any]:
    odds = trends[(trends["measure"] == "log_odds") & ~trends["direction"].map(is_random)]
    moves = odds[(odds["page_p"] < SIGNIFICANT) & (odds["low"] * odds["high"] > 0)]
    beyond = moves[moves["beyond_random"] > 1]
    said = (
        f"Of {len(odds)} directions and layers, {len(moves)} move the log-odds of positive against "
        f"negative self-reports in order of strength (interval off 0, Page's p < {SIGNIFICANT:g}), "
        f"{len(beyond)} of them by more than any random direction of the same length there."
    )
    rows = []
    for (direction, layer), here in trends.groupby(["direction", "layer"], sort=False):
        slopes = here.set_index("measure")
        values = [slopes.loc[m] if m in slopes.index else None for m in MEASURES]
        rows.append((str(direction), int(str(layer)), [_slope(value) for value in values]))
    return {"said": said, "rows": rows}


def _slope(row: Any) -> str:
    if row is None or not np.isfinite(row["slope"]):
        return "-"
    if not np.isfinite(row["low"]):
        return f"{row['slope']:+.2f}"
    return f"{row['slope']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
