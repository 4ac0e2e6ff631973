"""Whether what a run writes and downloads fits: story vectors where runs lie, weights in the cache.

Sizes are those before compression, and of weights as their config says they are kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.costs.architecture import Architecture
from engine.models import cached_bytes, hub_cache, whole_snapshot
from engine.plan import State, Status
from manifests.errors import Problem
from manifests.resolve import Study


@dataclass(frozen=True)
class Disk:
    """Bytes that are to be written, and those that are free for them.

    Attributes:
        vectors: of story vectors, before compression.
        free: where runs lie, None in an object store.
        downloads: of weights, by what they are downloaded from.
        cache_free: where the hub's cache lies.
        same: the cache lies on the disk that runs lie on.
    """

    vectors: int
    free: int | None
    downloads: dict[str, int]
    cache_free: int
    same: bool


def disk_of(root: Path | None, statuses: Iterable[Status], downloads: Mapping[str, int]) -> Disk:
    """Return what is to be written and downloaded, and what is free.

    Args:
        root: folder that holds runs, None for an object store.
        statuses: of the stages to do.
        downloads: bytes to download, by repository.
    """
    vectors = sum(left_bytes(status) for status in statuses if status.stage.kind == "extract")
    cache = _existing(hub_cache())
    cache_free = shutil.disk_usage(cache).free
    if root is None:
        return Disk(vectors, None, dict(downloads), cache_free, False)
    folder = _existing(root)
    same = folder.stat().st_dev == cache.stat().st_dev
    return Disk(vectors, shutil.disk_usage(folder).free, dict(downloads), cache_free, same)


def disk_refusals(root: Path | None, disk: Disk) -> Iterator[Problem]:
    """Yield why story vectors do not fit on the disk, or weights into the hub's cache.

    Args:
        root: folder that holds runs, None for an object store.
        disk: what is to be written there, and what is free.
    """
    weights = sum(disk.downloads.values())
    if root is not None and disk.free is not None and disk.vectors:
        beside = weights if disk.same and weights <= disk.cache_free else 0
        if disk.vectors + beside > disk.free:
            more = f" and weights to download {beside / 1e9:,.1f} GB" if beside else ""
            what = (
                f"the residuals need up to {disk.vectors / 1e9:,.1f} GB{more}, "
                f"{disk.free / 1e9:,.1f} GB are free; use fewer windows or layers, or another "
                "--root"
            )
            yield Problem(root, None, "", what)
    if weights > disk.cache_free:
        largest = max(disk.downloads, key=lambda name: disk.downloads[name])
        what = (
            f"weights to download take {weights / 1e9:,.1f} GB (most for {largest}: "
            f"{disk.downloads[largest] / 1e9:,.1f} GB), {disk.cache_free / 1e9:,.1f} GB are free; "
            "set HF_HOME to a folder on a larger disk"
        )
        yield Problem(hub_cache(), None, "", what)


def downloads(
    study: Study, models: Iterable[str], sizes: Mapping[str, Architecture | None]
) -> dict[str, int]:
    """Return the bytes of weights that are not in the hub's cache yet, by repository.

    Models whose config is not here, and those that come quantised, are left out: how large their
    files are, a config does not say.

    Args:
        study: that has the models.
        models: names of those that are needed.
        sizes: each model's, None where its config is not at hand.
    """
    found: dict[str, int] = {}
    for name in models:
        entry, size = study.manifest.models[name], sizes[name]
        if entry.hf is None or size is None or size.packed:
            continue
        if whole_snapshot(entry.hf, entry.revision) is None:
            here = cached_bytes(entry.hf)
            origin = entry.hf if entry.revision is None else f"{entry.hf}@{entry.revision}"
            found[origin] = max(0, size.stored - here)
    return found


def left_bytes(status: Status) -> int:
    """Return the bytes that a stage has left to write, 0 where that is not known."""
    if status.state is State.DONE or status.size is None:
        return 0
    if status.state is State.PARTIAL and status.total:
        return status.size * (status.total - status.done) // status.total
    return status.size


def _existing(folder: Path) -> Path:
    folder = folder.resolve()
    while not folder.exists():
        folder = folder.parent
    return folder
