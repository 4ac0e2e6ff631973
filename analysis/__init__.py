"""Numbers in, numbers and pictures out: contrasts, geometry, similarity, directions, figures."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.contrasts import contrast, contrast_vectors, neutral_basis
    from analysis.directions import rating_directions
    from analysis.geometry import correlate, pca, plane_alignment, principal_coordinates
    from analysis.similarity import cka_grid, cosine_grid, gram

__all__ = [
    "cka_grid",
    "contrast",
    "contrast_vectors",
    "correlate",
    "cosine_grid",
    "gram",
    "neutral_basis",
    "pca",
    "plane_alignment",
    "principal_coordinates",
    "rating_directions",
]

_HOME = {
    "cka_grid": "similarity",
    "contrast": "contrasts",
    "contrast_vectors": "contrasts",
    "correlate": "geometry",
    "cosine_grid": "similarity",
    "gram": "similarity",
    "neutral_basis": "contrasts",
    "pca": "geometry",
    "plane_alignment": "geometry",
    "principal_coordinates": "geometry",
    "rating_directions": "directions",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that importing the package is quick."""
    if name not in _HOME:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    value = getattr(import_module(f"analysis.{_HOME[name]}"), name)
    globals()[name] = value
    return value
