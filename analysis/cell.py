"""How the results of a cell's windows and layers are joined and its layers compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from operator import attrgetter

import numpy as np
import xarray as xr
from jaxtyping import Float32, Float64
from numpy import ndarray

from analysis.detection import TOP
from analysis.directions import ESTIMATORS, FOLDS, folds
from analysis.inference import permutation_p
from analysis.layer import N_DROPPED, LayerResult
from analysis.settings import AXES, SPACES, Settings
from analysis.similarity import cka_grid, cosine_grid
from analysis.variance import SHARES

DETECTED = {
    "detected": "top_K",
    "detected_low": "low_K",
    "detected_high": "high_K",
    "detected_by_chance": "chance_K",
}


def join_layers(
    results: dict[tuple[str, int], LayerResult],
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
          rating it is paired with; a component's sign is arbitrary), cross_r (the component that
          the other rating is paired with), plane_r, plane_angle, plane_p, n_rated, rating;
        - gram, cka and cka_debiased over pairs of layers;
        - direction, float32, in units of the residual stream (not normalised);
        - direction_cosine over pairs of layers, and half_direction_cosine: between one half of the
          stories at one layer and the other half at the other, mean over splits; a component's are
          taken with the sign that makes direction_cosine positive, its own being arbitrary;
        - held_out_r, half_cosine (the two halves at one layer, mean over splits), half_cosine_sd
          (over splits), and reliability: the cosine to expect between the directions of two corpora
          with as many topics each (Spearman-Brown), NaN where the halves' cosine is not above 0;
        - n_neutral (neutral texts with a vector), halved (emotions that both halves have);
        - silhouette (emotions rated positive against negative) in all dimensions and on the plane;
        - the shares of `analysis.variance.VarianceShares`, of the story vectors;
        - dropped_dimension, dropped_norm, dropped_share and without_r, without_variance,
          without_cka: the largest dimensions, what they carry, and what is found without them;
        - p_corrected, without_p_corrected: p corrected for the search over layers from 0 up;
        - story_draw, emotion_draw, without_draw: r over draws of stories and of emotions, and over
          draws of stories without the largest dimensions, signed as r is; story_overlap: mean
          |cosine| of drawn components with the full sample's;
        - group_cka, group_cka_debiased, group_silhouette: what is found without each of some groups
          of emotions; without_cka_grid, without_group_cka, without_silhouette: without the largest
          dimensions;
        - detected, detected_low, detected_high and detected_by_chance (by `top`): share of stories
          on topics held out whose emotion is among so many of highest score, `detected_n` of them
          from `detected_candidates` emotions; detected_rank and detected_reciprocal_rank (median
          and mean of the rank), detected_emotion (median rank by emotion), detected_missing;
        - missing (why numbers are NaN).
    """
    windows = list(dict.fromkeys(window for window, _ in results))
    layers = sorted({layer for _, layer in results})

    def stack(field: str) -> ndarray:
        """Return [window, layer, contrast, ...]."""
        path = attrgetter(field)
        return np.array(
            [[[path(c) for c in results[w, i].contrasts] for i in layers] for w in windows]
        )

    def by_layer(field: str) -> ndarray:
        """Return [window, layer, ...]."""
        path = attrgetter(field)
        return np.array([[path(results[w, i]) for i in layers] for w in windows])

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
    component = ESTIMATORS.index("component")
    crossed_CNXTWLL[:, :, :, component] *= np.where(cosine[:, :, :, component] < 0, -1, 1)
    cosine[:, :, :, component] = np.abs(cosine[:, :, :, component])
    by_split = xr.DataArray(
        stack("half_cosine_SNXT"), dims=(*"wlc", "split", "norms", "axis", "estimator")
    )
    half_cosine = by_split.mean("split").to_numpy()
    half_cosine_sd = by_split.std("split", ddof=1).to_numpy()
    positive = np.where(half_cosine > 0, half_cosine, np.nan)
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
            "plane_p": ((*wlc, "norms", "axis"), stack("plane_p_NX")),
            "cross_r": ((*wlc, "norms", "axis"), stack("cross_r_NX")),
            "n_neutral": (("window", "layer"), by_layer("neutral").astype(np.int32)),
            "halved": (("window", "layer", "emotion"), by_layer("halved_E")),
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
            "direction": ((*by_pair[:-1], "d_model"), direction_CNXTWLD.astype(np.float32)),
            "direction_cosine": (by_pair, cosine),
            "half_direction_cosine": (by_pair, crossed_CNXTWLL),
            "held_out_r": (by_estimator, stack("held_out_r_NXT")),
            "half_cosine": (by_estimator, half_cosine),
            "half_cosine_sd": (by_estimator, half_cosine_sd),
            "reliability": (by_estimator, 2 * positive / (1 + positive)),
            "silhouette": ((*wlc, "norms", "space"), stack("silhouette_NS")),
            "dropped_dimension": (
                ("window", "layer", "rank"),
                by_layer("dropped_K").astype(np.int32),
            ),
            "dropped_norm": (("window", "layer"), by_layer("dropped_norm")),
            "dropped_share": (wlc, stack("robust.dropped_share")),
            "without_r": (by_component, stack("robust.without_r_NX")),
            "without_variance": ((*wlc, "component"), stack("robust.without_variance_X")),
            **{
                f"without_{name}": (wlc, stack("robust.without_cka_T")[..., way])
                for way, name in enumerate(grids)
            },
            **{
                name: (
                    (*by_component, "draw"),
                    np.moveaxis(stack(f"robust.{name}_BNX"), wlc.index("contrast") + 1, -1),
                )
                for name in ("story_draw", "emotion_draw", "without_draw")
            },
            "story_overlap": ((*wlc, "component"), stack("robust.story_overlap_X")),
            "p_corrected": (by_component, _corrected_p(stack("scores_XE"), layers, settings)),
            "without_p_corrected": (
                by_component,
                _corrected_p(stack("robust.without_scores_XE"), layers, settings),
            ),
            "group_silhouette": (
                (*wlc, "group", "norms", "space"),
                stack("robust.group_silhouette_GNS"),
            ),
            "without_silhouette": (
                (*wlc, "norms", "space"),
                stack("robust.without_silhouette_NS"),
            ),
            **{
                name: (("window", "layer", "top"), by_layer(f"detection.{field}"))
                for name, field in DETECTED.items()
            },
            "detected_n": (("window", "layer"), by_layer("detection.n").astype(np.int32)),
            "detected_candidates": (
                ("window", "layer"),
                by_layer("detection.candidates").astype(np.int32),
            ),
            "detected_rank": (("window", "layer"), by_layer("detection.median_rank")),
            "detected_reciprocal_rank": (
                ("window", "layer"),
                by_layer("detection.mean_reciprocal_rank"),
            ),
            "detected_emotion": (("window", "layer", "emotion"), by_layer("detection.rank_E")),
            "detected_missing": (("window", "layer"), by_layer("detection.missing")),
            **_grids_without(gram_CWLEE, stack, emotions, settings),
            **{
                f"variance_{name}": (("window", "layer"), by_layer(f"variance.{name}"))
                for name in SHARES
            },
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
            "space": list(SPACES),
            "top": list(TOP),
            "rank": np.arange(1, N_DROPPED + 1),
        },
    )


def _corrected_p(
    score_WLCXE: Float64[ndarray, "window layer contrast component emotion"],
    layers: Sequence[int],
    settings: Settings,
) -> Float64[ndarray, "window layer contrast norms component"]:
    """Return p corrected for the search over the blocks; NaN for the embedding output."""
    lead, n_axes = score_WLCXE.shape[:3], score_WLCXE.shape[3]
    out = np.full((*lead, len(settings.ratings), n_axes), np.nan)
    blocks = [at for at, layer in enumerate(layers) if layer >= 0]
    for window, contrast in product(range(lead[0]), range(lead[2])):
        score_LXE = score_WLCXE[window, blocks, contrast]
        for norms, rating_EX in enumerate(settings.ratings.values()):
            found = permutation_p(score_LXE, rating_EX, settings.permutations, settings.seed)
            out[window, blocks, contrast, norms] = found
    return out


def _grids_without(
    gram_CWLEE: Float64[ndarray, "contrast window layer emotion emotion"],
    stack: Callable[[str], ndarray],
    emotions: Sequence[str],
    settings: Settings,
) -> dict[str, tuple[tuple[str, ...], ndarray]]:
    """Return CKA over pairs of layers without groups of emotions, or dimensions."""
    without_CWLEE = np.moveaxis(stack("robust.without_gram_EE"), 2, 0)
    fold_E = folds(emotions, settings.seed)
    over_pairs = ("contrast", "window", "layer", "layer_b")

    def grids(gram: ndarray, kept_E: ndarray, debiased: bool = False) -> ndarray:
        chosen = gram[..., kept_E, :][..., kept_E]
        return np.array([[cka_grid(g, g, debiased) for g in per_window] for per_window in chosen])

    def groups(gram: ndarray, debiased: bool = False) -> ndarray:
        return np.array([grids(gram, fold_E != group, debiased) for group in range(FOLDS)])

    everyone = np.ones(len(fold_E), dtype=bool)
    return {
        "group_cka": (("group", *over_pairs), groups(gram_CWLEE)),
        "group_cka_debiased": (("group", *over_pairs), groups(gram_CWLEE, debiased=True)),
        "without_cka_grid": (over_pairs, grids(without_CWLEE, everyone)),
        "without_group_cka": (("group", *over_pairs), groups(without_CWLEE)),
    }


def _crossed(
    half_CNXTWLSHD: Float32[ndarray, "c n x t window layer split half d_model"],
) -> Float64[ndarray, "c n x t window layer layer"]:
    """Return cosines between one half at one layer and the other half at another layer.

    The noise of the two halves is independent, that of one half at two layers is not. A split whose
    halves say nothing is left out of the mean.
    """
    lead = half_CNXTWLSHD.shape[:5]
    n_layers, n_splits, _, d_model = half_CNXTWLSHD.shape[5:]
    found = []
    for halves_LSHD in half_CNXTWLSHD.reshape(-1, n_layers, n_splits, 2, d_model):
        first_SLD, second_SLD = (
            halves_LSHD[:, :, half].swapaxes(0, 1).astype(np.float64) for half in (0, 1)
        )
        by_split = xr.DataArray(first_SLD @ second_SLD.swapaxes(1, 2), dims=("split", "a", "b"))
        one_way = by_split.mean("split").to_numpy()
        found.append((one_way + one_way.T) / 2)
    return np.array(found).reshape(*lead, n_layers, n_layers)
