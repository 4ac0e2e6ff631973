"""What a manifest will cost: sizes of models, work of stages, machines, and whether it fits."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.costs.host import Host
    from engine.costs.memory import Need
    from engine.costs.workload import Work
    from engine.plan import Plan, Status
    from store.layout import Layout


@dataclass(frozen=True)
class Costs:
    """What a plan will cost.

    Attributes:
        works: of every stage that a model does.
        needs: of every model, for writing and for reading.
        rate: operations a second at which this machine has read in this run, None where it has not.
        unknown: models whose config is not at hand.
        host: what is left takes of this machine.
    """

    works: list[Work]
    needs: list[Need]
    rate: float | None
    unknown: list[str]
    host: Host


def plan_costs(plan: Plan, layout: Layout, statuses: Iterable[Status]) -> Costs:
    """Return what a plan will cost, from configs, texts and what the run has measured."""
    from engine.costs.architecture import model_sizes
    from engine.costs.host import host_needs
    from engine.costs.workload import workloads

    statuses = list(statuses)
    sizes = model_sizes(plan.study)
    works = workloads(plan, layout, statuses, sizes)
    flops = seconds = 0.0
    for status, work in zip((s for s in statuses if s.stage.kind in MODEL), works, strict=True):
        rate = status.record.figures.get("tokens_per_second") if status.record else None
        if not work.writes and work.flops and work.tokens and rate:
            flops, seconds = flops + work.flops, seconds + work.tokens / rate
    needs = model_needs(plan, {status.stage.id for status in statuses})
    unknown = [name for name, size in sizes.items() if size is None]
    rate = flops / seconds if seconds else None
    return Costs(works, needs, rate, unknown, host_needs(plan, layout, statuses, needs))


def model_needs(plan: Plan, stages: Collection[str]) -> list[Need]:
    """Return what the models of some stages need, for writing and for reading.

    Models whose config is not at hand are left out.

    Args:
        plan: of a study.
        stages: ids.
    """
    from engine.costs.architecture import model_sizes
    from engine.costs.memory import need

    manifest, found = plan.study.manifest, []
    for name, size in model_sizes(plan.study).items():
        if size is None:
            continue
        written = [
            writing.spec.max_new_tokens + PROMPT
            for corpus, writing in plan.study.writing.items()
            if writing.spec.model == name and f"generate:{corpus}" in stages
        ]
        steered = plan.study.steered
        if steered and any(c.model == name and f"steer:{c.name}" in stages for c in steered.cells):
            written.append(steered.spec.max_new_tokens + PROMPT)
        if written:
            found.append(need(name, size, True, manifest.models[name].dtype, max(written)))
        if any(c.model == name and f"extract:{c.name}" in stages for c in plan.study.cells):
            extraction = manifest.extraction
            found.append(need(name, size, False, extraction.dtype, extraction.max_tokens))
    return found


MODEL = ("generate", "extract", "steer")
"""Kinds of stages that a model does."""

PROMPT = 300
"""Tokens of a prompt, at most."""
