"""Emotion vectors on disk for other programs: tensors, facts for programs, a card for readers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.atomic import folder_written_whole, written_whole

FORMAT = "emovec vectors"
TENSORS, FACTS, CARD = "vectors.safetensors", "vectors.json", "README.md"


def write_tensors(
    file: Path, tensors: Mapping[str, NDArray[Any]], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file whole.

    Arrays are laid out anew where they are views: the library writes the memory that they view.
    """
    from safetensors.numpy import save_file

    whole = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    with written_whole(file) as partial:
        save_file(whole, partial, metadata=metadata)


def write_vectors(
    folder: Path, tensors: Mapping[str, NDArray[Any]], facts: Mapping[str, Any], card: str
) -> None:
    """Write a folder of vectors whole, replacing one that `foreign_file` finds nothing in.

    Args:
        folder: made here: `vectors.safetensors`, `vectors.json` and `README.md`.
        tensors: by name.
        facts: JSON values; kept in the metadata of the tensors too, under one key, since the order
            of several differs from one process to the next.
        card: Markdown.
    """
    text = json.dumps({"format": FORMAT, **facts}, ensure_ascii=False, allow_nan=False, indent=1)
    with folder_written_whole(folder) as partial:
        write_tensors(partial / TENSORS, tensors, {"emovec": text})
        (partial / FACTS).write_text(text + "\n", encoding="utf-8", newline="\n")
        (partial / CARD).write_text(card, encoding="utf-8", newline="\n")


def foreign_file(folder: Path) -> str | None:
    """Return what stands at `folder` that `write_vectors` did not write, None where it may write.

    An empty folder holds nothing; one with vectors of ours and anything else holds that.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        return folder.name
    if not folder.exists():
        return None
    names = sorted(entry.name for entry in folder.iterdir())
    if not names:
        return None
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        ours = isinstance(facts, dict) and facts.get("format") == FORMAT
    except (OSError, ValueError):
        ours = False
    return next((name for name in names if not ours or name not in (TENSORS, FACTS, CARD)), None)
