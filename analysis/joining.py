"""Tables that were made model by model, put together as if they had been made at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.claims import CLAIMS
from analysis.results import CellResults


def join_models(tables: Sequence[pd.DataFrame], cells: Sequence[CellResults]) -> pd.DataFrame:
    """Return the rows of all models: by claim, where they have one, and then as the cells come.

    Args:
        tables: of one kind, each with all rows of some models.
        cells: all of them, in order.
    """
    filled = [table for table in tables if len(table)] or list(tables[:1])
    table = pd.concat(filled, ignore_index=True)
    place = {(cell.model, cell.corpus): i for i, cell in enumerate(cells)}
    claim = {claim.name: i for i, claim in enumerate(CLAIMS)}
    rank = [
        [place[key] for key in zip(table["model"], table[corpus], strict=True)]
        if corpus == "corpus"
        else [place.get(key, -1) for key in zip(table["model"], table[corpus], strict=True)]
        for corpus in ("corpus", "corpus_b")
        if corpus in table
    ]
    if "claim" in table:
        rank.insert(0, [claim[name] for name in table["claim"]])
    return table.loc[np.lexsort(rank[::-1])].reset_index(drop=True)
