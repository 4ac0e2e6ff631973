"""What compares cells: one model on two corpora, two models on one corpus, from Gram matrices.

Only emotions that both cells have in a window are compared, in every number here; their Gram
matrices are centred again over those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64
from numpy import ndarray

from analysis.geometry import correlate
from analysis.results import FINGERPRINT_DIGITS, CellResults
from analysis.similarity import MIN_EMOTIONS, cka_units

Units = dict[str, Float64[ndarray, "layer ee"]]
"""What makes each kind of CKA by a product, by the name of its column."""

CHOICES = ("window", "contrast")
KINDS = {"cka": False, "cka_debiased": True}
FINGERPRINTS = ("fingerprint", "fingerprint_b")

AT_ONCE = 8
"""Cells on either side whose matrices are held at once: some 15 MB each."""

MOST_ROWS = 2_000_000
"""Pairs of layers of two models beyond which only those that correspond are kept."""


@dataclass(frozen=True)
class _Pair:
    """Two cells that share a model or a corpus, seen by one choice.

    Attributes:
        order: where it comes in a table.
        a: the earlier cell.
        b: the later cell.
        chosen: window and contrast.
        units: of both, over the emotions that both have.
        n_emotions: how many these are.
    """

    order: tuple[int, ...]
    a: CellResults
    b: CellResults
    chosen: dict[str, str]
    units: tuple[Units, Units]
    n_emotions: int

    def end(self) -> dict[str, Any]:
        """Return the last columns of its rows."""
        prints = [cell.fingerprint[:FINGERPRINT_DIGITS] for cell in (self.a, self.b)]
        return {"n_emotions": self.n_emotions, **dict(zip(FINGERPRINTS, prints, strict=True))}


def corpora_table(cells: list[CellResults]) -> pd.DataFrame:
    """Return CKA between two corpora at each layer of each model that read both."""
    frames = []
    for pair in _pairs(cells, lambda cell: cell.model):
        first, second = pair.units
        frame = {
            "model": pair.a.model,
            "corpus": pair.a.corpus,
            "corpus_b": pair.b.corpus,
            **pair.chosen,
            "layer": pair.a.results["layer"].to_numpy(),
            **{kind: (first[kind] * second[kind]).sum(axis=1) for kind in KINDS},
            **pair.end(),
        }
        frames.append((pair.order, pd.DataFrame(frame)))
    columns = [*("model", "corpus", "corpus_b"), *CHOICES, "layer", *KINDS]
    return _joined(frames, [*columns, "n_emotions", *FINGERPRINTS])


def models_table(cells: list[CellResults], most: int = MOST_ROWS) -> pd.DataFrame:
    """Return CKA between layers of two models that read the same corpus.

    Of all their layers, or, where that would be more than `most` rows, of those that correspond:
    for each layer of the first model that of the second at the nearest depth, and the one that is
    most like it (debiased).
    """
    whole = n_layer_pairs(cells) <= most
    frames = []
    for pair in _pairs(cells, lambda cell: cell.corpus):
        first, second = pair.units
        grids = {kind: first[kind] @ second[kind].T for kind in KINDS}
        i, j = (
            np.divmod(np.arange(grids["cka"].size), grids["cka"].shape[1])
            if whole
            else _corresponding(pair, grids["cka_debiased"])
        )
        layers, layers_b = (cell.results["layer"].to_numpy() for cell in (pair.a, pair.b))
        frame = {
            "corpus": pair.a.corpus,
            "model": pair.a.model,
            "model_b": pair.b.model,
            **pair.chosen,
            "layer": layers[i],
            "layer_b": layers_b[j],
            **{kind: grid[i, j] for kind, grid in grids.items()},
            **pair.end(),
        }
        frames.append((pair.order, pd.DataFrame(frame)))
    columns = [*("corpus", "model", "model_b"), *CHOICES, *("layer", "layer_b"), *KINDS]
    return _joined(frames, [*columns, "n_emotions", *FINGERPRINTS])


def grids_table(cells: list[CellResults]) -> pd.DataFrame:
    """Return how alike the CKA grids of two corpora are: Pearson's r over pairs of blocks.

    The embedding output and the diagonal are left out.
    """
    frames = []
    for pair in _pairs(cells, lambda cell: cell.model):
        n_embeddings = int((pair.a.results["layer"] < 0).sum())
        found: dict[str, Any] = {}
        for kind in KINDS:
            blocks = [units[kind][n_embeddings:] for units in pair.units]
            grids = [unit @ unit.T for unit in blocks]
            sides = [grid[np.triu_indices(len(grid), k=1)] for grid in grids]
            found[f"{kind}_r"] = correlate(sides[0], sides[1]).r
            apart = np.abs(sides[0] - sides[1])
            there = np.isfinite(apart)
            found[f"{kind}_difference"] = float(apart[there].mean()) if there.any() else np.nan
        names = {"model": pair.a.model, "corpus": pair.a.corpus, "corpus_b": pair.b.corpus}
        row = {**names, **pair.chosen, **found, **pair.end()}
        frames.append((pair.order, pd.DataFrame([row])))
    figures = [f"{kind}_{what}" for kind in KINDS for what in ("r", "difference")]
    columns = [*("model", "corpus", "corpus_b"), *CHOICES, *figures, "n_emotions"]
    return _joined(frames, [*columns, *FINGERPRINTS])


def _joined(frames: list[tuple[tuple[int, ...], pd.DataFrame]], columns: list[str]) -> pd.DataFrame:
    if not frames:
        return pd.DataFrame(columns=columns)
    ordered = [frame for _, frame in sorted(frames, key=lambda one: one[0])]
    return pd.concat(ordered, ignore_index=True)[columns]


def n_layer_pairs(cells: list[CellResults]) -> int:
    """Return how many rows `models_table` would have of all layers."""
    return sum(
        a.results.sizes["layer"] * b.results.sizes["layer"] * len(_choices(a, b))
        for a, b in combinations(cells, 2)
        if a.corpus == b.corpus
    )


def _corresponding(pair: _Pair, grid: Float64[ndarray, "layer layer_b"]) -> tuple[ndarray, ndarray]:
    """Return positions of pairs of layers: at the nearest depth, and most alike; none twice."""
    depth, depth_b = (cell.results["depth"].to_numpy() for cell in (pair.a, pair.b))
    nearest = np.abs(depth[:, None] - depth_b).argmin(axis=1)
    known = np.flatnonzero(np.isfinite(grid).any(axis=1))
    alike = np.where(np.isfinite(grid), grid, -np.inf).argmax(axis=1)[known]
    rows = np.concatenate([np.arange(len(grid)), known])
    both = np.stack([rows, np.concatenate([nearest, alike])], axis=1)
    i, j = np.unique(both, axis=0).T
    return i, j


def _pairs(cells: list[CellResults], shared: Callable[[CellResults], str]) -> Iterator[_Pair]:
    """Yield pairs of cells that share something, with each choice that both have.

    They come in an order in which few matrices have to be held.
    """
    groups: dict[str, list[int]] = {}
    for i, cell in enumerate(cells):
        groups.setdefault(shared(cell), []).append(i)
    for group in groups.values():
        blocks = [group[at : at + AT_ONCE] for at in range(0, len(group), AT_ONCE)]
        for block, other in combinations_with_replacement(blocks, 2):
            pairs = [(i, j) for i in block for j in other if i < j]
            wanted: dict[tuple[str, str], list[tuple[int, int, int]]] = {}
            for i, j in pairs:
                for number, choice in enumerate(_choices(cells[i], cells[j])):
                    wanted.setdefault(choice, []).append((i, j, number))
            for choice, some in wanted.items():
                yield from _seen_by(cells, dict(zip(CHOICES, choice, strict=True)), some)


def _seen_by(
    cells: list[CellResults], chosen: dict[str, str], pairs: list[tuple[int, int, int]]
) -> Iterator[_Pair]:
    """Yield pairs by one choice; each cell's matrices are made once for the same emotions."""
    present: dict[int, list[str]] = {}
    by_common: dict[tuple[str, ...], list[tuple[int, int, int]]] = {}
    for pair in pairs:
        i, j, _ = pair
        for k in (i, j):
            if k not in present:
                present[k] = _present(cells[k], chosen)
        others = set(present[j])
        common = tuple(name for name in present[i] if name in others)
        by_common.setdefault(common, []).append(pair)
    for common, some in by_common.items():
        made: dict[int, Units] = {}
        for i, j, number in some:
            for k in (i, j):
                if k not in made:
                    made[k] = _units(cells[k], chosen, common)
            units = made[i], made[j]
            yield _Pair((i, j, number), cells[i], cells[j], chosen, units, len(common))


def _choices(a: CellResults, b: CellResults) -> list[tuple[str, str]]:
    """Return windows and contrasts that both cells have, in the first one's order."""
    return [
        (window, contrast)
        for window in _both(a, b, "window")
        for contrast in _both(a, b, "contrast")
    ]


def _both(a: CellResults, b: CellResults, name: str) -> list[str]:
    others = {str(value) for value in b.results[name].to_numpy()}
    return [str(value) for value in a.results[name].to_numpy() if str(value) in others]


def _present(cell: CellResults, chosen: dict[str, str]) -> list[str]:
    """Return the emotions that have a vector in every layer that has any."""
    has_LE = np.isfinite(cell.results["gram"].sel(chosen).to_numpy()).any(axis=2)
    there = has_LE[has_LE.any(axis=1)].all(axis=0)
    return [str(name) for name in cell.results["emotion"].to_numpy()[there]]


def _units(cell: CellResults, chosen: dict[str, str], emotions: tuple[str, ...]) -> Units:
    at = {str(name): i for i, name in enumerate(cell.results["emotion"].to_numpy())}
    rows = [at[name] for name in emotions]
    gram_LEE = cell.results["gram"].sel(chosen).to_numpy()[:, rows][:, :, rows]
    return {
        kind: cka_units(gram_LEE, debiased)
        if len(emotions) >= MIN_EMOTIONS[debiased]
        else np.full((len(gram_LEE), 1), np.nan)
        for kind, debiased in KINDS.items()
    }
