"""Brings the stages of one study or several up to date, phase by phase, through Dask.

All writing comes first, then all reading, so that a model is loaded once for each; analysis,
tables, figures and the page follow. Studies that run together share their models' loads, and a
corpus that two of them ask for is written once. A stage that fails takes its dependents along and
nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.costs.memory import Need, check_memory
from engine.events import Listener, Note
from engine.ledger import Ledger, Outcome, resolved_manifest
from engine.models import model_source, remote_code
from engine.plan import PHASES, Plan, State, Status, check_disk
from manifests.errors import InputError, Problem
from store.atomic import sweep_partials, write_text
from store.digests import digests_of, write_digests
from store.layout import Layout, layout_of
from store.links import require_own_folder
from store.lock import RunLocked, run_lock
from store.mirror import push_file, synchronise
from store.places import StoreRefused, require_answering, require_writable

if TYPE_CHECKING:
    from engine.machines import Machines
    from engine.machines.workers import Workers
    from manifests.document import Document
    from manifests.profile import Profile
    from manifests.resolve import Study


WITH_MODELS, WITHOUT_MODELS = ("generate", "extract", "steer"), ("words", "analyze")
"""Kinds of stages that a cluster does, where a profile names one."""


@dataclass
class Job:
    """A study that is brought up to date."""

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


def run_studies(
    studies: Sequence[Study],
    root: str | Path,
    command: str,
    listener: Listener,
    profile: tuple[Profile, Document] | None = None,
) -> list[Outcome]:
    """Bring every stage that `command` stands for up to date.

    Args:
        studies: manifests with what they name, of different names.
        root: folder that holds runs, or an object store's address.
        command: a key of `engine.plan.PHASES`.
        listener: told what happens.
        profile: where the work is done; on this machine when None.

    Returns:
        What was done, for each study.

    Raises:
        InputError: something in a study, or in the profile, cannot be right; nothing was started.
        RunLocked: another process writes to one of these runs.
        KeyboardInterrupt: interrupted; the same call goes on from there.
    """
    _require_distinct(studies)
    jobs = []
    for study in studies:
        layout, plan = open_layout(root, study.manifest.name), Plan(study)
        jobs.append(Job(study, layout, plan, plan.inspect(layout)))
    if command == "report":
        for job in jobs:
            _require_measured(job)
    todo = [job for job in jobs if job.pending(command) or job.lacks_manifest]
    for job in todo:
        for name in job.study.importing:
            sealed = job.statuses[f"import:{name}"].state is State.DONE
            job.plan.import_texts(name, job.layout, sealed)
    for job in todo:
        if job.layout.far_run is not None:
            with _about_root():
                require_writable(job.layout.far_run, ".writes")
    if todo and jobs[0].layout.far is None:
        check_disk((status for job in todo for status in job.pending(command)), jobs[0].layout.root)
    for job in todo:
        check_memory(job.study, _needs(job, command), profile and profile[0])
    for job in todo:
        for sentence in remote_code(job.study):
            listener(Note(sentence))
    done = _run(todo, command, listener, profile) if todo else {}
    skipped = {
        job.layout: Outcome(
            skipped=[key for key, s in job.statuses.items() if s.stage.kind in PHASES[command]]
        )
        for job in jobs
    }
    return [done.get(job.layout, skipped[job.layout]) for job in jobs]


def _require_measured(job: Job) -> None:
    """Refuse to report on what is not measured yet, since that would take models.

    Raises:
        InputError: naming the first of the stages that are not done.
    """
    lacking = [s for s in job.pending("run") if s.stage.kind not in PHASES["report"]]
    if lacking:
        first, more = lacking[0], f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
        what = (
            f"{first.stage.id} is {first.state.value}{more}, and a report runs no model; "
            f"`emovec run {job.study.document.file}` does both"
        )
        raise InputError(Problem(job.study.document.file, None, "", what))


def open_layout(root: str | Path, run_name: str) -> Layout:
    """Return the layout of a run, with what an object store has of it brought here.

    Raises:
        InputError: the address is of an unknown kind, the store refuses, or a link leads out of
            the run's folder.
    """
    with _about_root():
        layout = layout_of(root, run_name)
        require_own_folder(layout)
        if layout.far_run is not None:
            require_answering(layout.far_run)
            with suppress(RunLocked), run_lock(layout.lock):  # whoever holds it keeps it up to date
                synchronise(layout)
        return layout


@contextmanager
def _about_root() -> Iterator[None]:
    try:
        yield
    except (ValueError, StoreRefused) as error:
        raise InputError(Problem(Path("--root"), None, "", str(error))) from None


def _require_distinct(studies: Sequence[Study]) -> None:
    names: dict[str, Study] = {}
    for study in studies:
        other = names.setdefault(study.manifest.name, study)
        if other is not study:
            what = f"{study.manifest.name!r} is also the name of {other.document.file}"
            raise InputError(study.document.problem(("name",), f"{what}; runs need two names"))


def _run(
    jobs: list[Job],
    command: str,
    listener: Listener,
    profile: tuple[Profile, Document] | None,
) -> dict[Layout, Outcome]:
    from engine.machines import open_machines
    from engine.progress import ShardProgress

    listener = ShardProgress(listener)
    with ExitStack() as stack:
        for job in sorted(jobs, key=lambda job: job.layout.run):
            stack.enter_context(run_lock(job.layout.lock))
        folders = [where.resolve() for job in jobs for where in job.layout.folders()]
        machines = stack.enter_context(
            open_machines(profile, folders, listener, jobs[0].layout.logs.resolve())
        )
        kinds = {status.stage.kind for job in jobs for status in job.pending(command)}
        if kinds & {*WITH_MODELS, *WITHOUT_MODELS}:
            machines.check(bool(kinds & {*WITH_MODELS}))
        for job in jobs:
            sweep_partials(job.layout.run)
        models = {job.layout: _fetch_models(job, command, machines.here) for job in jobs}
        ledgers = []
        for job in jobs:
            plan = Plan(job.study)  # commits and shapes of downloaded models are known now
            _write_manifest(job.layout, resolved_manifest(plan))
            label = f"{job.layout.run_name}/" if len(jobs) > 1 else ""
            ledgers.append(Ledger(plan, job.layout, models[job.layout], listener, label))
        _run_phases(ledgers, machines, command)
        return {ledger.layout: ledger.outcome for ledger in ledgers}


def _write_manifest(layout: Layout, text: str) -> None:
    """Write a run's manifest, and its digest for verification."""
    listed = layout.digests("manifest", "all")
    listed.unlink(missing_ok=True)
    write_text(layout.manifest, text)
    write_digests(listed, "manifest:all", digests_of(layout, [layout.manifest.name]))
    for file in (layout.manifest, listed):
        push_file(layout, file)


def _run_phases(ledgers: list[Ledger], machines: Machines, command: str) -> None:
    from engine.analyses import (
        analyse_cells,
        analyse_words,
        compare_cells,
        compare_effects,
        n_layers_to_analyse,
    )
    from engine.corpora import bring_corpora, describe_corpora
    from engine.readings import read_cells
    from engine.steerings import check_steered_emotions, steer_cells

    wanted = PHASES[command]
    bring_corpora(ledgers, machines)
    for ledger in ledgers:
        if "steer" in wanted:
            check_steered_emotions(ledger)
        if "describe" in wanted:
            describe_corpora(ledger, machines.here)
    if "extract" in wanted:
        read_cells(ledgers, machines)
    if "analyze" in wanted:
        with machines.analysts(sum(n_layers_to_analyse(ledger) for ledger in ledgers)) as analysts:
            for ledger in ledgers:
                analyse_words(ledger, analysts)
            analyse_cells(ledgers, analysts)
    if "steer" in wanted:
        steer_cells(ledgers, machines)
    machines.close_cluster()
    for ledger in ledgers:
        if "effects" in wanted:
            compare_effects(ledger, machines.here)
        for kind in ("tables", "figures", "page"):
            if kind in wanted:
                compare_cells(ledger, machines.here, kind)


def _fetch_models(job: Job, command: str, here: Workers) -> dict[str, str]:
    """Have every model that is needed on this machine before any work begins.

    Returns:
        Folder by model.

    Raises:
        ModelUnavailable: one cannot be had.
    """
    from engine import tasks

    needed: dict[str, None] = {}
    for status in job.pending(command):
        if status.stage.kind == "generate":
            needed[job.study.writing[status.stage.name].spec.model] = None
        elif status.stage.kind in ("extract", "steer"):
            needed[job.plan.cell(status.stage.name).model] = None
    folders = {}
    for model in needed:
        log = str(job.layout.logs / f"fetch-{model}.log")
        folders[model] = here.do(tasks.fetch, model_source(job.study, model), log)
    return folders


def _needs(job: Job, command: str) -> list[Need]:
    """Return what the models of the stages to do need, where their config is at hand."""
    from engine.costs import model_needs

    return model_needs(job.plan, {status.stage.id for status in job.pending(command)})
