"""The model slot of a worker: one child process with one model, which tasks of a run share.

A task that needs another model waits until nobody uses the child that is there, ends it and starts
its own. An interrupted run's child is ended at once, and none of its tasks starts another.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.child import Child, ChildFailed
from engine.device import child_environment

LOOK_SECONDS = 1.0


@dataclass
class _Held:
    token: str
    key: str
    child: Child


class Slot:
    """Holds at most one child."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._held: _Held | None = None
        self._users = 0
        self._stopped: set[str] = set()

    @contextmanager
    def child(self, token: str, key: str, log: Path) -> Iterator[Child]:
        """Give the child of a run that holds what `key` says, started first where it is not there.

        Raises:
            ChildFailed: the run is being interrupted.
        """
        with self._free:
            while not self._has(token, key):
                self._require_going(token, log)
                if not self._users:
                    if self._held is not None:
                        self._held.child.stop()
                    self._held = _Held(token, key, Child(log, child_environment()))
                    break
                self._free.wait(LOOK_SECONDS)
            self._require_going(token, log)
            assert self._held is not None
            child = self._held.child
            self._users += 1
        try:
            yield child
        finally:
            with self._free:
                self._users -= 1
                self._free.notify_all()

    def end(self, child: Child) -> None:
        """End a child, if it is the one that is there."""
        with self._free:
            if self._held is None or self._held.child is not child:
                return
            self._held = None
        child.stop()

    def end_for(self, token: str) -> None:
        """End the child of a run, if that is the one that is there."""
        with self._free:
            held = self._held
        if held is not None and held.token == token:
            self.end(held.child)

    def stop(self, token: str) -> None:
        """End the child of a run, and start none for it any more."""
        self._stopped.add(token)
        self.end_for(token)

    def stopped(self, token: str) -> bool:
        """Tell whether a run was stopped."""
        return token in self._stopped

    def _has(self, token: str, key: str) -> bool:
        held = self._held
        return held is not None and (held.token, held.key) == (token, key) and held.child.alive

    def _require_going(self, token: str, log: Path) -> None:
        if token in self._stopped:
            raise ChildFailed("the run is being interrupted", log, crashed=False)
