"""What the tables are made from: the results of cells, and how rows are named and ordered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

PREFERRED_WINDOW = "no-first"
FINGERPRINT_DIGITS = 16
"""Hexadecimal digits of the analysis' fingerprint in each row of a table."""


@dataclass(frozen=True)
class CellResults:
    """A cell's results with the fingerprint that made them.

    Attributes:
        model: that read.
        corpus: that was read.
        results: as `analysis.cell.join_layers` gives them.
        fingerprint: of the analysis.
        words: what the corpus' words give, as `analysis.baselines.corpus_baselines` returns it.
        twin: name of the model of the same configuration with random weights, where there is one.
        writer: name of the model that wrote the corpus, where that is known.
    """

    model: str
    corpus: str
    results: xr.Dataset
    fingerprint: str
    words: xr.Dataset | None = None
    twin: str | None = None
    writer: str | None = None


def labelled(frame: pd.DataFrame, cell: CellResults) -> pd.DataFrame:
    """Name each row's cell and the analysis that it comes from."""
    return frame.assign(
        model=cell.model, corpus=cell.corpus, fingerprint=cell.fingerprint[:FINGERPRINT_DIGITS]
    )


def ordered(
    table: pd.DataFrame, cells: list[CellResults], keys: list[str], last: str = "layer"
) -> pd.DataFrame:
    """Order rows as the manifest does: cells, then each key in its own order, then layers."""
    order = {(cell.model, cell.corpus): i for i, cell in enumerate(cells)}
    rank = pd.DataFrame(index=table.index)
    rank["cell"] = [order[key] for key in zip(table["model"], table["corpus"], strict=True)]
    for key in [*keys, last]:
        values = table[key]
        rank[key] = values if values.dtype.kind in "if" else pd.factorize(np.asarray(values))[0]
    return table.loc[rank.sort_values(list(rank.columns)).index].reset_index(drop=True)


def without_twins(cells: list[CellResults]) -> list[CellResults]:
    """Leave out models with random weights whose trained counterpart reads the same corpus."""
    twins = {(cell.twin, cell.corpus) for cell in cells if cell.twin is not None}
    return [cell for cell in cells if (cell.model, cell.corpus) not in twins]


def preferred_window(windows: list[str]) -> str:
    """Return the window that is shown where one is: `no-first` where it was kept, else the first.

    A mean over all tokens may be mostly the first token's.
    """
    return PREFERRED_WINDOW if PREFERRED_WINDOW in windows else windows[0]
