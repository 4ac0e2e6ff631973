"""What is found at one window, layer and contrast when something is drawn anew or left out.

Stories and emotions are drawn anew, groups of emotions are left out (a jackknife), and so are the
largest dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64, Int
from numpy import ndarray

from analysis.clusters import distances, gram_distances, separation
from analysis.contrasts import LayerVectors, contrast_vectors, neutral_basis
from analysis.directions import FOLDS, folds
from analysis.geometry import NotEnough, centred, correlate, principal_coordinates
from analysis.resampling import (
    Draws,
    bootstrap_emotions,
    bootstrap_stories,
    draw_weights,
    freed_of_drawing,
)
from analysis.settings import AXES, GEOMETRY, SPACES, Settings
from analysis.similarity import cka_grid, gram


@dataclass(frozen=True)
class Space:
    """Contrast vectors of a layer and their leading plane.

    Attributes:
        x_ED: contrast vectors.
        basis_KD: what was projected out, None for a contrast without projection.
        explained: share of the neutral texts' variance that it explains.
        gram_EE: Gram matrix of the centred vectors.
        scores_EX: coordinates on PC1 and PC2.
        variance_X: their shares of variance.
    """

    x_ED: Float64[ndarray, "emotion d_model"]
    basis_KD: Float64[ndarray, "component d_model"] | None
    explained: float
    gram_EE: Float64[ndarray, "emotion emotion"]
    scores_EX: Float64[ndarray, "emotion component"]
    variance_X: Float64[ndarray, " component"]


@dataclass(frozen=True)
class Robustness:
    """Results under draws, and without groups of emotions or the largest dimensions.

    Attributes:
        story_draw_BNX: r over draws of stories, as `resampling.freed_of_drawing` gives it.
        story_overlap_X: how far PC1 and PC2 are the same in drawn stories, mean |cosine|.
        emotion_draw_BNX: over draws of emotions.
        group_silhouette_GNS: silhouette without each group of emotions, by norms and space.
        dropped_share: share of the contrast vectors' variance in the layer's largest dimensions.
        without_scores_XE: scores when those dimensions are left out from the story vectors on.
        without_variance_X: share of variance of PC1 and PC2 without them.
        without_r_NX: r without them.
        without_draw_BNX: draws of stories without them.
        without_gram_EE: Gram matrix without them.
        without_cka_T: linear CKA, plain and debiased, of the vectors with and without them.
        without_silhouette_NS: silhouette without them.
    """

    story_draw_BNX: Float32[ndarray, "draw norms component"]
    story_overlap_X: Float64[ndarray, " component"]
    emotion_draw_BNX: Float32[ndarray, "draw norms component"]
    group_silhouette_GNS: Float64[ndarray, "group norms space"]
    dropped_share: float
    without_scores_XE: Float64[ndarray, "component emotion"]
    without_variance_X: Float64[ndarray, " component"]
    without_r_NX: Float64[ndarray, "norms component"]
    without_draw_BNX: Float32[ndarray, "draw norms component"]
    without_gram_EE: Float64[ndarray, "emotion emotion"]
    without_cka_T: Float64[ndarray, " estimator"]
    without_silhouette_NS: Float64[ndarray, "norms space"]


def space_of(vectors: LayerVectors, name: str, settings: Settings) -> Space:
    """Return the space of a contrast named in the manifest.

    Raises:
        NotEnough: too few texts for a basis or emotions for a component.
    """
    basis_KD, explained = None, float("nan")
    if GEOMETRY[name] != "mean-centered":
        basis_KD, explained = neutral_basis(vectors.neutral_ND, settings.neutral_variance)
    x_ED = contrast_vectors(vectors.u_ED, basis_KD, GEOMETRY[name])
    gram_EE = gram(x_ED)
    return Space(x_ED, basis_KD, explained, gram_EE, *principal_coordinates(gram_EE))


def robustness(
    vectors: LayerVectors,
    space: Space,
    emotions: Sequence[str],
    name: str,
    settings: Settings,
    dropped_K: Int[ndarray, " rank"],
) -> Robustness:
    """Return what is found under draws and without groups of emotions or some dimensions.

    Args:
        vectors: of the layer, units among them.
        space: of the contrast.
        emotions: names of the emotions.
        name: of the contrast.
        settings: of the cell.
        dropped_K: the dimensions to leave out.
    """
    rating_NEX = np.array(list(settings.ratings.values()))
    there = np.isfinite(space.scores_EX).all(axis=1)
    gram_EE = space.gram_EE[np.ix_(there, there)]
    by_emotion = bootstrap_emotions(
        gram_EE, space.scores_EX[there], rating_NEX[:, there], settings.bootstraps, settings.seed
    )
    centred_ED = centred(space.x_ED)
    by_story, overlap_X = story_draws(vectors, space, emotions, settings)
    return Robustness(
        story_draw_BNX=by_story,
        story_overlap_X=overlap_X,
        emotion_draw_BNX=_freed(by_emotion, correlations(space.scores_EX, settings)),
        group_silhouette_GNS=_without_groups(space, emotions, settings),
        dropped_share=float(np.nansum(centred_ED[:, dropped_K] ** 2) / np.nansum(centred_ED**2)),
        **_without_dimensions(vectors, space, emotions, name, settings, dropped_K),
    )


def nothing_robust(n_emotions: int, settings: Settings) -> Robustness:
    """Return NaN throughout, for a contrast without results."""
    n_norms, n_axes, draws = len(settings.ratings), len(AXES), settings.bootstraps
    return Robustness(
        story_draw_BNX=_nan32(draws, n_norms, n_axes),
        story_overlap_X=np.full(n_axes, np.nan),
        emotion_draw_BNX=_nan32(draws, n_norms, n_axes),
        group_silhouette_GNS=np.full((FOLDS, n_norms, len(SPACES)), np.nan),
        dropped_share=float("nan"),
        **_nothing_left(n_emotions, settings),
    )


def correlations(
    scores_EX: Float64[ndarray, "emotion component"], settings: Settings
) -> Float64[ndarray, "norms component"]:
    """Return r of each component with the rating it is paired with, for each set of norms."""
    return np.array(
        [
            [correlate(scores_EX[:, i], y_EX[:, i]).r for i in range(len(AXES))]
            for y_EX in settings.ratings.values()
        ]
    )


def silhouettes(
    gram_EE: Float64[ndarray, "e e"],
    scores_EX: Float64[ndarray, "e component"],
    rating_NEX: Float64[ndarray, "norms e axis"],
    settings: Settings,
) -> Float64[ndarray, "norms space"]:
    """Return the silhouette of emotions rated positive against negative, by norms and SPACES."""
    apart = [gram_distances(gram_EE), distances(scores_EX)]
    middles = [settings.middle.get(norms) for norms in settings.ratings]
    return np.array(
        [
            [separation(d, y_EX[:, 0], middle) for d in apart]
            for y_EX, middle in zip(rating_NEX, middles, strict=True)
        ]
    )


def story_draws(
    vectors: LayerVectors, space: Space, emotions: Sequence[str], settings: Settings
) -> tuple[Float32[ndarray, "draw norms component"], Float64[ndarray, " component"]]:
    """Return r over draws of stories, the neutral texts as they are, and components' overlap."""
    rating_NEX = np.array(list(settings.ratings.values()))
    there = np.isfinite(space.scores_EX).all(axis=1)
    units, count_U = vectors.units, vectors.unit_count_U
    weight_BU = draw_weights(units, count_U, emotions, settings.bootstraps, settings.seed)
    used = there[units.emotion_U]
    with np.errstate(invalid="ignore", divide="ignore"):
        unit_UD = np.where(count_U[:, None] > 0, vectors.unit_sum_UD / count_U[:, None], 0)[used]
    unit_UD -= vectors.u_ED[there].mean(axis=0)
    if space.basis_KD is not None:
        unit_UD -= (unit_UD @ space.basis_KD.T) @ space.basis_KD
    drawn = bootstrap_stories(
        unit_UD @ unit_UD.T,
        units.emotion_U[used],
        weight_BU[:, used],
        space.scores_EX[there],
        rating_NEX[:, there],
    )
    return _freed(drawn, correlations(space.scores_EX, settings)), drawn.overlap_X


def _freed(
    drawn: Draws, whole_NX: Float64[ndarray, "norms component"]
) -> Float32[ndarray, "draw norms component"]:
    found: Float32[ndarray, "draw norms component"] = freed_of_drawing(
        drawn.r_BNX, whole_NX, drawn.overlap_X
    ).astype(np.float32)
    return found


def _without_groups(
    space: Space, emotions: Sequence[str], settings: Settings
) -> Float64[ndarray, "group norms space"]:
    """Return silhouettes without each group of emotions."""
    rating_NEX = np.array(list(settings.ratings.values()))
    fold_E = folds(emotions, settings.seed)
    there = np.isfinite(space.scores_EX).all(axis=1)
    found = np.full((FOLDS, len(rating_NEX), len(SPACES)), np.nan)
    for group in range(FOLDS):
        kept = there & (fold_E != group)
        gram_EE = space.gram_EE[np.ix_(kept, kept)]
        with suppress(NotEnough):
            scores_EX, _ = principal_coordinates(gram_EE)
            found[group] = silhouettes(gram_EE, scores_EX, rating_NEX[:, kept], settings)
    return found


def _without_dimensions(
    vectors: LayerVectors,
    space: Space,
    emotions: Sequence[str],
    name: str,
    settings: Settings,
    dropped_K: Int[ndarray, " rank"],
) -> dict[str, ndarray]:
    """Return results without some dimensions; NaN where nothing is left that varies."""
    left = replace(
        vectors,
        u_ED=np.delete(vectors.u_ED, dropped_K, axis=1),
        neutral_ND=np.delete(vectors.neutral_ND, dropped_K, axis=1),
        unit_sum_UD=np.delete(vectors.unit_sum_UD, dropped_K, axis=1),
    )
    try:
        without = space_of(left, name, settings)
    except NotEnough:
        return _nothing_left(len(space.x_ED), settings)
    rating_NEX = np.array(list(settings.ratings.values()))
    grams = (space.gram_EE[None], without.gram_EE[None])
    return {
        "without_scores_XE": without.scores_EX.T,
        "without_variance_X": without.variance_X,
        "without_r_NX": correlations(without.scores_EX, settings),
        "without_draw_BNX": story_draws(left, without, emotions, settings)[0],
        "without_gram_EE": without.gram_EE,
        "without_cka_T": np.array([cka_grid(*grams, way)[0, 0] for way in (False, True)]),
        "without_silhouette_NS": silhouettes(
            without.gram_EE, without.scores_EX, rating_NEX, settings
        ),
    }


def _nothing_left(n_emotions: int, settings: Settings) -> dict[str, ndarray]:
    n_norms, n_axes = len(settings.ratings), len(AXES)
    return {
        "without_scores_XE": np.full((n_axes, n_emotions), np.nan),
        "without_variance_X": np.full(n_axes, np.nan),
        "without_r_NX": np.full((n_norms, n_axes), np.nan),
        "without_draw_BNX": _nan32(settings.bootstraps, n_norms, n_axes),
        "without_gram_EE": np.full((n_emotions, n_emotions), np.nan),
        "without_cka_T": np.full(2, np.nan),
        "without_silhouette_NS": np.full((n_norms, len(SPACES)), np.nan),
    }


def _nan32(*shape: int) -> Float32[ndarray, ...]:
    return np.full(shape, np.nan, dtype=np.float32)
