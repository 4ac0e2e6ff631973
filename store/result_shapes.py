"""What a cell's results and a corpus' words hold: dimensions, kinds of types, fixed names.

Whoever hands a run on can put other arrays there. What reads all of them asks for all; what reads
a few also takes results of earlier versions, which had fewer.
"""

from __future__ import annotations

from collections.abc import Mapping

from store.cell_attributes import MADE_FROM
from store.labelled import TEXT, Expected, Part

_LAYER = ("window", "layer")
_AT = (*_LAYER, "contrast")
_COMPONENT = (*_AT, "norms", "component")
_AXIS = (*_AT, "norms", "axis")
_ESTIMATOR = (*_AXIS, "estimator")
_GRID = ("contrast", *_LAYER, "layer_b")
_GRIDS = ("contrast", "norms", "axis", "estimator", *_LAYER, "layer_b")

COORDINATES: Expected = {
    **{
        name: ((name,), TEXT)
        for name in ("window", "contrast", "norms", "axis", "estimator", "emotion", "space")
    },
    **{name: ((name,), "i") for name in ("layer", "layer_b", "component", "top", "rank")},
    "depth": (("layer",), "f"),
}
ANALYSIS: Expected = {
    **COORDINATES,
    **dict.fromkeys(
        (
            *("r", "p", "p_corrected", "rho", "rho_p"),
            *("without_r", "without_p_corrected"),
        ),
        (_COMPONENT, "f"),
    ),
    **dict.fromkeys(("story_draw", "emotion_draw", "without_draw"), ((*_COMPONENT, "draw"), "f")),
    **dict.fromkeys(("cross_r", "plane_r", "plane_angle", "plane_p"), (_AXIS, "f")),
    **dict.fromkeys(
        ("held_out_r", "half_cosine", "half_cosine_sd", "reliability"), (_ESTIMATOR, "f")
    ),
    **dict.fromkeys(("direction_cosine", "half_direction_cosine"), (_GRIDS, "f")),
    "direction": ((*_GRIDS[:-1], "d_model"), "f"),
    **dict.fromkeys(("cka", "cka_debiased", "without_cka_grid"), (_GRID, "f")),
    **dict.fromkeys(
        ("group_cka", "group_cka_debiased", "without_group_cka"), (("group", *_GRID), "f")
    ),
    "gram": (("contrast", *_LAYER, "emotion", "emotion_b"), "f"),
    **dict.fromkeys(
        ("explained_variance", "without_variance", "story_overlap"), ((*_AT, "component"), "f")
    ),
    "score": ((*_AT, "component", "emotion"), "f"),
    **dict.fromkeys(("silhouette", "without_silhouette"), ((*_AT, "norms", "space"), "f")),
    "group_silhouette": ((*_AT, "group", "norms", "space"), "f"),
    **dict.fromkeys(
        (
            *("neutral_variance_explained", "dropped_share"),
            *("without_cka", "without_cka_debiased"),
        ),
        (_AT, "f"),
    ),
    "n_neutral_components": (_AT, "if"),  # NaN where there is nothing to analyse
    "missing": (_AT, TEXT),
    "n_rated": ((*_AT, "norms"), "i"),
    "rating": (("norms", "emotion", "axis"), "f"),
    "halved": ((*_LAYER, "emotion"), "b"),
    "dropped_dimension": ((*_LAYER, "rank"), "i"),
    **dict.fromkeys(
        (
            *("n_neutral", "detected_n", "detected_candidates"),
            *("variance_n_stories", "variance_n_topics", "variance_n_pairs"),
        ),
        (_LAYER, "i"),
    ),
    **dict.fromkeys(
        (
            *("dropped_norm", "detected_rank", "detected_reciprocal_rank"),
            *("variance_emotion", "variance_topic", "variance_pair", "variance_rest"),
            *("variance_emotion_ss", "variance_topic_ss", "variance_pair_ss", "variance_rest_ss"),
            "variance_emotion_beyond_topic_ss",
        ),
        (_LAYER, "f"),
    ),
    **dict.fromkeys(
        ("detected", "detected_low", "detected_high", "detected_by_chance"), ((*_LAYER, "top"), "f")
    ),
    "detected_emotion": ((*_LAYER, "emotion"), "f"),
    "detected_missing": (_LAYER, TEXT),
    "texts_without_token": (("window",), "i"),
    "texts_without_token_names": (("window",), TEXT),
    **dict.fromkeys(
        ("peak_ratio", "peak_ratio_max", "peak_share", "first_token_peak"), (("layer",), "f")
    ),
    "top_dimension": (("layer", "rank"), "i"),
    "top_dimension_share": (("layer", "rank"), "f"),
}
"""Of `analysis.zarr`, all of it."""

WORDS: Expected = {
    **{name: ((name,), TEXT) for name in ("contrast", "norms", "axis")},
    "bag_of_words_draw": (("draw", "contrast", "norms", "axis"), "f"),
    "bag_of_words_missing": (("contrast",), TEXT),
    "bag_of_words_r": (("contrast", "norms", "axis"), "f"),
    "lexical_draw": (("norms", "draw", "axis"), "f"),
    "lexical_n": (("norms", "axis"), "i"),
    "lexical_r": (("norms", "axis"), "f"),
}
"""Of `words.zarr`, all of it."""

VECTORS: Expected = {
    name: ANALYSIS[name]
    for name in (
        *("window", "contrast", "norms", "axis", "estimator", "layer", "component"),
        *("r", "p", "p_corrected", "direction", "held_out_r", "explained_variance"),
        *("n_rated", "n_neutral_components", "missing"),
    )
}
"""What `emovec vectors` takes from a cell's results."""

DETECTED: Expected = {
    name: ANALYSIS[name]
    for name in (
        *("window", "layer", "top", "detected", "detected_n", "detected_candidates"),
        *("detected_by_chance", "detected_reciprocal_rank"),
    )
}
"""What `emovec read` takes from a cell's results, where they have it."""

NAMES: Mapping[str, tuple[str | int, ...]] = {
    "axis": ("valence", "arousal"),
    "estimator": ("component", "paper", "covariance", "ridge", "least-squares"),
    "space": ("all", "plane"),
    "component": (1, 2),
    "top": (1, 5, 10),
    "rank": (1, 2, 3),
}
"""What some coordinates always are."""

ATTRIBUTES: Mapping[str, Part] = {
    **MADE_FROM,
    "neutral_variance": (
        lambda value: type(value) in (int, float) and 0 <= value <= 1,
        "a share from 0 to 1",
    ),
}
"""Attributes of results."""
