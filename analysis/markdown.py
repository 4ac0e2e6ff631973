"""Tables for reading, in Markdown: r by layer with marks of significance, the peak in bold."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.claims import CLAIMS
from analysis.geometry_table import peaks
from analysis.predicates import NO_BASELINE
from analysis.verdicts import Verdict

AXES = ("valence", "arousal")
HEADS = ("PC1 %", "valence", "PC2 %", "arousal")
MARKS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))


def geometry_markdown(geometry: pd.DataFrame) -> str:
    """Return a table by layer for each cell, contrast and norms, as the paper prints them.

    For each window the shares of variance of PC1 and PC2 and their |r| with the rating they are
    paired with. A column's peak over the blocks is bold, by the rules of `analysis.tables.peaks`;
    `*` p < .05, `**` p < .01, `***` p < .001, corrected for the search over the blocks; the
    embedding output, which is in no search, by its own p.

    Args:
        geometry: as `analysis.tables.geometry_table` returns it.
    """
    parts = [
        "# PC1 with valence, PC2 with arousal",
        "",
        "Share of variance of either component in per cent, and its |r| with the rating; "
        "\\* p < .05, \\*\\* p < .01, \\*\\*\\* p < .001, corrected for the search over blocks. "
        "The largest of the blocks is bold. `embed` is the embedding output, with its own p.",
    ]
    for (model, corpus, contrast, norms), rows in geometry.groupby(
        ["model", "corpus", "contrast", "norms"], sort=False
    ):
        n = _span(rows["n_emotions"])
        title = f"## {model} reads {corpus}: contrast {contrast}, norms {norms} (n = {n})"
        parts += ["", title, "", *_table(rows)]
    return "\n".join(parts) + "\n"


def clusters_markdown(clusters: pd.DataFrame) -> str:
    """Return the members of each k-means cluster of each cell where it peaks itself.

    For the table's first contrast and norms, the run's main ones.

    Args:
        clusters: as `analysis.peak_layers.cluster_table` returns it.
    """
    parts = [
        "# Clusters of emotions",
        "",
        "k-means of the contrast vectors in all their dimensions, at the layer where PC1 follows "
        "valence best: of 2 to 15 clusters the number with the largest mean silhouette, then ten.",
    ]
    keys = ["model", "corpus", "window", "contrast", "norms", "layer"]
    for choice in ("contrast", "norms"):
        clusters = clusters[clusters[choice] == next(iter(clusters[choice]), None)]
    for (model, corpus, window, contrast, norms, layer), rows in clusters.groupby(keys, sort=False):
        if corpus not in str(rows["peak_of"].iloc[0]).split():
            continue
        parts += [
            "",
            f"## {model} reads {corpus}: window {window}, contrast {contrast}, layer {layer} "
            f"(peak by {norms})",
        ]
        for n_clusters, some in rows.groupby("n_clusters", sort=False):
            silhouette = _decimal(float(some["silhouette"].iloc[0]))
            parts += ["", f"{n_clusters} clusters, mean silhouette {silhouette}:", ""]
            parts += [_line(["cluster", "n", "emotions"]), _line(["---:", "---:", "---"])]
            for cluster, members in some.groupby("cluster"):
                names = ", ".join(members["emotion"])
                parts.append(_line([str(cluster), str(len(members)), names]))
    return "\n".join(parts) + "\n"


def claims_markdown(summary: pd.DataFrame) -> str:
    """Return each claim with its formula, and what becomes of it in each cell.

    Args:
        summary: as `analysis.claim_tables.summary_table` returns it.
    """
    parts = [
        "# Claims",
        "",
        "Findings of arXiv 2606.26987, each under every choice of window, contrast, norms, "
        "estimator and whether a layer's largest dimensions are left out; and whether the model "
        "does better than baselines. r is what infinitely many stories under these emotions would "
        "give; what other emotions would give is in geometry.csv. A verdict turns on a choice "
        "where changing it alone turns *holds* into *fails*; a choice in brackets makes it "
        "undecided. Every verdict with its figure is in claims.csv.",
    ]
    for claim in CLAIMS:
        rows = summary[summary["claim"] == claim.name]
        rows = rows[rows["summary"] != NO_BASELINE]
        head = ["model", "corpus", "verdict", "holds", "fails", "undecided", "turns on"]
        parts += ["", f"## {claim.statement} ({claim.name})", "", f"{claim.formula}.", ""]
        if rows.empty:
            parts.append("Nothing here decides it.")
            continue
        parts += [_line([*head, "artefact", "random weights"])]
        parts.append(_line(["---"] * 3 + ["---:"] * 3 + ["---"] * 3))
        for row in rows.to_dict("records"):
            corpora = row["corpus"] + (f", {row['corpus_b']}" if row["corpus_b"] else "")
            counts = [str(row[verdict.value]) for verdict in Verdict]
            named = [row["model"], corpora, row["summary"], *counts]
            parts.append(_line([*named, row["turns_on"], row["artefact"], row["random_twin"]]))
    return "\n".join(parts) + "\n"


def _table(rows: pd.DataFrame) -> list[str]:
    windows = list(dict.fromkeys(rows["window"]))
    best = {
        (axis, str(row["window"])): row["layer"]
        for axis in AXES
        for row in peaks(rows.assign(valence_r=rows[f"{axis}_r"])).to_dict("records")
    }
    head = [f"{window}: {name}" for window in windows for name in HEADS]
    lines = [_line(["layer", *head]), _line(["---:"] * (1 + len(head)))]
    records = rows.to_dict("records")
    at = {(int(row["layer"]), str(row["window"])): row for row in records}
    for layer in sorted(set(rows["layer"])):
        cells = []
        for window in windows:
            row = at[layer, window]
            for component, axis in enumerate(AXES, start=1):
                share = float(row[f"pc{component}_variance"])
                cells.append("nan" if share != share else f"{100 * share:.0f}")
                p = row[f"{axis}_p" if layer == -1 else f"{axis}_p_corrected"]
                text = _r(float(row[f"{axis}_r"]), float(p))
                cells.append(f"**{text}**" if best.get((axis, window)) == layer else text)
        lines.append(_line(["embed" if layer == -1 else str(layer), *cells]))
    return lines


def _span(numbers: pd.Series[int]) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return f"{low}" if low == high else f"{low} to {high}"


def _decimal(value: float) -> str:
    """Return a number to two places without its leading zero."""
    return f"{value:.2f}".replace("0.", ".", 1)


def _r(r: float, p: float) -> str:
    """Return |r| without its leading zero, with escaped marks; `nan` where it is missing."""
    if r != r:
        return "nan"
    marks = next((mark for limit, mark in MARKS if p < limit), "")
    return _decimal(r) + marks.replace("*", "\\*")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
