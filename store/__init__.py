"""What is on disk and nothing else: corpora, residuals, results, records, fingerprints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from store.layout import Layout, layout_of

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Layout", "layout_of", "open_analysis", "open_cell"]


def open_cell(run: Path | str, cell: str) -> xr.Dataset:
    """Open a cell's story vectors lazily.

    Args:
        run: a run's folder, such as `runs/quickstart` or `s3://bucket/quickstart`.
        cell: `model@corpus`.

    Returns:
        Labelled arrays as described in `store.residuals.open_residuals`.

    Raises:
        FileNotFoundError: the cell was not extracted, or not completely.
    """
    from store.residuals import open_residuals

    return open_residuals(_layout(run).residuals(cell))


def open_analysis(run: Path | str, cell: str) -> xr.Dataset:
    """Open a cell's results lazily.

    Args:
        run: a run's folder.
        cell: `model@corpus`.

    Raises:
        FileNotFoundError: the cell was not analysed.
    """
    from store import results

    return results.open_analysis(_layout(run).analysis(cell))


def _layout(run: Path | str) -> Layout:
    root, _, name = str(run).rstrip("/").rpartition("/")
    return layout_of(root or ".", name)
