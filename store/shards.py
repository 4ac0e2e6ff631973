"""Which shards of a store there are, told from object names and metadata without opening arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from manifests.errors import InputError, Problem
from store.places import MARK, Place, read_object, sizes

SHARD_BYTES = 256_000_000
MIN_SHARD_TEXTS, MAX_SHARD_TEXTS = 64, 1024

FRAME = "residual_mean/zarr.json"
"""The object that says how many texts there are, and how many in a shard."""

MAX_SHARDS = 1_000_000
"""Beyond what any corpus needs: metadata that speaks of more is damaged, and not counted up to."""

NO_METADATA = (ValueError, KeyError, TypeError, IndexError, RecursionError)
"""What bytes raise that are no metadata, or another's."""


def shard_texts(n_windows: int, n_layers: int, d_model: int) -> int:
    """Return how many texts go into a shard: about 256 MB of float32, between 64 and 1,024."""
    per_text = n_windows * n_layers * d_model * 4
    return max(MIN_SHARD_TEXTS, min(MAX_SHARD_TEXTS, SHARD_BYTES // per_text))


def shard_span(folder: Place, shard: int) -> range:
    """Return the rows of a shard."""
    n, per_shard = _grid(folder)
    return range(shard * per_shard, min(n, (shard + 1) * per_shard))


def n_shards(folder: Place) -> int:
    """Return how many shards a store has.

    Raises:
        InputError: its metadata is damaged.
    """
    n, per_shard = _grid(folder)
    return -(-n // per_shard)


def missing_shards(folder: Place) -> list[int]:
    """Return the shards that are not there, found by looking for their objects."""
    whole = range(n_shards(folder))
    if isinstance(folder, Path):  # looked up one by one: listing reads four folders for each shard
        return [shard for shard in whole if not _file_size(folder / _object(shard))]
    found = sizes(folder, "residual_mean/c")
    return [shard for shard in whole if not found.get(_object(shard))]


def _object(shard: int) -> str:
    return f"residual_mean/c/{shard}/0/0/0"


def _file_size(file: Path) -> int:
    try:
        return file.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


def group_attributes(folder: Place) -> dict[str, Any] | None:
    """Return the attributes of a Zarr group, or None where there is none that can be read."""
    try:
        attributes = json.loads(read_object(folder, MARK))["attributes"]
    except (FileNotFoundError, NotADirectoryError, *NO_METADATA):
        return None
    return attributes if isinstance(attributes, dict) else None


def _grid(folder: Place) -> tuple[int, int]:
    """Return (texts, texts in a shard) from the array's metadata.

    Raises:
        InputError: it is damaged, or gone.
    """
    try:
        metadata = json.loads(read_object(folder, FRAME))
        n, rows = metadata["shape"][0], metadata["chunk_grid"]["configuration"]["chunk_shape"][0]
    except (FileNotFoundError, NotADirectoryError, *NO_METADATA):
        raise _damaged(folder) from None
    whole = type(n) is int and type(rows) is int and n > 0 and rows > 0
    if not whole or n > rows * MAX_SHARDS:
        raise _damaged(folder)
    return n, rows


def _damaged(folder: Place) -> InputError:
    what = "damaged or gone; after `emovec verify MANIFEST --repair` the next run writes it again"
    return InputError(Problem(Path(f"{folder}/{FRAME}"), None, "", what))
