"""The child's side: answers the tasks of `engine.child.Child` over a socket, one at a time."""

from __future__ import annotations

import importlib
import json
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

TASKS = {
    "measure": "engine.generation.prompts:measure_prompts",
    "dequantise": "engine.models:dequantise",
    "download": "engine.models:download",
    "read": "engine.reading:read_shard",
    "write": "engine.generation.writing:write_corpora",
}


def main() -> None:
    """Serve until the socket closes."""
    connection = socket.socket(fileno=int(sys.argv[1]))

    def send(message: dict[str, Any]) -> None:
        connection.sendall(json.dumps(message).encode() + b"\n")

    for line in connection.makefile("rb"):
        question = json.loads(line)
        try:
            result = _find(question["task"])(question["job"], lambda event: send({"event": event}))
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


def _find(task: str) -> Callable[[dict[str, Any], Callable[[dict[str, Any]], None]], Any]:
    module, _, name = TASKS[task].partition(":")
    function: Callable[[dict[str, Any], Callable[[dict[str, Any]], None]], Any] = getattr(
        importlib.import_module(module), name
    )
    return function


if __name__ == "__main__":
    main()
