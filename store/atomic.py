"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"
"""Ending of everything that is still being written; swept when a run starts."""


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Give a temporary file beside `target`; move it there, synced, when the block ends well."""
    partial = _partial(target)
    try:
        yield partial
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(target)
        sync_folder(target.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(target: Path) -> Iterator[Path]:
    """Give a temporary folder beside `target`; move it there when the block ends well.

    A folder already at `target` is replaced. A crash between the two renames leaves neither in
    place, so the stage that writes it runs again.
    """
    partial = _partial(target)
    partial.mkdir()
    try:
        yield partial
        if target.exists():
            old = _partial(target)
            target.rename(old)
            shutil.rmtree(old)
        partial.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_text(target: Path, text: str) -> None:
    """Write a text file whole (UTF-8)."""
    with written_whole(target) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def sweep_partials(folder: Path) -> None:
    """Remove what an interrupted writer left under a folder. The caller holds the run's lock."""
    for leftover in folder.rglob(f"*{PARTIAL}"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _partial(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f"{target.name}.{uuid.uuid4().hex[:12]}{PARTIAL}")
