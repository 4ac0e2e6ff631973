"""Pictures of a run, each a pure function from labelled results to a matplotlib figure.

A value that is missing is a gap, in lines and in heat maps, and never a zero. Nothing here opens a
window or keeps a figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.depth import beside_baselines, massive_activations, trajectories
from analysis.figures.detection import detection
from analysis.figures.emotions import emotion_cosines
from analysis.figures.grids import cka_estimators, cka_grids, valence_direction_cosines
from analysis.figures.maps import pca_maps
from analysis.figures.style import in_style, looks_of
from analysis.results import CellResults, preferred_window, without_twins


def draw_all(cells: list[CellResults], geometry: pd.DataFrame) -> dict[str, Figure]:
    """Draw every figure by name, for the first contrast and norms of the run.

    The figures of one window show the preferred one. A model with random weights is a baseline of
    its counterpart and has no panels of its own where that is there.

    Raises:
        ValueError: there is no cell to draw.
    """
    if not cells:
        raise ValueError("there is no cell to draw")
    results = cells[0].results
    contrast, norms = (str(results[name].to_numpy()[0]) for name in ("contrast", "norms"))
    windows = [str(w) for w in results["window"].to_numpy()]
    window = preferred_window(windows)
    looks = looks_of([(cell.model, cell.corpus) for cell in cells])
    shown = without_twins(cells)
    names = {(cell.model, cell.corpus) for cell in shown}
    is_shown = [key in names for key in zip(geometry["model"], geometry["corpus"], strict=True)]
    table = geometry[is_shown]
    return {
        "trajectories": trajectories(table, contrast, norms, [window], looks),
        "windows": trajectories(table, contrast, norms, windows, looks),
        "baselines": beside_baselines(shown, cells, contrast, norms, window, looks),
        "cka": cka_grids(shown, contrast),
        "cka_estimators": cka_estimators(shown, contrast, window),
        "valence_directions": valence_direction_cosines(shown, contrast, norms, window),
        "pca_map": pca_maps(shown, table, contrast, norms, window),
        "emotion_cosines": emotion_cosines(shown, table, contrast, norms, window),
        "activations": massive_activations(shown, looks),
        "detection": detection(shown, window, looks),
    }


def save_figures(folder: Path, figures: Mapping[str, Figure]) -> list[Path]:
    """Write each figure as `<name>.png` (200 dots per inch) and `<name>.pdf`, each file whole.

    The same figure gives the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    metadata: dict[str, Any] = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
    for name, figure in figures.items():
        for kind, about in metadata.items():
            file = folder / f"{name}.{kind}"
            partial = folder / f"{file.name}.partial"
            with in_style():
                figure.savefig(partial, format=kind, dpi=200, metadata=about)
            partial.replace(file)
            files.append(file)
    return files
