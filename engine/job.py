"""A study as it stands under a root: its plan, and what of it is on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from engine.plan import PHASES, Plan, State, Status
from manifests.errors import InputError, Problem
from manifests.resolve import Study
from store.layout import Layout, layout_of
from store.links import require_own_folder
from store.lock import RunLocked, run_lock
from store.mirror import synchronise
from store.places import StoreRefused, require_answering


@dataclass
class Job:
    """A study that is planned or brought up to date.

    Attributes:
        statuses: of its stages by id, as they were when they were last looked at.
    """

    study: Study
    layout: Layout
    plan: Plan
    statuses: dict[str, Status]

    @property
    def lacks_manifest(self) -> bool:
        """Whether a run that was begun has lost its manifest."""
        return (self.layout.run / "records").is_dir() and not self.layout.manifest.is_file()

    def pending(self, command: str) -> list[Status]:
        """Return the stages to do."""
        return [
            status
            for status in self.statuses.values()
            if status.stage.kind in PHASES[command] and status.state is not State.DONE
        ]

    def is_open(self, command: str) -> bool:
        """Tell whether there is anything to do."""
        return bool(self.pending(command)) or self.lacks_manifest

    def models(self, command: str) -> list[str]:
        """Return the models of the stages to do."""
        needed: dict[str, None] = {}
        for status in self.pending(command):
            if status.stage.kind == "generate":
                needed[self.study.writing[status.stage.name].spec.model] = None
            elif status.stage.kind in ("extract", "steer"):
                needed[self.plan.cell(status.stage.name).model] = None
        return list(needed)

    def look(self) -> None:
        """Look on disk again: the plan may know more of corpora than it did."""
        self.statuses = self.plan.inspect(self.layout)

    def plan_anew(self) -> None:
        """Plan with the commits and shapes of models that are known now.

        Raises:
            InputError: a model does not have the layers or positions that are asked for.
        """
        self.plan = self.plan.again()
        self.look()


def open_job(study: Study, root: str | Path) -> Job:
    """Return a study as it stands.

    Raises:
        InputError: as of `open_layout` and `Plan`.
    """
    layout, plan = open_layout(root, study.manifest.name), Plan(study)
    return Job(study, layout, plan, plan.inspect(layout))


def open_layout(root: str | Path, run_name: str) -> Layout:
    """Return the layout of a run, with what an object store has of it brought here.

    Raises:
        InputError: the address is of an unknown kind, the store refuses, or a link leads out of
            the run's folder.
    """
    with about_root():
        layout = layout_of(root, run_name)
        require_own_folder(layout)
        if layout.far_run is not None:
            require_answering(layout.far_run)
            with suppress(RunLocked), run_lock(layout.lock):  # whoever holds it keeps it up to date
                synchronise(layout)
        return layout


def require_distinct(studies: Sequence[Study]) -> None:
    """Refuse studies of one name: they would share a run's folder.

    Raises:
        InputError: two have the same.
    """
    names: dict[str, Study] = {}
    for study in studies:
        other = names.setdefault(study.manifest.name, study)
        if other is not study:
            what = f"{study.manifest.name!r} is also the name of {other.document.file}"
            raise InputError(study.document.problem(("name",), f"{what}; runs need two names"))


@contextmanager
def about_root() -> Iterator[None]:
    """Turn what is wrong with a root into one line about `--root`.

    Raises:
        InputError: the address is of an unknown kind, or its store refuses.
    """
    try:
        yield
    except (ValueError, StoreRefused) as error:
        raise InputError(Problem(Path("--root"), None, "", str(error))) from None
