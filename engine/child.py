"""A child process that holds a model: started, asked, watched and ended from here.

The child runs `engine.child_main` under `engine/guard.py`, in a session of its own. Questions and
answers are JSON lines over a socket pair, with a number that says which belong together; everything
the child prints goes to a log file.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
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
    """One child process, which several threads may call at once.

    It does one task after another, but may finish one while it does the next
    (`engine.child_main`).
    """

    def __init__(self, log: Path, environment: dict[str, str] | None = None):
        """Start it; what it prints is appended to `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        mine, its = socket.socketpair()
        self._sockets = tempfile.mkdtemp(prefix="emovec-")
        passed = str(its.fileno())
        command = [sys.executable, "-P", "-m", "engine.child_main", passed]
        with log.open("ab") as stream:
            self._guard = subprocess.Popen(
                [sys.executable, "-S", "-E", str(GUARD), self._sockets, passed, *command],
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                pass_fds=(its.fileno(),),
                start_new_session=True,
                env={"VLLM_RPC_BASE_PATH": self._sockets, **os.environ, **(environment or {})},
            )
        its.close()
        self._socket = mine
        self._numbers = itertools.count()
        self._inboxes: dict[int, queue.SimpleQueue[dict[str, Any] | None]] = {}
        self._lock = threading.Lock()
        self._silent = self._stopped = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def call(self, task: str, job: dict[str, Any], on_event: Callable[[Event], None]) -> Any:
        """Have the child do one task and return its result.

        Args:
            task: a name that `engine.child_main` knows.
            job: the task's argument, anything JSON can hold.
            on_event: called with each event on the way.

        Raises:
            ChildFailed: the task raised there, or the child died.
        """
        number, inbox = next(self._numbers), queue.SimpleQueue[dict[str, Any] | None]()
        question = json.dumps({"number": number, "task": task, "job": job}).encode() + b"\n"
        try:
            with self._lock, suppress(OSError):  # where the other end is gone, the listener knows
                self._inboxes[number] = inbox
                if self._silent:
                    inbox.put(None)
                self._socket.sendall(question)
            while (message := inbox.get()) is not None:
                if "event" in message:
                    on_event(message["event"])
                elif "error" in message:
                    raise ChildFailed(
                        message["error"], self.log, message["crashed"], message["plain"]
                    )
                else:
                    return message["result"]
        finally:
            with self._lock:
                del self._inboxes[number]
        raise ChildFailed(f"the process that does '{task}' died", self.log, crashed=True)

    def _listen(self) -> None:
        """Hand the child's messages to those who wait for them, until there will be none."""
        try:
            for line in self._socket.makefile("rb"):
                if not line.endswith(b"\n"):
                    break
                message = json.loads(line)
                if (inbox := self._inboxes.get(message["number"])) is not None:
                    inbox.put(message)
        except OSError:  # the other end is gone
            pass
        finally:
            with self._lock:
                self._silent = True
                for inbox in self._inboxes.values():
                    inbox.put(None)

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
        shutil.rmtree(self._sockets, ignore_errors=True)  # what was made while the guard ended
        self._listener.join(timeout=10)  # until the group, which holds the other end, is gone
        self._socket.close()
