"""The analysis of one window and layer of a cell: the unit that runs in parallel.

What compares layers is in `analysis.cell`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float32, Float64, Int
from numpy import ndarray

from analysis.contrasts import (
    ContrastKind,
    LayerVectors,
    contrast_vectors,
    emotion_names,
    layer_vectors,
    pieces,
    story_halves,
)
from analysis.detection import Detection, HeldOut, topic_folds
from analysis.directions import ESTIMATORS, MIN_RATED, folds, held_out_r, rating_directions
from analysis.geometry import Correlation, NotEnough, correlate, plane_alignment
from analysis.resampling import Units, resampling_units
from analysis.robustness import Robustness, nothing_robust, robustness, silhouettes, space_of
from analysis.settings import AXES, GEOMETRY, SPACES, Settings
from analysis.variance import Design, VarianceShares, VarianceSums, story_design

SPLITS = 4
"""Random halvings of the stories that the reliability of directions is taken over."""

KEPT_SPLITS = 2
"""Of those, how many keep their directions, to be compared between layers."""

N_DROPPED = 3
"""Largest dimensions that are left out to see what they do."""


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
        robust: what is found under draws and when something is left out.
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
    robust: Robustness
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
        detection: how well stories on topics held out are told apart.
    """

    contrasts: list[ContrastResult]
    variance: VarianceShares
    dropped_K: Int[ndarray, " rank"]
    dropped_norm: float
    neutral: int
    halved_E: Bool[ndarray, " emotion"]
    detection: Detection


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
    design, halves_SN, units = _design(ids, tuple(labels), tuple(emotions), settings.seed)
    d_model = residual.sizes["d_model"]
    sums, held_out = (
        VarianceSums(design, d_model),
        _held_out(ids, labels, emotions, d_model, settings.seed),
    )

    def add(texts: slice, x_ND: ndarray, there_N: ndarray) -> None:
        sums.add(texts, x_ND, there_N)
        held_out.add(texts, x_ND, there_N)

    vectors = layer_vectors(residual, labels, emotions, halves_SN, add, units)
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
            out.append(_nothing(len(emotions), d_model, settings, str(error)))
    total = float(square_D.sum())
    norm = float(square_D[dropped_K].sum()) / total if total else float("nan")
    neutral = int(np.isfinite(vectors.neutral_ND).all(axis=1).sum())
    halved_E = np.isfinite(vectors.halves_SHED[..., 0]).all(axis=(0, 1))
    detection = held_out.detection(pieces(residual), vectors.neutral_ND, settings.neutral_variance)
    return LayerResult(out, sums.shares(), dropped_K, norm, neutral, halved_E, detection)


def _held_out(
    ids: Sequence[str], labels: Sequence[str], emotions: Sequence[str], d_model: int, seed: int
) -> HeldOut:
    fold_N, n_folds = topic_folds(ids, labels, seed)
    row_of = {name: row for row, name in enumerate(emotions)}
    row_N = np.array([row_of.get(name, -1) for name in labels])
    return HeldOut(fold_N, row_N, n_folds, len(emotions), d_model)


@lru_cache(maxsize=2)
def _design(
    ids: tuple[str, ...], labels: tuple[str, ...], emotions: tuple[str, ...], seed: int
) -> tuple[Design, Bool[ndarray, "split text"], Units]:
    """Return what is the same for all layers of a cell."""
    design = story_design(ids, labels, emotions)
    units = resampling_units(ids, labels, emotions, seed)
    return design, story_halves(design, SPLITS, seed), units


def _analyse_contrast(
    vectors: LayerVectors,
    emotions: Sequence[str],
    name: str,
    settings: Settings,
    dropped_K: Int[ndarray, " rank"],
) -> ContrastResult:
    space = space_of(vectors, name, settings)
    x_ED, gram_EE, scores_EX = space.x_ED, space.gram_EE, space.scores_EX
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
        vectors, space.basis_KD, GEOMETRY[name], ratings_EA, paired, directions_ATD
    )
    crossed_r = _correlated(scores_EX[:, ::-1], by_norms)
    return ContrastResult(
        n_neutral_components=0 if space.basis_KD is None else len(space.basis_KD),
        neutral_variance_explained=space.explained,
        scores_XE=scores_EX.T,
        variance_X=space.variance_X,
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
        silhouette_NS=silhouettes(gram_EE, scores_EX, np.array(by_norms), settings),
        robust=robustness(vectors, space, emotions, name, settings, dropped_K),
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


def _nothing(n_emotions: int, d_model: int, settings: Settings, why: str) -> ContrastResult:
    nan, n_axes, n_estimators = float("nan"), len(AXES), len(ESTIMATORS)
    n_norms = len(settings.ratings)
    by_component: dict[str, Any] = {
        field: np.full((n_norms, n_axes), nan)
        for field in (
            *("r_NX", "p_NX", "rho_NX", "rho_p_NX", "plane_r_NX", "plane_angle_NX", "plane_p_NX"),
            "cross_r_NX",
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
        robust=nothing_robust(n_emotions, settings),
        missing=why,
        **by_component,
    )
