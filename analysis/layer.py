"""The analysis of one window and layer of a cell: the unit that runs in parallel.

What compares layers is in `analysis.cell`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float32, Float64, Int
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
    NotEnough,
    centred,
    correlate,
    plane_alignment,
    principal_coordinates,
)
from analysis.similarity import cka_grid, gram
from analysis.variance import Design, VarianceShares, VarianceSums, story_design

AXES = ("valence", "arousal")
"""Ratings in the order of the components they are paired with: PC1 valence, PC2 arousal."""

GEOMETRY: dict[str, ContrastKind] = {"neutral-pca": "both", "mean-centered": "mean-centered"}
"""Contrast named in a manifest -> contrast whose vectors are used. PCA, CKA and directions centre
anyway, so that `neutral-pca` and `both` give the same figures."""

SPLITS = 4
"""Random halvings of the stories that the reliability of directions is taken over."""

KEPT_SPLITS = 2
"""Of those, how many keep their directions, to be compared between layers."""

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
        middle: by norms' name, the middle of its scale of valence, which parts positive from
            negative emotions; where it is not given, the middle of the emotions' own range.
    """

    contrasts: tuple[str, ...]
    neutral_variance: float
    ratings: dict[str, Float64[ndarray, "emotion 2"]]
    seed: int = 0
    middle: dict[str, float] = field(default_factory=dict)


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
        plane_p_NX: p of plane_r.
        cross_r_NX: r of each rating with the component that the other rating is paired with.
        n_N: emotions behind it.
        gram_EE: Gram matrix of the centred contrast vectors.
        direction_NXTD: direction by norms, axis and estimator.
        held_out_r_NXT: r of projections on directions that never saw the emotion.
        half_cosine_SNXT: cosine of the directions of the two halves, for each random split.
        half_SHNXTD: unit directions of either half of the stories, for the first KEPT_SPLITS.
        silhouette_NS: of emotions rated positive against negative ones, by norms and SPACES.
        dropped_share: share of the contrast vectors' variance in the layer's largest dimensions.
        without_r_NX: r with those dimensions left out from the story vectors on.
        without_variance_X: share of variance of PC1 and PC2 without them.
        without_cka_T: linear CKA, plain and debiased, of the vectors with and without them.
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
    plane_p_NX: Float64[ndarray, "norms axis"]
    cross_r_NX: Float64[ndarray, "norms axis"]
    n_N: Float64[ndarray, " norms"]
    gram_EE: Float64[ndarray, "emotion emotion"]
    direction_NXTD: Float64[ndarray, "norms axis estimator d_model"]
    held_out_r_NXT: Float64[ndarray, "norms axis estimator"]
    half_cosine_SNXT: Float64[ndarray, "split norms axis estimator"]
    half_SHNXTD: Float32[ndarray, "kept_split half norms axis estimator d_model"]
    silhouette_NS: Float64[ndarray, "norms space"]
    dropped_share: float
    without_r_NX: Float64[ndarray, "norms component"]
    without_variance_X: Float64[ndarray, " component"]
    without_cka_T: Float64[ndarray, " estimator"]
    missing: str = ""


@dataclass(frozen=True)
class LayerResult:
    """Results of one window and layer.

    Attributes:
        contrasts: one for each contrast asked for.
        variance: where the variance of the story vectors is.
        dropped_K: the dimensions with the largest mean square over the emotion means, -1 where no
            emotion has a vector.
        dropped_norm: their share of the emotion means' squared norm.
        neutral: neutral texts with a vector.
        halved_E: emotions that have stories in both halves of every split.
    """

    contrasts: list[ContrastResult]
    variance: VarianceShares
    dropped_K: Int[ndarray, " rank"]
    dropped_norm: float
    neutral: int
    halved_E: Bool[ndarray, " emotion"]


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
    ids = tuple(str(i) for i in cell["text_id"].to_numpy())
    design, halves_SN = _design_and_halves(ids, tuple(labels), tuple(emotions), settings.seed)
    sums = VarianceSums(design, residual.sizes["d_model"])
    vectors = layer_vectors(residual, labels, emotions, halves_SN, sums.add)
    there_E = np.isfinite(vectors.u_ED).all(axis=1)
    square_D = np.square(vectors.u_ED[there_E]).sum(axis=0)
    dropped_K = np.argsort(-square_D, kind="stable")[:N_DROPPED]
    if not there_E.any():
        dropped_K = np.full(N_DROPPED, -1)
    out = []
    for name in settings.contrasts:
        try:
            out.append(_analyse_contrast(vectors, emotions, name, settings, dropped_K))
        except NotEnough as error:
            n_emotions, d_model = vectors.u_ED.shape
            out.append(_nothing(n_emotions, d_model, len(settings.ratings), str(error)))
    total = float(square_D.sum())
    norm = float(square_D[dropped_K].sum()) / total if total else float("nan")
    neutral = int(np.isfinite(vectors.neutral_ND).all(axis=1).sum())
    halved_E = np.isfinite(vectors.halves_SHED[..., 0]).all(axis=(0, 1))
    return LayerResult(out, sums.shares(), dropped_K, norm, neutral, halved_E)


@lru_cache(maxsize=2)
def _design_and_halves(
    ids: tuple[str, ...], labels: tuple[str, ...], emotions: tuple[str, ...], seed: int
) -> tuple[Design, Bool[ndarray, "split text"]]:
    """Return what is the same for all layers of a cell."""
    design = story_design(ids, labels, emotions)
    return design, story_halves(design, SPLITS, seed)


def _analyse_contrast(
    vectors: LayerVectors,
    emotions: Sequence[str],
    name: str,
    settings: Settings,
    dropped_K: Int[ndarray, " rank"],
) -> ContrastResult:
    basis_KD, explained = None, float("nan")
    if GEOMETRY[name] != "mean-centered":
        basis_KD, explained = fit_neutral_basis(vectors.neutral_ND, settings.neutral_variance)
    x_ED = contrast_vectors(vectors.u_ED, basis_KD, GEOMETRY[name])
    gram_EE = gram(x_ED)
    scores_EX, variance_X = principal_coordinates(gram_EE)
    by_norms = list(settings.ratings.values())
    r, rho = (_correlated(scores_EX, by_norms, ranks) for ranks in (False, True))
    plane = [[plane_alignment(scores_EX, y_E) for y_E in y_EX.T] for y_EX in by_norms]
    ratings_EA = np.concatenate(by_norms, axis=1)
    paired = list(range(len(AXES))) * len(by_norms)
    shape, d_model = (len(by_norms), len(AXES), len(ESTIMATORS)), x_ED.shape[1]
    there = np.isfinite(gram_EE).any(axis=1)
    held_out_AT = held_out_r(
        gram_EE[np.ix_(there, there)],
        ratings_EA[there],
        paired,
        folds([e for e, ok in zip(emotions, there, strict=True) if ok], settings.seed),
    )
    directions_ATD = rating_directions(x_ED, ratings_EA, paired)
    halves_SHATD = _half_directions(
        vectors, basis_KD, GEOMETRY[name], ratings_EA, paired, directions_ATD
    )
    apart = [gram_distances(gram_EE), distances(scores_EX)]
    middles = [settings.middle.get(norms) for norms in settings.ratings]
    without_EE, without_EX, without_variance_X = _without(vectors, name, settings, dropped_K)
    without_r = _correlated(without_EX, by_norms)
    crossed_r = _correlated(scores_EX[:, ::-1], by_norms)
    centred_ED = centred(x_ED)
    return ContrastResult(
        n_neutral_components=0 if basis_KD is None else len(basis_KD),
        neutral_variance_explained=explained,
        scores_XE=scores_EX.T,
        variance_X=variance_X,
        r_NX=np.array([[c.r for c in row] for row in r]),
        p_NX=np.array([[c.p for c in row] for row in r]),
        rho_NX=np.array([[c.r for c in row] for row in rho]),
        rho_p_NX=np.array([[c.p for c in row] for row in rho]),
        plane_r_NX=np.array([[a.r for a in row] for row in plane]),
        plane_angle_NX=np.array([[a.angle for a in row] for row in plane]),
        plane_p_NX=np.array([[a.p for a in row] for row in plane]),
        cross_r_NX=np.array([[c.r for c in row] for row in crossed_r]),
        n_N=np.array([float(row[0].n) for row in r]),
        gram_EE=gram_EE,
        direction_NXTD=directions_ATD.reshape(*shape, -1),
        held_out_r_NXT=held_out_AT.reshape(shape),
        half_cosine_SNXT=(halves_SHATD[:, 0] * halves_SHATD[:, 1]).sum(-1).reshape(-1, *shape),
        half_SHNXTD=halves_SHATD[:KEPT_SPLITS].astype(np.float32).reshape(-1, 2, *shape, d_model),
        silhouette_NS=np.array(
            [
                [separation(d, y_EX[:, 0], middle) for d in apart]
                for y_EX, middle in zip(by_norms, middles, strict=True)
            ]
        ),
        dropped_share=float(np.nansum(centred_ED[:, dropped_K] ** 2) / np.nansum(centred_ED**2)),
        without_r_NX=np.array([[c.r for c in row] for row in without_r]),
        without_variance_X=without_variance_X,
        without_cka_T=np.array(
            [cka_grid(gram_EE[None], without_EE[None], way)[0, 0] for way in (False, True)]
        ),
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


def _without(
    vectors: LayerVectors, name: str, settings: Settings, dropped_K: Int[ndarray, " rank"]
) -> tuple[
    Float64[ndarray, "emotion emotion"],
    Float64[ndarray, "emotion component"],
    Float64[ndarray, " component"],
]:
    """Return Gram matrix, scores and shares of variance of contrasts without some dimensions.

    NaN where nothing is left that varies.
    """
    try:
        gram_EE = _gram_without(vectors, name, settings, dropped_K)
        return gram_EE, *principal_coordinates(gram_EE)
    except NotEnough:
        n = len(vectors.u_ED)
        nan = np.full((n, n), np.nan)
        return nan, nan[:, : len(AXES)], np.full(len(AXES), np.nan)


def _gram_without(
    vectors: LayerVectors, name: str, settings: Settings, dropped_K: Int[ndarray, " rank"]
) -> Float64[ndarray, "emotion emotion"]:
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
    whole_ATD: Float64[ndarray, "rating estimator d_model"],
) -> Float64[ndarray, "split half rating estimator d_model"]:
    """Return unit directions over either half of the stories, of emotions that both halves have.

    A half's component points the way of the whole's, by their dot product: by its own r it would
    turn around at random wherever the component has little to do with the rating.
    """
    component, paper = ESTIMATORS.index("component"), ESTIMATORS.index("paper")
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
            same_A = (directions[:, paper] == directions[:, component]).all(axis=1)
            along_A = (directions[:, component] * whole_ATD[:, component]).sum(axis=1)
            directions[along_A < 0, component] *= -1
            directions[same_A, paper] = directions[same_A, component]
            with np.errstate(invalid="ignore", divide="ignore"):
                found.append(directions / np.linalg.norm(directions, axis=-1, keepdims=True))
    return np.array(found).reshape(len(vectors.halves_SHED), 2, *found[0].shape)


def _nothing(n_emotions: int, d_model: int, n_norms: int, why: str) -> ContrastResult:
    nan, n_axes, n_estimators = float("nan"), len(AXES), len(ESTIMATORS)
    by_component: dict[str, Any] = {
        field: np.full((n_norms, n_axes), nan)
        for field in (
            *("r_NX", "p_NX", "rho_NX", "rho_p_NX", "plane_r_NX", "plane_angle_NX", "plane_p_NX"),
            *("cross_r_NX", "without_r_NX"),
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
        half_cosine_SNXT=np.full((SPLITS, n_norms, n_axes, n_estimators), nan),
        half_SHNXTD=np.full(
            (KEPT_SPLITS, 2, n_norms, n_axes, n_estimators, d_model), np.float32(nan)
        ),
        silhouette_NS=np.full((n_norms, len(SPACES)), nan),
        dropped_share=nan,
        without_variance_X=np.full(n_axes, nan),
        without_cka_T=np.full(2, nan),
        missing=why,
        **by_component,
    )
