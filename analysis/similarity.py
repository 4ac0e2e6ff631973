"""Similarity of representations: linear CKA from Gram matrices, and cosines."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from numpy import ndarray


def gram(x_ED: Float64[ndarray, "emotion d_model"]) -> Float64[ndarray, "emotion emotion"]:
    """Return the Gram matrix of centred vectors; rows of NaN stay NaN and leave the mean alone."""
    x = x_ED - np.nanmean(x_ED, axis=0)
    return x @ x.T


def cka_grid(
    a_LEE: Float64[ndarray, "layer_a emotion emotion"],
    b_LEE: Float64[ndarray, "layer_b emotion emotion"],
) -> Float64[ndarray, "layer_a layer_b"]:
    """Return linear CKA between every layer of `a` and every layer of `b`.

    Linear CKA (Kornblith et al. 2019, eq. 3) of X and Y is <K, L> / (|K| |L|) with K = XX', L = YY'
    of centred X and Y and the Frobenius inner product: products of n by n matrices only.

    Args:
        a_LEE: centred Gram matrices over the same emotions in the same order as `b_LEE`.
        b_LEE: the same of the other representation.

    Emotions that are NaN in a layer of either are left out, and the matrices centred again. A layer
    without any emotion is NaN in the grid and takes no emotion from the others; with fewer than
    three emotions left the whole grid is NaN.
    """
    there_LE = np.isfinite(np.concatenate([a_LEE, b_LEE])).any(axis=2)
    there = there_LE[there_LE.any(axis=1)].all(axis=0)
    if there.sum() < 3:
        return np.full((len(a_LEE), len(b_LEE)), np.nan)
    a, b = (_flat_unit(_centred(g[:, there][:, :, there])) for g in (a_LEE, b_LEE))
    return a @ b.T


def cosine_grid(v_LD: Float64[ndarray, "layer d_model"]) -> Float64[ndarray, "layer layer"]:
    """Return the cosine between every two rows; NaN where a row is zero or NaN."""
    with np.errstate(invalid="ignore", divide="ignore"):
        unit_LD = v_LD / np.linalg.norm(v_LD, axis=1, keepdims=True)
    return unit_LD @ unit_LD.T


def _centred(g_LEE: Float64[ndarray, "layer e e"]) -> Float64[ndarray, "layer e e"]:
    rows = g_LEE.mean(axis=1, keepdims=True)
    columns = g_LEE.mean(axis=2, keepdims=True)
    return g_LEE - rows - columns + g_LEE.mean(axis=(1, 2), keepdims=True)


def _flat_unit(g_LEE: Float64[ndarray, "layer e e"]) -> Float64[ndarray, "layer ee"]:
    flat = g_LEE.reshape(len(g_LEE), -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)
