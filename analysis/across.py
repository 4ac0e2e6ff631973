"""What compares cells: one model on two corpora, two models on one corpus, from Gram matrices.

Only emotions that both cells have in a window are compared, in every number here; their Gram
matrices are centred again over those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float64
from numpy import ndarray

from analysis.geometry import correlate
from analysis.results import FINGERPRINT_DIGITS, CellResults
from analysis.similarity import cka_grid

GramStack = Float64[ndarray, "layer emotion emotion"]

CHOICES = ("window", "contrast")
FINGERPRINTS = ("fingerprint", "fingerprint_b")


def corpora_table(cells: list[CellResults]) -> pd.DataFrame:
    """Return CKA between two corpora at each layer of each model that read both."""
    rows = []
    for a, b, chosen in _pairs(cells, lambda cell: cell.model):
        grams = _grams(a, b, chosen)
        grids = _grids(grams)
        for at, layer in enumerate(a.results["layer"].to_numpy()):
            figures = {name: float(grid[at, at]) for name, grid in grids.items()}
            names = {"model": a.model, "corpus": a.corpus, "corpus_b": b.corpus}
            end = _end(a, b, grams)
            rows.append({**names, **chosen, "layer": int(layer), **figures, **end})
    columns = [*("model", "corpus", "corpus_b"), *CHOICES, *("layer", "cka", "cka_debiased")]
    return pd.DataFrame(rows, columns=[*columns, "n_emotions", *FINGERPRINTS])


def models_table(cells: list[CellResults]) -> pd.DataFrame:
    """Return CKA between all layers of two models that read the same corpus."""
    rows = []
    for a, b, chosen in _pairs(cells, lambda cell: cell.corpus):
        grams = _grams(a, b, chosen)
        grids = _grids(grams)
        for i, layer in enumerate(a.results["layer"].to_numpy()):
            for j, layer_b in enumerate(b.results["layer"].to_numpy()):
                figures = {name: float(grid[i, j]) for name, grid in grids.items()}
                names = {"corpus": a.corpus, "model": a.model, "model_b": b.model}
                layers = {"layer": int(layer), "layer_b": int(layer_b)}
                rows.append({**names, **chosen, **layers, **figures, **_end(a, b, grams)})
    columns = [*("corpus", "model", "model_b"), *CHOICES, *("layer", "layer_b")]
    columns += ["cka", "cka_debiased", "n_emotions"]
    return pd.DataFrame(rows, columns=[*columns, *FINGERPRINTS])


def grids_table(cells: list[CellResults]) -> pd.DataFrame:
    """Return how alike the CKA grids of two corpora are: Pearson's r over pairs of blocks.

    The embedding output and the diagonal are left out.
    """
    rows = []
    for a, b, chosen in _pairs(cells, lambda cell: cell.model):
        grams = _grams(a, b, chosen)
        n_embeddings = int((a.results["layer"] < 0).sum())
        own = [_grids((g, g)) for g in grams]
        found: dict[str, Any] = {}
        for name in ("cka", "cka_debiased"):
            blocks = [grids[name][n_embeddings:, n_embeddings:] for grids in own]
            sides = [grid[np.triu_indices(len(grid), k=1)] for grid in blocks]
            found[f"{name}_r"] = correlate(sides[0], sides[1]).r
            apart = np.abs(sides[0] - sides[1])
            there = np.isfinite(apart)
            found[f"{name}_difference"] = float(apart[there].mean()) if there.any() else np.nan
        names = {"model": a.model, "corpus": a.corpus, "corpus_b": b.corpus}
        rows.append({**names, **chosen, **found, **_end(a, b, grams)})
    figures = [f"{name}_{what}" for name in ("cka", "cka_debiased") for what in ("r", "difference")]
    columns = [*("model", "corpus", "corpus_b"), *CHOICES, *figures, "n_emotions"]
    return pd.DataFrame(rows, columns=[*columns, *FINGERPRINTS])


def _pairs(
    cells: list[CellResults], shared: Callable[[CellResults], str]
) -> Iterator[tuple[CellResults, CellResults, dict[str, str]]]:
    """Yield pairs of cells that share something, with each choice that both have."""
    for a, b in combinations(cells, 2):
        if shared(a) != shared(b):
            continue
        for window in _both(a, b, "window"):
            for contrast in _both(a, b, "contrast"):
                yield a, b, {"window": window, "contrast": contrast}


def _both(a: CellResults, b: CellResults, name: str) -> list[str]:
    others = {str(value) for value in b.results[name].to_numpy()}
    return [str(value) for value in a.results[name].to_numpy() if str(value) in others]


def _grams(a: CellResults, b: CellResults, chosen: dict[str, str]) -> tuple[GramStack, GramStack]:
    """Return both cells' Gram matrices over the emotions that both have in every layer."""
    emotions = _both(a, b, "emotion")
    first, second = (_gram(cell.results.sel(chosen), emotions) for cell in (a, b))
    there = np.ones(len(emotions), dtype=bool)
    for grams in (first, second):
        has = np.isfinite(grams).any(axis=2)
        there &= has[has.any(axis=1)].all(axis=0)
    return first[:, there][:, :, there], second[:, there][:, :, there]


def _grids(grams: tuple[GramStack, GramStack]) -> dict[str, Float64[ndarray, "layer_a layer_b"]]:
    return {
        "cka": cka_grid(grams[0], grams[1]),
        "cka_debiased": cka_grid(grams[0], grams[1], debiased=True),
    }


def _gram(results: xr.Dataset, emotions: list[str]) -> GramStack:
    at = {str(name): i for i, name in enumerate(results["emotion"].to_numpy())}
    rows = [at[name] for name in emotions]
    gram: GramStack = results["gram"].to_numpy()
    return gram[:, rows][:, :, rows]


def _end(a: CellResults, b: CellResults, grams: tuple[GramStack, GramStack]) -> dict[str, Any]:
    prints = [cell.fingerprint[:FINGERPRINT_DIGITS] for cell in (a, b)]
    named = dict(zip(FINGERPRINTS, prints, strict=True))
    return {"n_emotions": grams[0].shape[1], **named}
