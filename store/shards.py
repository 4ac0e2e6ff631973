"""Which shards of a store there are, told from file names and metadata without opening arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SHARD_BYTES = 256_000_000
MIN_SHARD_TEXTS, MAX_SHARD_TEXTS = 64, 1024


def shard_texts(n_windows: int, n_layers: int, d_model: int) -> int:
    """Return how many texts go into a shard: about 256 MB of float32, between 64 and 1,024."""
    per_text = n_windows * n_layers * d_model * 4
    return max(MIN_SHARD_TEXTS, min(MAX_SHARD_TEXTS, SHARD_BYTES // per_text))


def shard_span(folder: Path, shard: int) -> range:
    """Return the rows of a shard."""
    n, per_shard = _grid(folder)
    return range(shard * per_shard, min(n, (shard + 1) * per_shard))


def n_shards(folder: Path) -> int:
    """Return how many shards a store has."""
    n, per_shard = _grid(folder)
    return -(-n // per_shard)


def missing_shards(folder: Path) -> list[int]:
    """Return the shards that are not there, found by looking for their files."""
    missing = []
    for shard in range(n_shards(folder)):
        file = folder / "residual_mean" / "c" / str(shard) / "0" / "0" / "0"
        if not (file.is_file() and file.stat().st_size > 0):
            missing.append(shard)
    return missing


def group_attributes(folder: Path) -> dict[str, Any] | None:
    """Return the attributes of a Zarr group, or None where there is none."""
    try:
        attributes = json.loads((folder / "zarr.json").read_bytes())["attributes"]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError):
        return None
    return attributes if isinstance(attributes, dict) else None


def _grid(folder: Path) -> tuple[int, int]:
    """Return (texts, texts in a shard) from the array's metadata."""
    metadata = json.loads((folder / "residual_mean" / "zarr.json").read_bytes())
    return metadata["shape"][0], metadata["chunk_grid"]["configuration"]["chunk_shape"][0]
