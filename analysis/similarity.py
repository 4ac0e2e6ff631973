"""Similarity of representations: linear CKA from Gram matrices, and cosines."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from analysis.geometry import centred

MIN_EMOTIONS = {False: 3, True: 4}
"""Emotions that CKA takes at least, plain and debiased."""


def gram(x_ED: Float64[ndarray, "emotion d_model"]) -> Float64[ndarray, "emotion emotion"]:
    """Return the Gram matrix of centred vectors; rows of NaN stay NaN and leave the mean alone."""
    x = centred(x_ED)
    return x @ x.T


def cka_grid(
    a_LEE: Float64[ndarray, "layer_a emotion emotion"],
    b_LEE: Float64[ndarray, "layer_b emotion emotion"],
    debiased: bool = False,
) -> Float64[ndarray, "layer_a layer_b"]:
    """Return linear CKA between every layer of `a` and every layer of `b`.

    Linear CKA (Kornblith et al. 2019, eq. 3) of X and Y is <K, L> / (|K| |L|) with K = XX', L = YY'
    of centred X and Y and the Frobenius inner product: products of n by n matrices only. With
    fewer emotions than dimensions it is biased upward. The debiased one (Nguyen et al. 2021, eq. 3)
    has the unbiased estimator of HSIC (Song et al. 2012, eq. 5) in place of <K, L>, which is the
    inner product of U-centred matrices; it is near 0 for unrelated representations, and may be
    below.

    Args:
        a_LEE: Gram matrices over the same emotions in the same order as `b_LEE`.
        b_LEE: the same of the other representation.
        debiased: take the unbiased estimator of HSIC.

    Emotions that are NaN in a layer of either are left out, and the matrices centred again. A layer
    without any emotion is NaN in the grid and takes no emotion from the others; with fewer than
    three emotions left (four for the debiased one) the whole grid is NaN.
    """
    there_LE = np.isfinite(np.concatenate([a_LEE, b_LEE])).any(axis=2)
    there = there_LE[there_LE.any(axis=1)].all(axis=0)
    if there.sum() < MIN_EMOTIONS[debiased]:
        return np.full((len(a_LEE), len(b_LEE)), np.nan)
    a, b = (cka_units(g[:, there][:, :, there], debiased) for g in (a_LEE, b_LEE))
    return a @ b.T


def cka_units(g_LEE: Float64[ndarray, "layer e e"], debiased: bool) -> Float64[ndarray, "layer ee"]:
    """Return what a product makes CKA of: centred Gram matrices of length 1, a row for each layer.

    Args:
        g_LEE: Gram matrices; a layer of NaN stays NaN.
        debiased: centre them so that the product is the debiased CKA (see `cka_grid`).
    """
    return _flat_unit(_u_centred(g_LEE) if debiased else _centred(g_LEE))


def gram_cosines(gram_EE: Float64[ndarray, "e e"]) -> Float64[ndarray, "emotion emotion"]:
    """Return the cosines between vectors with this Gram matrix; NaN where one is zero or NaN."""
    length_E = np.sqrt(np.diag(gram_EE))
    with np.errstate(invalid="ignore", divide="ignore"):
        return gram_EE / length_E[:, None] / length_E


def cosine_grid(v_LD: Float64[ndarray, "layer d_model"]) -> Float64[ndarray, "layer layer"]:
    """Return the cosine between every two rows; NaN where a row is zero or NaN."""
    with np.errstate(invalid="ignore", divide="ignore"):
        unit_LD = v_LD / np.linalg.norm(v_LD, axis=1, keepdims=True)
    return unit_LD @ unit_LD.T


def _centred(g_LEE: Float64[ndarray, "layer e e"]) -> Float64[ndarray, "layer e e"]:
    rows = g_LEE.mean(axis=1, keepdims=True)
    columns = g_LEE.mean(axis=2, keepdims=True)
    return g_LEE - rows - columns + g_LEE.mean(axis=(1, 2), keepdims=True)


def _u_centred(g_LEE: Float64[ndarray, "layer e e"]) -> Float64[ndarray, "layer e e"]:
    """Return U-centred matrices (Székely and Rizzo 2014, eq. 2.4), zero on the diagonal."""
    n = g_LEE.shape[1]
    off = ~np.eye(n, dtype=bool)
    bare = np.where(off, g_LEE, 0)
    rows = bare.sum(axis=1, keepdims=True) / (n - 2)
    columns = bare.sum(axis=2, keepdims=True) / (n - 2)
    total = bare.sum(axis=(1, 2), keepdims=True) / ((n - 1) * (n - 2))
    return np.where(off, bare - rows - columns + total, 0)


def _flat_unit(g_LEE: Float64[ndarray, "layer e e"]) -> Float64[ndarray, "layer ee"]:
    flat = g_LEE.reshape(len(g_LEE), -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)
