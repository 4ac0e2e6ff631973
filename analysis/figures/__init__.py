"""Pictures of a run, each a pure function from labelled results to a matplotlib figure.

A value that is missing is a gap, in lines and in heat maps, and never a zero. Nothing here opens a
window or keeps a figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pandas as pd
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from analysis.figures.depth import beside_baselines, massive_activations, trajectories
from analysis.figures.detection import detection
from analysis.figures.emotions import emotion_cosines
from analysis.figures.grids import cka_estimators, cka_grids, valence_direction_cosines
from analysis.figures.maps import pca_maps
from analysis.figures.overview import overview
from analysis.figures.style import in_style, looks_of, numbered
from analysis.paging import CELLS_ON_A_PAGE, figures_of, page_names, pages_of
from analysis.results import CellResults, preferred_window, without_twins


def draw_all(cells: list[CellResults], geometry: pd.DataFrame) -> dict[str, Iterator[Figure]]:
    """Return every figure's pictures by name, for the first contrast and norms of the run.

    Which figures there are, and how many pictures of each, `analysis.paging` says; each is drawn
    when it is asked for.
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
    shown = without_twins(cells)
    looks = looks_of([(cell.model, cell.corpus) for cell in [*shown, *cells]])

    def rows(some: list[CellResults]) -> pd.DataFrame:
        names = {(cell.model, cell.corpus) for cell in some}
        keys = zip(geometry["model"], geometry["corpus"], strict=True)
        return geometry[[key in names for key in keys]]

    draw: dict[str, Callable[[list[CellResults]], Figure]] = {
        "overview": lambda c: overview(rows(c), contrast, norms, window),
        "trajectories": lambda c: trajectories(rows(c), contrast, norms, [window], looks),
        "windows": lambda c: trajectories(rows(c), contrast, norms, windows, looks),
        "baselines": lambda c: beside_baselines(c, cells, contrast, norms, window, looks),
        "cka": lambda c: cka_grids(c, contrast),
        "cka_estimators": lambda c: cka_estimators(c, contrast, window),
        "valence_directions": lambda c: valence_direction_cosines(c, contrast, norms, window),
        "pca_map": lambda c: pca_maps(c, rows(c), contrast, norms, window),
        "emotion_cosines": lambda c: emotion_cosines(c, rows(c), contrast, norms, window),
        "activations": lambda c: massive_activations(c, looks),
        "detection": lambda c: detection(c, window, looks),
    }
    assert list(draw) == list(CELLS_ON_A_PAGE)
    return {name: _pages(shown, name, draw[name]) for name in figures_of(len(windows))}


def _pages(
    cells: list[CellResults], name: str, draw: Callable[[list[CellResults]], Figure]
) -> Iterator[Figure]:
    """Draw each page of a figure, which says which it is where there are several."""
    pages = pages_of([(cell.model, cell.corpus) for cell in cells], CELLS_ON_A_PAGE[name])
    for number, page in enumerate(pages, 1):
        with numbered(number, len(pages)):
            figure = draw([cells[i] for i in page])
        yield figure


def save_figures(folder: Path, figures: Mapping[str, Iterable[Figure]]) -> list[Path]:
    """Write each figure as `<name>.pdf`, of all its pictures, and as PNG (200 dots per inch).

    The PNG files are `<name>.png`, `<name>-2.png` and so on; those of an earlier grid of more
    cells are deleted. Each file appears whole. The same figures give the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, pages in figures.items():
        document = folder / f"{name}.pdf"
        pictures: list[Path] = []
        partial = folder / f"{document.name}.partial"
        with in_style(), PdfPages(partial, metadata={"CreationDate": None}) as pdf:
            for number, figure in enumerate(pages, 1):
                picture = folder / f"{page_names(name, number)[-1]}.png"
                whole = picture.with_name(f"{picture.name}.partial")
                figure.savefig(whole, format="png", metadata={"Software": None})
                figure.savefig(pdf, format="pdf")
                whole.replace(picture)
                pictures.append(picture)
        partial.replace(document)
        for old in folder.glob(f"{name}-*.png"):
            if old not in pictures and old.stem.removeprefix(f"{name}-").isdigit():
                old.unlink()
        files += [*pictures, document]
    return files


def remove_others(folder: Path, drawn: Iterable[str]) -> None:
    """Delete the files of figures over cells that are not among those that a run has."""
    for name in CELLS_ON_A_PAGE.keys() - set(drawn):
        for old in [*folder.glob(f"{name}.p*"), *folder.glob(f"{name}-[0-9]*.png")]:
            old.unlink()
