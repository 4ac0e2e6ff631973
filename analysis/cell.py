"""The analysis of one cell: a pure function for each window and layer, and how they are joined.

`analyse_layer` is the unit that runs in parallel; `join_layers` adds what compares layers and
gives the cell's labelled results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float32, Float64
from numpy import ndarray

from analysis.contrasts import (
    ContrastKind,
    LayerVectors,
    contrast_vectors,
    emotion_names,
    layer_vectors,
    story_halves,
)
from analysis.contrasts import neutral_basis as fit_neutral_basis
from analysis.directions import ESTIMATORS, MIN_RATED, folds, held_out_r, rating_directions
from analysis.geometry import correlate, pca, plane_alignment
from analysis.similarity import cka_grid, cosine_grid, gram

AXES = ("valence", "arousal")
"""Ratings in the order of the components they are paired with: PC1 valence, PC2 arousal."""

GEOMETRY: dict[str, ContrastKind] = {"neutral-pca": "both", "mean-centered": "mean-centered"}
"""Contrast named in a manifest -> contrast whose vectors are used. PCA, CKA and directions centre
anyway, so that `neutral-pca` and `both` give the same figures."""

SPLITS = 2
"""Random halves of the stories that the reliability of directions is taken over."""


@dataclass(frozen=True)
class Settings:
    """What decides the results of a cell.

    Attributes:
        contrasts: contrasts from the manifest.
        neutral_variance: share of variance of the neutral basis.
        ratings: by norms' name, ratings [emotion, 2] (valence, arousal), NaN where unrated.
        seed: of the folds over emotions and of the halves of the stories.
    """

    contrasts: tuple[str, ...]
    neutral_variance: float
    ratings: dict[str, Float64[ndarray, "emotion 2"]]
    seed: int = 0


@dataclass(frozen=True)
class ContrastResult:
    """Results of one window, layer and contrast; NaN where they cannot be computed.

    Attributes:
        n_neutral_components: K of the neutral basis, 0 for a contrast without projection.
        neutral_variance_explained: by those K.
        scores_XE: coordinates of each emotion on PC1 and PC2.
        variance_X: share of variance of PC1 and PC2.
        r_NX: Pearson's r of each component with the rating it is paired with, by norms.
        p_NX: its p.
        rho_NX: Spearman's.
        rho_p_NX: its p.
        plane_r_NX: the largest r of each rating with a direction in the plane of PC1 and PC2.
        plane_angle_NX: degrees between that direction and PC1.
        n_N: emotions behind it.
        gram_EE: Gram matrix of the centred contrast vectors.
        direction_NXTD: direction by norms, axis and estimator.
        held_out_r_NXT: r of projections on directions that never saw the emotion.
        half_SHNXTD: unit directions of either half of the stories, for each random split.
        missing: why there are no results, "" where there are.
    """

    n_neutral_components: float
    neutral_variance_explained: float
    scores_XE: Float64[ndarray, "component emotion"]
    variance_X: Float64[ndarray, " component"]
    r_NX: Float64[ndarray, "norms component"]
    p_NX: Float64[ndarray, "norms component"]
    rho_NX: Float64[ndarray, "norms component"]
    rho_p_NX: Float64[ndarray, "norms component"]
    plane_r_NX: Float64[ndarray, "norms axis"]
    plane_angle_NX: Float64[ndarray, "norms axis"]
    n_N: Float64[ndarray, " norms"]
    gram_EE: Float64[ndarray, "emotion emotion"]
    direction_NXTD: Float64[ndarray, "norms axis estimator d_model"]
    held_out_r_NXT: Float64[ndarray, "norms axis estimator"]
    half_SHNXTD: Float32[ndarray, "split half norms axis estimator d_model"]
    missing: str = ""


def analyse_layer(
    cell: xr.Dataset, window: str, layer: int, settings: Settings
) -> list[ContrastResult]:
    """Analyse one window and layer of a cell.

    Args:
        cell: story vectors as `store.open_cell` gives them.
        window: token window.
        layer: layer number, -1 for the embedding output.
        settings: contrasts and ratings; ratings in the order of the cell's emotions.

    Returns:
        One result for each contrast. Where too few texts have a token in the window for a basis
        or a component, its numbers are NaN and `missing` says why.
    """
    emotions = emotion_names(cell)
    labels = [str(e) for e in cell["emotion"].to_numpy()]
    residual = cell["residual_mean"].sel(window=window, layer=layer)
    halves_SN = story_halves(labels, SPLITS, settings.seed)
    vectors = layer_vectors(residual, labels, emotions, halves_SN)
    out = []
    for name in settings.contrasts:
        try:
            out.append(_analyse_contrast(vectors, name, settings))
        except ValueError as error:
            n_emotions, d_model = vectors.u_ED.shape
            out.append(_nothing(n_emotions, d_model, len(settings.ratings), str(error)))
    return out


def _analyse_contrast(vectors: LayerVectors, name: str, settings: Settings) -> ContrastResult:
    basis_KD, explained = None, float("nan")
    if GEOMETRY[name] != "mean-centered":
        basis_KD, explained = fit_neutral_basis(vectors.neutral_ND, settings.neutral_variance)
    x_ED = contrast_vectors(vectors.u_ED, basis_KD, GEOMETRY[name])
    components = pca(x_ED)
    scores_EX = components.scores_EC
    by_norms = list(settings.ratings.values())
    pairs = [[(scores_EX[:, i], y_EX[:, i]) for i in range(len(AXES))] for y_EX in by_norms]
    r = [[correlate(*pair) for pair in row] for row in pairs]
    rho = [[correlate(*pair, ranks=True) for pair in row] for row in pairs]
    plane = [[plane_alignment(scores_EX, y_E) for y_E in y_EX.T] for y_EX in by_norms]
    ratings_EA = np.concatenate(by_norms, axis=1)
    paired = list(range(len(AXES))) * len(by_norms)
    shape = (len(by_norms), len(AXES), len(ESTIMATORS))
    gram_EE = gram(x_ED)
    there = np.isfinite(gram_EE).any(axis=1)
    held_out_AT = held_out_r(
        gram_EE[np.ix_(there, there)],
        ratings_EA[there],
        paired,
        folds(ratings_EA[there], settings.seed),
    )
    return ContrastResult(
        n_neutral_components=0 if basis_KD is None else len(basis_KD),
        neutral_variance_explained=explained,
        scores_XE=scores_EX.T,
        variance_X=components.variance_C,
        r_NX=np.array([[c.r for c in row] for row in r]),
        p_NX=np.array([[c.p for c in row] for row in r]),
        rho_NX=np.array([[c.r for c in row] for row in rho]),
        rho_p_NX=np.array([[c.p for c in row] for row in rho]),
        plane_r_NX=np.array([[a.r for a in row] for row in plane]),
        plane_angle_NX=np.array([[a.angle for a in row] for row in plane]),
        n_N=np.array([float(row[0].n) for row in r]),
        gram_EE=gram_EE,
        direction_NXTD=rating_directions(x_ED, ratings_EA, paired).reshape(*shape, -1),
        held_out_r_NXT=held_out_AT.reshape(shape),
        half_SHNXTD=_half_directions(vectors, basis_KD, GEOMETRY[name], ratings_EA, paired).reshape(
            SPLITS, 2, *shape, -1
        ),
    )


def _half_directions(
    vectors: LayerVectors,
    basis_KD: Float64[ndarray, "component d_model"] | None,
    kind: ContrastKind,
    ratings_EA: Float64[ndarray, "emotion rating"],
    paired: Sequence[int],
) -> Float32[ndarray, "split half rating estimator d_model"]:
    """Return unit directions over either half of the stories, of emotions that both halves have."""
    found = []
    for halves_HED in vectors.halves_SHED:
        both = np.isfinite(halves_HED[..., 0]).all(axis=0)
        for u_ED in halves_HED:
            if both.sum() < MIN_RATED:
                shape = (ratings_EA.shape[1], len(ESTIMATORS), u_ED.shape[1])
                found.append(np.full(shape, np.nan))
                continue
            x_ED = contrast_vectors(u_ED[both], basis_KD, kind)
            directions = rating_directions(x_ED, ratings_EA[both], paired)
            with np.errstate(invalid="ignore", divide="ignore"):
                found.append(directions / np.linalg.norm(directions, axis=-1, keepdims=True))
    return np.array(found, dtype=np.float32).reshape(len(vectors.halves_SHED), 2, *found[0].shape)


def _nothing(n_emotions: int, d_model: int, n_norms: int, why: str) -> ContrastResult:
    nan, n_axes, n_estimators = float("nan"), len(AXES), len(ESTIMATORS)
    by_component: dict[str, Any] = {
        field: np.full((n_norms, n_axes), nan)
        for field in ("r_NX", "p_NX", "rho_NX", "rho_p_NX", "plane_r_NX", "plane_angle_NX")
    }
    return ContrastResult(
        n_neutral_components=nan,
        neutral_variance_explained=nan,
        scores_XE=np.full((n_axes, n_emotions), nan),
        variance_X=np.full(n_axes, nan),
        n_N=np.zeros(n_norms),
        gram_EE=np.full((n_emotions, n_emotions), nan),
        direction_NXTD=np.full((n_norms, n_axes, n_estimators, d_model), nan),
        held_out_r_NXT=np.full((n_norms, n_axes, n_estimators), nan),
        half_SHNXTD=np.full((SPLITS, 2, n_norms, n_axes, n_estimators, d_model), np.float32(nan)),
        missing=why,
        **by_component,
    )


def join_layers(
    results: dict[tuple[str, int], list[ContrastResult]],
    emotions: Sequence[str],
    n_layers: int,
    settings: Settings,
) -> xr.Dataset:
    """Join the results of all windows and layers of a cell and compare its layers.

    Args:
        results: by (window, layer), as `analyse_layer` gives them; every combination is there.
        emotions: the cell's emotions.
        n_layers: blocks of the model, for depth = layer / n_layers.
        settings: as given to `analyse_layer`.

    Returns:
        Data set over window, layer, contrast, norms, component, axis, emotion and estimator:

        - n_neutral_components, neutral_variance_explained, explained_variance;
        - score (component scores, signed as computed), r, p, rho and rho_p (component against the
          rating it is paired with; a component's sign is arbitrary), plane_r and plane_angle,
          n_rated, rating;
        - gram, cka and cka_debiased over pairs of layers;
        - direction_cosine over pairs of layers, and half_direction_cosine: between one half of the
          stories at one layer and the other half at the other, mean over splits;
        - held_out_r, half_cosine (the two halves at one layer), and reliability: the cosine to
          expect between the directions of two corpora of the same size (Spearman-Brown);
        - missing (why numbers are NaN).
    """
    windows = list(dict.fromkeys(window for window, _ in results))
    layers = sorted({layer for _, layer in results})

    def stack(field: str) -> ndarray:
        """Return [window, layer, contrast, ...]."""
        return np.array(
            [[[getattr(c, field) for c in results[w, i]] for i in layers] for w in windows]
        )

    gram_CWLEE = np.moveaxis(stack("gram_EE"), 2, 0)
    direction_CNXTWLD = np.moveaxis(stack("direction_NXTD"), (2, 3, 4, 5), (0, 1, 2, 3))
    grids = {
        name: np.array(
            [[cka_grid(g, g, debiased) for g in per_window] for per_window in gram_CWLEE]
        )
        for name, debiased in (("cka", False), ("cka_debiased", True))
    }
    lead = direction_CNXTWLD.shape[:5]
    cosines = [cosine_grid(v) for v in direction_CNXTWLD.reshape(-1, *direction_CNXTWLD.shape[5:])]
    cosine = np.array(cosines).reshape(*lead, len(layers), len(layers))
    crossed_CNXTWLL = _crossed(
        np.moveaxis(stack("half_SHNXTD"), (2, 5, 6, 7, 0, 1, 3, 4), (0, 1, 2, 3, 4, 5, 6, 7))
    )
    half_cosine = np.moveaxis(
        np.diagonal(crossed_CNXTWLL, axis1=-2, axis2=-1), (4, 5, 0, 1, 2, 3), (0, 1, 2, 3, 4, 5)
    )
    wlc = ("window", "layer", "contrast")
    by_component, by_estimator = (*wlc, "norms", "component"), (*wlc, "norms", "axis", "estimator")
    by_pair = ("contrast", "norms", "axis", "estimator", "window", "layer", "layer_b")
    return xr.Dataset(
        {
            "n_neutral_components": (wlc, stack("n_neutral_components")),
            "neutral_variance_explained": (wlc, stack("neutral_variance_explained")),
            "explained_variance": ((*wlc, "component"), stack("variance_X")),
            "score": ((*wlc, "component", "emotion"), stack("scores_XE")),
            "r": (by_component, stack("r_NX")),
            "p": (by_component, stack("p_NX")),
            "rho": (by_component, stack("rho_NX")),
            "rho_p": (by_component, stack("rho_p_NX")),
            "plane_r": ((*wlc, "norms", "axis"), stack("plane_r_NX")),
            "plane_angle": ((*wlc, "norms", "axis"), stack("plane_angle_NX")),
            "n_rated": ((*wlc, "norms"), stack("n_N").astype(np.int32)),
            "missing": (wlc, stack("missing")),
            "rating": (
                ("norms", "emotion", "axis"),
                np.array(list(settings.ratings.values())),
            ),
            "gram": (("contrast", "window", "layer", "emotion", "emotion_b"), gram_CWLEE),
            **{
                name: (("contrast", "window", "layer", "layer_b"), grid)
                for name, grid in grids.items()
            },
            "direction_cosine": (by_pair, cosine),
            "half_direction_cosine": (by_pair, crossed_CNXTWLL),
            "held_out_r": (by_estimator, stack("held_out_r_NXT")),
            "half_cosine": (by_estimator, half_cosine),
            "reliability": (by_estimator, 2 * half_cosine / (1 + half_cosine)),
        },
        coords={
            "window": windows,
            "layer": layers,
            "layer_b": layers,
            "depth": ("layer", np.array(layers) / n_layers),
            "contrast": list(settings.contrasts),
            "norms": list(settings.ratings),
            "component": [1, 2],
            "axis": list(AXES),
            "estimator": list(ESTIMATORS),
            "emotion": list(emotions),
        },
    )


def _crossed(
    half_CNXTWLSHD: Float32[ndarray, "c n x t window layer split half d_model"],
) -> Float64[ndarray, "c n x t window layer layer"]:
    """Return cosines between one half at one layer and the other half at another layer.

    The noise of the two halves is independent, that of one half at two layers is not.
    """
    lead = half_CNXTWLSHD.shape[:5]
    n_layers, n_splits, _, d_model = half_CNXTWLSHD.shape[5:]
    found = []
    for halves_LSHD in half_CNXTWLSHD.reshape(-1, n_layers, n_splits, 2, d_model):
        first_SLD, second_SLD = (
            halves_LSHD[:, :, half].swapaxes(0, 1).astype(np.float64) for half in (0, 1)
        )
        one_way = (first_SLD @ second_SLD.swapaxes(1, 2)).mean(axis=0)
        found.append((one_way + one_way.T) / 2)
    return np.array(found).reshape(*lead, n_layers, n_layers)
