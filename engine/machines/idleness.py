"""Which jobs have had nothing to do for so long that they are given back to the cluster's others.

One model may write for hours while the jobs of all others stand by. What is given back is
submitted again when there is work for it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.machines.workers import Workers


class Idleness:
    """Since when each job has been idle.

    A job is idle once its workers have reported and none of them has a task.
    """

    def __init__(self, workers: Workers, patience: float):
        """Watch the workers of jobs.

        Args:
            workers: of all jobs.
            patience: seconds that a job may be idle.
        """
        self._workers, self._patience = workers, patience
        self._since: dict[str, float] = {}

    def too_long(self, jobs: Collection[str], now: float) -> list[str]:
        """Return the jobs that have been idle for too long, the longest first.

        Args:
            jobs: names of all that are there.
            now: seconds of a monotonic clock.
        """
        busy = {address for address, tasks in self._workers.client.processing().items() if tasks}
        found = {job: self.addresses(job) for job in jobs}
        idle = [job for job, mine in found.items() if mine and not busy & set(mine)]
        self._since = {job: self._since.get(job, now) for job in idle}
        long = [job for job, since in self._since.items() if now - since > self._patience]
        return sorted(long, key=self._since.__getitem__)

    def addresses(self, job: str) -> list[str]:
        """Return the workers of a job that have reported."""
        there = self._workers.addresses().items()
        return [address for address, worker in there if is_of(str(worker["name"]), job)]


def is_of(worker: str, job: str) -> bool:
    """Tell whether a worker of this name is of a job: those of a divided one are numbered."""
    return worker == job or worker.startswith(f"{job}-")
