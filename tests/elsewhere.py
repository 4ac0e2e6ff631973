"""A study of two models, done on this machine and elsewhere, and what must be the same."""

from __future__ import annotations

from pathlib import Path

from engine.plan import TABLES
from store.shards import missing_shards
from tests.test_run import assert_same_bytes
from tests.tiny import write_corpus_files, write_manifest

CELLS = ("tiny@own", "other@own")


def two_models(folder: Path, one: Path, two: Path) -> Path:
    """A study of two models and three shards each."""
    write_corpus_files(folder, per_emotion=350, neutral=8)
    models = {"tiny": {"path": str(one)}, "other": {"path": str(two)}}
    return write_manifest(folder, one, models=models)


def assert_same_results(root: Path, home: Path) -> None:
    for cell in CELLS:
        store = f"study/cells/{cell}/residuals.zarr"
        assert_same_bytes(root / store, home / store)
    for table in TABLES:
        there, here = (folder / "study" / "tables" / f"{table}.csv" for folder in (root, home))
        assert there.read_bytes() == here.read_bytes(), table


def done_shards(root: Path) -> int:
    """Return how many of the study's six shards are there."""
    found = 0
    for cell in CELLS:
        store = root / "study" / "cells" / cell / "residuals.zarr"
        if (store / "zarr.json").is_file():
            found += 3 - len(missing_shards(store))
    return found
