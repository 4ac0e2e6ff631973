"""The child's side: does the tasks of `engine.child.Child`, one after another, in the main thread.

A task may return a function instead of a result: what is left to do (writing to disk) while the
next task runs. One thread does that, and no second such task ends before it is free.
"""

from __future__ import annotations

import importlib
import json
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

OnEvent = Callable[[dict[str, Any]], None]
Task = Callable[[dict[str, Any], OnEvent], Any]

TASKS = {
    "measure": "engine.generation.prompts:measure_prompts",
    "dequantise": "engine.models:dequantise",
    "download": "engine.models:download",
    "initialise": "engine.models:initialise",
    "steer-write": "engine.steering.writing:write_steered",
    "steer-score": "engine.steering.scoring:score_steered",
    "read": "engine.reading.shards:read_shard",
    "reread": "engine.reading.rereading:reread_texts",
    "write": "engine.generation.writing:write_corpora",
}


def main() -> None:
    """Serve until the socket closes."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    sending = threading.Lock()

    def answer(number: int, work: Callable[[OnEvent], Any]) -> Callable[[], Any] | None:
        """Do some work and send its result; return what is left to do, if anything."""

        def send(message: dict[str, Any]) -> None:
            with sending:
                connection.sendall(json.dumps({"number": number, **message}).encode() + b"\n")

        try:
            result = work(lambda event: send({"event": event}))
            if callable(result):
                return lambda: answer(number, lambda _: result())
            send({"result": result})
        except Exception as error:
            with suppress(OSError):  # the log may be on a full disk
                traceback.print_exc()
            send(
                {
                    "error": f"{type(error).__name__}: {error}",
                    "crashed": bool(getattr(error, "crashed", False)),  # a process of its own died
                    "plain": isinstance(error, OSError),  # says all: a full disk, a missing file
                }
            )
        return None

    left: Future[Any] | None = None
    with ThreadPoolExecutor(max_workers=1) as finishing:
        for line in connection.makefile("rb"):
            question = json.loads(line)
            task, job = _find(question["task"]), question["job"]
            rest = answer(question["number"], lambda tell, t=task, j=job: t(j, tell))
            if rest is not None:
                if left is not None:
                    left.result()
                left = finishing.submit(rest)


def _find(task: str) -> Task:
    module, _, name = TASKS[task].partition(":")
    function: Task = getattr(importlib.import_module(module), name)
    return function


if __name__ == "__main__":
    main()
