"""The workers of this machine: one in this process, and processes that read or analyse.

Everything runs on the worker in this process, with two exceptions. Reading with several copies of a
model: each copy has a Dask worker process of its own, which starts the model's process and takes it
along when it dies. The analysis of more than a few layers: it has a process for each core.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from engine.device import cpu_count
from engine.events import Listener
from engine.machines.workers import MODEL_SLOT, Run, Workers, quiet

if TYPE_CHECKING:
    from distributed import SpecCluster

PATIENCE = "5 minutes"

AWAKE = {"distributed.scheduler.worker-ttl": None}
"""A machine that was asleep, or starved, for minutes has not lost its workers: their processes and
connections say whether they are there."""


@contextmanager
def local_cluster(run: Run, listener: Listener) -> Iterator[Workers]:
    """Start a Dask worker in this process, and pass on what its tasks tell."""
    import dask
    from distributed import Client, LocalCluster

    quiet()
    with (
        _servers_forgotten(),
        dask.config.set(AWAKE),
        LocalCluster(
            n_workers=1,
            threads_per_worker=max(2, cpu_count()),
            processes=False,
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",  # else the worker's is open to everybody
            resources=MODEL_SLOT,
        ) as cluster,
        Client(cluster) as client,
    ):
        workers = Workers(client, run, listener)
        try:
            yield workers
        finally:
            workers.stop()


@contextmanager
def _servers_forgotten() -> Iterator[None]:
    """Have Dask let go of a scheduler and workers that were in this process.

    It keeps what it found out about each of their methods, and so them and all that they logged,
    for as long as the process lives (distributed 2026.8); a notebook does many runs.
    """
    from distributed import core

    try:
        yield
    finally:
        core._expects_comm.cache_clear()


@contextmanager
def reading_workers(
    run: Run, environments: Sequence[dict[str, str]], listener: Listener
) -> Iterator[Workers]:
    """Give workers that read, one process for each environment.

    A worker that dies is started again, and what it was reading goes to whoever is free; a task
    ends with `KilledWorker` when several workers have died of it.

    Args:
        run: that they work for.
        environments: environment variables of each copy of a model, such as its GPU.
        listener: told what the tasks tell.
    """
    from distributed import Client

    settings = {
        "distributed.scheduler.work-stealing": False,  # a task moved late loads its model again
        # Time for a worker that died to come back; with none left by then, a stage fails.
        "distributed.deploy.lost-worker-timeout": PATIENCE,
        "distributed.scheduler.no-workers-timeout": PATIENCE,
    }
    options = {"nthreads": 2, "resources": MODEL_SLOT}
    with (
        _worker_processes("reader", environments, options, settings) as cluster,
        Client(cluster) as client,
    ):
        workers = Workers(client, run, listener)
        try:
            yield workers
        finally:  # their models are gone, and the GPUs free, before anything else begins
            workers.stop()


@contextmanager
def analysis_processes(
    here: Workers, n_tasks: int, listener: Listener, worth: int
) -> Iterator[Workers]:
    """Give workers that analyse, one process of one thread for each core.

    Threads of one process would wait for each other: much of the analysis is Python, and the
    library behind the eigenvectors lets no other thread run. For little work, or one core, it is
    the worker in this process.

    Args:
        here: the worker in this process.
        n_tasks: how many there are to do.
        listener: told what the tasks tell.
        worth: how many are worth the start of processes.
    """
    if cpu_count() < 2 or n_tasks < worth:
        yield here
        return
    from distributed import Client

    options = {"nthreads": 1}
    environments: list[dict[str, str]] = [{}] * min(cpu_count(), n_tasks)
    with (
        _worker_processes("analyst", environments, options, {}) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield Workers(client, here.run, listener)


@contextmanager
def _worker_processes(
    name: str,
    environments: Sequence[dict[str, str]],
    options: dict[str, Any],
    settings: dict[str, Any],
) -> Iterator[SpecCluster]:
    """Start Dask workers in processes of their own, one for each environment."""
    import dask
    from distributed import Nanny, Scheduler, SpecCluster

    from engine import tasks

    settings = {
        **settings,
        **AWAKE,
        # These would reach this process too, and its later children; the last has workers give
        # freed memory back at once, which costs more than it saves.
        "distributed.nanny.pre-spawn-environ": {
            "OMP_NUM_THREADS": None,
            "MKL_NUM_THREADS": None,
            "OPENBLAS_NUM_THREADS": None,
            "MALLOC_TRIM_THRESHOLD_": None,
        },
    }
    host = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    common = {"memory_limit": 0, "host": "127.0.0.1", "preload": [tasks.__name__], **options}
    workers = {
        f"{name}-{number}": {
            "cls": Nanny,
            "options": {**common, "env": environment, "silence_logs": logging.CRITICAL},
        }
        for number, environment in enumerate(environments)
    }
    with (
        dask.config.set(settings),
        SpecCluster(workers=workers, scheduler={"cls": Scheduler, "options": host}) as cluster,
    ):
        yield cluster
