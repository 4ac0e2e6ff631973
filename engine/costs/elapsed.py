"""How long work takes on the GPUs of a profile's jobs, one phase after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from engine.costs.machines import GPUS, Shares, gpu_hours
from engine.costs.workload import Work
from manifests.profile import Slurm

PHASES = {"generate": "writing", "extract": "reading", "steer": "steering"}


@dataclass(frozen=True)
class Elapsed:
    """A phase of a run on jobs that all run from its beginning.

    Attributes:
        phase: `writing`, `reading` or `steering`.
        hours: from its beginning to its end, loads of models not counted; at least so many where
            the cost of some work is not known.
        alone: hours of the longest work that is one worker's; 0 of reading, whose shards are dealt.
        known: whether all its work's cost is known.
    """

    phase: str
    hours: float
    alone: float
    known: bool


def elapsed(
    works: Sequence[Work], gpus: Mapping[str, int], slurm: Slurm, shares: Shares
) -> Iterator[Elapsed]:
    """Yield the phases that there is work for.

    Models that take GPUs of other numbers are worked for one number after another, as their jobs
    are (`Slurm.sized`).

    Args:
        works: of all stages.
        gpus: that each model is spread over.
        slurm: jobs whose GPUs are named.
        shares: of a GPU's peak that reading and writing are taken to reach.
    """
    assert slurm.gpu is not None
    for kind, phase in PHASES.items():
        mine = [w for w in works if w.source != "done" and _kind(w) == kind]
        hours = alone = 0.0
        for size in sorted({gpus[work.model] for work in mine}):
            jobs = slurm.sized(size)
            spent = [
                gpu_hours(
                    work.flops,
                    GPUS[slurm.gpu],
                    work.dtype,
                    shares.writing if work.writes else shares.reading,
                )
                for work in mine
                if gpus[work.model] == size and work.flops is not None
            ]
            longest = 0.0
            if kind != "extract":
                longest = max(spent, default=0.0) / (jobs.gpus // jobs.workers_per_job)
            hours += max(sum(spent) / (jobs.jobs * jobs.gpus), longest)
            alone = max(alone, longest)
        if mine:
            yield Elapsed(phase, hours, alone, all(work.flops is not None for work in mine))


def _kind(work: Work) -> str:
    return work.stage.rpartition("/")[2].partition(":")[0]
