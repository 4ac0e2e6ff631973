"""What the attributes of a cell's story vectors hold: what made them, and how they were read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from store.labelled import Part

MAX_LAYERS = 100_000
MAX_POSITIONS = 2**31


def _is_whole(value: Any, least: int, below: int) -> bool:
    return type(value) is int and least <= value < below


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _is_name(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _are_windows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_window, value))


def _is_window(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and _is_whole(value.get("start"), 0, MAX_POSITIONS)
        and (value.get("end") is None or _is_whole(value["end"], 1, MAX_POSITIONS))
        and value.get("normalize") in ("none", "rms")
    )


MADE_FROM: Mapping[str, Part] = {
    "made_from": (lambda value: isinstance(value, dict), "fingerprint and inputs"),
    "made_from.fingerprint": (lambda value: isinstance(value, str), "text"),
    "made_from.inputs": (_are_texts, "texts by stage"),
}
"""What made a group of arrays."""

NEEDED: Mapping[str, Part] = {
    "n_layers": (
        lambda value: _is_whole(value, 1, MAX_LAYERS),
        "the number of the model's blocks",
    ),
    "extraction": (lambda value: isinstance(value, dict), "the settings of reading"),
    "extraction.max_tokens": (
        lambda value: _is_whole(value, 1, MAX_POSITIONS),
        "a number of tokens",
    ),
}
"""What analysis takes."""

EXTRACTED: Mapping[str, Part] = {
    **NEEDED,
    "cell": (lambda value: isinstance(value, str), "MODEL@CORPUS"),
    "model": (lambda value: isinstance(value, dict), "the model's identity"),
    "versions": (_are_texts, "programs' versions"),
    "extraction.windows": (_are_windows, "windows of name, start, end and normalize"),
    "extraction.backend": (lambda value: isinstance(value, str), "the name of a backend"),
    "extraction.dtype": (lambda value: isinstance(value, str), "the name of a type"),
}
"""What vectors and reading other texts take."""

_SOURCE = ("name", "builtin", "hf", "revision", "path")
OPTIONAL: Mapping[str, Part] = {
    **MADE_FROM,
    "source": (lambda value: value is None or isinstance(value, dict), "where the model is"),
    **{f"source.{key}": (_is_name, "text or null") for key in _SOURCE},
    "source.random_seed": (
        lambda value: value is None or _is_whole(value, 0, 2**64),
        "a whole number or null",
    ),
    "source.trust_remote_code": (lambda value: isinstance(value, bool), "true or false"),
}
"""What is used where it is there: earlier versions did not say it."""
