"""How the program ends: by itself, interrupted, or with an error that is told in one line."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

INTERRUPTED = 130
AGAIN_SECONDS = 0.5
_over = threading.Event()
"""Set when there is nothing left to interrupt."""
_interrupted = threading.Event()
"""Set when the command leaves because it was interrupted."""


def _interrupt(signum: int, frame: FrameType | None) -> None:
    again = threading.Timer(AGAIN_SECONDS, _insist, [signum])
    again.daemon = True
    again.start()
    raise KeyboardInterrupt


def _insist(signum: int) -> None:
    """Interrupt again where the first time was swallowed, as by a bare `except` of a library.

    While things are brought to their end, the interruption is what they are ended by: it is the
    exception that is handled, or lies behind that.
    """
    found: Any = sys._current_exceptions().get(threading.main_thread().ident)
    ending = found[1] if isinstance(found, tuple) else found  # until Python 3.12
    while ending is not None and not isinstance(ending, KeyboardInterrupt):
        ending = ending.__context__
    if ending is None and not _over.is_set():
        os.kill(os.getpid(), signum)


def run_program(app: Callable[[], Any]) -> None:
    """Run a command and exit; every error that a person can mend is one line, without a traceback.

    Args:
        app: does what the command line says; returns the exit code, if it has one.
    """
    atexit.register(_leave_at_last)  # before all others, so that it comes last
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        code = app()  # typer turns an interruption into code 130, if it can
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        known = known_error(error)
        if known is None:
            raise
        leave(*known)
    finally:
        _over.set()
    if code == INTERRUPTED:
        leave("interrupted; the same command goes on from here", code)
    sys.exit(code)


def _leave_at_last() -> None:
    """Leave with code 130, which Python does not where it ran a string when it was interrupted.

    It takes the interruption for one that nobody handled, and ends by the signal.
    """
    if _interrupted.is_set():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)


def known_error(error: Exception) -> tuple[str, int] | None:
    """Return the words and exit code of an error that needs no traceback."""
    from typer.exceptions import TyperException

    from manifests.errors import InputError

    if isinstance(error, InputError):
        return str(error), 2
    if isinstance(error, TyperException):
        return error.format_message(), 2
    from engine.machines.workers import ClusterGone
    from engine.models import ModelUnavailable
    from store.lock import RunLocked
    from store.places import StoreRefused

    if isinstance(error, RunLocked | ModelUnavailable | ClusterGone | StoreRefused | OSError):
        return str(error), 1
    return None


def leave(message: str, code: int) -> NoReturn:
    """Exit with a code, after a last word on standard error unless it is empty."""
    sys.stdout.flush()
    if message:
        print(message, file=sys.stderr)
    if code == INTERRUPTED:
        _interrupted.set()
    sys.exit(code)
