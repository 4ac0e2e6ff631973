"""The workers of a cluster: of a Dask scheduler that runs already, or of SLURM jobs of our own.

They must see the run's folder and the models under the same paths as the command, and run the same
source; a worker that does not is named with its host. Workers may come late and may die: a task of
a dead one is done by another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from engine.events import Listener
from engine.machines.workers import Run, Workers, asking, quiet
from manifests.errors import InputError, Problem

if TYPE_CHECKING:
    from distributed import Client

    from manifests.document import Document
    from manifests.profile import Profile

CONNECTING = "10 s"

DEATHS = 1000
"""Workers that may die of one task. Jobs are cancelled and preempted for reasons of their own, and
a model's crash ends its own process, not the worker."""


def check_cluster(profile: Profile, document: Document, run: Run, sizes: Collection[int]) -> None:
    """Refuse a profile whose machines cannot be had, before anything is started.

    Args:
        profile: to look at.
        document: that it stands in.
        run: that wants to use them.
        sizes: GPUs that each model takes for which there is work; none where no model has any.

    Raises:
        InputError: there is no such scheduler, or SLURM takes no such jobs.
    """
    if profile.slurm is not None:
        from engine.machines.submission import try_submission

        for size in sorted({1, *sizes}):
            try_submission(profile.slurm.sized(size), document)
        return
    assert profile.scheduler is not None
    with _connected(profile.scheduler, document) as client:
        workers = Workers(client, run, lambda event: None)
        _require_fit(workers, profile.scheduler, document)
        if sizes and not workers.addresses():
            what = (
                f"workers of {profile.scheduler} hold no models: start them with "
                "--resources model=1"
            )
            raise InputError(_at(document, "scheduler", what))


@contextmanager
def open_cluster(
    profile: Profile,
    document: Document,
    run: Run,
    listener: Listener,
    logs: Path,
    wanted: int | None,
) -> Iterator[Workers]:
    """Give the workers that a profile speaks of.

    Args:
        profile: that speaks of them.
        document: that it stands in.
        run: that uses them.
        listener: told what tasks tell, and what becomes of workers.
        logs: folder for the logs of jobs.
        wanted: how many of them there is work for at first; as many as can be had when None.

    Raises:
        InputError: there is no such scheduler, or SLURM takes no such jobs.
    """
    import dask

    quiet()
    settings = {
        "distributed.scheduler.allowed-failures": DEATHS,
        "distributed.scheduler.work-stealing": False,  # a task moved late loads its model again
        # SLURM is asked which jobs there are. Dask would end the job that came in a lost one's
        # place and has its name, while that waits in the queue.
        "distributed.deploy.lost-worker-timeout": "1000 days",
    }
    with dask.config.set(settings):
        if profile.slurm is None:
            assert profile.scheduler is not None
            with _connected(profile.scheduler, document) as client:
                yield from _until_done(Workers(client, run, listener, lasting=True))
            return
        from distributed import Client

        from engine.machines.slurm import SlurmJobs

        jobs = SlurmJobs(profile.slurm, profile.dashboard, run, listener, logs)
        with jobs.cluster() as cluster, Client(cluster, set_as_default=False) as client:
            run = asking(run, profile.slurm.gpus > 0)
            workers = Workers(
                client,
                run,
                listener,
                lasting=True,
                trouble=lambda: jobs.trouble,
                dismiss=lambda worker, why: jobs.dismiss(cluster, worker, why),
                at_most=profile.slurm.jobs * profile.slurm.workers_per_job,
                wanted=wanted,
            )
            with jobs.kept(cluster, workers):
                yield from _until_done(workers)


def _until_done(workers: Workers) -> Iterator[Workers]:
    try:
        yield workers
    finally:
        workers.stop()


@contextmanager
def _connected(scheduler: str, document: Document) -> Iterator[Client]:
    from distributed import Client

    try:
        client = Client(scheduler, timeout=CONNECTING, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:  # the last for tls without its keys
        what = f"no Dask scheduler answers at {scheduler}: {str(error).splitlines()[0]}"
        raise InputError(_at(document, "scheduler", what)) from None
    with client:
        yield client


def _require_fit(workers: Workers, scheduler: str, document: Document) -> None:
    """Refuse a scheduler without workers, or with workers that cannot do this run's tasks."""
    from engine import tasks

    if not workers.client.scheduler_info(n_workers=-1)["workers"]:
        what = f"the Dask scheduler at {scheduler} has no workers"
        raise InputError(_at(document, "scheduler", what))
    found = workers.client.run(tasks.require_fit, workers.run, on_error="return")
    problems = [error for error in found.values() if isinstance(error, Exception)]
    if len(problems) == len(found):  # of others, each is named and left out when it is met
        lacking = isinstance(problems[0], ImportError)
        what = f"workers do not have this program installed: {problems[0]}"
        raise InputError(_at(document, "scheduler", what if lacking else str(problems[0])))


def _at(document: Document, key: str, what: str) -> Problem:
    if document.file == Path("--scheduler"):
        return Problem(document.file, None, "", what)
    return document.problem(tuple(key.split(".")), what)
