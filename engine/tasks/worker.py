"""What a worker is: whether it can do a run's tasks, the child that it holds, and what it tells."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
from distributed import get_worker
from threadpoolctl import threadpool_limits

from engine.child import ChildFailed
from engine.device import WORKERS_PER_JOB, has_gpu, take_share
from engine.events import Event, Note
from engine.machines.slot import Slot
from engine.machines.workers import Run, program_digest
from engine.versions import program_versions
from store.places import StoreRefused, place, sizes

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class WorkerUnfit(Exception):
    """A worker cannot do a run's tasks; the message names its host and what it lacks.

    Attributes:
        worker: its address.
    """

    def __init__(self, message: str, worker: str):
        super().__init__(message, worker)
        self.message, self.worker = message, worker

    def __str__(self) -> str:
        return self.message


def dask_setup(worker: Any) -> None:
    """Prepare a worker process (Dask calls this as it starts).

    Ctrl-C is left to the process that started it, and it takes its share of a job.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    program_digest()  # of the source as it is now, which is what runs here
    by_dask = dask.config.get("distributed.nanny.pre-spawn-environ", {})
    for name in THREADS:  # nannies leave one thread where nobody has said anything
        if name in os.environ and os.environ[name] == str(by_dask.get(name)):
            del os.environ[name]
    together = int(os.environ.get(WORKERS_PER_JOB, "1"))
    if together > 1:
        take_share(int(str(worker.name).rpartition("-")[2]), together)


_lock = threading.Lock()


_slot = Slot()


_fit: set[str] = set()


_mine = threading.local()


def call(run: Run, work: Callable[..., Any], *arguments: Any) -> Any:
    """Do one of this module's functions for a run.

    Raises:
        WorkerUnfit: this worker cannot do its tasks.
    """
    if run.token not in _fit:
        require_fit(run, get_worker())
        _fit.add(run.token)
    if run.gpu and not has_gpu():
        host = socket.gethostname()
        what = f"the profile asks for GPUs, a job on {host} has none"
        raise WorkerUnfit(what, get_worker().address)
    before, _mine.run = getattr(_mine, "run", None), run
    try:
        return work(*arguments)
    finally:
        _mine.run = before


def my_run() -> Run:
    """Return the run that this thread's task works for."""
    return _mine.run  # type: ignore[no-any-return]


def require_fit(run: Run, dask_worker: Any) -> tuple[str, dict[str, str]]:
    """Refuse to work for a run of other source, or whose folders are not here.

    Args:
        run: the run.
        dask_worker: this worker (`Client.run` gives it to an argument of this name).

    Returns:
        This host's name, and the versions of the programs here.

    Raises:
        WorkerUnfit: naming this host.
    """
    host, me = socket.gethostname(), dask_worker.address
    if unseen := [folder for folder in run.folders if not _seen(folder)]:
        raise WorkerUnfit(
            f"a worker on {host} does not see {unseen[0]}; use a folder that all machines share, "
            "or give jobs the object store's keys",
            me,
        )
    if unseen := [folder for folder in run.models if not Path(folder).is_dir()]:
        raise WorkerUnfit(
            f"a worker on {host} does not see the model in {unseen[0]}; set HF_HOME and "
            "XDG_CACHE_HOME to folders that all machines share, or give its path on such a one",
            me,
        )
    if program_digest() != run.program:
        raise WorkerUnfit(
            f"a worker on {host} runs other source than {run.host}; use one checkout for both",
            me,
        )
    return host, program_versions()


def _seen(folder: str) -> bool:
    """Tell whether a run's folder can be read from here."""
    where = place(folder)
    if isinstance(where, Path):
        return where.is_dir()
    try:
        sizes(where, "records")
    except StoreRefused:
        return False
    return True


def _away(run: Run) -> bool:
    """Tell whether this process is another than the run's own."""
    return (socket.gethostname(), os.getpid()) != (run.host, run.process)


def end_child(token: str) -> None:
    """End this worker's child process, if it has one and that is of this run."""
    _slot.end_for(token)


def stop_run(token: str) -> None:
    """End the child of a run and let no task of it start another: it is being interrupted."""
    _slot.stop(token)


def in_child(
    key: str,
    log: Path,
    task: str,
    job: dict[str, Any],
    on_event: Callable[[dict[str, Any]], None],
) -> Any:
    """Run a task in the child for `key`.

    A child that dies is replaced, once, and again for as long as each gets further than the last.
    """
    progress: dict[str, int] = {}
    reached = -1

    def note_progress(event: dict[str, Any]) -> None:
        part, done = event.get("stage", ""), event.get("done", event.get("texts", 0))
        progress[part] = max(done, progress.get(part, 0))
        on_event(event)

    run: Run = _mine.run
    if _away(run):  # workers elsewhere have logs of their own
        log = log.with_name(f"{log.stem}.{get_worker().name}.log".replace("/", "-"))
    while True:
        with _slot.child(run.token, key, log) as child:
            try:
                return child.call(task, job, note_progress)
            except ChildFailed as failure:
                _slot.end(child)
                furthest = sum(progress.values())
                if not failure.crashed or furthest <= reached or _slot.stopped(run.token):
                    raise
                reached = furthest
                emit(Note(f"{failure}; it is started once more (log: {log.name})"))


_limited: list[Any] = []


def one_thread_each() -> None:
    """Let linear algebra use one thread in this process from now on: tasks are the parallelism."""
    with _lock:
        if not _limited:
            _limited.append(threadpool_limits(limits=1))


def emit(event: Event) -> None:
    """Tell this task's run what happens."""
    payload = {"type": type(event).__name__, **dataclasses.asdict(event)}
    get_worker().log_event(_mine.run.topic, {"event": payload})
