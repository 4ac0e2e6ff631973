"""Emotion vectors of a run for other programs: which cells, whether they may, and their facts.

The numbers are `analysis.vectors`, the card `analysis.vector_card`, the files `store.vectors`; what
they have to be told about models, corpora and stages is only known here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import xarray as xr

from analysis.contrasts import ContrastKind
from analysis.geometry import NotEnough
from analysis.vector_card import vector_card
from analysis.vectors import ANALYSED, DIRECTION, CellVectors, cell_vectors
from engine.choosing import chosen_layers, chosen_window, parse_layers
from engine.export import about_corpus
from engine.plan import Plan, State, Status
from manifests.errors import InputError, Problem, shorten
from manifests.norms import shipped_norms
from manifests.resolve import Cell
from store.cell_attributes import EXTRACTED
from store.layout import Layout
from store.records import Record
from store.residuals import open_residuals
from store.result_shapes import VECTORS
from store.results import open_analysis
from store.vectors import foreign_file, write_vectors

UNEXTRACTED = {
    State.TODO: "was never extracted; `emovec extract` does it",
    State.PARTIAL: "is not extracted yet; `emovec extract` goes on with it",
    State.STALE: "was extracted under other settings; `emovec extract` does it again",
}

UNITS = {
    "none": "in units of the residual stream",
    "rms": "in root mean squares of a token's residual",
}
"""By the window's normalization."""

SOURCES = {
    "glasgow": "Directions under glasgow are made with the Glasgow Norms (Scott, Keitel, "
    "Becirspahic, Yao & Sereno 2019, CC BY 4.0)."
}
"""Whom to name for directions made with shipped norms."""


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Attributes:
        cell: `model@corpus`; None for all cells.
        layers: blocks; None for all that the cell has.
        window: token window.
        contrast: of the emotion vectors.
    """

    cell: str | None
    layers: tuple[int, ...] | None
    window: str
    contrast: ContrastKind


@dataclass(frozen=True)
class Written:
    """A folder of vectors that was written."""

    folder: Path
    n_emotions: int
    n_layers: int
    n_directions: int


def parse_wanted(cell: str | None, layers: str, window: str, contrast: str) -> Wanted:
    """Return what the options of the command line ask for.

    Raises:
        InputError: layers that are none, an unknown contrast.
    """
    known = get_args(ContrastKind)
    if contrast not in known:
        what = f"no contrast {shorten(contrast)}; known: {', '.join(known)}"
        raise InputError(Problem(Path("--contrast"), None, "", what))
    return Wanted(cell, parse_layers(layers), window, cast(ContrastKind, contrast))


def export_vectors(
    plan: Plan, layout: Layout, statuses: Sequence[Status], wanted: Wanted, target: Path
) -> Iterator[Written]:
    """Write the vectors of cells to folders of their own under `target`.

    Args:
        plan: of the run.
        layout: where it lies.
        statuses: where its stages stand.
        wanted: cells, layers, window and contrast.
        target: made where it is not there; a cell's folder of an earlier export is replaced.

    Raises:
        InputError: before anything is written: an unknown or unfinished cell, a window or layer
            that it lacks, a folder in the way; when a cell's turn comes: too few texts.
    """
    by_id = {status.stage.id: status for status in statuses}
    exports = [_Export(plan, layout, by_id, cell, wanted) for cell in _cells(plan, wanted.cell)]
    for export in exports:
        _require_room(target, target / export.cell.name)
    for export in exports:
        found = export.vectors()
        facts = export.facts(found)
        if (odd := _no_number(facts["figures"])) is not None:
            what = f"{odd} comes out as no number; `emovec verify` looks at what it is made from"
            raise InputError(Problem(Path(str(export.store)), None, "figures", what))
        folder = target / export.cell.name
        write_vectors(folder, found.tensors, facts, vector_card(facts))
        n_directions = len(facts["directions"])
        yield Written(folder, len(found.emotions), len(export.layers), n_directions)


class _Export:
    """One cell on its way out."""

    def __init__(
        self,
        plan: Plan,
        layout: Layout,
        statuses: Mapping[str, Status],
        cell: Cell,
        wanted: Wanted,
    ):
        self.cell, self._plan, self._wanted = cell, plan, wanted
        extracted = statuses[f"extract:{cell.name}"]
        if extracted.state is not State.DONE:
            raise self._refusal(UNEXTRACTED[extracted.state])
        self.store = layout.residuals(cell.name)
        self._data = open_residuals(self.store, as_dask=False, needed=EXTRACTED)
        self._window = chosen_window(self._data, wanted.window)
        self.layers = chosen_layers(self._data, cell.name, wanted.layers)
        self._results: xr.Dataset | None = None
        self._no_results = ""
        analysed = statuses[f"analyze:{cell.name}"]
        if analysed.state is State.TODO:
            self._no_results = "the cell was not analysed; `emovec analyze` does it"
        elif analysed.state is not State.DONE:
            self._no_results = "its results are of other settings; `emovec analyze` makes them anew"
        elif ANALYSED[wanted.contrast] not in plan.study.manifest.analysis.contrasts:
            self._no_results = f"the manifest's analysis leaves out {ANALYSED[wanted.contrast]}"
        else:
            results = layout.analysis(cell.name)
            self._results = open_analysis(results, False, VECTORS, plan.result_names(cell.model))
        done = None if self._results is None else analysed.record
        self._records: dict[str, Record | None] = {"extract": extracted.record, "analyze": done}
        assert extracted.record is not None
        self._corpus = extracted.record.inputs[plan.corpus_stage(cell.corpus)]

    def vectors(self) -> CellVectors:
        """Return what is handed on.

        Raises:
            InputError: too few texts.
        """
        try:
            return cell_vectors(
                self._data,
                self._results,
                self._wanted.contrast,
                self._wanted.window,
                self.layers,
                self._plan.study.manifest.analysis.neutral_variance,
                set(shipped_norms()),
            )
        except NotEnough as error:
            raise self._refusal(f"has no such vectors: {error}") from None

    def _refusal(self, what: str) -> InputError:
        file = self._plan.study.document.file
        return InputError(Problem(file, None, "cells", f"{self.cell.name} {what}"))

    def facts(self, found: CellVectors) -> dict[str, Any]:
        """Return what `vectors.json` holds and the card says."""
        attributes, study = self._data.attrs, self._plan.study
        writer = self._plan.writer(self.cell.corpus)
        extraction = attributes["extraction"]
        labels = [str(emotion) for emotion in self._data["emotion"].to_numpy()]
        rated = {
            norms.name: int(np.isfinite(norms.rate(found.emotions)).all(axis=1).sum())
            for norms in study.norms
        }
        directions = [name for name in found.tensors if name.startswith(DIRECTION)]
        used = {name.removeprefix(DIRECTION).rsplit(".", 2)[0] for name in directions}
        return {
            "version": 2,
            "model": {
                "name": self.cell.model,
                "identity": attributes["model"],
                "n_layers": attributes["n_layers"],
                "d_model": self._data.sizes["d_model"],
                **{key: extraction[key] for key in ("backend", "dtype", "max_tokens")},
            },
            "corpus": {
                "name": self.cell.corpus,
                "identity": self._corpus,
                "writer": writer,
                "writer_identity": None if writer is None else self._plan.models[writer],
                "about": about_corpus(study, self.cell.corpus),
                "n_stories": sum(label != "" for label in labels),
                "n_neutral": labels.count(""),
            },
            "layers": list(self.layers),
            "window": self._window,
            "contrast": self._wanted.contrast,
            "neutral_variance": study.manifest.analysis.neutral_variance,
            "units": UNITS[self._window["normalize"]],
            "emotions": found.emotions,
            "directions": directions,
            "no_directions": self._no_results or None,
            "left_out": found.left_out,
            "analysed": self._results is not None,
            "norms": rated,
            "sources": [text for name, text in SOURCES.items() if name in used],
            "figures": found.figures,
            "fingerprints": {
                kind: record and record.fingerprint for kind, record in self._records.items()
            },
            "versions": attributes["versions"],
        }


def _no_number(value: Any, path: str = "") -> str | None:
    """Return where in nested values one is NaN or infinite, None where all are numbers."""
    if isinstance(value, float):
        return None if math.isfinite(value) else path
    inner = value.items() if isinstance(value, Mapping) else ()
    if isinstance(value, list | tuple):
        inner = enumerate(value)
    found = (_no_number(part, f"{path}.{key}" if path else str(key)) for key, part in inner)
    return next((where for where in found if where is not None), None)


def _cells(plan: Plan, name: str | None) -> list[Cell]:
    cells = list(plan.study.cells)
    chosen = [cell for cell in cells if name in (None, cell.name)]
    if not chosen:
        what = f"no cell {shorten(name)}; known: {', '.join(cell.name for cell in cells)}"
        raise InputError(Problem(plan.study.document.file, None, "cells", what))
    return chosen


def _require_room(target: Path, folder: Path) -> None:
    if target.exists() and not target.is_dir():
        raise InputError(Problem(target, None, "", "is not a folder; give another one"))
    if (foreign := foreign_file(folder)) is not None:
        what = f"holds {shorten(foreign)}, which is not of an earlier export; give another folder"
        raise InputError(Problem(folder, None, "", what))
