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

from analysis.contrast import ContrastKind, contrast_vectors, emotion_names, layer_means
from analysis.contrast import neutral_basis as fit_neutral_basis
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
class LayerResult:
    """Results of one window and layer; dimensions: contrast, norms, axis, estimator, emotion."""

    n_neutral_components: int
    neutral_variance_explained: float
    scores_CXE: Float64[ndarray, "contrast component emotion"]
    variance_CX: Float64[ndarray, "contrast component"]
    r_CNX: Float64[ndarray, "contrast norms axis"]
    p_CNX: Float64[ndarray, "contrast norms axis"]
    n_N: ndarray
    gram_CEE: Float64[ndarray, "contrast emotion emotion"]
    direction_CNTD: Float64[ndarray, "contrast norms estimator d_model"]


def analyse_layer(cell: xr.Dataset, window: str, layer: int, settings: Settings) -> LayerResult:
    """Analyse one window and layer of a cell.

    Args:
        cell: story vectors as `store.open_cell` gives them.
        window: token window.
        layer: layer number, -1 for the embedding output.
        settings: contrasts and ratings; ratings in the order of the cell's emotions.

    Raises:
        ValueError: too few texts for a component or a basis; the message names window and layer.
    """
    emotions = emotion_names(cell)
    labels = [str(e) for e in cell["emotion"].to_numpy()]
    residual = cell["residual_mean"].sel(window=window, layer=layer)
    u_ED, neutral_ND = layer_means(residual, labels, emotions)
    k, explained, basis_KD = 0, float("nan"), None
    scores, variance, r, p, grams, directions = [], [], [], [], [], []
    try:
        if "neutral-pca" in settings.contrasts:
            basis_KD, explained = fit_neutral_basis(neutral_ND, settings.neutral_variance)
            k = len(basis_KD)
        for name in settings.contrasts:
            x_ED = contrast_vectors(u_ED, basis_KD, GEOMETRY[name])
            components = pca(x_ED)
            found = [
                [correlate(components.scores_EC[:, i], ratings[:, i]) for i in range(len(AXES))]
                for ratings in settings.ratings.values()
            ]
            scores.append(components.scores_EC.T)
            variance.append(components.variance_C)
            r.append([[c.r for c in row] for row in found])
            p.append([[c.p for c in row] for row in found])
            grams.append(gram(x_ED))
            directions.append(
                [
                    [rating_direction(t, x_ED, components, ratings[:, 0]) for t in ESTIMATORS]
                    for ratings in settings.ratings.values()
                ]
            )
    except ValueError as error:
        raise ValueError(f"window {window}, layer {layer}: {error}") from None
    return LayerResult(
        n_neutral_components=k,
        neutral_variance_explained=explained,
        scores_CXE=np.array(scores),
        variance_CX=np.array(variance),
        r_CNX=np.array(r),
        p_CNX=np.array(p),
        n_N=np.array([c[0].n for c in found]),
        gram_CEE=np.array(grams),
        direction_CNTD=np.array(directions),
    )


def join_layers(
    results: dict[tuple[str, int], LayerResult],
    emotions: Sequence[str],
    n_layers: int,
    settings: Settings,
) -> xr.Dataset:
    """Join the results of all windows and layers of a cell and compare its layers.

    Args:
        results: by (window, layer); every combination must be there.
        emotions: the cell's emotions.
        n_layers: blocks of the model, for depth = layer / n_layers.
        settings: as given to `analyse_layer`.

    Returns:
        Data set over window, contrast, norms, layer, component, emotion and estimator:
        n_neutral_components, neutral_variance_explained, explained_variance, score (component
        scores, signed as computed), r and p (component against the rating it is paired with; a
        component's sign is arbitrary), n_rated, rating, gram, cka and direction_cosine.
    """
    windows = list(dict.fromkeys(window for window, _ in results))
    layers = sorted({layer for _, layer in results})

    def stack(field: str) -> ndarray:
        values = [[getattr(results[w, i], field) for i in layers] for w in windows]
        return np.array(values)  # [window, layer, ...]

    gram_WLCEE, direction_WLCNTD = stack("gram_CEE"), stack("direction_CNTD")
    gram_CWLEE = np.moveaxis(gram_WLCEE, 2, 0)
    direction_CNTWLD = np.moveaxis(direction_WLCNTD, (2, 3, 4), (0, 1, 2))
    cka = np.array([[cka_grid(g, g) for g in per_window] for per_window in gram_CWLEE])
    lead = direction_CNTWLD.shape[:4]
    cosines = [cosine_grid(v) for v in direction_CNTWLD.reshape(-1, *direction_CNTWLD.shape[4:])]
    cosine = np.array(cosines).reshape(*lead, len(layers), len(layers))
    wl = ("window", "layer")
    return xr.Dataset(
        {
            "n_neutral_components": (wl, stack("n_neutral_components")),
            "neutral_variance_explained": (wl, stack("neutral_variance_explained")),
            "explained_variance": ((*wl, "contrast", "component"), stack("variance_CX")),
            "score": ((*wl, "contrast", "component", "emotion"), stack("scores_CXE")),
            "r": ((*wl, "contrast", "norms", "component"), stack("r_CNX")),
            "p": ((*wl, "contrast", "norms", "component"), stack("p_CNX")),
            "n_rated": ((*wl, "norms"), stack("n_N")),
            "rating": (
                ("norms", "emotion", "axis"),
                np.array(list(settings.ratings.values())),
            ),
            "gram": (("contrast", *wl, "emotion", "emotion_b"), gram_CWLEE),
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
