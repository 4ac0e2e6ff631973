"""How well emotion vectors tell held-out stories apart, over depth."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.figures.depth import DEPTH, corpus_entry
from analysis.figures.labels import GLYPHS, RING, Curve, label_ends, label_peaks
from analysis.figures.style import Looks, entry, mixed, settle, span, styled
from analysis.results import CellResults

SHOWN = (1, 5)
"""Of `analysis.detection.TOP`, one panel each."""


@styled
def detection(cells: list[CellResults], window: str, looks: Looks) -> Figure:
    """Draw how often a story's emotion is found, on topics that the vectors never saw.

    In per cent of the stories. Bands are 95 % intervals over emotions, dotted lines what the
    embedding output finds, the grey line chance. A ring is the peak with its layer and share.

    Args:
        cells: one curve each.
        window: window of all of them.
        looks: of their models and corpora.
    """
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axes = figure.subplots(1, len(SHOWN), sharex=True)
    n = span([int(cell.results["detected_candidates"].max()) for cell in cells])
    found = []
    for ax, top in zip(axes, SHOWN, strict=True):
        curves, ends = [], []
        for cell in cells:
            at = cell.results.sel(window=window, top=top)
            blocks, colour = at.sel(layer=slice(0, None)), looks.colour[cell.model]
            line, marker = looks.line[cell.corpus]
            shade = mixed(colour, "black", 0.25)
            depth, share = blocks["depth"].to_numpy(), 100 * blocks["detected"].to_numpy()
            low, high = (100 * blocks[f"detected_{end}"].to_numpy() for end in ("low", "high"))
            ax.fill_between(
                depth, low, high, facecolor=(*colour, 0.07), edgecolor=(*colour, 0.5), linewidth=0.5
            )
            ax.plot(depth, share, color=colour, linestyle=line, marker=marker)
            for found_below in at["detected"].where(at["layer"] < 0, drop=True).dropna("layer"):
                below = 100 * float(found_below)
                ax.axhline(below, color=colour, linestyle=":", linewidth=0.8)
                ends.append((f"{GLYPHS[marker]} {_percent(below)}", below, shade))
            chance = 100 * blocks["detected_by_chance"].to_numpy()
            ax.plot(depth, chance, color="0.6", linewidth=0.8)
            layers = [int(i) for i in blocks["layer"].to_numpy()]
            curves.append(Curve(depth, share, layers, shade, marker))
        ax.set(xlabel=DEPTH, xlim=(-0.01, 1.01))
        ax.set_ylim(bottom=0)
        ax.margins(y=0.2)
        where = "ranks first" if top == 1 else f"is among the first {top}"
        ax.set_title(f"The story's own emotion {where}")
        ax.set_ylabel(f"stories (%)\n({n} emotions)")
        label_ends(ax, ends)
        found.append((ax, curves))
    models, corpora = (dict.fromkeys(getattr(c, key) for c in cells) for key in ("model", "corpus"))
    handles: list[Any] = [
        entry(model, color=looks.colour[model], linestyle="-") for model in models
    ]
    handles += [corpus_entry(corpus, looks) for corpus in corpora]
    handles += [
        entry("peak: layer and share", marker="o", **RING),
        Patch(facecolor="0.93", edgecolor="0.6", label="95 % interval over emotions"),
        entry("embedding output, with its share", linestyle=":", linewidth=0.8),
        entry("chance", linestyle="-", color="0.6", linewidth=0.8),
    ]
    figure.legend(handles=handles, ncols=4, loc="outside lower left")
    settle(figure, f"A story's own emotion, by vectors from other topics; window {window}")
    for ax, curves in found:
        label_peaks(ax, curves, _percent)
    return figure


def _percent(value: float) -> str:
    return f"{value:.1f} %" if np.isfinite(value) else "none"
