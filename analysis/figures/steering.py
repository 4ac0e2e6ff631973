"""What steering does: measures over strength, and directions of one layer added at another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.effect_tests import SIGNIFICANT, reached
from analysis.effects import OTHER, is_control
from analysis.figures.labels import decimal
from analysis.figures.style import LINES, MARKERS, entry, numbered, settle, signed_look, styled
from analysis.paging import ROWS_ON_A_PAGE, pages_of

SHOWN = {
    "log_odds": "self-reports,\nlog-odds (nats)",
    "preference": "choices,\nlog-odds (nats)",
    "valence": "words' valence\n({norms} points)",
    "arousal": "words' arousal\n({norms} points)",
    "nll": "surprise of the text\n(nats a token)",
    "repetition": "repeated 5-word runs\n(share)",
}
"""Measures that are drawn, a column each, with their units."""

RAMP = "magma"
DARKEST, LIGHTEST = 0.12, 0.75
"""Where on the ramp the first and the last layer lie: lightness rises with depth, and no model has
these colours."""

CLOSEST = 0.115
"""Share of an axis that two named strengths are apart at least."""

Row = tuple[str, str, str]


def dose_rows(steering: pd.DataFrame) -> list[Row]:
    """Return model, corpus and direction of each row of `dose_response`."""
    own = steering[(steering["direction"] != "") & (steering["source_layer"] == steering["layer"])]
    own = own[(own["layer"] >= 0) & ~own["direction"].map(is_control).astype(bool)]
    return [
        (str(model), str(corpus), str(direction))
        for (model, corpus), cell in own.groupby(["model", "corpus"], sort=False)
        for direction in cell["direction"].unique()
    ]


@styled
def dose_response(steering: pd.DataFrame, rows: Sequence[Row], norms: str) -> Figure:
    """Draw each measure's change over strength: a row for each cell and direction, a line a layer.

    A column has one scale. Bands are 95 % intervals over prompts. Grey lines are random directions
    of the same length, at every layer. What an emotion's direction does to words is drawn without
    the emotion's own, as tables and page have it.

    Args:
        steering: the table of that name.
        rows: those of `dose_rows` that are drawn.
        norms: name of the norms that rate the words.
    """
    steered = steering[
        (steering["direction"] == "") | (steering["source_layer"] == steering["layer"])
    ]
    size = (1.0 + 1.8 * len(SHOWN), 1.2 + 1.6 * max(1, len(rows)))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(max(1, len(rows)), len(SHOWN), squeeze=False, sharex=True, sharey="col")
    layers = sorted({int(i) for i in steered["layer"] if i >= 0})
    look = {layer: _look(at, len(layers)) for at, layer in enumerate(layers)}
    for line, (model, corpus, direction) in zip(axes, rows, strict=False):
        cell = steered[(steered["model"] == model) & (steered["corpus"] == corpus)]
        own = cell[cell["direction"] == direction]
        without = [measure for measure in SHOWN if (own["measure"] == measure + OTHER).any()]
        for ax, measure in zip(line, SHOWN, strict=True):
            _curves(ax, cell[cell["measure"] == measure], None, look)
            name = measure + OTHER if measure in without else measure
            _curves(ax, own[own["measure"] == name], direction, look)
        others = "\nwithout its own words" if without else ""
        line[0].set_ylabel(f"along {direction}{others}\n{model}\n@{corpus}")
    for ax, name in zip(axes[0], SHOWN.values(), strict=True):
        ax.set_title(name.format(norms=norms))
    strengths = sorted({float(s) for s in steered["strength"]})
    for ax in axes[-1]:
        ax.set_xticks(strengths, _names(strengths), fontsize=6)
        ax.set_xlabel("strength")
    marks: list[Any] = [entry(f"layer {layer}", **look[layer]) for layer in layers]
    marks.append(Patch(facecolor="0.85", label="95 % interval over prompts"))
    marks.append(entry("random directions, every layer", color="0.75", linestyle="-"))
    figure.legend(handles=marks, ncols=min(6, len(marks)), loc="outside lower left")
    settle(
        figure,
        "Change against no steering, by the strength of what is added (1 is the mean norm of a "
        "token's residual)",
    )
    return figure


@styled
def transfer(transfers: pd.DataFrame) -> Figure:
    """Draw what a direction of each layer does at each other, beside their cosines.

    Args:
        transfers: rows of the table `transfer`, of the cells that are drawn.
    """
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
        found = reached(cell)
        works = found[found["random_p"] < SIGNIFICANT]
        titles = {
            "effect": f"{model}@{corpus}\n{direction}, ±{strength:g}: self-reports",
            "cosine": "cosine of the two layers' directions\n"
            "Spearman's rho with the effects in a layer: "
            f"{decimal(works['rho'].median())} (median\nof {len(works)} of {len(found)} layers "
            "whose own direction works)",
        }
        for ax, (name, title) in zip(line, titles.items(), strict=True):
            grid = cell.pivot(index="source_layer", columns="layer", values=name)
            most = 1.0 if name == "cosine" else max(1e-9, float(np.nanmax(np.abs(grid))))
            cmap, scale = signed_look(grid.to_numpy(), most)
            mesh = ax.imshow(grid.to_numpy(), cmap=cmap, norm=scale, origin="lower")
            step = max(1, len(grid) // 6)
            at = np.arange(0, len(grid), step)
            ax.set_xticks(at, [str(layer) for layer in grid.columns.to_numpy()[at]])
            ax.set_yticks(at, [str(layer) for layer in grid.index.to_numpy()[at]])
            ax.set_xlabel("added at layer")
            ax.set_ylabel("direction taken from layer")
            ax.set_title(title)
            ax.grid(visible=False)
            label = "change of log-odds (nats)" if name == "effect" else "cosine"
            figure.colorbar(mesh, ax=ax, shrink=0.8, label=label)
    settle(figure, "The direction of one layer added at another")
    return figure


def effect_figures(tables: dict[str, pd.DataFrame], norms: str) -> dict[str, Iterator[Figure]]:
    """Draw every figure of steering by name, in as many pictures as `analysis.paging` says.

    Args:
        tables: of steering, by name.
        norms: name of the norms that rate the words.
    """
    return {
        "dose_response": _dose_pages(tables["steering"], norms),
        "transfer": _transfer_pages(tables["transfer"]),
    }


def _dose_pages(steering: pd.DataFrame, norms: str) -> Iterator[Figure]:
    rows = dose_rows(steering)
    keys = [(f"{model}@{corpus}", direction) for model, corpus, direction in rows]
    pages = pages_of(keys, ROWS_ON_A_PAGE["dose_response"]) or [[]]
    for number, page in enumerate(pages, 1):
        with numbered(number, len(pages)):
            figure = dose_response(steering, [rows[i] for i in page], norms)
        yield figure


def _transfer_pages(transfers: pd.DataFrame) -> Iterator[Figure]:
    keys = [*zip(transfers["model"], transfers["corpus"], strict=True)]
    cells = [*dict.fromkeys((str(model), str(corpus)) for model, corpus in keys)]
    pages = pages_of(cells, ROWS_ON_A_PAGE["transfer"]) or [[]]
    for number, page in enumerate(pages, 1):
        shown = {cells[i] for i in page}
        with numbered(number, len(pages)):
            of_page = np.array([key in shown for key in keys], dtype=bool)
            figure = transfer(transfers[of_page])
        yield figure


def _curves(
    ax: Axes, cell: pd.DataFrame, direction: str | None, look: dict[int, dict[str, Any]]
) -> None:
    """Draw a direction's curve for each layer, or those of all controls where it is None."""
    unsteered = {"strength": [0.0], "change": [0.0], "change_low": [0.0], "change_high": [0.0]}
    mine = cell["direction"].map(lambda name: is_control(name) if direction is None else True)
    added = cell[mine.astype(bool) & (cell["layer"] >= 0)]
    for (_, layer), found in added.groupby(["direction", "layer"]):
        line = pd.concat([pd.DataFrame(unsteered), found]).sort_values("strength")
        line = line.fillna({"change_low": line["change"], "change_high": line["change"]})
        if direction is None:
            ax.plot(line["strength"], line["change"], color="0.75", linewidth=0.6, zorder=1)
            continue
        own = look[int(str(layer))]
        ax.plot(line["strength"], line["change"], zorder=3, **own)
        ax.fill_between(
            line["strength"],
            line["change_low"],
            line["change_high"],
            color=own["color"],
            alpha=0.12,
            linewidth=0,
        )
    ax.axvline(0, color="0.85", linewidth=0.8, zorder=0)
    ax.axhline(0, color="0.6", linewidth=0.6, zorder=0)


def _look(at: int, n: int) -> dict[str, Any]:
    """Return how the `at`-th of `n` layers is drawn."""
    place = DARKEST + (LIGHTEST - DARKEST) * at / max(1, n - 1)
    return {
        "color": colormaps[RAMP](place)[:3],
        "linestyle": LINES[at % len(LINES)],
        "marker": MARKERS[at % len(MARKERS)],
        "markersize": 3,
    }


def _names(strengths: Sequence[float]) -> list[str]:
    """Return names of strengths, "" where one would touch another: 0 and the largest come first."""
    gap = CLOSEST * (max(strengths, default=0) - min(strengths, default=0))
    named: list[float] = []
    for strength in sorted(strengths, key=lambda s: (s != 0, -abs(s))):
        if all(abs(strength - other) >= gap for other in named):
            named.append(strength)
    return [f"{s:g}".replace("0.", ".", 1) if s in named else "" for s in strengths]
