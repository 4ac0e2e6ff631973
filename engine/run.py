"""Brings the stages of one study or several up to date, phase by phase, through Dask.

All writing comes first, then all reading, so that a model is loaded once for each; analysis,
tables, figures and the page follow. Studies that run together share their models' loads, and a
corpus that two of them ask for is written once. A stage that fails takes its dependents along and
nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from engine.costs import check_fit
from engine.events import Listener, Note
from engine.job import Job, about_root, open_job, require_distinct
from engine.ledger import Ledger, Outcome, resolved_manifest
from engine.models import (
    ModelUnavailable,
    config_file,
    fetch_description,
    model_source,
    remote_code,
)
from engine.plan import PHASES, Plan, State
from manifests.errors import InputError, Problem
from store.atomic import sweep_partials, write_text
from store.digests import digests_of, write_digests
from store.layout import Layout
from store.lock import run_lock
from store.mirror import push_file
from store.places import require_writable

if TYPE_CHECKING:
    from engine.machines import Machines
    from engine.machines.workers import Workers
    from manifests.document import Document
    from manifests.profile import Profile
    from manifests.resolve import Study


WITH_MODELS, WITHOUT_MODELS = ("generate", "extract", "steer"), ("words", "analyze")
"""Kinds of stages that a cluster does, where a profile names one."""


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
        InputError: something in a study, or in the profile, cannot be right, or does not fit;
            nothing was started, and of models no more was downloaded than their descriptions.
        ModelUnavailable: the hub does not give the descriptions of some models.
        RunLocked: another process writes to one of these runs.
        KeyboardInterrupt: interrupted; the same call goes on from there.
    """
    require_distinct(studies)
    jobs = [open_job(study, root) for study in studies]
    if command == "report":
        for job in jobs:
            _require_measured(job)
    todo = [job for job in jobs if job.is_open(command)]
    for job in todo:
        sealed = {name: job.statuses[f"import:{name}"].state for name in job.study.importing}
        for name, state in sealed.items():
            job.plan.import_texts(name, job.layout, state is State.DONE)
        if set(sealed.values()) - {State.DONE}:
            job.look()
    for job in todo:
        if job.layout.far_run is not None:
            with about_root():
                require_writable(job.layout.far_run, ".writes")
    check_fit(todo, command, profile and profile[0])
    if _describe_models(todo, command, listener):
        for job in todo:
            job.plan_anew()
        todo = [job for job in todo if job.is_open(command)]
        check_fit(todo, command, profile and profile[0])
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
            entries = [
                job.study.manifest.models[name] for job in jobs for name in job.models(command)
            ]
            machines.check({entry.tensor_parallel_size for entry in entries})
        for job in jobs:
            sweep_partials(job.layout.run)
        models = {job.layout: _fetch_models(job, command, machines.here) for job in jobs}
        machines.must_see({folder for found in models.values() for folder in found.values()})
        ledgers = []
        for job in jobs:
            plan = Plan(job.study)  # commits and shapes of downloaded models are known now
            _write_manifest(job.layout, resolved_manifest(plan))
            label = f"{job.layout.run_name}/" if len(jobs) > 1 else ""
            ledgers.append(Ledger(plan, job.layout, models[job.layout], listener, label))
        _run_phases(ledgers, machines, command)
        for job in jobs:
            sweep_partials(job.layout.run)  # of workers that died while they wrote
        return {ledger.layout: ledger.outcome for ledger in ledgers}


def _write_manifest(layout: Layout, text: str) -> None:
    """Write a run's manifest, and its digest for verification.

    Verification asks for that digest; where a run is ended in between, it finds out why there is
    none.
    """
    listed = layout.digests("manifest", "all")
    write_text(layout.manifest_pending, "")
    listed.unlink(missing_ok=True)
    write_text(layout.manifest, text)
    write_digests(listed, "manifest:all", digests_of(layout, [layout.manifest.name]))
    layout.manifest_pending.unlink()
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
                compare_cells(ledger, machines, kind)


def _describe_models(jobs: Sequence[Job], command: str, listener: Listener) -> bool:
    """Bring the descriptions of the hub models that are needed and not known here.

    They say whether a model fits, before its weights are downloaded.

    Returns:
        Whether there were any.

    Raises:
        ModelUnavailable: some cannot be had, a line for each.
    """
    lacking = {
        (source.hf, source.revision): source
        for job in jobs
        for model in job.models(command)
        if config_file(job.study, model) is None
        and (source := model_source(job.study, model)).hf is not None
    }
    problems = []
    for source in lacking.values():
        listener(Note(f"fetching config and tokenizer of {source.name} ({source.hf})"))
        try:
            fetch_description(source)
        except ModelUnavailable as error:
            problems.append(str(error))
    if problems:
        raise ModelUnavailable("\n".join(problems))
    return bool(lacking)


def _fetch_models(job: Job, command: str, here: Workers) -> dict[str, str]:
    """Have every model that is needed on this machine before any work begins.

    Returns:
        Folder by model.

    Raises:
        ModelUnavailable: one cannot be had.
    """
    from engine import tasks

    folders = {}
    for model in job.models(command):
        log = str(job.layout.logs / f"fetch-{model}.log")
        folders[model] = here.do(tasks.fetch, model_source(job.study, model), log)
    return folders
