"""Jobs of a SLURM cluster, each with its workers: submitted, watched, submitted again, cancelled.

dask-jobqueue writes the scripts and submits them; what they ask for is in `submission`. Which jobs
are gone is asked of SLURM itself: Dask learns of a job only once its workers have reported.
"""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from engine.events import Listener, Note
from engine.machines.idleness import Idleness, is_of
from engine.machines.submission import job_settings, reason, seconds
from engine.machines.workers import Run, Workers

if TYPE_CHECKING:
    from dask_jobqueue import SLURMCluster

    from manifests.profile import Slurm

LOOK_SECONDS = 5.0
"""How often SLURM is asked which jobs there are."""

FAILURES = 3
"""Jobs that may end one after another before a worker of theirs has reported."""

MORE_SECONDS = 300
"""After how long more jobs are asked for again, where SLURM took only some."""

PATIENCE_SECONDS = 60
"""How long no job has to run before a person is told what SLURM says of them."""


class SlurmJobs:
    """The jobs of a run.

    Attributes:
        trouble: why no more of them are submitted, None while they are.
    """

    def __init__(self, slurm: Slurm, dashboard: str, run: Run, listener: Listener, logs: Path):
        self._slurm, self._dashboard, self._listener = slurm, dashboard, listener
        self._logs = logs
        where = hashlib.sha256("\n".join(run.folders).encode()).hexdigest()
        self._name = f"emovec-{where[:10]}"  # so that what a killed command left is found
        self._failures = 0
        self._unfit: dict[str, str] = {}  # what is lacking, by job
        self._shut_out: dict[str, None] = {}  # nodes
        self._refused: list[str] = []
        self._wanted, self._more_at, self._limit_told = slurm.jobs, 0.0, False
        self.trouble: str | None = None

    @contextmanager
    def cluster(self) -> Iterator[SLURMCluster]:
        """Give the cluster, without jobs yet; cancel all of them at the end.

        Talk with them is encrypted with keys of this run's own: others may share the network.
        """
        from dask_jobqueue import SLURMCluster
        from dask_jobqueue.slurm import SLURMJob
        from distributed import Status

        refused = self._refused

        class Job(SLURMJob):
            """A job that keeps what SLURM says when it does not take it."""

            async def _submit_job(self, script_filename: str) -> str:
                try:
                    return str(await super()._submit_job(script_filename))
                except RuntimeError as error:
                    refused.append(reason(str(error).partition("stderr:")[2]))
                    self.status = Status.failed  # else the cluster cannot be closed
                    raise

        keys = self._logs / ".keys"
        shutil.rmtree(keys, ignore_errors=True)
        keys.mkdir(mode=0o700, parents=True)
        self._cancel()
        try:
            with SLURMCluster(
                job_cls=Job,
                **job_settings(self._slurm, self._name),
                log_directory=str(self._logs),
                security=True,
                shared_temp_directory=str(keys),
                scheduler_options={"dashboard_address": self._dashboard},
                silence_logs=logging.CRITICAL,
            ) as cluster:
                yield cluster
        finally:
            self._cancel()

    @contextmanager
    def kept(self, cluster: SLURMCluster, workers: Workers) -> Iterator[None]:
        """Keep jobs in the queue for the length of the block.

        As many as the profile asks for, as SLURM takes, and as there is work for.
        """
        n = self._enough(workers)
        jobs = "a SLURM job" if n == 1 else f"{n} SLURM jobs"
        self._listener(Note(f"submitting {jobs} (logs: {self._logs})"))
        ended = threading.Event()
        idleness = Idleness(workers, seconds(self._slurm.idle))

        def watch() -> None:
            seen: set[str] = set()
            idle = 0.0
            cluster.loop.add_callback(cluster.scale, jobs=n)
            while not ended.wait(LOOK_SECONDS * (1 + self._failures) ** 2):
                states = self._states()
                if states is None or self.trouble:
                    continue
                seen |= {str(w["name"]) for w in workers.addresses().values()}
                lost = self._lost(cluster, states, seen)
                enough = self._enough(workers)
                if not self.trouble and (lost or len(cluster.worker_spec) < enough):
                    cluster.loop.add_callback(_replace, cluster, lost, enough)
                elif not self.trouble:
                    self._give_back(cluster, workers, idleness, enough)
                idle = 0.0 if "RUNNING" in states.values() else idle + LOOK_SECONDS
                if idle > PATIENCE_SECONDS:
                    idle = -1e9  # once is enough
                    self._listener(Note(f"no job runs yet; SLURM says: {self._reasons()}"))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join(timeout=30)

    def _enough(self, workers: Workers) -> int:
        """Return how many jobs there should be: one at least, so that something goes on."""
        if workers.wanted is None:
            return self._wanted
        return max(1, min(self._wanted, math.ceil(workers.wanted / self._slurm.workers_per_job)))

    def _give_back(
        self, cluster: SLURMCluster, workers: Workers, idleness: Idleness, enough: int
    ) -> None:
        """End jobs that have been idle for too long, where more than enough are at work."""
        jobs = {name: job for name, job in cluster.workers.items() if idleness.addresses(name)}
        long = idleness.too_long(jobs, time.monotonic())[: max(0, len(jobs) - enough)]
        for name in long:
            workers.client.retire_workers(idleness.addresses(name))  # others take their results
            _say("scancel", str(jobs[name].job_id))
        if long:
            what = "a SLURM job that was" if len(long) == 1 else f"{len(long)} SLURM jobs that were"
            self._listener(Note(f"ended {what} idle for {self._slurm.idle}"))
            cluster.loop.add_callback(_replace, cluster, long, enough)

    def dismiss(self, cluster: SLURMCluster, worker: str, why: str) -> None:
        """Cancel the job of a worker that cannot do this run's tasks, and shut its node out.

        Args:
            cluster: that has the job.
            worker: its name, which begins with the job's.
            why: what it lacks.
        """
        jobs = list(cluster.workers.items())
        found = next((n for n, _ in jobs if is_of(worker, n)), None)
        if found is None or found in self._unfit:
            return
        self._unfit[found] = why
        number = str(cluster.workers[found].job_id)
        node = (_say("squeue", "-h", "-j", number, "-o", "%N") or "").strip()
        if node:
            self._shut_out[node] = None
            options = cluster.new_spec["options"]
            options["job_extra_directives"] = [
                *job_settings(self._slurm, self._name)["job_extra_directives"],
                f"--exclude={','.join(self._shut_out)}",
            ]
            self._listener(Note(f"no more jobs are submitted to {node}"))
        _say("scancel", number)

    def _lost(self, cluster: SLURMCluster, states: dict[str, str], seen: set[str]) -> list[str]:
        """Return the jobs that SLURM no longer has or never took, after judging them.

        Where it took some and not others, so many are kept for a while as it took: a limit on
        jobs is no fault of theirs.
        """
        jobs = list(cluster.workers.items())
        untaken = [name for name, job in jobs if job.job_id is None]
        gone = [name for name, job in jobs if job.job_id and str(job.job_id) not in states]
        now = time.monotonic()
        if untaken and states:
            self._wanted, self._more_at = len(states), now + MORE_SECONDS
            if not self._limit_told:
                self._limit_told = True
                took = f"SLURM took {len(states)} of {len(jobs)} jobs"
                self._listener(Note(f"{took}: {self._refused[-1] if self._refused else ''}"))
        elif now >= self._more_at:
            self._wanted = self._slurm.jobs
        self._judge(gone if states else [*gone, *untaken], seen)
        return [*gone, *untaken]

    def _judge(self, lost: list[str], seen: set[str]) -> None:
        """Count jobs that ended before a worker did anything; too many of them are one trouble."""
        for name in lost:
            reported = any(is_of(worker, name) for worker in seen)
            useful = reported and name not in self._unfit
            self._failures = 0 if useful else self._failures + 1
        if self._failures < FAILURES:
            return
        unfit = list(self._unfit.values())
        if self._refused and not any(name in self._unfit for name in lost):
            nodes = f" without {', '.join(self._shut_out)} ({unfit[-1]})" if self._shut_out else ""
            self.trouble = f"SLURM takes no jobs{nodes}: {self._refused[-1]}"
        elif unfit:
            self.trouble = f"{self._failures} SLURM jobs could not work for this run: {unfit[-1]}"
        else:
            self.trouble = (
                f"{self._failures} SLURM jobs ended before their workers reported; look at the "
                f"newest {self._name}-*.err in {self._logs}, mend the profile, and run again"
            )

    def _states(self) -> dict[str, str] | None:
        """Return the state of each of our jobs by number, None where SLURM does not answer."""
        done = _say("squeue", "-h", "--name", self._name, "-o", "%A %T")
        if done is None:
            return None
        rows = (line.split() for line in done.splitlines())
        return {row[0]: row[1] for row in rows if len(row) == 2 and row[1] not in OVER}

    def _reasons(self) -> str:
        done = _say("squeue", "-h", "--name", self._name, "-o", "%A %T (%r)")
        return "; ".join((done or "nothing").splitlines()) or "no jobs are there"

    def _cancel(self) -> None:
        """Cancel every job of this run, those that a killed command has left included."""
        _say("scancel", "--name", self._name)


OVER = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED")


def _replace(cluster: SLURMCluster, gone: list[str], n: int) -> None:
    """Forget some jobs, on the cluster's own thread, and submit others."""
    for name in gone:
        cluster.worker_spec.pop(name, None)
        cluster.workers.pop(name, None)
    cluster.scale(jobs=max(n, len(cluster.worker_spec)))  # fewer would end any of them


def _say(*command: str) -> str | None:
    """Return what a command of SLURM's says, None where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout
