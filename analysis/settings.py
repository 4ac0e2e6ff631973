"""What decides the results of a cell, and the names that its arrays are labelled with."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float64
from numpy import ndarray

from analysis.contrasts import ContrastKind
from manifests.schema import AXES as AXES  # in the order of their components: PC1, PC2

GEOMETRY: dict[str, ContrastKind] = {"neutral-pca": "both", "mean-centered": "mean-centered"}
"""Contrast named in a manifest -> contrast whose vectors are used. PCA, CKA and directions centre
anyway, so that `neutral-pca` and `both` give the same figures."""

SPACES = ("all", "plane")
"""Where positive and negative emotions are told apart: in all dimensions, on PC1 and PC2."""


@dataclass(frozen=True)
class Settings:
    """What decides the results of a cell.

    Attributes:
        contrasts: contrasts from the manifest.
        neutral_variance: share of variance of the neutral basis.
        ratings: by norms' name, ratings [emotion, 2] (valence, arousal), NaN where unrated.
        seed: of the folds over emotions, the halves of the stories, draws and permutations.
        middle: by norms' name, the middle of its scale of valence, which parts positive from
            negative emotions; where it is not given, the middle of the emotions' own range.
        bootstraps: draws of stories, and of emotions.
        permutations: of the ratings over emotions.
    """

    contrasts: tuple[str, ...]
    neutral_variance: float
    ratings: dict[str, Float64[ndarray, "emotion 2"]]
    seed: int = 0
    middle: dict[str, float] = field(default_factory=dict)
    bootstraps: int = 1000
    permutations: int = 10_000
