"""The cell whose vectors are used: where it lies, who reads, at which layers, and the detectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float32
from numpy import ndarray

from engine.choosing import chosen_layers, chosen_window, parse_layers
from engine.models import ModelSource, ModelUnavailable, folder_identity
from manifests.errors import InputError, Problem, shorten
from store.layout import Layout, layout_of
from store.places import place
from store.residuals import open_residuals
from store.results import open_analysis
from store.shards import group_attributes

SEVERAL = 8
"""Layers that a page has by default."""


@dataclass(frozen=True)
class Source:
    """A cell that texts are read with.

    Attributes:
        cell: `model@corpus`.
        layout: of its run.
        data: its story vectors, as `store.open_cell` gives them, read when indexed.
        results: its analysis, None where there is none.
        window: the token window whose means the vectors are made of.
        model: where the model comes from.
        trust_remote_code: run code that comes with the model.
    """

    cell: str
    layout: Layout
    data: xr.Dataset
    results: xr.Dataset | None
    window: dict[str, Any]
    model: ModelSource
    trust_remote_code: bool

    @property
    def extraction(self) -> dict[str, Any]:
        """The settings that the cell was extracted under."""
        return dict(self.data.attrs["extraction"])

    def emotions(self) -> list[str]:
        """Return the cell's emotions, in order of first appearance."""
        from analysis.contrasts import emotion_names

        return emotion_names(self.data)


@dataclass(frozen=True)
class Weights:
    """Detectors of several layers in the form that a model applies: residual @ weight - zero.

    Attributes:
        layers: blocks, 0-based.
        emotions: those that are scored.
        weight_LED: unit contrast vectors over the spread between emotions.
        zero_LE: what the mean neutral text gives.
    """

    layers: list[int]
    emotions: list[str]
    weight_LED: Float32[ndarray, "layer emotion d_model"]
    zero_LE: Float32[ndarray, "layer emotion"]


def find_cell(root: str, run: str | None, cell: str) -> Layout:
    """Return the run that has extracted a cell.

    Args:
        root: folder or object store that holds runs.
        run: the run's name; looked for among a folder's runs when None.
        cell: `model@corpus`.

    Raises:
        InputError: no run has it, or several have.
    """

    def refuse(what: str) -> InputError:
        return InputError(Problem(Path("read"), None, shorten(cell), what))

    if run is not None:
        layout = layout_of(root, run)
        if not _has(layout, cell):
            raise refuse(f"was never extracted in {layout.run}; `emovec extract` does it")
        return layout
    if not isinstance(place(root), Path):
        raise refuse(f"say with --run which run under {root} has it")
    folders = sorted(p.name for p in Path(root).glob("*") if (p / "cells").is_dir())
    having = [name for name in folders if _has(layout_of(root, name), cell)]
    if len(having) > 1:
        raise refuse(f"is in several runs; say which: --run {' or --run '.join(having)}")
    if not having:
        there = sorted({c.name for n in folders for c in (Path(root) / n / "cells").iterdir()})
        known = f"; extracted are {', '.join(there[:12])}" if there else ""
        raise refuse(f"no run under {root} has extracted it{known}")
    return layout_of(root, having[0])


def open_source(layout: Layout, cell: str, window: str, folder: Path | None) -> Source:
    """Open a cell that texts are to be read with.

    Args:
        layout: of its run.
        cell: `model@corpus`.
        window: name of the token window.
        folder: where the model is; where it was when the cell was extracted when None.

    Raises:
        InputError: it is not complete, lacks the window, or the folder holds another model.
    """
    try:
        data = open_residuals(layout.residuals(cell), as_dask=False)
    except FileNotFoundError as error:
        what = f"is not extracted completely ({error}); `emovec extract` goes on with it"
        raise InputError(Problem(Path("read"), None, shorten(cell), what)) from None
    try:
        results = open_analysis(layout.analysis(cell), as_dask=False)
    except FileNotFoundError:
        results = None
    said = dict(data.attrs["source"])
    trust = bool(said.pop("trust_remote_code"))
    model = ModelSource(**said)
    if folder is not None:
        model = _elsewhere(model, data.attrs["model"], folder)
    elif model.path is not None and not Path(model.path).is_dir():
        what = f"its model was at {model.path}, which is not here; say where with --model"
        raise ModelUnavailable(f"{cell}: {what}")
    return Source(cell, layout, data, results, chosen_window(data, window), model, trust)


def choose_layers(source: Source, wanted: str | None, several: bool) -> tuple[list[int], int, str]:
    """Return the layers to read at, the one to show first, and why that one.

    Args:
        source: the cell.
        wanted: `all` or `3,10-20`; when None, the block that tells held-out stories apart best, or
            the one at two thirds of depth where the cell was not analysed.
        several: when nothing is wanted, give others from all depths beside it.

    Raises:
        InputError: a layer that the cell does not have.
    """
    named = None if wanted is None else parse_layers(wanted)
    there = chosen_layers(source.data, source.cell, named)
    best, why = _best(source, there)
    if wanted is not None:
        return there, best, why if len(there) > 1 else "as asked for"
    if not several:
        return [best], best, why
    spread = {there[round(i)] for i in np.linspace(0, len(there) - 1, SEVERAL - 1)}
    return sorted({best, *spread}), best, why


def make_weights(source: Source, layers: Sequence[int], emotions: Sequence[str] | None) -> Weights:
    """Make the detectors of some layers from the cell's story vectors.

    Args:
        source: the cell.
        layers: blocks that it has.
        emotions: those to score; when None, all that have a vector at all of the layers.

    Raises:
        InputError: an emotion that the cell does not have or that has no vector, or too few texts.
    """
    from analysis.contrasts import layer_vectors
    from analysis.detection import make_detector
    from analysis.geometry import NotEnough

    known, labels = source.emotions(), [str(e) for e in source.data["emotion"].to_numpy()]
    window = source.window["name"]
    made = []
    for layer in layers:
        residual = source.data["residual_mean"].sel(window=window, layer=layer)
        found = layer_vectors(residual, labels, known)
        try:
            made.append(make_detector(found.u_ED, found.neutral_ND, _neutral_variance(source)))
        except NotEnough as error:
            what = f"window {window}, layer {layer}: {error}"
            raise InputError(Problem(Path("read"), None, source.cell, what)) from None
    there_E = np.all([np.isfinite(detector.spread_E) for detector in made], axis=0)
    chosen = _chosen(source, known, there_E, emotions)
    rows = [known.index(emotion) for emotion in chosen]
    weight_LED = np.stack([d.unit_ED[rows] / d.spread_E[rows, None] for d in made])
    zero_LE = np.stack([d.zero_E[rows] / d.spread_E[rows] for d in made])
    return Weights(list(layers), chosen, weight_LED.astype(np.float32), zero_LE.astype(np.float32))


def found_of_held_out(source: Source, layer: int) -> str:
    """Return in words how well the vectors of a layer tell stories apart, "" where not known."""
    if source.results is None or "detected" not in source.results:
        return ""
    at = source.results.sel(window=source.window["name"], layer=layer, top=5)
    if not int(at["detected_n"]):
        return ""
    return (
        f"on stories about other topics the emotion is among the first 5 of "
        f"{int(at['detected_candidates'])} in {float(at['detected']):.0%} "
        f"(by chance {float(at['detected_by_chance']):.0%})"
    )


def _best(source: Source, there: Sequence[int]) -> tuple[int, str]:
    """Return the best of some layers, and why it is."""
    window, results = source.window["name"], source.results
    if results is not None and "detected_reciprocal_rank" in results:
        found_L = results["detected_reciprocal_rank"].sel(window=window, layer=list(there))
        if bool(np.isfinite(found_L).any()):
            return int(found_L.idxmax("layer")), "tells stories on other topics apart best"
    wanted = 2 / 3 * int(source.data.attrs["n_layers"])
    nearest = min(there, key=lambda layer: abs(layer - wanted))
    return nearest, "nearest to two thirds of depth; not known which tells stories apart best"


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


def _has(layout: Layout, cell: str) -> bool:
    return group_attributes(layout.residuals(cell)) is not None


def _elsewhere(model: ModelSource, identity: dict[str, Any], folder: Path) -> ModelSource:
    """Return the model in another folder, which must hold the same files where that is known."""
    if not (folder / "config.json").is_file():
        raise InputError(Problem(Path("--model"), None, "", f"no config.json in {folder}"))
    if "files" in identity and folder_identity(folder) != identity["files"]:
        what = f"{folder} does not hold the model that the cell was read with"
        raise InputError(Problem(Path("--model"), None, "", what))
    return ModelSource(model.name, None, None, None, str(folder.resolve()), model.random_seed)
