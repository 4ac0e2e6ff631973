"""Reads some texts of a cell again, in a child process, and compares them with what is stored.

Another batch moves a residual's last bits, so what is asked is whether the vectors are close.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from engine.reading.reader import OnEvent
from engine.reading.shards import read_texts, reader_of
from store.corpus import read_corpus
from store.places import place, zarr_store


def reread_texts(job: dict[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Read texts again and say how far their vectors are from the stored ones.

    Args:
        job: as `engine.reading.shards.read_shard` takes it, with `rows`, the numbers of the texts,
            in place of `shard`, and `bound`.
        on_event: called with {texts, tokens} after each forward pass.

    Returns:
        `worst`, the largest relative L2 deviation of a text, window and layer, and `deviating`: of
        each text beyond the bound the worst place, as row, window, layer, error and what is wrong.
    """
    rows = job["rows"]
    corpus = read_corpus(Path(job["corpus"])).texts
    block = read_texts(reader_of(job), [corpus[row] for row in rows], job["extraction"], on_event)
    store = zarr_store(place(job["residuals"]), read_only=True)
    cell = xr.open_zarr(store, consolidated=False, chunks=None).isel(text=rows)
    error_NWL = relative_deviation(block.residual_mean, cell["residual_mean"].to_numpy())
    counts_differ_N = cell["text_tokens"].to_numpy() != block.text_tokens
    deviating = []
    for n in np.flatnonzero(counts_differ_N | ~(error_NWL <= job["bound"]).all(axis=(1, 2))):
        window, layer = np.unravel_index(int(np.nanargmax(error_NWL[n])), error_NWL[n].shape)
        stored = int(cell["text_tokens"].to_numpy()[n])
        deviating.append(
            {
                "row": rows[int(n)],
                "window": str(cell["window"].to_numpy()[window]),
                "layer": int(cell["layer"].to_numpy()[layer]),
                "error": float(error_NWL[n, window, layer]),
                "tokens": [stored, int(block.text_tokens[n])] if counts_differ_N[n] else None,
            }
        )
    return {"worst": float(np.nanmax(error_NWL, initial=0.0)), "deviating": deviating}


def relative_deviation(
    again_NWLD: NDArray[np.float32], stored_NWLD: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the L2 norm of the difference over that of what is stored, [text, window, layer].

    0 where neither has a number, infinity where one of them has none.
    """
    again, stored = again_NWLD.astype(np.float64), stored_NWLD.astype(np.float64)
    length = np.linalg.norm(stored, axis=-1)
    distance = np.linalg.norm(again - stored, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(distance == 0, 0.0, distance / length)
    nothing = np.isnan(again).all(axis=-1) & np.isnan(stored).all(axis=-1)
    return np.where(nothing, 0.0, np.where(np.isnan(error), np.inf, error))
