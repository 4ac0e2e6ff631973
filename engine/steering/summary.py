"""What steering did, on the screen."""

from __future__ import annotations

import math

import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis.effects import is_random
from store.layout import Layout

COLUMNS = (
    "direction",
    "layer",
    "log-odds a unit",
    "95 % interval",
    "Page p",
    "of random",
    "valence of words",
    "perplexity at most",
)


def print_steering(console: Console, layout: Layout) -> None:
    """Print how each direction moves log-odds, the words written and their perplexity."""
    trends, steering = (
        pd.read_csv(layout.tables / f"{name}.csv", keep_default_na=False, na_values="nan")
        for name in ("steering_trends", "steering")
    )
    for (model, corpus), cell in trends.groupby(["model", "corpus"], sort=False):
        here = steering[(steering["model"] == model) & (steering["corpus"] == corpus)]
        console.print(
            f"\n[bold]{model} steered with directions of {corpus}[/bold]\n"
            "change for a strength of one mean token norm; log-odds of positive against negative "
            "self-reports, in nats; `of random`: over the largest of the random directions'",
            soft_wrap=True,
        )
        table = Table(box=None, header_style="bold")
        for column in COLUMNS:
            table.add_column(column, justify="left" if column == "direction" else "right")
        for (direction, layer), rows in cell.groupby(["direction", "layer"], sort=False):
            if is_random(str(direction)):
                continue
            by_measure = rows.set_index("measure")
            odds = by_measure.loc["log_odds"]
            steered = here[(here["direction"] == direction) & (here["layer"] == layer)]
            nll = steered[steered["measure"] == "nll"]["mean"].max()
            table.add_row(
                str(direction),
                str(layer),
                _number(odds["slope"], "+.2f"),
                f"{_number(odds['low'], '+.2f')} to {_number(odds['high'], '+.2f')}",
                _number(odds["page_p"], ".1g"),
                _number(odds["beyond_random"], ".1f"),
                _number(by_measure.loc["valence", "slope"], "+.2f"),
                _number(math.exp(nll), ",.1f"),
            )
        console.print(table)
        base = here[(here["direction"] == "") & (here["measure"] == "nll")]["mean"]
        if len(base):
            console.print(f"perplexity unsteered {math.exp(base.iloc[0]):,.1f}")


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)
