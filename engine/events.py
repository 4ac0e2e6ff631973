"""What a run tells whoever listens: frozen events, rendered by `engine.progress`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StageStarted:
    """A stage begins; `total` units of work in all, `done` of them by an earlier run."""

    stage: str
    total: int
    done: int
    unit: str


@dataclass(frozen=True)
class StageProgress:
    """Work done so far: `done` units of the stage, and tokens handled by this run."""

    stage: str
    done: int
    tokens: int = 0
    refused: int = 0


@dataclass(frozen=True)
class StageFinished:
    """A stage is complete."""

    stage: str
    seconds: float
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StageFailed:
    """A stage could not be completed; `tail` holds the last lines of its log."""

    stage: str
    message: str
    log: str = ""
    tail: tuple[str, ...] = ()


@dataclass(frozen=True)
class Note:
    """Something a person should know and need not act on."""

    message: str


Event = StageStarted | StageProgress | StageFinished | StageFailed | Note
Listener = Callable[[Event], None]
EVENT_TYPES: dict[str, type] = {
    c.__name__: c for c in (StageStarted, StageProgress, StageFinished, StageFailed, Note)
}
