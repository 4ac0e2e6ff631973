"""Which files of a run each stage leaves, by their paths in the run's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engine.plan import (
    CORPUS_TABLES,
    EFFECTS,
    FOLDERS,
    PAGES,
    TABLES,
    Stage,
    figure_files,
)
from store.atomic import PARTIAL
from store.layout import Layout
from store.places import sizes

Keys = list[str]


def output_keys(layout: Layout, stage: Stage) -> Keys:
    """Return the keys of what a stage has left that is there, its record not among them."""
    if stage.kind in FOLDERS:
        folder = FOLDERS[stage.kind](layout, stage.name)
        root = folder_key(stage.kind, stage.name)
        return [f"{root}/{key}" for key in sizes(folder) if not key.endswith(PARTIAL)]
    return [key for key in _FILES[stage.kind](layout, stage) if (layout.run / key).is_file()]


def folder_key(kind: str, name: str) -> str:
    """Return the path in a run of the folder that a stage leaves."""
    where = FOLDERS[kind](Layout(Path(), ""), name)
    assert isinstance(where, Path)
    return where.as_posix()


def _generate(layout: Layout, stage: Stage) -> Keys:
    return [_key(layout, of(layout, stage.name)) for of in (Layout.journal, Layout.stories)]


def _import(layout: Layout, stage: Stage) -> Keys:
    return [_key(layout, layout.stories(stage.name))]


def _describe(layout: Layout, stage: Stage) -> Keys:
    corpora = [after.partition(":")[2] for after in stage.after]
    flagged = [_key(layout, layout.flagged(corpus)) for corpus in corpora]
    return [*_tables(CORPUS_TABLES), *flagged]


def _steer(layout: Layout, stage: Stage) -> Keys:
    both = (Layout.steering, Layout.steering_directions)
    return [_key(layout, of(layout, stage.name)) for of in both]


def _effects(layout: Layout, stage: Stage) -> Keys:
    return [*_tables(EFFECTS), *_figures(layout, stage)]


def _tables(names: tuple[str, ...], ending: str = "csv") -> Keys:
    return [f"tables/{name}.{ending}" for name in names]


def _figures(layout: Layout, stage: Stage) -> Keys:
    return [f"figures/{name}" for name in figure_files(stage)]


_FILES: dict[str, Callable[[Layout, Stage], Keys]] = {
    "generate": _generate,
    "import": _import,
    "describe": _describe,
    "steer": _steer,
    "effects": _effects,
    "tables": lambda layout, stage: [*_tables(TABLES), *_tables(PAGES, "md")],
    "figures": _figures,
    "page": lambda layout, stage: [_key(layout, layout.page)],
}


def _key(layout: Layout, file: Path) -> str:
    return file.relative_to(layout.run).as_posix()
