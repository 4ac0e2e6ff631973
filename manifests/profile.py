"""Profiles: where a run's work is done, when that is not only this machine.

A profile is a small YAML file beside manifests: the same manifest runs on a laptop and, with a
profile, on a cluster, and gives the same results.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from manifests.document import Document, read_document
from manifests.errors import InputError, Problem, shorten
from manifests.files import refusal
from manifests.loading import validate
from manifests.schema import Strict

SHIPPED = Path(__file__).parent / "profiles"


def _check_time(value: str) -> str:
    if not re.fullmatch(r"([0-9]{1,3}-)?[0-9]{1,3}:[0-9]{2}:[0-9]{2}", value):
        raise ValueError(f"{value!r} is not a time limit; write hours:minutes:seconds in quotes")
    return value


def _check_memory(value: str) -> str:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3})? ?(MB|GB|TB|MiB|GiB|TiB)", value):
        raise ValueError(f"{value!r} is not a size; write it as 120GB")
    return value


def _check_line(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("expected one line that is not empty, of characters that print")
    return value


def _list(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise ValueError("expected a list of lines")
    return tuple(value)


Line = Annotated[str, AfterValidator(_check_line)]
Lines = Annotated[tuple[Line, ...], BeforeValidator(_list)]


class Slurm(Strict):
    """Jobs of a SLURM cluster; each starts workers that report to the command that submitted it."""

    jobs: int = Field(default=1, ge=1)
    """Jobs to keep in the queue, or fewer while there is less to do; one that ends early is
    submitted again."""
    idle: Annotated[str, AfterValidator(_check_time)] = "00:10:00"
    """How long a job that has nothing to do is kept, before it is given back to others."""
    partition: Line | None = None
    """`--partition`; the cluster's default when absent."""
    account: Line | None = None
    """`--account`."""
    time: Annotated[str, AfterValidator(_check_time)] = "04:00:00"
    """`--time` of each job. Work in hand goes back in time, and the next job goes on."""
    cores: int = Field(default=8, ge=1)
    """CPU cores of each job."""
    memory: Annotated[str, AfterValidator(_check_memory)] = "64GB"
    """Memory of each job."""
    gpus: int = Field(default=0, ge=0)
    """GPUs of each job (`--gres=gpu:N`)."""
    gpu: Literal["A100-40GB", "A100-80GB", "H100", "H200"] | None = None
    """Which kind, so that models which do not fit are refused: see `emovec plan`."""
    workers_per_job: int = Field(default=1, ge=1)
    """Workers among which a job's cores and GPUs are divided. A model on more GPUs than a worker
    has gets jobs of its own: of fewer workers, or larger."""
    directives: Lines = ()
    """More options of `sbatch`, such as `--qos=long` or `--constraint=a100`."""
    setup: Lines = ()
    """Shell lines at the start of each job, such as `module load cuda` or `export HF_HOME=...`."""
    python: Line | None = None
    """What starts Python in a job, such as `apptainer exec --nv emovec.sif python`; this Python
    when absent."""
    interface: Line | None = None
    """Network interface for talk between jobs and the command, such as `ib0`."""

    def sized(self, gpus: int) -> Slurm:
        """Return jobs for a model that is spread over so many GPUs.

        Its workers need that many each: a job that has them is divided among fewer workers, and
        one that has not grows, with its cores and memory, while jobs get fewer.
        """
        if not self.gpus or gpus <= self.gpus // self.workers_per_job:
            return self
        if gpus <= self.gpus:
            most = range(self.gpus // gpus, 0, -1)
            fits = (n for n in most if self.gpus % n == 0 and self.cores % n == 0)
            return self.model_copy(update={"workers_per_job": next(fits)})
        times = gpus / self.gpus
        size, unit = re.fullmatch(r"([0-9.]+) ?(\w+)", self.memory).groups()  # type: ignore[union-attr]
        return self.model_copy(
            update={
                "gpus": gpus,
                "workers_per_job": 1,
                "cores": math.ceil(self.cores * times),
                "memory": f"{round(float(size) * times, 3):g}{unit}",
                "jobs": max(1, self.jobs * self.gpus // gpus),
            }
        )

    @model_validator(mode="after")
    def _even(self) -> Slurm:
        for name, n in (("cores", self.cores), ("gpus", self.gpus)):
            if n % self.workers_per_job:
                raise ValueError(f"{n} {name} cannot be divided among {self.workers_per_job}")
        return self


class Profile(Strict):
    """Where work is done: exactly one of `scheduler` and `slurm`."""

    version: Literal[1]
    """Version of this schema."""
    scheduler: Line | None = None
    """Address of a Dask scheduler that runs already, such as `tcp://10.0.0.1:8786`."""
    slurm: Slurm | None = None
    """Submit jobs of our own."""
    dashboard: Line = "127.0.0.1:0"
    """Where Dask's dashboard listens; with port 0 on any free one."""

    @model_validator(mode="after")
    def _one_place(self) -> Profile:
        if (self.scheduler is None) == (self.slurm is None):
            raise ValueError("give exactly one of scheduler and slurm")
        return self


def scheduler_profile(address: str) -> tuple[Profile, Document]:
    """Return the profile of a Dask scheduler that is given on the command line."""
    data = {"version": 1, "scheduler": address}
    return Profile.model_validate(data), Document(Path("--scheduler"), data, {})


def read_profile(name: str) -> tuple[Profile, Document]:
    """Read a profile by its path, or a shipped one by its name.

    Raises:
        InputError: there is none, or one problem for each mistake in it.
    """
    file = Path(name)
    if not file.suffix and refusal(file) is not None:
        file = SHIPPED / f"{name}.yaml"
        if "/" in name or refusal(file) is not None:
            known = ", ".join(sorted(f.stem for f in SHIPPED.glob("*.yaml")))
            what = f"no profile {shorten(name)}; give a path, or one of {known}"
            raise InputError(Problem(Path("--profile"), None, "", what))
    document = read_document(file)
    kind = "a profile: expected keys such as version and slurm"
    return validate(document, Profile, kind), document
