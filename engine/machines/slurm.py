"""Jobs of a SLURM cluster, each with its workers: submitted, watched, submitted again, cancelled.

dask-jobqueue writes the scripts and submits them. Which jobs are gone is asked of SLURM itself:
Dask learns of a job only once its workers have reported.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from engine.device import WORKERS_PER_JOB
from engine.events import Listener, Note
from engine.machines.workers import Run, Workers
from manifests.errors import InputError

if TYPE_CHECKING:
    from dask_jobqueue import SLURMCluster

    from manifests.document import Document
    from manifests.profile import Slurm

GRACE = 120
"""Seconds before a job's time limit at which its workers end by themselves, handing work back."""

LOOK_SECONDS = 5.0
"""How often SLURM is asked which jobs there are."""

FAILURES = 3
"""Jobs that may end one after another before a worker of theirs has reported."""

PATIENCE_SECONDS = 60
"""How long no job has to run before a person is told what SLURM says of them."""

ENVIRONMENT = (
    "export DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON=\"{'OMP_NUM_THREADS': None, "
    "'MKL_NUM_THREADS': None, 'OPENBLAS_NUM_THREADS': None, 'MALLOC_TRIM_THRESHOLD_': None}\""
)
"""Keeps Dask from giving a model one thread, and freed memory back at once."""


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
        self.trouble: str | None = None

    @contextmanager
    def cluster(self) -> Iterator[SLURMCluster]:
        """Give the cluster, without jobs yet; cancel all of them at the end.

        Talk with them is encrypted with keys of this run's own: others may share the network.
        """
        from dask_jobqueue import SLURMCluster

        keys = self._logs / ".keys"
        shutil.rmtree(keys, ignore_errors=True)
        keys.mkdir(mode=0o700, parents=True)
        self._cancel()
        try:
            with SLURMCluster(
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
        """Keep as many jobs in the queue as the profile asks for, for the length of the block."""
        n = self._slurm.jobs
        jobs = "a SLURM job" if n == 1 else f"{n} SLURM jobs"
        self._listener(Note(f"submitting {jobs} (logs: {self._logs})"))
        ended = threading.Event()

        def watch() -> None:
            seen: set[str] = set()
            idle = 0.0
            cluster.loop.add_callback(cluster.scale, jobs=n)
            while not ended.wait(LOOK_SECONDS * (1 + self._failures) ** 2):
                states = self._states()
                if states is None or self.trouble:
                    continue
                seen |= {str(w["name"]) for w in workers.addresses().values()}
                gone = self._gone(cluster, states)
                self._judge(gone, seen)
                if gone and not self.trouble:
                    cluster.loop.add_callback(_replace, cluster, gone, n)
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

    def _gone(self, cluster: SLURMCluster, states: dict[str, str]) -> list[str]:
        """Return the names of jobs that SLURM no longer has, or never took."""
        return [
            name
            for name, job in list(cluster.workers.items())
            if job.job_id is None or str(job.job_id) not in states
        ]

    def _judge(self, gone: list[str], seen: set[str]) -> None:
        """Count jobs that ended before a worker reported; too many of them are one trouble."""
        for name in gone:
            reported = any(worker == name or worker.startswith(f"{name}-") for worker in seen)
            self._failures = 0 if reported else self._failures + 1
        if self._failures >= FAILURES:
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
    cluster.scale(jobs=n)


def _say(*command: str) -> str | None:
    """Return what a command of SLURM's says, None where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout


def job_settings(slurm: Slurm, name: str) -> dict[str, Any]:
    """Return what dask-jobqueue needs to know of a job."""
    threads = min(2, max(1, slurm.cores // slurm.workers_per_job))
    lifetime = _seconds(slurm.time) - GRACE
    return {
        "queue": slurm.partition,
        "account": slurm.account,
        "walltime": slurm.time,
        "cores": slurm.cores,
        "memory": slurm.memory,
        "processes": slurm.workers_per_job,
        "job_name": name,
        "job_extra_directives": [
            *([f"--gres=gpu:{slurm.gpus}"] if slurm.gpus else []),
            *slurm.directives,
        ],
        "job_script_prologue": [
            *slurm.setup,
            f"export {WORKERS_PER_JOB}={slurm.workers_per_job}",
            ENVIRONMENT,
        ],
        "python": slurm.python,
        "interface": slurm.interface,
        "worker_extra_args": [
            *("--resources", "model=1", "--nthreads", str(threads), "--no-dashboard"),
            *("--preload", "engine.tasks"),
            *("--lifetime", f"$(({lifetime} - SECONDS))s"),  # of the job, its setup counted
        ],
    }


def _seconds(time: str) -> int:
    """Return the seconds of [days-]hours:minutes:seconds."""
    days, _, clock = time.rpartition("-")
    hours, minutes, seconds = map(int, clock.split(":"))
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def try_submission(slurm: Slurm, document: Document) -> None:
    """Have SLURM say whether it would take such a job.

    Raises:
        InputError: it would not, in SLURM's words, or there is no SLURM here.
    """
    if shutil.which("sbatch") is None:
        what = "there is no sbatch here; submit from a machine of the cluster"
        raise InputError(document.problem(("slurm",), what))
    if _seconds(slurm.time) < 2 * GRACE:
        what = f"too short: workers end {GRACE} s before it; give at least {2 * GRACE} s"
        raise InputError(document.problem(("slurm", "time"), what))
    from dask_jobqueue.slurm import SLURMJob

    job = SLURMJob("tcp://127.0.0.1:1", "trial", **job_settings(slurm, "emovec-trial"))
    with TemporaryDirectory() as folder:
        script = Path(folder) / "job.sh"
        script.write_text(job.job_script(), encoding="utf-8")
        try:
            tried = subprocess.run(
                ["sbatch", "--test-only", str(script)], capture_output=True, text=True, timeout=120
            )
        except subprocess.TimeoutExpired:
            what = "SLURM's controller does not answer; look at sinfo"
            raise InputError(document.problem(("slurm",), what)) from None
    if tried.returncode:
        lines = [line for line in tried.stderr.splitlines() if line.strip()]
        why = "; ".join(line.removeprefix("sbatch: ").removeprefix("error: ") for line in lines)
        key = [key for word, key in KEYS.items() if word in why.lower()][:1]
        what = f"SLURM does not take such a job: {why or 'no reason given'}"
        raise InputError(document.problem(("slurm", *key), what))


KEYS = {"partition": "partition", "account": "account", "gres": "gpus", "time": "time"}
"""Which key of a profile a word of SLURM's refusal speaks of."""
