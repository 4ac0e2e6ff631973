"""Where tasks run: a Dask worker in this process, and processes that read; their events.

Everything runs on the worker in this process, except reading with several copies of a model: each
copy then has a Dask worker process of its own, which starts the model's process and takes it along
when it dies.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.device import cpu_count
from engine.events import EVENT_TYPES, Event, Listener, StageProgress, StageStarted
from manifests.errors import InputError, Problem

if TYPE_CHECKING:
    from distributed import Client

MODEL_SLOT = {"model": 1}
"""Dask resource: a worker holds one model at a time."""

PATIENCE = "5 minutes"
CONNECTING = "10 s"

HALF_SLOT = {"model": 0.5}
"""For tasks of which one may be read while another is written, with the same model."""


@contextmanager
def local_cluster(listener: Listener) -> Iterator[Client]:
    """Start a Dask worker in this process, and pass on what its tasks tell."""
    from distributed import Client, LocalCluster

    from engine import tasks

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    tasks.allow_children()
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=max(2, cpu_count()),
            processes=False,
            dashboard_address="127.0.0.1:0",
            resources=MODEL_SLOT,
        ) as cluster,
        Client(cluster) as client,
    ):
        client.subscribe_topic(tasks.TOPIC, _relay(listener))
        try:
            yield client
        finally:
            tasks.prepare_stop()


@contextmanager
def analysis_workers(client: Client, scheduler: str | None) -> Iterator[Client]:
    """Give a client whose workers analyse: those of a scheduler somewhere, or this process.

    Args:
        client: of the worker in this process.
        scheduler: address of a Dask scheduler whose workers have this program installed and see
            the run's folder under the same path; None for this process.

    Raises:
        InputError: no scheduler answers there, or it has no workers.
    """
    if scheduler is None:
        yield client
        return
    from distributed import Client

    try:
        analysts = Client(scheduler, timeout=CONNECTING, set_as_default=False)
    except (OSError, ValueError) as error:
        what = f"no Dask scheduler answers at {scheduler}: {str(error).splitlines()[0]}"
        raise InputError(Problem(Path("--scheduler"), None, "", what)) from None
    with analysts:
        if not analysts.scheduler_info(n_workers=-1)["workers"]:
            what = f"the Dask scheduler at {scheduler} has no workers"
            raise InputError(Problem(Path("--scheduler"), None, "", what))
        yield analysts


@contextmanager
def reading_workers(
    client: Client, environments: Sequence[dict[str, str]], listener: Listener
) -> Iterator[Client]:
    """Give a client whose workers read, one for each environment.

    A worker that dies is started again, and what it was reading goes to whoever is free; a task
    ends with `KilledWorker` when several workers have died of it.

    Args:
        client: of the worker in this process, which reads when one needs no environment.
        environments: environment variables of each copy of a model, such as its GPU.
        listener: told what the tasks tell.
    """
    if list(environments) == [{}]:
        yield client
        return
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    from engine import tasks

    settings = {
        "distributed.scheduler.work-stealing": False,  # a task moved late loads its model again
        # Time for a worker that died to come back; with none left by then, a stage fails.
        "distributed.deploy.lost-worker-timeout": PATIENCE,
        "distributed.scheduler.no-workers-timeout": PATIENCE,
        # These would reach this process too, and its later children.
        "distributed.nanny.pre-spawn-environ": {
            "OMP_NUM_THREADS": None,
            "MKL_NUM_THREADS": None,
            "OPENBLAS_NUM_THREADS": None,
        },
    }
    host = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    worker = {
        "nthreads": 2,
        "memory_limit": 0,
        "resources": MODEL_SLOT,
        "host": "127.0.0.1",
        "preload": [tasks.__name__],
    }
    workers = {
        f"reader-{number}": {
            "cls": Nanny,
            "options": {**worker, "env": environment, "silence_logs": logging.CRITICAL},
        }
        for number, environment in enumerate(environments)
    }
    with (
        dask.config.set(settings),
        SpecCluster(workers=workers, scheduler={"cls": Scheduler, "options": host}) as cluster,
        Client(cluster) as readers,
    ):
        readers.subscribe_topic(tasks.TOPIC, _relay(listener))
        try:
            yield readers
        finally:  # their models are gone, and the GPUs free, before anything else begins
            readers.run(tasks.prepare_stop, on_error="ignore")


def _relay(listener: Listener) -> Callable[[tuple[Any, dict[str, Any]]], None]:
    """Return what hands the events of tasks to a listener."""

    def relay(event: tuple[Any, dict[str, Any]]) -> None:
        payload = dict(event[1]["event"])
        listener(EVENT_TYPES[payload.pop("type")](**payload))

    return relay


def run_task(client: Client, work: Any, *arguments: Any) -> Any:
    """Run one task on a worker that has its model slot free, and wait for its result."""
    return client.submit(work, *arguments, resources=MODEL_SLOT, pure=False).result()


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
