"""A child process that holds a model: started, asked, watched and ended from here.

The child runs `engine.child_main` under `engine/guard.py`, in a session of its own. Questions and
answers are JSON lines over a socket pair; everything the child prints goes to a log file.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

Event = dict[str, Any]

GUARD = Path(__file__).with_name("guard.py")
TAIL_LINES = 15


class ChildFailed(Exception):
    """A child could not do its work.

    Attributes:
        log: its log file.
        crashed: it died, or a process that it depends on (killed, out of memory), rather than
            reporting an error of its own.
        plain: the message says all there is to know.
    """

    def __init__(self, message: str, log: Path, crashed: bool, plain: bool = False):
        super().__init__(message, log, crashed, plain)
        self.message, self.log, self.crashed, self.plain = message, log, crashed, plain

    def __str__(self) -> str:
        return self.message

    def tail(self) -> list[str]:
        """Return the last lines of the child's log, none of an error that is plain."""
        if self.plain:
            return []
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()][-TAIL_LINES:]


class Child:
    """One child process. Not thread-safe but for `stop`, which any thread may call."""

    def __init__(self, log: Path, environment: dict[str, str] | None = None):
        """Start it; what it prints is appended to `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        mine, its = socket.socketpair()
        command = [sys.executable, "-P", "-m", "engine.child_main", str(its.fileno())]
        with log.open("ab") as stream:
            self._guard = subprocess.Popen(
                [sys.executable, "-S", "-E", str(GUARD), str(its.fileno()), *command],
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                pass_fds=(its.fileno(),),
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        its.close()
        self._socket = mine
        self._stream = mine.makefile("rb")
        self._stopped = False

    def call(self, task: str, job: dict[str, Any], on_event: Callable[[Event], None]) -> Any:
        """Have the child do one task and return its result.

        Args:
            task: a name that `engine.child_main` knows.
            job: the task's argument, anything JSON can hold.
            on_event: called with each event on the way.

        Raises:
            ChildFailed: the task raised there, or the child died.
        """
        try:
            self._socket.sendall(json.dumps({"task": task, "job": job}).encode() + b"\n")
            for line in self._stream:
                if not line.endswith(b"\n"):
                    break
                message = json.loads(line)
                if "event" in message:
                    on_event(message["event"])
                elif "error" in message:
                    raise ChildFailed(
                        message["error"], self.log, message["crashed"], message["plain"]
                    )
                else:
                    return message["result"]
        except OSError:  # the other end is gone, or `stop` has closed this one
            pass
        raise ChildFailed(f"the process that does '{task}' died", self.log, crashed=True)

    @property
    def alive(self) -> bool:
        """Whether the child can still be asked."""
        return self._guard.poll() is None

    def stop(self) -> None:
        """End the child and everything it started, and wait until the group is gone."""
        if self._stopped:
            return
        self._stopped = True
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._guard.wait(timeout=5)
        with suppress(ProcessLookupError):  # a guard that was killed itself has ended nothing
            os.killpg(self._guard.pid, signal.SIGKILL)
        self._guard.wait()
        self._await_group_end()
        self._socket.close()

    def _await_group_end(self, seconds: float = 10.0) -> None:
        """Wait for the killed group's sockets to close: the child holds the other end of ours."""
        self._socket.settimeout(seconds)
        while True:
            ready, _, _ = select.select([self._socket], [], [], seconds)
            try:
                if not ready or not self._socket.recv(1 << 16):
                    return
            except OSError:
                return
