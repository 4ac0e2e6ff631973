"""What steering does: measures over strength, and directions of one layer added at another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.effect_tests import reached
from analysis.effects import is_control
from analysis.figures.labels import decimal
from analysis.figures.style import SIGNED, entry, mixed, settle, styled

SHOWN = {
    "log_odds": "log-odds, self-report",
    "preference": "log-odds, choices",
    "valence": "valence of words",
    "arousal": "arousal of words",
    "nll": "nats a token, unsteered",
    "repetition": "repeated share",
}
"""Measures that are drawn, a column each."""


@styled
def dose_response(steering: pd.DataFrame) -> Figure:
    """Draw each measure's change over strength: a row for each cell and direction, a line a layer.

    Bands are intervals over prompts. Grey lines are random directions of the same length, at every
    layer.
    """
    steered = steering[
        (steering["direction"] == "") | (steering["source_layer"] == steering["layer"])
    ]
    rows = [
        (model, corpus, str(direction))
        for (model, corpus), cell in steered.groupby(["model", "corpus"], sort=False)
        for direction in cell["direction"].unique()
        if direction and not is_control(str(direction))
    ]
    size = (1.0 + 1.75 * len(SHOWN), 0.9 + 1.75 * max(1, len(rows)))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(max(1, len(rows)), len(SHOWN), squeeze=False, sharex=True)
    layers: list[int] = sorted({int(i) for i in steered["layer"] if i >= 0})
    colour = {layer: _shade(at, len(layers)) for at, layer in enumerate(layers)}
    for row, (line, (model, corpus, direction)) in enumerate(zip(axes, rows, strict=False)):
        cell = steered[(steered["model"] == model) & (steered["corpus"] == corpus)]
        for ax, (measure, name) in zip(line, SHOWN.items(), strict=True):
            _curves(ax, cell[cell["measure"] == measure], direction, colour)
            if row == 0:
                ax.set_title(name)
        line[0].set_ylabel(f"{direction}\n{model}\n@{corpus}")
    for ax in axes[-1]:
        ax.set_xlabel("strength")
    marks = [
        entry(f"layer {layer}", color=colour[layer], linestyle="-", marker="o", markersize=3)
        for layer in layers
    ]
    marks.append(entry("random directions", color="0.7", linestyle="-"))
    figure.legend(handles=marks, ncols=len(marks), loc="outside lower left")
    title = "Change by steering; strength in units of the mean norm of a token's residual"
    settle(figure, title)
    return figure


@styled
def transfer(transfers: pd.DataFrame) -> Figure:
    """Draw what a direction of each layer does at each other, beside their cosines."""
    table = transfers[transfers["measure"] == "log_odds"]
    rows = list(table.groupby(["model", "corpus", "direction", "strength"], sort=False))
    rows = [row for row in rows if row[1]["layer"].nunique() > 1]
    figure = Figure(figsize=(7.6, 0.7 + 3.2 * max(1, len(rows))), layout="constrained")
    axes = figure.subplots(max(1, len(rows)), 2, squeeze=False)
    for line in axes[len(rows) :]:
        for ax in line:
            ax.set_axis_off()
            ax.text(0.5, 0.5, "no transfer was asked for", ha="center", transform=ax.transAxes)
    for line, ((model, corpus, direction, strength), cell) in zip(axes, rows, strict=False):
        grids = {
            name: cell.pivot(index="source_layer", columns="layer", values=name)
            for name in ("effect", "cosine")
        }
        rho = reached(cell)["rho"].median()
        names = (
            f"{direction} on log-odds, ±{strength:g}",
            f"cosine of directions; rho within a layer {decimal(rho)}",
        )
        for ax, (kind, grid), name in zip(line, grids.items(), names, strict=True):
            limit = 1.0 if kind == "cosine" else max(1e-9, float(np.nanmax(np.abs(grid))))
            mesh = ax.imshow(
                grid.to_numpy(), cmap=SIGNED, norm=colors.Normalize(-limit, limit), origin="lower"
            )
            step = max(1, len(grid) // 6)
            at = np.arange(0, len(grid), step)
            ax.set_xticks(at, [str(layer) for layer in grid.columns.to_numpy()[at]])
            ax.set_yticks(at, [str(layer) for layer in grid.index.to_numpy()[at]])
            ax.set_xlabel("added at layer")
            ax.set_ylabel("found at layer")
            ax.set_title(f"{model}@{corpus}\n{name}" if kind == "effect" else f"\n{name}")
            ax.grid(visible=False)
            figure.colorbar(mesh, ax=ax, shrink=0.8, label="nats" if kind == "effect" else "")
    settle(figure, "Directions of one layer at another")
    return figure


def _curves(ax: Axes, cell: pd.DataFrame, direction: str, colour: dict[int, Any]) -> None:
    base = cell[cell["direction"] == ""]
    added = cell[cell["direction"] != ""]
    for (name, layer), found in added.groupby(["direction", "layer"]):
        if name != direction and not is_control(str(name)):
            continue
        line = pd.concat([base, found]).sort_values("strength")
        line = line.fillna({"change_low": line["change"], "change_high": line["change"]})
        if is_control(str(name)):
            ax.plot(line["strength"], line["change"], color="0.75", linewidth=0.6, zorder=1)
            continue
        shade = colour[int(str(layer))]
        ax.plot(line["strength"], line["change"], color=shade, marker="o", markersize=3, zorder=3)
        ax.fill_between(
            line["strength"],
            line["change_low"],
            line["change_high"],
            color=shade,
            alpha=0.12,
            linewidth=0,
        )
    ax.axvline(0, color="0.85", linewidth=0.8, zorder=0)


def _shade(at: int, n: int) -> tuple[float, float, float]:
    return mixed("#1b6ca8", "#d1495b", at / max(1, n - 1))


def effect_figures(tables: dict[str, pd.DataFrame]) -> dict[str, list[Figure]]:
    """Draw every figure of steering by name; each is one picture."""
    return {
        "dose_response": [dose_response(tables["steering"])],
        "transfer": [transfer(tables["transfer"])],
    }
