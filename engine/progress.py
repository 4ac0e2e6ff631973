"""Events of a run as lines for a person: live bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from engine.events import (
    Event,
    Listener,
    Note,
    StageFailed,
    StageFinished,
    StageProgress,
    StageStarted,
)


@contextmanager
def progress_lines(console: Console) -> Iterator[Listener]:
    """Give a listener that shows one line for each stage, with rate and time left."""
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}", markup=False),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bars:
        yield _Lines(console, bars)


class _Lines:
    """The listener: keeps a bar for each running stage and prints a line when one ends."""

    def __init__(self, console: Console, bars: Progress):
        self._console, self._bars = console, bars
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, StageStarted):
            self._start(event)
        elif isinstance(event, StageProgress):
            self._advance(event)
        elif isinstance(event, StageFinished):
            self._close(event.stage)
            self._print(f"done    {event.stage:<44} {event.seconds:7.1f} s  {_say(event.figures)}")
        elif isinstance(event, StageFailed):
            self._close(event.stage)
            self._print(f"FAILED  {event.stage}: {event.message}")
            for line in event.tail:
                self._print(f"        | {line}")
            if event.log:
                self._print(f"        log: {event.log}")
        elif isinstance(event, Note):
            self._print(f"note    {event.message}")

    def _start(self, event: StageStarted) -> None:
        self._close(event.stage)
        self._started[event.stage] = time.monotonic()
        self._tasks[event.stage] = self._bars.add_task(
            event.stage, total=event.total, completed=event.done, unit=event.unit, rate=""
        )
        if not self._console.is_terminal:
            before = f", {event.done} of them done before" if event.done else ""
            self._print(f"start   {event.stage:<44} {event.total} {event.unit}{before}")

    def _advance(self, event: StageProgress) -> None:
        task = self._tasks.get(event.stage)
        if task is None:
            return
        seconds = time.monotonic() - self._started[event.stage]
        rate = f"{event.tokens / seconds:,.0f} tokens/s" if event.tokens and seconds else ""
        if event.refused:
            rate += f", {event.refused} replies refused"
        self._bars.update(task, completed=event.done, rate=rate)

    def _close(self, stage: str) -> None:
        if (task := self._tasks.pop(stage, None)) is not None:
            self._bars.remove_task(task)

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _say(figures: dict[str, Any]) -> str:
    """Return the figures of a stage that fit on its line."""
    parts = []
    for key in ("texts", "tokens", "output_tokens", "refused", "layers", "windows", "files"):
        if figures.get(key):
            parts.append(f"{figures[key]:,} {key.replace('_', ' ')}")
    if figures.get("tokens_per_second"):
        parts.append(f"{figures['tokens_per_second']:,.0f} tokens/s")
    if figures.get("cut_texts"):
        parts.append(f"{figures['cut_texts']} texts cut at max_tokens")
    for window, n in (figures.get("texts_without_token") or {}).items():
        if n:
            parts.append(f"{n} texts have no token in window {window}")
    for norms, words in (figures.get("unrated_emotions") or {}).items():
        if words:
            shown = ", ".join(words[:4]) + (", …" if len(words) > 4 else "")
            parts.append(f"{norms} does not rate {len(words)} emotions ({shown})")
    for corpus, counts in (figures.get("flagged") or {}).items():
        shown = ", ".join(f"{check} {n:,}" for check, n in counts.items())
        parts.append(f"texts of {corpus} that break a check: {shown}")
    for where, why in (figures.get("missing") or {}).items():
        parts.append(f"no results for {where}: {why}")
    return ", ".join(parts)


class ShardProgress:
    """Adds up the progress of a stage's shards (`stage#shard`) into the stage's own."""

    def __init__(self, listener: Listener):
        self._listener = listener
        self._before: dict[str, int] = {}
        self._shards: dict[str, dict[str, StageProgress]] = {}
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Pass an event on, a shard's progress as its stage's."""
        if isinstance(event, StageProgress) and "#" in event.stage:
            stage, _, shard = event.stage.rpartition("#")
            with self._lock:
                shards = self._shards.setdefault(stage, {})
                shards[shard] = event
                done = self._before.get(stage, 0) + sum(e.done for e in shards.values())
                tokens = sum(e.tokens for e in shards.values())
            event = StageProgress(stage, done, tokens)
        elif isinstance(event, StageStarted):
            self._before[event.stage] = event.done
        self._listener(event)
