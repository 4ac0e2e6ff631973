"""What made each output: one small JSON file for each finished stage, written after its output."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from store.atomic import write_text
from store.fingerprint import fingerprint


@dataclass(frozen=True)
class Record:
    """A finished stage.

    Attributes:
        stage: `kind:name`.
        fingerprint: of its settings, inputs' fingerprints and version.
        identity: of its output: of the content for a corpus, of fingerprint and inputs otherwise.
        inputs: identities of what it read, by stage.
        seconds: wall time.
        finished: UTC time, ISO 8601.
        figures: counts worth telling (texts, tokens, bytes, ...).
        versions: of the programs that made it.
        listed: a list of digests was written beside it (`store.digests`).
    """

    stage: str
    fingerprint: str
    identity: str
    inputs: dict[str, str]
    seconds: float
    finished: str
    figures: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    listed: bool = False


def derived_identity(stage_fingerprint: str, inputs: dict[str, str]) -> str:
    """Return the identity of an output that fingerprint and inputs determine."""
    return fingerprint({"fingerprint": stage_fingerprint, "inputs": inputs})


def write_record(file: Path, record: Record) -> None:
    """Write a record whole."""
    write_text(file, record_text(record))


def record_text(record: Record) -> str:
    """Return what the file of a record holds."""
    return json.dumps(dataclasses.asdict(record), indent=1, sort_keys=True) + "\n"


def read_record(file: Path) -> Record | None:
    """Return a stage's record, or None where it has none that can be read."""
    try:
        return parse_record(file.read_bytes())
    except FileNotFoundError:
        return None


def parse_record(content: bytes) -> Record | None:
    """Return the record that some bytes are, or None where they are none."""
    try:
        record = Record(**json.loads(content))
    except (ValueError, TypeError, RecursionError):
        return None
    return record if _is_sound(record) else None


TYPES: dict[str, type | tuple[type, ...]] = {
    "stage": str,
    "fingerprint": str,
    "identity": str,
    "inputs": dict,
    "seconds": (int, float),
    "finished": str,
    "figures": dict,
    "versions": dict,
    "listed": bool,
}
COUNTS = ("texts", "tokens", "cut_texts", "bytes", "output_tokens", "gpus")
"""Figures that are counted with, where a record has them; `tokens_per_second` may be None."""

MAX_COUNT = 2**63


def _is_sound(record: Record) -> bool:
    """Tell whether the fields of a record have their types."""
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    if not all(isinstance(values[name], of) for name, of in TYPES.items()):
        return False
    named = [*record.inputs.values(), *record.versions.values()]
    counts = [record.figures[name] for name in COUNTS if name in record.figures]
    if (rate := record.figures.get("tokens_per_second")) is not None:
        counts.append(rate)
    return all(isinstance(value, str) for value in named) and all(map(_is_count, counts))


def _is_count(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < MAX_COUNT
