"""The analysis of one cell: a pure function for each window and layer, and how they are joined.

`analyse_layer` is the unit that runs in parallel; `join_layers` adds what compares layers and
gives the cell's labelled results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float64
from numpy import ndarray

from analysis.contrasts import ContrastKind, contrast_vectors, emotion_names, layer_means
from analysis.contrasts import neutral_basis as fit_neutral_basis
from analysis.directions import ESTIMATORS, rating_direction
from analysis.geometry import correlate, pca
from analysis.similarity import cka_grid, cosine_grid, gram

AXES = ("valence", "arousal")
"""Ratings in the order of the components they are paired with: PC1 valence, PC2 arousal."""

GEOMETRY: dict[str, ContrastKind] = {"neutral-pca": "both", "mean-centered": "mean-centered"}
"""Contrast named in a manifest -> contrast whose vectors are used. PCA, CKA and directions centre
anyway, so that `neutral-pca` and `both` give the same figures."""


@dataclass(frozen=True)
class Settings:
    """What decides the results of a cell.

    Attributes:
        contrasts: contrasts from the manifest.
        neutral_variance: share of variance of the neutral basis.
        ratings: by norms' name, ratings [emotion, 2] (valence, arousal), NaN where unrated.
    """

    contrasts: tuple[str, ...]
    neutral_variance: float
    ratings: dict[str, Float64[ndarray, "emotion 2"]]


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
        n_N: emotions behind it.
        gram_EE: Gram matrix of the centred contrast vectors.
        direction_NTD: valence direction by norms and estimator.
        missing: why there are no results, "" where there are.
    """

    n_neutral_components: float
    neutral_variance_explained: float
    scores_XE: Float64[ndarray, "component emotion"]
    variance_X: Float64[ndarray, " component"]
    r_NX: Float64[ndarray, "norms component"]
    p_NX: Float64[ndarray, "norms component"]
    n_N: Float64[ndarray, " norms"]
    gram_EE: Float64[ndarray, "emotion emotion"]
    direction_NTD: Float64[ndarray, "norms estimator d_model"]
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
    u_ED, neutral_ND = layer_means(residual, labels, emotions)
    out = []
    for name in settings.contrasts:
        try:
            out.append(_analyse_contrast(u_ED, neutral_ND, name, settings))
        except ValueError as error:
            out.append(_nothing(len(emotions), u_ED.shape[1], len(settings.ratings), str(error)))
    return out


def _analyse_contrast(
    u_ED: Float64[ndarray, "emotion d_model"],
    neutral_ND: Float64[ndarray, "text d_model"],
    name: str,
    settings: Settings,
) -> ContrastResult:
    basis_KD, explained = None, float("nan")
    if GEOMETRY[name] != "mean-centered":
        basis_KD, explained = fit_neutral_basis(neutral_ND, settings.neutral_variance)
    x_ED = contrast_vectors(u_ED, basis_KD, GEOMETRY[name])
    components = pca(x_ED)
    all_ratings = list(settings.ratings.values())
    found = [
        [correlate(components.scores_EC[:, i], ratings[:, i]) for i in range(len(AXES))]
        for ratings in all_ratings
    ]
    directions = [
        [rating_direction(estimator, x_ED, components, ratings[:, 0]) for estimator in ESTIMATORS]
        for ratings in all_ratings
    ]
    return ContrastResult(
        n_neutral_components=0 if basis_KD is None else len(basis_KD),
        neutral_variance_explained=explained,
        scores_XE=components.scores_EC.T,
        variance_X=components.variance_C,
        r_NX=np.array([[c.r for c in row] for row in found]),
        p_NX=np.array([[c.p for c in row] for row in found]),
        n_N=np.array([float(row[0].n) for row in found]),
        gram_EE=gram(x_ED),
        direction_NTD=np.array(directions),
    )


def _nothing(n_emotions: int, d_model: int, n_norms: int, why: str) -> ContrastResult:
    nan = float("nan")
    return ContrastResult(
        n_neutral_components=nan,
        neutral_variance_explained=nan,
        scores_XE=np.full((len(AXES), n_emotions), nan),
        variance_X=np.full(len(AXES), nan),
        r_NX=np.full((n_norms, len(AXES)), nan),
        p_NX=np.full((n_norms, len(AXES)), nan),
        n_N=np.zeros(n_norms),
        gram_EE=np.full((n_emotions, n_emotions), nan),
        direction_NTD=np.full((n_norms, len(ESTIMATORS), d_model), nan),
        missing=why,
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
        Data set over window, layer, contrast, norms, component, emotion and estimator:
        n_neutral_components, neutral_variance_explained, explained_variance, score (component
        scores, signed as computed), r and p (component against the rating it is paired with; a
        component's sign is arbitrary), n_rated, rating, gram, cka, direction_cosine, and missing
        (why numbers are NaN).
    """
    windows = list(dict.fromkeys(window for window, _ in results))
    layers = sorted({layer for _, layer in results})

    def stack(field: str) -> ndarray:
        """Return [window, layer, contrast, ...]."""
        return np.array(
            [[[getattr(c, field) for c in results[w, i]] for i in layers] for w in windows]
        )

    gram_CWLEE = np.moveaxis(stack("gram_EE"), 2, 0)
    direction_CNTWLD = np.moveaxis(stack("direction_NTD"), (2, 3, 4), (0, 1, 2))
    cka = np.array([[cka_grid(g, g) for g in per_window] for per_window in gram_CWLEE])
    lead = direction_CNTWLD.shape[:4]
    cosines = [cosine_grid(v) for v in direction_CNTWLD.reshape(-1, *direction_CNTWLD.shape[4:])]
    cosine = np.array(cosines).reshape(*lead, len(layers), len(layers))
    wlc = ("window", "layer", "contrast")
    return xr.Dataset(
        {
            "n_neutral_components": (wlc, stack("n_neutral_components")),
            "neutral_variance_explained": (wlc, stack("neutral_variance_explained")),
            "explained_variance": ((*wlc, "component"), stack("variance_X")),
            "score": ((*wlc, "component", "emotion"), stack("scores_XE")),
            "r": ((*wlc, "norms", "component"), stack("r_NX")),
            "p": ((*wlc, "norms", "component"), stack("p_NX")),
            "n_rated": ((*wlc, "norms"), stack("n_N").astype(np.int32)),
            "missing": (wlc, stack("missing")),
            "rating": (
                ("norms", "emotion", "axis"),
                np.array(list(settings.ratings.values())),
            ),
            "gram": (("contrast", "window", "layer", "emotion", "emotion_b"), gram_CWLEE),
            "cka": (("contrast", "window", "layer", "layer_b"), cka),
            "direction_cosine": (
                ("contrast", "norms", "estimator", "window", "layer", "layer_b"),
                cosine,
            ),
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
