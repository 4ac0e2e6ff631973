"""Who does what in a run: this machine's cores and GPUs, or the workers of a cluster.

Small things (fetching models, taking in files, tables, figures, the page) are done by a worker in
this process. Writing, reading and analysis are done by this machine too, by the workers of a Dask
scheduler, or by jobs of a SLURM cluster, as a profile says. The cluster is called when the first
work for it is there, and let go of when the last is done. Models that take more GPUs than a
profile's workers have get jobs of their own size, one size at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.events import Listener, Note
from engine.machines.workers import WORTH_PROCESSES, Run, Workers, new_run
from store.places import Place

if TYPE_CHECKING:
    from manifests.document import Document
    from manifests.profile import Profile, Slurm


class Machines:
    """The machines of one run.

    Attributes:
        here: the worker in this process.
    """

    def __init__(
        self,
        here: Workers,
        run: Run,
        listener: Listener,
        profile: tuple[Profile, Document] | None,
        logs: Path,
        stack: ExitStack,
    ):
        self.here, self._run, self._listener = here, run, listener
        self._profile, self._logs, self._stack = profile, logs, stack
        self._cluster: Workers | None = None
        self._slurm: Slurm | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether a cluster does the work."""
        return self._profile is not None

    def check(self, sizes: Collection[int]) -> None:
        """Refuse a profile whose machines cannot be had.

        Args:
            sizes: GPUs that each model takes for which there is work; none where no model has any.

        Raises:
            InputError: with the reason.
        """
        if self._profile is not None:
            from engine.machines.cluster import check_cluster

            check_cluster(*self._profile, self._run, sizes)

    def must_see(self, models: Collection[str]) -> None:
        """Ask of a cluster's workers that they see the folders of models."""
        self._run = replace(self._run, models=tuple(models))

    def writers(self, gpus: int, wanted: int) -> Workers:
        """Return who writes with models that take so many GPUs.

        Whoever it was before is let go of where that takes jobs of another size.

        Args:
            gpus: that each model takes.
            wanted: how many workers there is work for.
        """
        return self._called(gpus, wanted) or self.here

    @contextmanager
    def readers(
        self, environments: Sequence[dict[str, str]], gpus: int, wanted: int | None
    ) -> Iterator[Workers]:
        """Give who reads.

        Args:
            environments: environment variables of each copy of a model on this machine, such as
                its GPU; a cluster's workers have their own.
            gpus: that a model takes, in jobs of a cluster.
            wanted: how many workers there is work for at most; None where that is not known.
        """
        from engine.machines.local import reading_workers

        cluster = self._called(gpus, wanted)
        if cluster is not None:
            yield cluster
        elif list(environments) == [{}]:
            yield self.here
        else:
            with reading_workers(self._run, environments, self._listener) as workers:
                yield workers

    @contextmanager
    def analysts(self, n_tasks: int, worth: int = WORTH_PROCESSES) -> Iterator[Workers]:
        """Give who analyses.

        Args:
            n_tasks: windows and layers, or whatever else there is to do.
            worth: number of tasks for which processes are started on this machine.
        """
        from engine.machines.local import analysis_processes

        cluster = self._called(1, n_tasks) if n_tasks else None
        if cluster is not None:
            if self._slurm is not None and self._slurm.gpus:
                what = "the analysis needs no GPU and keeps the jobs'; `emovec extract` with this "
                what += "profile and `emovec analyze` with one without GPUs would not"
                self._listener(Note(what))
            yield cluster
        else:
            with analysis_processes(self.here, n_tasks, self._listener, worth) as workers:
                yield workers

    def let_go(self) -> None:
        """End the models that workers hold."""
        for workers in (self.here, self._cluster):
            if workers is not None:
                workers.let_go()

    def close_cluster(self) -> None:
        """Let go of the cluster: what is left is done here."""
        self._profile = self._cluster = None
        self._stack.close()

    def _called(self, gpus: int, wanted: int | None) -> Workers | None:
        if self._profile is None:
            return None
        profile, document = self._profile
        slurm = None if profile.slurm is None else profile.slurm.sized(gpus)
        if self._cluster is not None and slurm != self._slurm:
            self._cluster = None
            self._stack.close()
        if self._cluster is None:
            from engine.machines.cluster import open_cluster

            self._slurm = slurm
            profile = profile.model_copy(update={"slurm": slurm})
            self._cluster = self._stack.enter_context(
                open_cluster(profile, document, self._run, self._listener, self._logs, wanted)
            )
        self._cluster.wanted = wanted
        return self._cluster


@contextmanager
def open_machines(
    profile: tuple[Profile, Document] | None,
    folders: Sequence[Place],
    listener: Listener,
    logs: Path,
) -> Iterator[Machines]:
    """Give the machines of a run, and let go of all of them.

    Args:
        profile: where work is done; this machine when None.
        folders: that every worker must see under the same paths.
        listener: told what tasks tell.
        logs: folder for the jobs' logs.
    """
    from engine.machines.local import local_cluster

    run = new_run(tuple(str(folder) for folder in folders))
    with local_cluster(run, listener) as here, ExitStack() as stack:
        yield Machines(here, run, listener, profile, logs, stack)
