"""Which weights of a model's folder are read: safetensors, and nothing that is unpickled."""

from __future__ import annotations

import json
from pathlib import Path

from manifests.errors import shorten

INDEX = "model.safetensors.index.json"


def weights_refusal(folder: Path) -> str | None:
    """Return why a model's weights are not read, None where they are safetensors.

    transformers takes `model.safetensors`, or the files that its index names; without either it
    falls back to pickled weights, and an index may name those, too.
    """
    if not any(folder.glob("*.safetensors")):
        return f"no safetensors in {folder}; other formats are not read"
    if (folder / "model.safetensors").is_file():
        return None
    if not (folder / INDEX).is_file():
        pickled = sorted(f.name for f in folder.glob("*.bin"))
        if not pickled:
            return None
        return f"no model.safetensors in {folder}; {pickled[0]}, a pickle, is not read"
    try:
        names = set(json.loads((folder / INDEX).read_bytes())["weight_map"].values())
        odd = sorted(n for n in names if not n.endswith(".safetensors") or Path(n).name != n)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{folder / INDEX} is no index of safetensors"
    if odd:
        return f"{folder / INDEX} names {shorten(odd[0])}, which is no safetensors file beside it"
    return None
