"""What is added to a residual stream: unit directions of every layer, and the length of a token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float32, Float64
from numpy import ndarray

from analysis.contrasts import ContrastKind, contrast
from analysis.directions import ESTIMATORS, MIN_RATED, folds, held_out_r, rating_directions
from analysis.settings import AXES


class NoDirection(Exception):
    """A direction cannot be had from a cell; the message names it and says why."""


@dataclass(frozen=True)
class SteeringDirections:
    """Unit directions of every layer.

    Attributes:
        rows: of each name.
        mixtures: controls: random mixtures of the emotions' vectors.
        held_out: by axis, r of the ratings with emotions that its direction never saw.
    """

    rows: dict[str, Float32[ndarray, "layer d_model"]]
    mixtures: Float32[ndarray, "mixture layer d_model"]
    held_out: dict[str, Float64[ndarray, " layer"]]


def steering_directions(
    cell: xr.Dataset,
    names: Sequence[str],
    rating_EA: Float64[ndarray, "emotion axis"],
    layers: Sequence[int],
    *,
    kind: ContrastKind = "both",
    window: str = "no-first",
    estimator: str = "covariance",
    neutral_variance: float = 0.5,
    mixtures: int = 0,
    seed: int = 0,
) -> SteeringDirections:
    """Return unit directions of every layer.

    Args:
        cell: story vectors as `store.open_cell` gives them.
        names: `valence`, `arousal`, or emotions of the cell.
        rating_EA: valence and arousal of the cell's emotions, in their order, NaN where unrated.
        layers: wanted layers.
        kind: contrast of the emotions' vectors.
        window: token window.
        estimator: of `valence` and `arousal` (`analysis.directions`).
        neutral_variance: share of variance of the neutral basis.
        mixtures: how many; the same weights of the emotions at every layer.
        seed: decides mixtures, and which emotions are held out together.

    Raises:
        NoDirection: the cell has no such emotion, or too few are rated, or a vector is zero.
    """
    contrasts = contrast(cell, kind, window, layers, neutral_variance)
    emotions = [str(emotion) for emotion in contrasts["emotion"].to_numpy()]
    if unknown := [name for name in names if name not in (*AXES, *emotions)]:
        raise NoDirection(f"the cell has no emotion {unknown[0]!r}")
    x_LED = contrasts.to_numpy()
    found_LAD = np.full((len(layers), len(AXES), x_LED.shape[2]), np.nan)
    held_LA = np.full((len(layers), len(AXES)), np.nan)
    if set(names) & set(AXES):
        rated = int(np.isfinite(rating_EA).all(axis=1).sum())
        if rated < MIN_RATED:
            raise NoDirection(
                f"a direction of ratings needs {MIN_RATED} rated emotions, {rated} are rated"
            )
        paired, at = range(len(AXES)), ESTIMATORS.index(estimator)
        fold_E = folds(emotions, seed)
        for layer, x_ED in enumerate(x_LED):
            found_LAD[layer] = rating_directions(x_ED, rating_EA, paired)[:, at]
            held_LA[layer] = held_out_r(x_ED @ x_ED.T, rating_EA, paired, fold_E)[:, at]
    out = {}
    for name in names:
        rows_LD = found_LAD[:, AXES.index(name)] if name in AXES else x_LED[:, emotions.index(name)]
        length_L = np.linalg.norm(rows_LD, axis=1)
        if not (length_L > 0).all():  # NaN is not
            layer = layers[int(np.argmin(length_L > 0))]
            raise NoDirection(f"{name} has no direction at layer {layer} under window {window!r}")
        out[name] = (rows_LD / length_L[:, None]).astype(np.float32)
    held = {axis: held_LA[:, at] for at, axis in enumerate(AXES) if axis in names}
    return SteeringDirections(out, _mixtures(x_LED, mixtures, seed), held)


def _mixtures(
    x_LED: Float64[ndarray, "layer emotion d_model"], n: int, seed: int
) -> Float32[ndarray, "mixture layer d_model"]:
    """Return unit vectors from random weights of the emotions that add up to 0."""
    there_E = np.isfinite(x_LED).all(axis=(0, 2))
    weight_ME = np.random.default_rng(seed).standard_normal((n, int(there_E.sum())))
    weight_ME -= weight_ME.mean(axis=1, keepdims=True)
    drawn_MLD = np.einsum("me,led->mld", weight_ME, x_LED[:, there_E])
    drawn_MLD /= np.linalg.norm(drawn_MLD, axis=2, keepdims=True)
    return np.asarray(drawn_MLD, dtype=np.float32)


def random_directions(
    n: int, n_layers: int, d_model: int, seed: int
) -> Float32[ndarray, "direction layer d_model"]:
    """Return unit directions drawn evenly from the sphere, another at each layer."""
    drawn = np.random.default_rng(seed).standard_normal((n, n_layers, d_model))
    drawn /= np.linalg.norm(drawn, axis=2, keepdims=True)
    return np.asarray(drawn, dtype=np.float32)


def token_norms(cell: xr.Dataset, layers: Sequence[int]) -> Float64[ndarray, " layer"]:
    """Return the mean L2 norm of a token's residual over all texts, first tokens left out.

    Raises:
        NoDirection: no text has a second token.
    """
    read_N = np.minimum(cell["text_tokens"].to_numpy(), cell.attrs["extraction"]["max_tokens"])
    if not (read_N > 1).any():
        raise NoDirection("no text has a token beside its first")
    mean_NL, first_NL = (
        cell[name].sel(layer=list(layers)).to_numpy().astype(np.float64)
        for name in ("mean_norm", "first_norm")
    )
    sums_L = (mean_NL * read_N[:, None] - first_NL).sum(axis=0)
    return np.asarray(sums_L / (read_N - 1).sum())
