"""Numbers in, numbers and pictures out: contrasts, geometry, similarity, directions, figures."""

from analysis.contrast import contrast, contrast_vectors, neutral_basis
from analysis.directions import rating_direction
from analysis.geometry import correlate, pca
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
    "rating_direction",
]
