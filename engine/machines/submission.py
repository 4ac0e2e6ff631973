"""What a SLURM job of ours asks for, and whether SLURM would take it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import psutil

from engine.device import WORKERS_PER_JOB
from manifests.errors import InputError

if TYPE_CHECKING:
    from manifests.document import Document
    from manifests.profile import Slurm

GRACE = 120
"""Seconds before a job's time limit at which its workers end by themselves, handing work back."""

ENVIRONMENT = (
    "export DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON=\"{'OMP_NUM_THREADS': None, "
    "'MKL_NUM_THREADS': None, 'OPENBLAS_NUM_THREADS': None, 'MALLOC_TRIM_THRESHOLD_': None}\""
)
"""Keeps Dask from giving a model one thread, and freed memory back at once."""


def reason(said: str) -> str:
    """Return what sbatch says of a job that it does not take, on one line."""
    lines = [line for line in said.splitlines() if line.strip()]
    return "; ".join(line.removeprefix("sbatch: ").removeprefix("error: ") for line in lines)


def job_settings(slurm: Slurm, name: str) -> dict[str, Any]:
    """Return what dask-jobqueue needs to know of a job."""
    threads = min(2, max(1, slurm.cores // slurm.workers_per_job))
    lifetime = seconds(slurm.time) - GRACE
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


def seconds(time: str) -> int:
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
    if seconds(slurm.time) < 2 * GRACE:
        what = f"too short: workers end {GRACE} s before it; give at least {2 * GRACE} s"
        raise InputError(document.problem(("slurm", "time"), what))
    here = psutil.net_if_addrs()
    if slurm.interface is not None and slurm.interface not in here:
        what = f"this machine has no network interface {slurm.interface!r}; it has "
        what += ", ".join(sorted(here))
        raise InputError(document.problem(("slurm", "interface"), what))
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
        why = reason(tried.stderr)
        key = [key for word, key in KEYS.items() if word in why.lower()][:1]
        what = f"SLURM does not take such a job: {why or 'no reason given'}"
        raise InputError(document.problem(("slurm", *key), what))


KEYS = {"partition": "partition", "account": "account", "gres": "gpus", "time": "time"}
"""Which key of a profile a word of SLURM's refusal speaks of."""
