"""The analysis of one window and layer of a cell: the unit that runs in parallel.

What compares layers is in `analysis.cell`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float32, Float64, Int
from numpy import ndarray

from analysis.clusters import distances, gram_distances, separation
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
from analysis.geometry import (
    Correlation,
    centred,
    correlate,
    pca,
    plane_alignment,
    principal_coordinates,
)
from analysis.similarity import cka_grid, gram
from analysis.variance import VarianceShares, VarianceSums, story_design

AXES = ("valence", "arousal")
"""Ratings in the order of the components they are paired with: PC1 valence, PC2 arousal."""

GEOMETRY: dict[str, ContrastKind] = {"neutral-pca": "both", "mean-centered": "mean-centered"}
"""Contrast named in a manifest -> contrast whose vectors are used. PCA, CKA and directions centre
anyway, so that `neutral-pca` and `both` give the same figures."""

SPLITS = 2
"""Random halves of the stories that the reliability of directions is taken over."""

N_DROPPED = 3
"""Largest dimensions that are left out to see what they do."""

SPACES = ("all", "plane")
"""Where positive and negative emotions are told apart: in all dimensions, on PC1 and PC2."""


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
        silhouette_NS: of emotions rated positive against negative ones, by norms and SPACES.
        dropped_share: share of the contrast vectors' variance in the layer's largest dimensions.
        without_r_NX: r with those dimensions left out from the story vectors on.
        without_variance_X: share of variance of PC1 and PC2 without them.
        without_cka: linear CKA of the contrast vectors with and without them.
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
    silhouette_NS: Float64[ndarray, "norms space"]
    dropped_share: float
    without_r_NX: Float64[ndarray, "norms component"]
    without_variance_X: Float64[ndarray, " component"]
    without_cka: float
    missing: str = ""


@dataclass(frozen=True)
class LayerResult:
    """Results of one window and layer.

    Attributes:
        contrasts: one for each contrast asked for.
        variance: where the variance of the story vectors is.
        dropped_K: the dimensions with the largest mean square over the emotion means.
        dropped_norm: their share of the emotion means' squared norm.
    """

    contrasts: list[ContrastResult]
    variance: VarianceShares
    dropped_K: Int[ndarray, " rank"]
    dropped_norm: float


def analyse_layer(cell: xr.Dataset, window: str, layer: int, settings: Settings) -> LayerResult:
    """Analyse one window and layer of a cell.

    Args:
        cell: story vectors as `store.open_cell` gives them.
        window: token window.
        layer: layer number, -1 for the embedding output.
        settings: contrasts and ratings; ratings in the order of the cell's emotions.

    Returns:
        Where too few texts have a token in the window for a basis or a component, a contrast's
        numbers are NaN and its `missing` says why.
    """
    emotions = emotion_names(cell)
    labels = [str(e) for e in cell["emotion"].to_numpy()]
    residual = cell["residual_mean"].sel(window=window, layer=layer)
    halves_SN = story_halves(labels, SPLITS, settings.seed)
    ids = [str(i) for i in cell["text_id"].to_numpy()]
    sums = VarianceSums(story_design(ids, labels, emotions), residual.sizes["d_model"])
    vectors = layer_vectors(residual, labels, emotions, halves_SN, sums.add)
    square_D = np.square(vectors.u_ED[np.isfinite(vectors.u_ED).all(axis=1)]).sum(axis=0)
    dropped_K = np.argsort(-square_D, kind="stable")[:N_DROPPED]
    out = []
    for name in settings.contrasts:
        try:
            out.append(_analyse_contrast(vectors, name, settings, dropped_K))
        except ValueError as error:
            n_emotions, d_model = vectors.u_ED.shape
            out.append(_nothing(n_emotions, d_model, len(settings.ratings), str(error)))
    total = float(square_D.sum())
    norm = float(square_D[dropped_K].sum()) / total if total else float("nan")
    return LayerResult(out, sums.shares(), dropped_K, norm)


def _analyse_contrast(
    vectors: LayerVectors, name: str, settings: Settings, dropped_K: Int[ndarray, " rank"]
) -> ContrastResult:
    basis_KD, explained = None, float("nan")
    if GEOMETRY[name] != "mean-centered":
        basis_KD, explained = fit_neutral_basis(vectors.neutral_ND, settings.neutral_variance)
    x_ED = contrast_vectors(vectors.u_ED, basis_KD, GEOMETRY[name])
    components = pca(x_ED)
    scores_EX = components.scores_EC
    by_norms = list(settings.ratings.values())
    r, rho = (_correlated(scores_EX, by_norms, ranks) for ranks in (False, True))
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
    apart = [gram_distances(gram_EE), distances(scores_EX)]
    without_EE = _gram_without(vectors, name, settings, dropped_K)
    without_EX, without_variance_X = principal_coordinates(without_EE)
    without_r = _correlated(without_EX, by_norms)
    centred_ED = centred(x_ED)
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
        silhouette_NS=np.array([[separation(d, y_EX[:, 0]) for d in apart] for y_EX in by_norms]),
        dropped_share=float(np.nansum(centred_ED[:, dropped_K] ** 2) / np.nansum(centred_ED**2)),
        without_r_NX=np.array([[c.r for c in row] for row in without_r]),
        without_variance_X=without_variance_X,
        without_cka=float(cka_grid(gram_EE[None], without_EE[None])[0, 0]),
    )


def _correlated(
    scores_EX: Float64[ndarray, "emotion component"],
    by_norms: Sequence[Float64[ndarray, "emotion axis"]],
    ranks: bool = False,
) -> list[list[Correlation]]:
    """Correlate each component with the rating it is paired with, for each set of norms."""
    return [
        [correlate(scores_EX[:, i], y_EX[:, i], ranks) for i in range(len(AXES))]
        for y_EX in by_norms
    ]


def _gram_without(
    vectors: LayerVectors, name: str, settings: Settings, dropped_K: Int[ndarray, " rank"]
) -> Float64[ndarray, "emotion emotion"]:
    """Return the Gram matrix of contrast vectors of stories without some dimensions."""
    basis_KD = None
    if GEOMETRY[name] != "mean-centered":
        kept_ND = np.delete(vectors.neutral_ND, dropped_K, axis=1)
        basis_KD, _ = fit_neutral_basis(kept_ND, settings.neutral_variance)
    kept_ED = np.delete(vectors.u_ED, dropped_K, axis=1)
    return gram(contrast_vectors(kept_ED, basis_KD, GEOMETRY[name]))


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
        for field in (
            *("r_NX", "p_NX", "rho_NX", "rho_p_NX", "plane_r_NX", "plane_angle_NX"),
            "without_r_NX",
        )
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
        silhouette_NS=np.full((n_norms, len(SPACES)), nan),
        dropped_share=nan,
        without_variance_X=np.full(n_axes, nan),
        without_cka=nan,
        missing=why,
        **by_component,
    )
