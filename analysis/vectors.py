"""One cell's emotion vectors and directions as they are handed on: tensors by name, and figures.

Only blocks are handed on, never the embedding output: other programs read layer -1 as the last
block. What has no vector is left out and named; a tensor never holds NaN.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float32
from numpy import ndarray

from analysis.contrasts import ContrastKind, contrast, emotion_names
from analysis.directions import ESTIMATORS, MIN_RATED
from analysis.geometry import NotEnough
from analysis.settings import AXES
from analysis.steering import NoDirection, token_norms

LAYER = "layer"
TOKEN_NORM = "token_norm"
EMOTION = "emotion."
DIRECTION = "direction."
"""How tensors are named: `layer`, `token_norm`, `emotion.<emotion>` and
`direction.<norms>.<axis>.<estimator>`. An emotion may hold dots, the last two parts may not."""

ANALYSED: dict[ContrastKind, str] = {
    "both": "neutral-pca",
    "neutral-pca": "neutral-pca",
    "mean-centered": "mean-centered",
}
"""Contrast of the vectors -> the contrast under which results hold their directions, which are
taken from centred vectors anyway."""

UNRATED_ESTIMATORS = ("component",)
"""Estimators whose directions do not carry the ratings. Those of the others are sums of the emotion
vectors weighted by the ratings: with both in hand, the ratings can be solved for."""

Tensor = Float32[ndarray, "layer d_model"]


@dataclass(frozen=True)
class CellVectors:
    """What is handed on of one cell.

    Attributes:
        tensors: float32 [layer, d_model] by name, in the units of the window; `layer`, int64
            [layer]; `token_norm`, float32 [layer], the unit of strength of `emovec steer`, in
            residual stream units.
        emotions: that have a vector.
        left_out: by the name of a tensor that is not there, why.
        figures: for each layer, figures by name; None where a number is missing.
    """

    tensors: dict[str, ndarray]
    emotions: list[str]
    left_out: dict[str, str]
    figures: list[dict[str, Any]]


def cell_vectors(
    cell: xr.Dataset,
    results: xr.Dataset | None,
    kind: ContrastKind,
    window: str,
    layers: Sequence[int],
    neutral_variance: float,
    shareable: Collection[str],
) -> CellVectors:
    """Return a cell's emotion vectors, and its directions where it was analysed.

    Args:
        cell: a cell as `store.open_cell` gives it.
        results: as `store.open_analysis` gives them, with the contrast that ANALYSED names; None
            for emotions alone.
        kind: contrast of the emotion vectors.
        window: token window.
        layers: blocks, 0-based.
        neutral_variance: share of variance of the neutral basis.
        shareable: norms whose ratings may be passed on; of others, only directions that do not
            carry the ratings are handed on.

    Raises:
        NotEnough: too few neutral texts for the contrast, no emotion with a vector, or no text
            with a token beside its first.
    """
    tensors, left_out = _emotions(cell, kind, window, layers, neutral_variance)
    norm_EL = np.array([np.linalg.norm(x.astype(np.float64), axis=1) for x in tensors.values()])
    try:
        token_norm_L = token_norms(cell, layers)
    except NoDirection as error:
        raise NotEnough(str(error)) from None
    figures = _lengths(cell, layers)
    for row, token_norm, norm in zip(
        figures, token_norm_L, np.median(norm_EL, axis=0), strict=True
    ):
        row.update({TOKEN_NORM: float(token_norm), "emotion_norm": float(norm)})
    emotions = [name.removeprefix(EMOTION) for name in tensors]
    if results is not None:
        chosen = results.sel(contrast=ANALYSED[kind], window=window, layer=list(layers))
        found, without = _directions(chosen, shareable)
        tensors, left_out = {**tensors, **found}, {**left_out, **without}
        for at, row in enumerate(figures):
            row.update(_found(chosen.isel(layer=at)))
    by_layer: dict[str, ndarray] = {
        LAYER: np.array(layers, dtype=np.int64),
        TOKEN_NORM: token_norm_L.astype(np.float32),
    }
    return CellVectors({**by_layer, **tensors}, emotions, left_out, figures)


def _lengths(cell: xr.Dataset, layers: Sequence[int]) -> list[dict[str, Any]]:
    """Return how long a token's residual is at each layer but for each text's longest.

    Args:
        cell: `mean_norm`, `peak_norm` [text, layer] and `text_tokens` [text] of a cell's store.
        layers: layers wanted.

    Returns:
        For each layer: `layer`, `depth` and `token_norm_without_longest`, the mean L2 norm of the
        residuals of all tokens but each text's longest, None where no text has two. Residual
        stream units.
    """
    n_N = np.minimum(cell["text_tokens"].to_numpy(), cell.attrs["extraction"]["max_tokens"])
    n_N = n_N.astype(np.float64)
    rows = []
    for layer in layers:
        here = cell[["mean_norm", "peak_norm"]].sel(layer=layer)
        total_N = here["mean_norm"].to_numpy().astype(np.float64) * n_N
        rest = float((total_N - here["peak_norm"].to_numpy()).sum())
        others = float((n_N - 1).sum())
        rows.append(
            {
                "layer": int(layer),
                "depth": layer / int(cell.attrs["n_layers"]),
                "token_norm_without_longest": rest / others if others else None,
            }
        )
    return rows


def _emotions(
    cell: xr.Dataset,
    kind: ContrastKind,
    window: str,
    layers: Sequence[int],
    neutral_variance: float,
) -> tuple[dict[str, ndarray], dict[str, str]]:
    """Return emotion vectors by tensor name, and why others are missing."""
    by_layer = []
    for layer in layers:  # one at a time in float64
        try:
            found = contrast(cell, kind, window, [layer], neutral_variance)
        except NotEnough as error:
            raise NotEnough(f"window {window}, layer {layer}: {error}") from None
        by_layer.append(found.to_numpy()[0].astype(np.float32))
    x_ELD = np.stack(by_layer, axis=1)
    there_E = np.isfinite(x_ELD).all(axis=(1, 2))
    if not there_E.any():
        raise NotEnough(f"window {window}: no story has a token in it")
    tensors: dict[str, ndarray] = {}
    left_out = {}
    for emotion, x_LD, there in zip(emotion_names(cell), x_ELD, there_E, strict=True):
        if there:
            tensors[EMOTION + emotion] = np.ascontiguousarray(x_LD)
        else:
            left_out[EMOTION + emotion] = f"no story has a token in the window {window}"
    return tensors, left_out


def _directions(
    results: xr.Dataset, shareable: Collection[str]
) -> tuple[dict[str, ndarray], dict[str, str]]:
    """Return directions by tensor name, and why others are missing.

    Args:
        results: of one contrast and window, over the layers wanted.
        shareable: as for `cell_vectors`.
    """
    tensors: dict[str, ndarray] = {}
    left_out = {}
    for norms in map(str, results["norms"].to_numpy()):
        for axis in AXES:
            for estimator in ESTIMATORS:
                name = f"{DIRECTION}{norms}.{axis}.{estimator}"
                if norms not in shareable and estimator not in UNRATED_ESTIMATORS:
                    left_out[name] = f"the ratings of {norms} could be solved for from it"
                    continue
                found = results["direction"].sel(norms=norms, axis=axis, estimator=estimator)
                x_LD = found.transpose("layer", "d_model").to_numpy().astype(np.float32)
                if np.isfinite(x_LD).all():
                    tensors[name] = np.ascontiguousarray(x_LD)
                else:
                    left_out[name] = _why(results, norms)
    return tensors, left_out


def _why(results: xr.Dataset, norms: str) -> str:
    """Return why a direction could not be estimated at every layer."""
    missing = [str(why) for why in results["missing"].to_numpy() if why != ""]
    if missing:
        return missing[0]
    n = int(results["n_rated"].sel(norms=norms).min())
    if n < MIN_RATED:
        return f"{norms} rates {n} emotions with a vector, {MIN_RATED} are needed"
    return "it could not be estimated at every layer"


def _found(results: xr.Dataset) -> dict[str, Any]:
    """Return what was found at one layer of one contrast and window."""
    by_norms: dict[str, Any] = {}
    for norms in map(str, results["norms"].to_numpy()):
        here = results.sel(norms=norms)
        by_norms[norms] = {
            "n_rated": int(here["n_rated"]),
            **{axis: _axis(here, axis, paired) for paired, axis in enumerate(AXES, start=1)},
        }
    shares = results["explained_variance"]
    return {
        "pc1_variance": _number(shares.sel(component=1)),
        "pc2_variance": _number(shares.sel(component=2)),
        "n_neutral_components": _number(results["n_neutral_components"]),
        "norms": by_norms,
    }


def _axis(results: xr.Dataset, axis: str, component: int) -> dict[str, Any]:
    return {
        "component": component,
        "r": _number(abs(results["r"].sel(component=component))),
        "p": _number(results["p"].sel(component=component)),
        "p_corrected": _number(results["p_corrected"].sel(component=component)),
        "held_out_r": {
            estimator: _number(results["held_out_r"].sel(axis=axis, estimator=estimator))
            for estimator in ESTIMATORS
        },
    }


def _number(value: xr.DataArray) -> float | None:
    """Return a number, None where it is missing."""
    number = float(value)
    return number if np.isfinite(number) else None
