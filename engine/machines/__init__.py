"""Who does what in a run: this machine's cores and GPUs, or the workers of a cluster.

Small things (fetching models, taking in files, tables, figures, the page) are done by a worker in
this process. Writing, reading and analysis are done by this machine too, by the workers of a Dask
scheduler, or by jobs of a SLURM cluster, as a profile says. The cluster is called when the first
work for it is there, and let go of when the last is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from engine.events import Listener
from engine.machines.workers import Run, Workers, new_run
from store.places import Place

if TYPE_CHECKING:
    from manifests.document import Document
    from manifests.profile import Profile


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

    @property
    def elsewhere(self) -> bool:
        """Whether a cluster does the work."""
        return self._profile is not None

    def check(self, models: bool) -> None:
        """Refuse a profile whose machines cannot be had.

        Args:
            models: whether there is work for workers that hold a model.

        Raises:
            InputError: with the reason.
        """
        if self._profile is not None:
            from engine.machines.cluster import check_cluster

            check_cluster(*self._profile, self._run, models)

    def writers(self) -> Workers:
        """Return who writes corpora."""
        return self._called() or self.here

    @contextmanager
    def readers(self, environments: Sequence[dict[str, str]]) -> Iterator[Workers]:
        """Give who reads.

        Args:
            environments: environment variables of each copy of a model on this machine, such as
                its GPU; a cluster's workers have their own.
        """
        from engine.machines.local import reading_workers

        cluster = self._called()
        if cluster is not None:
            yield cluster
        elif list(environments) == [{}]:
            yield self.here
        else:
            with reading_workers(self._run, environments, self._listener) as workers:
                yield workers

    @contextmanager
    def analysts(self, n_tasks: int) -> Iterator[Workers]:
        """Give who analyses so many windows and layers."""
        from engine.machines.local import analysis_processes

        cluster = self._called() if n_tasks else None
        if cluster is not None:
            yield cluster
        else:
            with analysis_processes(self.here, n_tasks, self._listener) as workers:
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

    def _called(self) -> Workers | None:
        if self._profile is None:
            return None
        if self._cluster is None:
            from engine.machines.cluster import open_cluster

            self._cluster = self._stack.enter_context(
                open_cluster(*self._profile, self._run, self._listener, self._logs)
            )
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
