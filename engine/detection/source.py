"""The cell whose vectors are used: where it lies, who reads, and at which layers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from engine.choosing import chosen_layers, chosen_window, parse_layers
from engine.models import ModelSource, ModelUnavailable, folder_identity, read_shape
from manifests.builtin import BUILTIN_MODELS
from manifests.errors import InputError, Problem, shorten
from manifests.schema import check_name
from store.cell_attributes import EXTRACTED
from store.layout import Layout, layout_of
from store.links import require_own_folder
from store.places import Far, StoreRefused, place, require_answering
from store.records import derived_identity
from store.residuals import open_residuals
from store.result_shapes import DETECTED
from store.results import open_analysis
from store.shards import group_attributes

COMMIT_DIGITS = 40

CELL = re.compile(r"[^/@\s]+@[^/@\s]+")

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
        asks_for_code: it was extracted with code that comes with the model.
    """

    cell: str
    layout: Layout
    data: xr.Dataset
    results: xr.Dataset | None
    window: dict[str, Any]
    model: ModelSource
    asks_for_code: bool

    @property
    def extraction(self) -> dict[str, Any]:
        """The settings that the cell was extracted under."""
        return dict(self.data.attrs["extraction"])

    def emotions(self) -> list[str]:
        """Return the cell's emotions, in order of first appearance."""
        from analysis.contrasts import emotion_names

        return emotion_names(self.data)


def find_cell(root: str, run: str | None, cell: str) -> Layout:
    """Return the run that has extracted a cell.

    Args:
        root: folder or object store that holds runs.
        run: the run's name; looked for among a folder's runs when None.
        cell: `model@corpus`.

    Raises:
        InputError: a name that cannot be one; no run has the cell, or several have; a link leads
            out of the run's folder.
    """
    _require_names(run, cell)
    layout = _having(root, run, cell)
    require_own_folder(layout)
    return layout


def _require_names(run: str | None, cell: str) -> None:
    """Refuse names that a manifest would refuse: they become parts of a path."""
    if not CELL.fullmatch(cell):
        raise refused(cell, "is no cell; write MODEL@CORPUS")
    named = [(Path("read"), shorten(cell), part) for part in cell.split("@")]
    if run is not None:
        named.insert(0, (Path("--run"), "", run))
    for file, key, name in named:
        try:
            check_name(name)
        except ValueError as error:
            raise InputError(Problem(file, None, key, str(error))) from None


def _having(root: str, run: str | None, cell: str) -> Layout:
    """Return the run that has extracted a cell, whatever links are in it."""
    try:
        where = place(root)
        if isinstance(where, Far):
            require_answering(where)
    except (ValueError, StoreRefused) as error:
        raise InputError(Problem(Path("--root"), None, "", str(error))) from None
    if run is not None:
        layout = layout_of(root, run)
        if not _has(layout, cell):
            raise refused(cell, f"was never extracted in {layout.run}; `emovec extract` does it")
        return layout
    if isinstance(where, Far):
        raise refused(cell, f"say with --run which run under {root} has it")
    folders = sorted(p.name for p in where.glob("*") if (p / "cells").is_dir())
    having = [name for name in folders if _has(layout_of(root, name), cell)]
    if len(having) > 1:
        raise refused(cell, f"is in several runs; say which: --run {' or --run '.join(having)}")
    if not having:
        there = sorted({c.name for name in folders for c in (where / name / "cells").iterdir()})
        known = f"; extracted are {', '.join(there[:12])}" if there else ""
        raise refused(cell, f"no run under {root} has extracted it{known}")
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
        data = open_residuals(layout.residuals(cell), as_dask=False, needed=EXTRACTED)
    except FileNotFoundError as error:
        what = f"is not extracted completely ({error}); `emovec extract` goes on with it"
        raise refused(cell, what) from None
    model, asks_for_code = _origin(data, cell, folder)
    chosen = chosen_window(data, window)
    return Source(cell, layout, data, _results(layout, cell, data), chosen, model, asks_for_code)


def require_same_model(source: Source, folder: Path) -> str | None:
    """Refuse files that are not those that the cell was read with, as far as that can be told.

    Args:
        source: the cell.
        folder: of the model's files that are about to be loaded.

    Returns:
        What a person should know where it cannot be told, else None.

    Raises:
        InputError: they are another model's.
    """
    identity, given = dict(source.data.attrs["model"]), source.model.path is not None
    if "files" in identity and given and source.model.random_seed is None:
        if folder_identity(folder) != identity["files"]:
            what = f"{folder} does not hold the model that the cell was read with"
            raise refused(source.cell, what)
        return None
    shape, data = read_shape(folder / "config.json"), source.data
    wanted = (int(data.attrs["n_layers"]), data.sizes["d_model"])
    if (shape.n_layers, shape.d_model) != wanted:
        what = (
            f"{folder} has {shape.n_layers} blocks of {shape.d_model} dimensions, the model that "
            f"the cell was read with has {wanted[0]} of {wanted[1]}"
        )
        raise refused(source.cell, what)
    if source.model.builtin is not None:
        known = BUILTIN_MODELS[source.model.builtin].sha256
        if identity.get("sha256") != known:
            what = "it was read with other weights of its built-in model; extract it again"
            raise refused(source.cell, what)
        return None
    if given or len(str(source.model.revision)) != COMMIT_DIGITS:
        return f"{folder} has the right shape; that it is the model itself cannot be told"
    return None


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


def _has(layout: Layout, cell: str) -> bool:
    return group_attributes(layout.residuals(cell)) is not None


def refused(cell: str, what: str) -> InputError:
    """Return the error that something is wrong with a cell."""
    return InputError(Problem(Path("read"), None, shorten(cell), what))


def _results(layout: Layout, cell: str, data: xr.Dataset) -> xr.Dataset | None:
    """Return the cell's analysis, None where there is none of these very vectors."""
    try:
        results = open_analysis(layout.analysis(cell), False, DETECTED, whole=False)
    except FileNotFoundError:
        return None
    made, vectors = (attrs.get("made_from", {}) for attrs in (results.attrs, data.attrs))
    identity = derived_identity(vectors.get("fingerprint", ""), vectors.get("inputs", {}))
    return results if made.get("inputs", {}).get(f"extract:{cell}") == identity else None


def _origin(data: xr.Dataset, cell: str, folder: Path | None) -> tuple[ModelSource, bool]:
    """Return where the model comes from, and whether it asks for its own code.

    Args:
        data: the cell.
        cell: its name.
        folder: where the model is, where that is said.

    Raises:
        InputError: it is not known, or the folder holds no model.
        ModelUnavailable: it was in a folder that is gone.
    """
    said = data.attrs.get("source")
    known = said if isinstance(said, dict) else {}
    asks_for_code = bool(known.get("trust_remote_code"))
    name, seed = str(known.get("name", cell.partition("@")[0])), known.get("random_seed")
    if folder is not None:
        if not (folder / "config.json").is_file():
            raise InputError(Problem(Path("--model"), None, "", f"no config.json in {folder}"))
        return ModelSource(name, None, None, None, str(folder.resolve()), seed), asks_for_code
    fields = ("builtin", "hf", "revision", "path")
    model = ModelSource(name, *(known.get(field) for field in fields), random_seed=seed)
    if model.path is not None and not Path(model.path).is_dir():
        what = f"its model was at {model.path}, which is not here; say where with --model"
        raise ModelUnavailable(f"{cell}: {what}")
    if (model.builtin, model.hf, model.path) == (None, None, None) or (
        model.builtin is not None and model.builtin not in BUILTIN_MODELS
    ):
        raise refused(cell, "does not say where its model is; say it with --model FOLDER")
    return model, asks_for_code
