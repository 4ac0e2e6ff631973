"""Tables of how well emotion vectors tell stories apart, and the layer that does it best."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from analysis.results import CellResults, labelled, ordered


def best_layer(results: xr.Dataset, window: str) -> int | None:
    """Return the block with the largest mean reciprocal rank, None where no block has one.

    Args:
        results: as `analysis.cell.join_layers` gives them.
        window: token window.
    """
    found = results["detected_reciprocal_rank"].sel(window=window)
    found = found.where(found["layer"] >= 0, drop=True)
    return int(found.idxmax("layer")) if bool(np.isfinite(found).any()) else None


def detection_table(cells: list[CellResults]) -> pd.DataFrame:
    """Return how often the emotion of a story is found, on topics that the vectors never saw.

    One row for each cell, window and layer. `top_5` is the share of stories whose emotion is among
    the five with the highest scores, `top_5_low` and `top_5_high` its 95 % interval over emotions,
    `top_5_chance` the share by chance; `median_rank` and `mean_reciprocal_rank` are over the same
    `n_stories`, told from `n_emotions`; `missing` says why there are none. Scores are those of
    `analysis.detection.Detector`, contrast `both`.
    """
    frames = []
    for cell in cells:
        results = cell.results
        figures = {
            "n_stories": results["detected_n"],
            "n_emotions": results["detected_candidates"],
            "median_rank": results["detected_rank"],
            "mean_reciprocal_rank": results["detected_reciprocal_rank"],
        }
        for k in results["top"].to_numpy():
            for ending in ("", "_low", "_high", "_by_chance"):
                column = f"top_{k}{ending.replace('by_', '')}"
                figures[column] = results[f"detected{ending}"].sel(top=k, drop=True)
        figures["missing"] = results["detected_missing"]
        frames.append(labelled(xr.Dataset(figures).to_dataframe().reset_index(), cell))
    table = pd.concat(frames, ignore_index=True)
    columns = ["model", "corpus", "window", "layer", "depth", *figures, "fingerprint"]
    return ordered(table[columns], cells, ["window"])


def detected_emotions_table(cells: list[CellResults]) -> pd.DataFrame:
    """Return how well each emotion is found at the best layer of each cell and window.

    `median_rank` is over the emotion's stories, 1 the best of `n_emotions`; NaN where none of them
    is on a topic apart from its others. A window without a best layer has no rows.
    """
    frames = []
    for cell in cells:
        for window in map(str, cell.results["window"].to_numpy()):
            layer = best_layer(cell.results, window)
            if layer is None:
                continue
            here = cell.results.sel(window=window, layer=layer)
            frame = pd.DataFrame(
                {
                    "window": window,
                    "layer": layer,
                    "emotion": [str(e) for e in here["emotion"].to_numpy()],
                    "median_rank": here["detected_emotion"].to_numpy(),
                    "n_emotions": int(here["detected_candidates"]),
                }
            )
            frames.append(labelled(frame, cell))
    columns = ["model", "corpus", "window", "layer", "emotion", "median_rank", "n_emotions"]
    columns.append("fingerprint")
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)
    return ordered(table[columns], cells, ["window"], last="emotion")
