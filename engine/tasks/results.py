"""Tables, figures and pages over all cells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.tasks.analysis import AnalysedCell
from engine.tasks.worker import one_thread_each
from manifests.norms import Norms
from store.places import place

if TYPE_CHECKING:
    import pandas as pd

    from analysis.effects import SteeredCell
    from store.labelled import Expected


def model_tables(cells: list[AnalysedCell], model: str, seed: int) -> dict[str, pd.DataFrame]:
    """Return a model's rows of the tables that take longest; other models do not matter to them.

    Args:
        cells: all cells of the model, and of those with random weights that it is held against.
        model: its name.
        seed: of k-means.
    """
    from analysis.claim_tables import claims_table, profiles_table
    from analysis.geometry_table import geometry_table
    from analysis.peak_layers import cluster_table

    one_thread_each()
    found = open_results(cells)
    own = [cell for cell in found if cell.model == model]
    return {
        "clusters": cluster_table(own, geometry_table(own), seed),
        "claims": claims_table(found, model),
        "profiles": profiles_table(own),
    }


def write_tables(
    cells: list[AnalysedCell], parts: list[dict[str, pd.DataFrame]], folder: str
) -> dict[str, Any]:
    """Write every table over all cells.

    Args:
        cells: all of them.
        parts: what `model_tables` gives for each model.
        folder: for the tables.

    Returns:
        Number of `files`, and `notes`: what has to be said of them.
    """
    from analysis import across, tables
    from analysis.claim_tables import norms_table, summary_table
    from analysis.detection_table import detected_emotions_table, detection_table
    from analysis.exclusions import exclusions_table
    from analysis.geometry_table import geometry_table
    from analysis.joining import join_models
    from analysis.markdown import claims_markdown, clusters_markdown, geometry_markdown
    from analysis.peak_layers import cosine_table
    from store.atomic import write_text
    from store.results import write_tables as write

    found = open_results(cells)
    geometry = geometry_table(found)
    joined = {name: join_models([part[name] for part in parts], found) for name in parts[0]}
    summary = summary_table(joined["claims"], found)
    files = write(
        Path(folder),
        {
            "geometry": geometry,
            "cka": tables.cka_table(found),
            "valence_directions": tables.direction_cosine_table(found, "valence"),
            "arousal_directions": tables.direction_cosine_table(found, "arousal"),
            "directions": tables.direction_table(found),
            "activations": tables.activation_table(found),
            "cka_corpora": across.corpora_table(found),
            "cka_models": across.models_table(found),
            "cka_grids": across.grids_table(found),
            "variance": tables.variance_table(found),
            "left_out": tables.left_out_table(found),
            **joined,
            "emotion_cosines": cosine_table(found, geometry),
            "detection": detection_table(found),
            "detected_emotions": detected_emotions_table(found),
            "exclusions": exclusions_table(found),
            "claim_summary": summary,
            "norms": norms_table(found),
        },
    )
    pages = {
        "geometry": geometry_markdown(geometry),
        "clusters": clusters_markdown(joined["clusters"]),
        "claims": claims_markdown(summary),
    }
    for name, page in pages.items():
        write_text(Path(folder) / f"{name}.md", page)
    notes = []
    if (rows := across.n_layer_pairs(found)) > across.MOST_ROWS:
        notes.append(
            f"cka_models.csv has layers of two models that correspond only: of all there would be "
            f"{rows:,} rows"
        )
    return {"files": len(files) + len(pages), "notes": notes}


def write_effects(
    cells: list[dict[str, Any]],
    positive: tuple[str, ...],
    negative: tuple[str, ...],
    norms: Norms,
    tables: str,
    figures: str,
) -> dict[str, Any]:
    """Write the tables and draw the figures of steering.

    Args:
        cells: `name`, `journal`, `directions` (file), `fingerprint` (of the stage) and `blocks` (of
            the model) of each.
        positive: ends of self-reports, as they were scored.
        negative: the opposite ends.
        norms: that rate words.
        tables: folder for tables.
        figures: folder for figures.
    """
    from analysis.effect_tests import effect_tables
    from analysis.figures import save_figures
    from analysis.figures.steering import effect_figures
    from store.results import write_tables as write

    made = effect_tables([_steered_cell(cell, positive, negative, norms) for cell in cells])
    files = write(Path(tables), made)
    drawn = save_figures(Path(figures), effect_figures(made, norms.name))
    return {"files": len(files) + len(drawn)}


def _steered_cell(
    cell: dict[str, Any], positive: Sequence[str], negative: Sequence[str], norms: Norms
) -> SteeredCell:
    from analysis.effects import SteeredCell, direction_cosines
    from engine.steering.tensors import fitting_measure, read_directions
    from store.journal import read_journal

    found = read_directions(Path(cell["directions"]))
    odd = fitting_measure(found, len(positive) + len(negative))
    model, _, corpus = cell["name"].partition("@")
    return SteeredCell(
        model=model,
        corpus=corpus,
        n_layers=cell["blocks"],
        rows=list(read_journal(Path(cell["journal"]), odd)),
        positive=positive,
        negative=negative,
        norms=norms,
        cosines={
            name: (found.layers, direction_cosines(rows_LD)) for name, rows_LD in found.rows.items()
        },
        held_out={
            axis: dict(zip(found.layers, r_L.tolist(), strict=True))
            for axis, r_L in found.held_out.items()
        },
        fingerprint=cell["fingerprint"],
    )


def draw_figures(cells: list[AnalysedCell], folder: str) -> dict[str, Any]:
    """Draw every figure over all cells."""
    from analysis.figures import draw_all, remove_others, save_figures
    from analysis.geometry_table import geometry_table

    found = open_results(cells)
    Path(folder).mkdir(parents=True, exist_ok=True)
    figures = draw_all(found, geometry_table(found))
    files = save_figures(Path(folder), figures)
    remove_others(Path(folder), figures)
    return {"files": len(files)}


def write_page(jobs: list[dict[str, Any]], target: str) -> dict[str, Any]:
    """Write the page of some runs.

    Args:
        jobs: as `engine.page.page_job` gives them.
        target: the file.
    """
    from engine.page import write_page as write

    return {"bytes": write(jobs, Path(target))}


def open_results(cells: list[AnalysedCell]) -> list[Any]:
    """Return the results of some cells in memory, but for their directions."""
    from analysis.results import CellResults
    from store.result_shapes import ANALYSIS, WORDS
    from store.results import open_analysis

    def opened(folder: str, expected: Expected, cell: AnalysedCell) -> Any:
        return open_analysis(place(folder), False, expected, cell.names)

    return [
        CellResults(
            cell.model,
            cell.corpus,
            opened(cell.results, ANALYSIS, cell).drop_vars("direction").load(),
            cell.fingerprint,
            opened(cell.words, WORDS, cell).load(),
            cell.twin,
            cell.writer,
        )
        for cell in cells
    ]
