"""How often the interval over stories covers r when real stories' noise is put on known means.

    python -m benchmarks.coverage runs/mine model@corpus --window no-first --layer 21

A stress test, not a calibration: the emotion means of a cell are taken as truth, noise and all, and
the deviations of each emotion's topics from them are put on once more, drawn at random with random
signs. So there is twice the noise of the real stories. Prints how often the 95 % interval of each
component covers its true r, how wide it is, and how far components keep themselves.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from threadpoolctl import threadpool_limits

from analysis.contrasts import emotion_names, layer_vectors
from analysis.inference import bounds
from analysis.resampling import (
    Units,
    bootstrap_stories,
    component_scores,
    draw_weights,
    freed_of_drawing,
    resampling_units,
    weighted_r,
)
from analysis.robustness import space_of
from analysis.settings import Settings
from store import open_analysis, open_cell

DRAWS = 200


def main() -> None:
    """Run the test and print a line for each component."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("cell", help="model@corpus, analysed")
    parser.add_argument("--window", default="no-first")
    parser.add_argument("--layer", type=int, required=True)
    parser.add_argument("--contrast", default="neutral-pca")
    parser.add_argument("--norms", default="glasgow")
    parser.add_argument("--runs", type=int, default=60)
    options = parser.parse_args()
    with threadpool_limits(limits=1):
        gram_UU, units, names, rating_EX = _units(options)
        found = [_once(gram_UU, units, names, rating_EX, run) for run in range(options.runs)]
    for component, axis in enumerate(("valence", "arousal")):
        covered, width, overlap, r, true = np.mean([f[component] for f in found], axis=0)
        print(
            f"PC{component + 1} with {axis}: true r {true:.2f}, seen {r:.2f} on average; covered "
            f"{covered:.2f}, width {width:.2f}, overlap {overlap:.2f}"
        )


def _units(
    options: argparse.Namespace,
) -> tuple[Float64[ndarray, "unit unit"], Units, list[str], Float64[ndarray, "emotion axis"]]:
    """Return the products of units' contrast vectors, and whose they are."""
    cell = open_cell(options.run, options.cell)
    names = emotion_names(cell)
    rating = open_analysis(options.run, options.cell)["rating"]
    rating_EX = rating.sel(norms=options.norms).to_numpy()
    labels = [str(e) for e in cell["emotion"].to_numpy()]
    ids = [str(i) for i in cell["text_id"].to_numpy()]
    units = resampling_units(ids, labels, names, 0)
    residual = cell["residual_mean"].sel(window=options.window, layer=options.layer)
    vectors = layer_vectors(residual, labels, names, units=units)
    if (vectors.unit_count_U == 0).any():
        raise SystemExit("a topic of an emotion has no token in this window; take another one")
    settings = Settings((options.contrast,), 0.5, {options.norms: rating_EX})
    space = space_of(vectors, options.contrast, settings)
    unit_UD = vectors.unit_sum_UD / vectors.unit_count_U[:, None] - vectors.u_ED.mean(axis=0)
    if space.basis_KD is not None:
        unit_UD -= (unit_UD @ space.basis_KD.T) @ space.basis_KD
    return unit_UD @ unit_UD.T, units, names, rating_EX


def _once(
    gram_UU: Float64[ndarray, "unit unit"],
    units: Units,
    names: list[str],
    rating_EX: Float64[ndarray, "emotion axis"],
    run: int,
) -> Float64[ndarray, "component figure"]:
    """Return, for each component: covered or not, width, overlap, r seen and true r."""
    rng = np.random.default_rng(run)
    emotion_U = units.emotion_U
    n_units = len(emotion_U)
    k_U = np.bincount(emotion_U)[emotion_U]
    same_UU = emotion_U[:, None] == emotion_U
    mean_UU = same_UU / k_U[:, None]
    noisy_UU = mean_UU.copy()
    for unit in range(n_units):
        other = rng.choice(np.flatnonzero(same_UU[unit]))
        stretch = rng.choice([-1, 1]) * np.sqrt(k_U[unit] / max(1, k_U[unit] - 1))
        noisy_UU[unit] += stretch * (np.eye(n_units)[other] - mean_UU[unit])
    first_U = np.flatnonzero(np.diff(emotion_U, prepend=-1))
    drawn_UU = noisy_UU @ gram_UU @ noisy_UU.T
    means_EU = mean_UU[first_U]
    true_EX = component_scores(means_EU @ gram_UU @ means_EU.T)
    seen_EX = component_scores(means_EU @ drawn_UU @ means_EU.T)

    def r_of(score_EX: Float64[ndarray, "emotion component"]) -> Float64[ndarray, " component"]:
        way = np.where((score_EX * seen_EX).sum(axis=0) < 0, -1, 1)
        return weighted_r((score_EX * way)[None], rating_EX, np.ones((1, len(names))))[0]

    true, seen = r_of(true_EX), r_of(seen_EX)
    weight_BU = draw_weights(units, np.ones(n_units), names, DRAWS, run)
    draws = bootstrap_stories(drawn_UU, emotion_U, weight_BU, seen_EX, rating_EX[None])
    low, high = bounds(freed_of_drawing(draws.r_BNX[:, 0], seen, draws.overlap_X))
    sign = np.where(true < 0, -1, 1)
    covered = (low <= true) & (true <= high)
    return np.stack([covered, high - low, draws.overlap_X, seen * sign, true * sign], axis=1)


if __name__ == "__main__":
    main()
