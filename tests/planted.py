"""Results of cells as an analysis would give them, made with known profiles, grids and spreads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from analysis.directions import ESTIMATORS, FOLDS
from analysis.results import CellResults
from analysis.settings import AXES, SPACES

BLOCKS, DRAWS = 12, 200
LAYERS = np.arange(-1, BLOCKS)
WINDOWS = ("all", "no-first")


def flat(value: float) -> np.ndarray:
    """A profile [block] that is the same everywhere."""
    return np.full(BLOCKS, value)


def peaked(value: float) -> np.ndarray:
    """A profile with one block above the others."""
    return np.where(np.arange(BLOCKS) == 5, value, value - 0.2)


def grid(value: float) -> np.ndarray:
    """A grid [block, block] of one value with ones on its diagonal."""
    found = np.full((BLOCKS, BLOCKS), value)
    np.fill_diagonal(found, 1)
    return found


def planted_results(
    valence: np.ndarray | None = None,
    arousal: np.ndarray | None = None,
    *,
    spread: float = 0.02,
    embedding: float = 0.0,
    cka: np.ndarray | None = None,
    cosine: np.ndarray | None = None,
    freed: np.ndarray | None = None,
    silhouette: float = 0.2,
    group_spread: float = 0.002,
    p: np.ndarray | None = None,
    peak_ratio: float = 3.0,
    dimensions_norm: float = 0.9,
    norms: Sequence[str] = ("made",),
    seed: int = 0,
) -> xr.Dataset:
    """Return results in which every window, contrast and set of norms is the same.

    Args:
        valence: r of PC1 by block, negative ones as a component of the other sign gives them.
        arousal: of PC2.
        spread: SD of its draws.
        embedding: r of both at layer -1.
        cka: grid over blocks.
        cosine: of valence directions.
        freed: the same freed of noise.
        silhouette: at every block.
        group_spread: SD over groups of emotions of grids and silhouette.
        p: corrected, by block; .001 where not given.
        peak_ratio: the longest token's norm over the mean of a text's tokens, in every block.
        dimensions_norm: the largest dimensions' share of the emotion means' squared norm.
        norms: names of the sets of ratings.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    lead = (len(WINDOWS), len(LAYERS), 1, len(norms))
    by_axis = [peaked(0.6) if values is None else values for values in (valence, arousal)]
    r_LX = np.vstack([[embedding, embedding], np.stack(by_axis, axis=1)])
    r = np.broadcast_to(r_LX[None, :, None, None], (*lead, 2))
    draw = r[..., None] + spread * rng.normal(size=(*lead, 2, DRAWS))
    p_L = np.concatenate([[np.nan], flat(0.001) if p is None else p])
    cka_LL, cosine_LL = (np.ones((len(LAYERS),) * 2) for _ in range(2))
    cka_LL[1:, 1:] = grid(0.9) if cka is None else cka
    cosine_LL[1:, 1:] = grid(0.9) if cosine is None else cosine
    freed_LL = cosine_LL.copy()
    if freed is not None:
        freed_LL[1:, 1:] = freed
    wlc, pairs = ("window", "layer", "contrast"), ("window", "layer", "layer_b")
    of_axis = (*wlc, "norms", "component")
    by_window = (len(WINDOWS), len(LAYERS), len(LAYERS))

    def grids(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values, by_window)[None]

    def groups(values: np.ndarray) -> np.ndarray:
        return grids(values)[None] + group_spread * rng.normal(size=(FOLDS, 1, *by_window))

    shape = (*lead, len(SPACES))
    estimators = (1, len(norms), 2, len(ESTIMATORS), *by_window)
    return xr.Dataset(
        {
            "r": (of_axis, r),
            "without_r": (of_axis, r),
            "p_corrected": (of_axis, np.broadcast_to(p_L[None, :, None, None, None], r.shape)),
            "without_p_corrected": (
                of_axis,
                np.broadcast_to(p_L[None, :, None, None, None], r.shape),
            ),
            "story_draw": ((*of_axis, "draw"), draw),
            "without_draw": ((*of_axis, "draw"), draw),
            "cka": (("contrast", *pairs), grids(cka_LL)),
            "group_cka": (("group", "contrast", *pairs), groups(cka_LL)),
            "cka_debiased": (("contrast", *pairs), grids(cka_LL)),
            "group_cka_debiased": (("group", "contrast", *pairs), groups(cka_LL)),
            "without_cka_grid": (("contrast", *pairs), grids(cka_LL)),
            "without_group_cka": (("group", "contrast", *pairs), groups(cka_LL)),
            "direction_cosine": (
                ("contrast", "norms", "axis", "estimator", *pairs),
                np.broadcast_to(cosine_LL, estimators),
            ),
            "half_direction_cosine": (
                ("contrast", "norms", "axis", "estimator", *pairs),
                np.broadcast_to(freed_LL, estimators),
            ),
            "silhouette": ((*wlc, "norms", "space"), np.full(shape, silhouette)),
            "without_silhouette": ((*wlc, "norms", "space"), np.full(shape, silhouette)),
            "group_silhouette": (
                (*wlc, "norms", "space", "group"),
                silhouette + group_spread * rng.normal(size=(*shape, FOLDS)),
            ),
            "rating": (("norms", "emotion", "axis"), rng.normal(size=(len(norms), 9, 2))),
            "peak_ratio": ("layer", np.full(len(LAYERS), peak_ratio)),
            "first_token_peak": ("layer", np.ones(len(LAYERS))),
            "dropped_norm": (("window", "layer"), np.full((2, len(LAYERS)), dimensions_norm)),
        },
        coords={
            "window": list(WINDOWS),
            "layer": LAYERS,
            "layer_b": LAYERS,
            "depth": ("layer", LAYERS / BLOCKS),
            "contrast": ["mean-centered"],
            "norms": list(norms),
            "emotion": [f"e{e}" for e in range(9)],
            "component": [1, 2],
            "axis": list(AXES),
            "estimator": list(ESTIMATORS),
            "space": list(SPACES),
        },
    )


def planted_words(r: float, spread: float = 0.02) -> xr.Dataset:
    """Return what the words of a corpus give: r for both baselines and axes."""
    noise = spread * np.random.default_rng(5).normal(size=(1, 1, 2, DRAWS))
    whole = np.full((1, 1, 2), r)
    return xr.Dataset(
        {
            "bag_of_words_r": (("contrast", "norms", "axis"), whole),
            "bag_of_words_draw": (("contrast", "norms", "axis", "draw"), whole[..., None] + noise),
            "lexical_r": (("norms", "axis"), whole[0]),
            "lexical_draw": (("norms", "axis", "draw"), whole[0][..., None] + noise[0]),
        },
        coords={"contrast": ["mean-centered"], "norms": ["made"], "axis": list(AXES)},
    )


def planted_cell(
    results: xr.Dataset | None = None,
    *,
    model: str = "m",
    corpus: str = "a",
    words: xr.Dataset | None = None,
    twin: str | None = None,
    writer: str | None = None,
) -> CellResults:
    """Return a cell with such results."""
    chosen = planted_results() if results is None else results
    return CellResults(model, corpus, chosen, "0" * 64, words, twin, writer)
