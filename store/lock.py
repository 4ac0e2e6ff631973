"""One writer per run: an flock that the kernel releases with its process, and who holds it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from manifests.errors import one_line
from store.atomic import write_text

MAX_HELD = 60
"""Characters of what a holder's note says of it: the folder may be somebody else's."""

NO_FLOCK = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""What file systems answer that have no flock, or were mounted without it."""


class RunLocked(Exception):
    """Another process writes to this run; the message names host, process and time."""


class NoLock(OSError):
    """A file system cannot keep two writers apart."""

    def __init__(self, folder: Path, why: OSError):
        what = f"{folder}: its file system has no flock ({os.strerror(why.errno or 0)}), so that "
        what += "nothing would keep two runs apart; mount it with locks, or choose another --root"
        super().__init__(what)


@contextmanager
def run_lock(file: Path) -> Iterator[None]:
    """Hold a run's lock for the length of the block.

    The lock lives in the kernel, so a crash of the holder releases it and the file left behind
    means nothing. On a network file system it is as good as that system's flock.

    Raises:
        RunLocked: somebody else holds it.
        NoLock: there are no such locks here; a file that stands for one would outlive a holder
            that was killed on another host.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    holder_file = file.with_name(file.name + "-holder.json")
    lock = FileLock(file, timeout=0, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise RunLocked(f"{file.parent} is in use by {_holder(holder_file)}") from None
    except OSError as error:
        if error.errno in NO_FLOCK:
            raise NoLock(file.parent, error) from None
        raise
    try:
        me = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_text(holder_file, json.dumps(me))
        yield
    finally:
        holder_file.unlink(missing_ok=True)
        lock.release()


def hold(stream: IO[bytes], file: Path, seconds: float) -> None:
    """Take the kernel's lock on an open file until it is closed.

    Raises:
        RunLocked: another process has had it for all of these seconds.
        NoLock: there are no such locks here.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise RunLocked(f"{file} is being written by another process") from None
            time.sleep(0.2)
        except OSError as error:
            if error.errno in NO_FLOCK:
                raise NoLock(file.parent, error) from None
            raise
        else:
            return


def _holder(file: Path) -> str:
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        named = (held["process"], held["host"], held["since"])
        process, host, since = (one_line(str(what))[:MAX_HELD] for what in named)
        return f"process {process} on {host} since {since}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process that has only just started"
