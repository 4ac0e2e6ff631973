"""What steering did, on the screen."""

from __future__ import annotations

import math

import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis.report.steering import NO_CONTROLS, own_words_out
from store.layout import Layout

COLUMNS = (
    "direction",
    "layer",
    "log-odds",
    "95 % interval",
    "p",
    "choices",
    "p of choices",
    "nats a token",
    "held-out r",
)


def print_steering(console: Console, layout: Layout) -> None:
    """Print what each direction does at the strength tested, and by chance."""
    tests = pd.read_csv(
        layout.tables / "steering_tests.csv", keep_default_na=False, na_values="nan"
    )
    if tests.empty:
        console.print(f"\n{NO_CONTROLS}")
    for (model, corpus), cell in tests.groupby(["model", "corpus"], sort=False):
        strengths = ", ".join(f"{value:g}" for value in sorted(cell["strength"].unique()))
        console.print(
            f"\n{model} steered with directions of {corpus}", style="bold", soft_wrap=True
        )
        console.print(
            f"half the difference of adding and subtracting {strengths} of a mean token norm: "
            "log-odds of positive against negative self-reports (a direction's own word left out) "
            "and of pleasant against unpleasant choices, nats; p against random directions and "
            "random mixtures of emotions, the larger, corrected; nats a token more of what is "
            "written, at the worse sign",
            soft_wrap=True,
        )
        table = Table(box=None, header_style="bold")
        for column in COLUMNS:
            table.add_column(column, justify="left" if column == "direction" else "right")
        choices = cell[cell["measure"] == "preference"].set_index(["direction", "layer"])
        for _, odds in own_words_out(cell).iterrows():
            key = (odds["direction"], odds["layer"])
            choice = choices.loc[key] if key in choices.index else {}
            table.add_row(
                str(odds["direction"]),
                str(odds["layer"]),
                _number(odds["effect"], "+.2f"),
                f"{_number(odds['low'], '+.2f')} to {_number(odds['high'], '+.2f')}",
                _number(odds["p_corrected"], ".2g"),
                _number(choice.get("effect", math.nan), "+.2f"),
                _number(choice.get("p_corrected", math.nan), ".2g"),
                _number(odds["nll_change"], "+.2f"),
                _number(odds["held_out_r"], ".2f"),
            )
        console.print(table)


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)
