"""From story vectors to emotion means, the neutral basis and contrast vectors.

The array functions work on one window and layer; `contrast` wraps them for labelled data. All
arithmetic is float64. A story without a token in the window is NaN and left out; an emotion without
any story left stays NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float64
from numpy import ndarray

from analysis.geometry import NotEnough, centred
from analysis.resampling import Units, UnitSums
from analysis.variance import Design, group_sums

ContrastKind = Literal["mean-centered", "neutral-pca", "both"]

PIECE_BYTES = 1 << 22
"""Vectors reduced at once."""

Vectors = Float64[ndarray, "emotion d_model"]
Basis = Float64[ndarray, "component d_model"]
OnBlock = Callable[[slice, Float64[ndarray, "text d_model"], Bool[ndarray, " text"]], None]
"""Takes the rows of a block, its vectors, and which of them are there."""


def neutral_basis(
    x_ND: Float64[ndarray, "text d_model"], variance: float = 0.5
) -> tuple[Basis, float]:
    """Return the leading directions of the neutral texts, and the variance they explain.

    Full SVD of the column-centred matrix; the fewest right singular vectors that explain at least
    `variance` of the total.

    Args:
        x_ND: neutral texts' story vectors; NaN rows are left out.
        variance: share of the variance to explain, in (0, 1).

    Raises:
        NotEnough: fewer than two neutral texts, or texts that do not vary.
    """
    x_ND = x_ND[np.isfinite(x_ND).all(axis=1)]
    if len(x_ND) < 2:
        raise NotEnough(f"a neutral basis needs at least 2 neutral texts, {len(x_ND)} are there")
    _, s_K, v_KD = np.linalg.svd(x_ND - x_ND.mean(axis=0), full_matrices=False)
    total = float((s_K**2).sum())
    if total == 0:
        raise NotEnough("the neutral texts' vectors are all the same")
    explained_K = np.cumsum(s_K**2) / total
    k = int(np.searchsorted(explained_K, variance)) + 1
    return v_KD[:k], float(explained_K[k - 1])


def contrast_vectors(u_ED: Vectors, basis_KD: Basis | None, kind: ContrastKind) -> Vectors:
    """Return one contrast of emotion means.

    Args:
        u_ED: emotion means; NaN rows stay NaN and do not enter the mean over emotions.
        basis_KD: neutral basis (orthonormal rows); may be None for `mean-centered`.
        kind: `mean-centered` subtracts the mean over emotions, `neutral-pca` the projection on
            the basis, `both` first the one, then the other.

    Raises:
        ValueError: `basis_KD` is None for a kind that needs it.
    """
    out_ED = u_ED
    if kind in ("mean-centered", "both"):
        out_ED = centred(out_ED)
    if kind in ("neutral-pca", "both"):
        if basis_KD is None:
            raise ValueError(f"contrast {kind!r} needs a neutral basis")
        out_ED = out_ED - (out_ED @ basis_KD.T) @ basis_KD
    return out_ED


@dataclass(frozen=True)
class LayerVectors:
    """One window and layer of a cell, reduced over its stories.

    Attributes:
        u_ED: emotion means, NaN where an emotion has no story with a token in the window.
        neutral_ND: the neutral texts' vectors.
        halves_SHED: emotion means over either half of the stories, for each split.
        units: what the bootstrap over stories draws; none where none were asked for.
        unit_sum_UD: sums of story vectors by unit.
        unit_count_U: stories behind them.
    """

    u_ED: Vectors
    neutral_ND: Float64[ndarray, "text d_model"]
    halves_SHED: Float64[ndarray, "split half emotion d_model"]
    units: Units
    unit_sum_UD: Float64[ndarray, "unit d_model"]
    unit_count_U: Float64[ndarray, " unit"]


def layer_vectors(
    residual: xr.DataArray,
    emotion: Sequence[str],
    emotions: Sequence[str],
    first_half_SN: Bool[ndarray, "split text"] | None = None,
    on_block: OnBlock | None = None,
    units: Units | None = None,
) -> LayerVectors:
    """Reduce one window and layer over its stories, read block by block.

    Args:
        residual: story vectors [text, d_model] of one window and layer.
        emotion: emotion of each text, "" for a neutral text.
        emotions: emotions in the wanted order.
        first_half_SN: for each split, which texts are in its first half; none when None.
        on_block: given each block as it is read, for whatever else is to be reduced.
        units: groups of stories to be summed for the bootstrap; none when None.
    """
    row_of = {name: row for row, name in enumerate(emotions)}
    rows_N = np.array([row_of.get(name, -1) for name in emotion])
    is_neutral_N = np.array([name == "" for name in emotion])
    if first_half_SN is None:
        first_half_SN = np.zeros((0, len(rows_N)), dtype=bool)
    groups_GN = np.concatenate([np.ones((1, len(rows_N)), dtype=bool), first_half_SN])
    n_groups, n_emotions = len(groups_GN), len(emotions)
    units = units or Units(np.full(len(rows_N), -1), np.zeros(0, dtype=int))
    by_unit = UnitSums(units, residual.sizes["d_model"])
    sums_KD = np.zeros((n_groups * n_emotions, residual.sizes["d_model"]))
    counts_K = np.zeros(n_groups * n_emotions)
    neutral = []
    for span, x_ND in pieces(residual):
        there_N = np.asarray(np.isfinite(x_ND).all(axis=1))
        if on_block is not None:
            on_block(span, x_ND, there_N)
        by_unit.add(span, x_ND, there_N)
        here_N = rows_N[span]
        group, text = np.nonzero(groups_GN[:, span] & (there_N & (here_N >= 0)))
        keys, place = np.unique(group * n_emotions + here_N[text], return_inverse=True)
        sums_KD[keys] += group_sums(x_ND, place, len(keys), text)
        counts_K[keys] += np.bincount(place, minlength=len(keys))
        neutral.append(x_ND[is_neutral_N[span]])
    sums_GED = sums_KD.reshape(n_groups, n_emotions, -1)
    counts_GE = counts_K.reshape(n_groups, n_emotions)
    halves_SHED = np.stack([sums_GED[1:], sums_GED[:1] - sums_GED[1:]], axis=1)
    counts_SHE = np.stack([counts_GE[1:], counts_GE[:1] - counts_GE[1:]], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        halves_SHED /= counts_SHE[..., None]
        u_ED = sums_GED[0] / counts_GE[0, :, None]
    halves_SHED[counts_SHE == 0] = np.nan
    return LayerVectors(
        u_ED, np.concatenate(neutral), halves_SHED, units, by_unit.sum_UD, by_unit.count_U
    )


def story_halves(design: Design, n_splits: int, seed: int) -> Bool[ndarray, "split text"]:
    """Return, for each of some random splits, which stories are in the first half.

    Each emotion's topics are halved, all stories of a topic on one side: they come from one prompt,
    often from one reply, and would make the halves more alike than two corpora. Of an odd number,
    the larger half is random; of an emotion with a single topic its stories are halved.
    """
    rng = np.random.default_rng(seed)
    first_half_SN = np.zeros((n_splits, len(design.pair_N)), dtype=bool)
    for emotion in range(design.n_emotions):
        pairs = np.flatnonzero(design.emotion_P == emotion)
        stories = np.flatnonzero(np.isin(design.pair_N, pairs))
        groups = design.pair_N[stories] if len(pairs) > 1 else np.arange(len(stories))
        distinct = np.unique(groups)
        for split in range(n_splits):
            n = (len(distinct) + int(rng.integers(2))) // 2
            chosen = rng.permutation(distinct)[:n]
            first_half_SN[split, stories[np.isin(groups, chosen)]] = True
    return first_half_SN


def emotion_names(cell: xr.Dataset) -> list[str]:
    """Return a cell's emotions in order of first appearance."""
    return list(dict.fromkeys(str(e) for e in cell["emotion"].to_numpy() if e != ""))


def contrast(
    cell: xr.Dataset,
    kind: ContrastKind = "both",
    window: str = "no-first",
    layers: Sequence[int] | None = None,
    neutral_variance: float = 0.5,
) -> xr.DataArray:
    """Return a cell's contrast vectors.

    Args:
        cell: a cell as `store.open_cell` gives it.
        kind: `mean-centered`, `neutral-pca` or `both`.
        window: token window.
        layers: layers wanted; all of the cell's when None.
        neutral_variance: share of variance of the neutral basis.

    Returns:
        Float64 [layer, emotion, d_model], in units of the residual stream.
    """
    labels = [str(e) for e in cell["emotion"].to_numpy()]
    emotions = emotion_names(cell)
    chosen = [int(i) for i in cell["layer"].to_numpy()] if layers is None else list(layers)
    out = []
    for layer in chosen:
        residual = cell["residual_mean"].sel(window=window, layer=layer)
        found = layer_vectors(residual, labels, emotions)
        basis = None
        if kind != "mean-centered":
            basis, _ = neutral_basis(found.neutral_ND, neutral_variance)
        out.append(contrast_vectors(found.u_ED, basis, kind))
    return xr.DataArray(
        np.stack(out),
        dims=("layer", "emotion", "d_model"),
        coords={"layer": chosen, "emotion": emotions},
        name="contrast",
        attrs={"contrast": kind, "window": window, "neutral_variance": neutral_variance},
    )


def pieces(
    residual: xr.DataArray,
) -> Iterator[tuple[slice, Float64[ndarray, "text d_model"]]]:
    """Yield the texts in float64, a piece at a time that stays in a processor's cache."""
    n, d_model = residual.sizes["text"], residual.sizes["d_model"]
    chunks = residual.encoding.get("preferred_chunks") or residual.encoding.get("chunks")
    size = (chunks["text"] if isinstance(chunks, dict) else chunks[0]) if chunks else 1024
    step = max(1, PIECE_BYTES // (8 * d_model))
    for first in range(0, n, size):
        stored = residual.isel(text=slice(first, min(n, first + size))).to_numpy()
        for start in range(0, len(stored), step):
            piece = stored[start : start + step].astype(np.float64)
            yield slice(first + start, first + start + len(piece)), piece
