"""Keeps what a run has finished in an object store, too, stage by stage, each one's record last.

The journal, the lock and everything that is being written stay in the run's folder. A run that was
begun on one machine can go on at another: what is finished comes from there.
"""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from manifests.errors import shorten
from store.journal import journal_fingerprint
from store.layout import Layout
from store.places import (
    StoreRefused,
    copy_here,
    delete_objects,
    read_object,
    sizes,
    stays_inside,
    write_object,
)
from store.records import parse_record, read_record
from store.superseded import keep_digests, put_aside

MADE = {
    "generate": ("corpora/{name}/journal.jsonl", "corpora/{name}/stories.parquet"),
    "import": ("corpora/{name}/stories.parquet",),
    "describe": ("tables/corpora.csv", "tables/corpus_emotions.csv", "corpora/*/flagged.csv"),
    "tables": ("tables/*.csv", "tables/*.md"),
    "steer": ("cells/{name}/steering.jsonl", "cells/{name}/steering.safetensors"),
    "effects": ("tables/steer*.csv", "tables/transfer.csv", "figures/*"),
    "figures": ("figures/*",),
    "page": ("report/index.html",),
}
"""What a finished stage leaves in a run's folder, by its kind; the other kinds leave Zarr groups,
which are in the object store from the beginning."""


def push(layout: Layout, kind: str, name: str) -> None:
    """Copy what a finished stage has left to the object store, its record last."""
    if layout.far_run is None:
        return
    made = [f for pattern in _patterns(kind, name) for f in sorted(layout.run.glob(pattern))]
    listed = layout.digests(kind, name)
    for file in [*made, *([listed] if listed.is_file() else []), layout.record(kind, name)]:
        push_file(layout, file)


def push_file(layout: Layout, file: Path) -> None:
    """Copy one file of a run to the object store."""
    if layout.far_run is not None:
        write_object(layout.far_run, _key(layout, file), file)


def forget(layout: Layout, kind: str, name: str) -> None:
    """Take a stage's record and digests away, here and there, before its output changes."""
    files = [layout.record(kind, name), layout.digests(kind, name)]
    for file in files:
        file.unlink(missing_ok=True)
    if layout.far_run is not None:
        delete_objects(layout.far_run, [_key(layout, file) for file in files])


def synchronise(layout: Layout) -> None:
    """Bring what is finished there to the run's folder, and what is finished here there.

    Of two records of a stage the later one counts. A corpus of which more was written here than
    there stays; one that says something else goes aside.
    """
    far = layout.far_run
    if far is None:
        return
    objects = list(sizes(far))
    for key in objects:
        require_inside(key)
    keys = {key for key in objects if key.startswith("records/")}
    mine = {_key(layout, file) for file in (layout.run / "records").rglob("*.json")}
    for key in sorted(keys | mine):
        kind, name = Path(key).parts[1], Path(key).stem
        here = read_record(layout.record(kind, name))
        there = parse_record(read_object(far, key)) if key in keys else None
        if here == there:
            continue
        if there is None or (here is not None and here.finished > there.finished):
            push(layout, kind, name)
        else:
            listed = _key(layout, layout.digests(kind, name))
            patterns = [*_patterns(kind, name), listed]
            wanted = [k for k in objects if any(fnmatch(k, p) for p in patterns)]
            _bring(layout, [*wanted, key])
    if not layout.manifest.is_file():  # a run on this machine writes its own
        record = [layout.manifest, layout.digests("manifest", "all")]
        _bring(layout, [key for key in (_key(layout, file) for file in record) if key in objects])


def require_inside(key: str) -> None:
    """Refuse an object whose place here would lie outside of the run's folder.

    Raises:
        StoreRefused: naming it. Whoever may write to a bucket may call an object anything.
    """
    if not stays_inside(key):
        raise StoreRefused(f"the object {shorten(key)} would leave the run's folder; delete it")


def _bring(layout: Layout, keys: list[str]) -> None:
    """Bring some objects to the run's folder; a journal there that says something else stays."""
    far = layout.far_run
    assert far is not None
    for key in keys:
        target = layout.run / key
        if key.endswith("journal.jsonl") and target.is_file():
            here, there = target.read_bytes(), read_object(far, key)
            if here != there and here.startswith(there):
                return
            if not there.startswith(here):
                corpus = target.parent.name
                keep_digests(layout, corpus)
                put_aside(layout, corpus, journal_fingerprint(target) or "unknown")
    for key in keys:
        copy_here(far, key, layout.run / key)


def _patterns(kind: str, name: str) -> list[str]:
    return [pattern.format(name=name) for pattern in MADE.get(kind, ())]


def _key(layout: Layout, file: Path) -> str:
    return file.relative_to(layout.run).as_posix()
