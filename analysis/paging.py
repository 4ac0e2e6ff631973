"""How many cells a picture of a figure has, and which; of more, it has several numbered pictures.

The plan counts a figure's files by this without drawing anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

CELLS_ON_A_PAGE = {
    "overview": 250,
    "trajectories": 8,
    "windows": 8,
    "baselines": 8,
    "cka": 8,
    "cka_estimators": 8,
    "valence_directions": 8,
    "pca_map": 4,
    "emotion_cosines": 8,
    "activations": 8,
    "detection": 8,
}
"""Every figure over cells, in order, with the most cells that one picture of it shows."""

ROWS_ON_A_PAGE = {"dose_response": 8, "transfer": 4}
"""Every figure of steering with the most rows of one picture: a cell and direction, or a cell."""

Key = tuple[str, str]


def figures_of(n_windows: int) -> list[str]:
    """Return the figures over cells; of one window, `windows` would be `trajectories` again."""
    return [name for name in CELLS_ON_A_PAGE if name != "windows" or n_windows > 1]


def pages_of(cells: Sequence[Key], most: int) -> list[list[int]]:
    """Return the places in `cells` of those on each page, in order, every one once.

    A model's cells (of steering, a cell's directions) stay on one page where they fit on one.

    Args:
        cells: model and corpus of each.
        most: cells on a page.
    """
    pages: list[list[int]] = []
    for _, group in groupby(range(len(cells)), key=lambda i: cells[i][0]):
        own = list(group)
        if pages and len(pages[-1]) + len(own) <= most:
            pages[-1] += own
        else:
            pages += [own[i : i + most] for i in range(0, len(own), most)]
    return pages


def effect_pages(
    cells: Sequence[Key], directions: Sequence[str], transferred: bool
) -> dict[str, int]:
    """Return how many pictures each figure of steering has, one at least.

    Args:
        cells: model and corpus of each that is steered.
        directions: that are added in every one.
        transferred: whether directions of one layer were added at another.
    """
    doses = [(f"{model}@{corpus}", name) for model, corpus in cells for name in directions]
    rows = {"dose_response": doses, "transfer": list(cells) if transferred else []}
    return {name: max(1, len(pages_of(rows[name], most))) for name, most in ROWS_ON_A_PAGE.items()}


def page_names(figure: str, n_pages: int) -> list[str]:
    """Return the names of a figure's pictures: `cka`, `cka-2`, `cka-3`."""
    return [figure if page == 1 else f"{figure}-{page}" for page in range(1, n_pages + 1)]
