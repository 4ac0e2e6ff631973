"""Brings a study's stages up to date, phase by phase, through Dask.

All writing comes first, then all reading, so that a model is loaded once for each; analysis, tables
and figures follow. A stage that fails takes its dependents along and nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engine.events import Listener
from engine.ledger import Ledger, Outcome, resolved_manifest
from engine.models import model_source
from engine.plan import PHASES, Plan, State, Status, check_disk
from store.atomic import sweep_partials, write_text
from store.layout import Layout
from store.lock import run_lock

if TYPE_CHECKING:
    from distributed import Client

    from manifests.resolve import Study


def run_study(
    study: Study, root: Path, command: str, listener: Listener, scheduler: str | None = None
) -> Outcome:
    """Bring every stage that `command` stands for up to date.

    Args:
        study: a manifest with what it names.
        root: folder that holds runs.
        command: a key of `engine.plan.PHASES`.
        listener: told what happens.
        scheduler: address of a Dask scheduler whose workers analyse; this machine does when None.

    Raises:
        InputError: something in the study, or the scheduler, cannot be right; nothing was started.
        RunLocked: another process writes to this run.
        KeyboardInterrupt: interrupted; the same call goes on from there.
    """
    layout = Layout(root, study.manifest.name)
    plan = Plan(study)
    statuses = plan.inspect(layout)
    if not _pending(statuses, command):
        return Outcome(skipped=_wanted(statuses, command))
    for name in study.importing:
        sealed = statuses[f"import:{name}"].state is State.DONE
        plan.import_texts(name, layout, sealed)
    check_disk(_pending(statuses, command), layout.run)
    from engine.cluster import ShardProgress, analysis_workers, local_cluster

    listener = ShardProgress(listener)
    with (
        run_lock(layout.lock),
        local_cluster(listener) as client,
        analysis_workers(client, scheduler) as analysts,
    ):
        sweep_partials(layout.run)
        folders = _fetch_models(plan, layout, command, client)
        plan = Plan(study)  # commits and shapes of downloaded models are known now
        write_text(layout.manifest, resolved_manifest(plan))
        ledger = Ledger(plan, layout, listener)
        _run_phases(ledger, client, analysts, command, folders)
        return ledger.outcome


def _run_phases(
    ledger: Ledger, client: Client, analysts: Client, command: str, folders: dict[str, str]
) -> None:
    from engine.cells import analyse_cells, compare_cells, read_cells
    from engine.corpora import bring_corpora, describe_corpora

    wanted = PHASES[command]
    bring_corpora(ledger, client, folders)
    if "describe" in wanted:
        describe_corpora(ledger, client)
    if "extract" in wanted:
        read_cells(ledger, client, folders)
    if "analyze" in wanted:
        analyse_cells(ledger, analysts)
    for kind in ("tables", "figures"):
        if kind in wanted:
            compare_cells(ledger, client, kind)


def _fetch_models(plan: Plan, layout: Layout, command: str, client: Client) -> dict[str, str]:
    """Have every model that is needed on this machine before any work begins.

    Raises:
        ModelUnavailable: one cannot be had.
    """
    from engine import tasks
    from engine.cluster import run_task

    needed: dict[str, None] = {}
    for status in _pending(plan.inspect(layout), command):
        if status.stage.kind == "generate":
            needed[plan.study.writing[status.stage.name].spec.model] = None
        elif status.stage.kind == "extract":
            needed[plan.cell(status.stage.name).model] = None
    folders = {}
    for model in needed:
        log = str(layout.logs / f"fetch-{model}.log")
        source = model_source(plan.study, model)
        folders[model] = run_task(client, tasks.fetch, source, log)
    return folders


def _wanted(statuses: dict[str, Status], command: str) -> list[str]:
    return [key for key, status in statuses.items() if status.stage.kind in PHASES[command]]


def _pending(statuses: dict[str, Status], command: str) -> list[Status]:
    return [
        statuses[key] for key in _wanted(statuses, command) if statuses[key].state is not State.DONE
    ]
