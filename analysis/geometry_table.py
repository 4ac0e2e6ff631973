"""The table of the geometry: components and ratings by layer, with intervals and baselines."""

from __future__ import annotations

import pandas as pd
import xarray as xr

from analysis.differences import BASELINES, baselines, correlations
from analysis.results import CellResults, labelled, ordered
from analysis.settings import AXES


def geometry_table(cells: list[CellResults]) -> pd.DataFrame:
    """Return one row for each model, corpus, window, contrast, norms and layer.

    A component's sign is arbitrary, so valence_r and arousal_r are |r|: each component is flipped
    to point the rating's way; rho is Spearman's, likewise. plane_r is the best r of a rating within
    the plane of PC1 and PC2, plane_angle where it lies (0 degrees is PC1, 90 is PC2) and plane_p
    its own p; pc2_valence_r and pc1_arousal_r are those of the pairing turned around. silhouette
    tells positive from negative emotions apart, in all dimensions and on the plane. Depth is layer
    / number of layers; layer -1 is the embedding output.

    For each axis:

    - p is that of a single layer, p_corrected accounts for the search over the blocks;
    - r_infinite is what infinitely many stories would give, by the bootstrap, and low and high its
      95 % interval; emotions_low and emotions_high that over emotions;
    - overlap is how far the component is the same in drawn stories (mean |cosine|): below .7 or so
      it trades places with others, and the interval is wide or may still be too narrow;
    - of each of `analysis.differences.BASELINES`, its r, by how much the layer's r exceeds it, and
      the interval of that over stories. NaN where there is no such baseline.
    """
    frames = []
    for cell in cells:
        results = cell.results
        flat = xr.Dataset(
            {
                "n_emotions": results["n_rated"],
                "n_neutral_components": results["n_neutral_components"],
                "neutral_variance_explained": results["neutral_variance_explained"],
                "pc1_variance": results["explained_variance"].sel(component=1, drop=True),
                "pc2_variance": results["explained_variance"].sel(component=2, drop=True),
                "valence_r": abs(results["r"].sel(component=1, drop=True)),
                "valence_p": results["p"].sel(component=1, drop=True),
                "arousal_r": abs(results["r"].sel(component=2, drop=True)),
                "arousal_p": results["p"].sel(component=2, drop=True),
                "valence_rho": abs(results["rho"].sel(component=1, drop=True)),
                "valence_rho_p": results["rho_p"].sel(component=1, drop=True),
                "arousal_rho": abs(results["rho"].sel(component=2, drop=True)),
                "arousal_rho_p": results["rho_p"].sel(component=2, drop=True),
                **{
                    f"{axis}_{name}": results[name].sel(axis=axis, drop=True)
                    for axis in AXES
                    for name in ("plane_r", "plane_angle", "plane_p")
                },
                "pc2_valence_r": abs(results["cross_r"].sel(axis="valence", drop=True)),
                "pc1_arousal_r": abs(results["cross_r"].sel(axis="arousal", drop=True)),
                "n_neutral": results["n_neutral"],
                "silhouette": results["silhouette"].sel(space="all", drop=True),
                "silhouette_plane": results["silhouette"].sel(space="plane", drop=True),
                **_beside(cell, "valence", cells),
                **_beside(cell, "arousal", cells),
                "n_corpus_emotions": results["score"]
                .isel(component=0, drop=True)
                .notnull()
                .sum("emotion"),
            }
        )
        frame = flat.to_dataframe().reset_index()
        frames.append(labelled(frame, cell))
    columns = [
        *("model", "corpus", "window", "contrast", "norms", "layer", "depth"),
        *("n_emotions", "n_corpus_emotions"),
        *("n_neutral", "n_neutral_components", "neutral_variance_explained"),
        *("pc1_variance", "pc2_variance", "valence_r", "valence_p", "arousal_r", "arousal_p"),
        *("valence_rho", "valence_rho_p", "arousal_rho", "arousal_rho_p"),
        *("pc2_valence_r", "pc1_arousal_r"),
        *("valence_plane_r", "valence_plane_angle", "valence_plane_p"),
        *("arousal_plane_r", "arousal_plane_angle", "arousal_plane_p"),
        *("silhouette", "silhouette_plane"),
        *(f"{axis}_{name}" for axis in AXES for name in _BESIDE),
        "fingerprint",
    ]
    keys = ["window", "contrast", "norms"]
    return ordered(pd.concat(frames, ignore_index=True)[columns], cells, keys)


_BESIDE = (
    *("p_corrected", "r_infinite", "low", "high", "emotions_low", "emotions_high", "overlap"),
    *(
        name
        for other in BASELINES
        for name in (
            *(f"{other}_r", f"minus_{other}"),
            *(f"minus_{other}_low", f"minus_{other}_high"),
        )
    ),
)


def _beside(cell: CellResults, axis: str, cells: list[CellResults]) -> dict[str, xr.DataArray]:
    """Return what stands beside r: corrected p, intervals and baselines."""
    results, own = cell.results, correlations(cell, axis)
    figures = [results["p_corrected"].sel(component=AXES.index(axis) + 1, drop=True)]
    figures += [own.draws.median("draw"), *own.interval()]
    figures += correlations(cell, axis, "emotion_draw").interval()
    overlap = results["story_overlap"].sel(component=AXES.index(axis) + 1, drop=True)
    figures.append(overlap.broadcast_like(own.r))
    for other in baselines(cell, axis, cells).values():
        figures += [other.r.broadcast_like(own.r), *own.minus(other)]
    return dict(zip((f"{axis}_{name}" for name in _BESIDE), figures, strict=True))


def peaks(geometry: pd.DataFrame) -> pd.DataFrame:
    """Return the row with the largest valence_r of each cell, window, contrast and norms.

    The embedding output (layer -1) is a baseline and cannot be a peak.
    """
    keys = ["model", "corpus", "window", "contrast", "norms"]
    blocks = geometry[geometry["layer"] >= 0].dropna(subset="valence_r")
    rows = blocks.groupby(keys, sort=False)["valence_r"].idxmax()
    return geometry.loc[rows.to_numpy()].reset_index(drop=True)
