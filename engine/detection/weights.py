"""A cell's detectors as a model applies them to residuals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from engine.detection.source import Source, refused
from manifests.errors import InputError, Problem, shorten


@dataclass(frozen=True)
class Weights:
    """Detectors of several layers in the form that a model applies: residual @ weight - zero.

    Attributes:
        layers: blocks, 0-based.
        emotions: those that are scored.
        weight_LED: unit vectors over the spread of stories.
        zero_LE: what the mean neutral text gives.
    """

    layers: list[int]
    emotions: list[str]
    weight_LED: Float32[ndarray, "layer emotion d_model"]
    zero_LE: Float32[ndarray, "layer emotion"]


def make_weights(source: Source, layers: Sequence[int], emotions: Sequence[str] | None) -> Weights:
    """Make the detectors of some layers from the cell's story vectors.

    Args:
        source: the cell.
        layers: blocks that it has.
        emotions: those to score; when None, all that have a vector at all of the layers.

    Raises:
        InputError: an emotion that the cell does not have or that has no vector, or too few texts.
    """
    from analysis.contrasts import layer_vectors, neutral_basis, pieces
    from analysis.detection import make_detector
    from analysis.geometry import NotEnough

    known, labels = source.emotions(), [str(e) for e in source.data["emotion"].to_numpy()]
    window, is_story_N = source.window["name"], np.array([label != "" for label in labels])
    made = []
    for layer in layers:
        residual = source.data["residual_mean"].sel(window=window, layer=layer)
        found = layer_vectors(residual, labels, known)
        try:
            basis_KD, _ = neutral_basis(found.neutral_ND, _neutral_variance(source))
            stories = (x_ND[is_story_N[span]] for span, x_ND in pieces(residual))
            made.append(make_detector(found.u_ED, found.neutral_ND, basis_KD, stories))
        except NotEnough as error:
            what = f"window {window}, layer {layer}: {error}"
            raise refused(source.cell, what) from None
    there_E = np.all([np.isfinite(detector.spread_E) for detector in made], axis=0)
    chosen = _chosen(source, known, there_E, emotions)
    rows = [known.index(emotion) for emotion in chosen]
    weight_LED = np.stack([d.unit_ED[rows] / d.spread_E[rows, None] for d in made])
    zero_LE = np.stack([d.zero_E[rows] / d.spread_E[rows] for d in made])
    return Weights(list(layers), chosen, weight_LED.astype(np.float32), zero_LE.astype(np.float32))


def _chosen(
    source: Source, known: list[str], there_E: ndarray, wanted: Sequence[str] | None
) -> list[str]:
    having = [name for name, there in zip(known, there_E, strict=True) if there]
    if wanted is None:
        return having
    lacking = [name for name in wanted if name not in having]
    if lacking:
        name = shorten(lacking[0])
        why = "has no vector" if lacking[0] in known else "is none of its emotions"
        some = ", ".join(having[:12]) + (", …" if len(having) > 12 else "")
        what = f"{name} {why} of {source.cell}; it has {some}"
        raise InputError(Problem(Path("--emotions"), None, "", what))
    return list(dict.fromkeys(wanted))


def _neutral_variance(source: Source) -> float:
    """Return the neutral basis' share of variance, as analysed, or the default."""
    from manifests.schema import Analysis

    given = None if source.results is None else source.results.attrs.get("neutral_variance")
    return float(Analysis().neutral_variance if given is None else given)
