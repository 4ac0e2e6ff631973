"""What manifests will cost: sizes of models, work of stages, machines, and whether it fits."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.costs.disk import Disk
    from engine.costs.host import Host
    from engine.costs.memory import Need
    from engine.costs.rates import Rates
    from engine.costs.workload import Work
    from engine.job import Job
    from engine.plan import Plan
    from manifests.profile import Profile


@dataclass(frozen=True)
class Costs:
    """What plans will cost, together.

    Attributes:
        works: of every stage that a model does; stages and models carry their run's name where
            there are several runs.
        needs: of every load of a model that is left to do, for writing and for reading.
        rates: how fast the finished stages were.
        unknown: models whose config is not at hand.
        host: what is left takes of this machine.
        shared: corpora that a run takes over from another one: stage, and the run's name.
    """

    works: list[Work]
    needs: list[Need]
    rates: Rates
    unknown: list[str]
    host: Host
    shared: dict[str, str]


def plan_costs(jobs: Sequence[Job]) -> Costs:
    """Return what plans will cost, from configs, texts and what their runs have measured.

    What several runs share is counted once, as `emovec run` does it once. The texts of imports are
    counted on the way, so that the jobs know their sizes afterwards.

    Raises:
        InputError: files to be imported are broken, or hold nothing that can be analysed.
    """
    from engine.costs.architecture import model_sizes
    from engine.costs.host import host_needs
    from engine.costs.rates import measured_rates
    from engine.costs.workload import corpus_words, workloads
    from engine.plan import State

    works, done, needs, unknown = [], [], {}, {}
    shared = _shared(jobs)
    for job in jobs:
        label = f"{job.layout.run_name}/" if len(jobs) > 1 else ""
        words = corpus_words(job.plan, job.layout, job.statuses)
        imports = (job.statuses[f"import:{name}"].state for name in job.study.importing)
        if any(state is not State.DONE for state in imports):
            job.look()
        sizes = model_sizes(job.study)
        unknown |= {f"{label}{name}": None for name, size in sizes.items() if size is None}
        found = workloads(job.plan, job.layout, job.statuses.values(), sizes, words)
        for work in found:
            record = job.statuses[work.stage].record
            if record is not None and not work.stage.startswith("steer:"):
                done.append((work, record.figures))
            if f"{label}{work.stage}" not in shared:
                stage, model = f"{label}{work.stage}", f"{label}{work.model}"
                works.append(dataclasses.replace(work, stage=stage, model=model))
        pending = {status.stage.id for status in job.pending("run")}
        pending -= {key.removeprefix(label) for key in shared if key.startswith(label)}
        for key, need in _loads(job.plan, pending):
            named = dataclasses.replace(need, model=f"{label}{need.model}")
            earlier = needs.setdefault(key, {})
            if any(run is not job for run, _ in earlier.values()):
                continue
            earlier[need.model] = (job, named)
    loads = [need for same in needs.values() for _, need in same.values()]
    host = host_needs(jobs, loads, disk_needs(jobs, "run"))
    return Costs(works, loads, measured_rates(done), list(unknown), host, shared)


def _shared(jobs: Sequence[Job]) -> dict[str, str]:
    """Return the corpora that runs take over: `run/stage`, and the run that has or writes it."""
    from engine.plan import State

    if len(jobs) < 2:
        return {}
    ordered = [
        (job, s) for job in jobs for s in job.statuses.values() if s.stage.kind == "generate"
    ]
    ordered.sort(key=lambda pair: pair[1].state is not State.DONE)
    first: dict[str, Job] = {}
    found = {}
    for job, status in ordered:
        owner = first.setdefault(status.stage.fingerprint, job)
        if owner is not job and status.state is not State.DONE:
            found[f"{job.layout.run_name}/{status.stage.id}"] = owner.layout.run_name
    return found


def check_fit(jobs: Sequence[Job], command: str, profile: Profile | None = None) -> None:
    """Refuse what will not fit, as far as configs are at hand: into memory, and onto the disk.

    Args:
        jobs: studies as they stand, under one root.
        command: a key of `engine.plan.PHASES`.
        profile: of the machines that do the work; this machine when None.

    Raises:
        InputError: with the figures, and what would fit; all that does not at once.
    """
    from engine.costs.disk import disk_refusals
    from engine.costs.memory import memory_refusals, room_of
    from manifests.errors import InputError

    problems, room = [], functools.partial(room_of, profile)
    for job in jobs:
        stages = {status.stage.id for status in job.pending(command)}
        problems += memory_refusals(job.study, model_needs(job.plan, stages), room)
    if jobs:
        layout = jobs[0].layout
        root = layout.root if layout.far is None else None
        problems += disk_refusals(root, disk_needs(jobs, command))
    if problems:
        raise InputError(problems)


def disk_needs(jobs: Sequence[Job], command: str) -> Disk:
    """Return what the stages to do write and download, and what is free."""
    from engine.costs.architecture import model_sizes
    from engine.costs.disk import disk_of, downloads

    wanted: dict[str, int] = {}
    for job in jobs:
        wanted |= downloads(job.study, job.models(command), model_sizes(job.study))
    statuses = (status for job in jobs for status in job.pending(command))
    root = None if not jobs or jobs[0].layout.far is not None else jobs[0].layout.root
    return disk_of(root, statuses, wanted)


def model_needs(plan: Plan, stages: Collection[str]) -> list[Need]:
    """Return what the models of some stages need, for writing and for reading.

    Models whose config is not at hand are left out.

    Args:
        plan: of a study.
        stages: ids.
    """
    return [need for _, need in _loads(plan, stages)]


def _loads(plan: Plan, stages: Collection[str]) -> list[tuple[str, Need]]:
    """Return what each load of a model needs, with what tells whether two runs share it."""
    from engine.costs.architecture import model_sizes
    from engine.costs.memory import need
    from store.fingerprint import fingerprint

    manifest, found = plan.study.manifest, []
    for name, size in model_sizes(plan.study).items():
        if size is None:
            continue
        entry = manifest.models[name]
        writings = [
            writing
            for corpus, writing in plan.study.writing.items()
            if writing.spec.model == name and f"generate:{corpus}" in stages
        ]
        written = [writing.spec.max_new_tokens + PROMPT for writing in writings]
        steered = plan.study.steered
        steers = steered is not None and any(
            c.model == name and f"steer:{c.name}" in stages for c in steered.cells
        )
        if steered is not None and steers:
            written.append(steered.spec.max_new_tokens + PROMPT)
        if written:
            templates = sorted({str(writing.chat_template) for writing in writings})
            key = fingerprint([plan.models[name], entry.model_dump(mode="json"), templates])
            found.append((f"write {key}", need(name, size, True, entry.dtype, max(written))))
        reads = any(c.model == name and f"extract:{c.name}" in stages for c in plan.study.cells)
        if reads or steers:  # steering is scored in the precision of reading
            extraction = manifest.extraction_of(name)
            key = fingerprint([plan.models[name], extraction.backend, extraction.dtype])
            layers = (plan.layers(name) or []) if reads else []
            one = need(
                name,
                size,
                False,
                extraction.dtype,
                extraction.max_tokens,
                len(extraction.windows),
                len(layers),
            )
            found.append((f"read {key}", one))
    return found


PROMPT = 300
"""Tokens of a prompt, at most."""
