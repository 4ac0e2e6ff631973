"""Tables for reading, in Markdown: r by layer with marks of significance, the peak in bold."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.tables import peaks

AXES = ("valence", "arousal")
MARKS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))


def geometry_markdown(geometry: pd.DataFrame) -> str:
    """Return a table of |r| by layer for each model, norms, contrast and axis.

    Columns are the corpora and windows. Each column's peak over the blocks is bold, by the rules of
    `analysis.tables.peaks`; `*` p < .05, `**` p < .01, `***` p < .001, each of a single layer.

    Args:
        geometry: as `analysis.tables.geometry_table` returns it.
    """
    parts = [
        "# PC1 with valence, PC2 with arousal",
        "",
        "|r| by layer; \\* p < .05, \\*\\* p < .01, \\*\\*\\* p < .001, each of a single layer, "
        "not corrected for the search over layers. The largest of the blocks is bold. `embed` is "
        "the embedding output.",
    ]
    for (model, norms, contrast), rows in geometry.groupby(
        ["model", "norms", "contrast"], sort=False
    ):
        for axis in AXES:
            title = f"## {model}: {axis}, contrast {contrast}, norms {norms}"
            parts += ["", title, "", *_table(rows, axis)]
    return "\n".join(parts) + "\n"


def _table(rows: pd.DataFrame, axis: str) -> list[str]:
    columns = list(dict.fromkeys(zip(rows["corpus"], rows["window"], strict=True)))
    best = {
        (row["corpus"], row["window"]): row["layer"]
        for row in peaks(rows.assign(valence_r=rows[f"{axis}_r"])).to_dict("records")
    }
    keys = zip(rows["layer"], rows["corpus"], rows["window"], strict=True)
    at = dict(zip(keys, rows.to_dict("records"), strict=True))
    counted = [
        f"{corpus}, {window} (n = {rows[_is(rows, corpus, window)]['n_emotions'].max()})"
        for corpus, window in columns
    ]
    lines = [_line(["layer", *counted]), _line(["---:"] * (1 + len(columns)))]
    for layer in sorted(set(rows["layer"])):
        cells = []
        for column in columns:
            if (row := at.get((layer, *column))) is None:
                cells.append("")
                continue
            text = _r(float(row[f"{axis}_r"]), float(row[f"{axis}_p"]))
            cells.append(f"**{text}**" if best.get(column) == layer else text)
        lines.append(_line(["embed" if layer == -1 else str(layer), *cells]))
    return lines


def _is(rows: pd.DataFrame, corpus: str, window: str) -> pd.Series[bool]:
    return (rows["corpus"] == corpus) & (rows["window"] == window)


def _r(r: float, p: float) -> str:
    """Return |r| without its leading zero, with escaped marks; `nan` where it is missing."""
    if r != r:
        return "nan"
    marks = next((mark for limit, mark in MARKS if p < limit), "")
    return f"{r:.2f}".removeprefix("0") + marks.replace("*", "\\*")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
