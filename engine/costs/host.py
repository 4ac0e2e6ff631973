"""What a plan takes of this machine: disk, memory, and core-hours of the analysis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from engine.costs.disk import Disk, left_bytes
from engine.costs.memory import PROGRAM, Need
from engine.device import cpu_count, has_gpu
from engine.plan import Plan, Status

if TYPE_CHECKING:
    from engine.job import Job

LAYER_SECONDS, DRAW_SECONDS = 1.7, 0.0046
"""Of one core for a window and layer of 171 emotions with 10,000 permutations and the detection of
held-out stories, and for each draw of stories and emotions beyond: a cell of 96 with 1,000 draws
takes 304 s on two processes (2026-11-26)."""

ANALYST = 2**30
"""Bytes of a process that analyses."""


@dataclass(frozen=True)
class Host:
    """What is left to do takes this much of a machine.

    Attributes:
        disk: bytes that will be written, before compression.
        whole: whether the size of everything that will be written is known.
        free: bytes that are free there, None in an object store.
        downloads: bytes of weights that will be downloaded.
        cache_free: bytes that are free where they go.
        memory: bytes held at once by all processes, at most.
        total: bytes of memory that there are.
        core_hours: of the analysis, None while its layers are not known.
    """

    disk: int
    whole: bool
    free: int | None
    downloads: int
    cache_free: int
    memory: float
    total: int
    core_hours: float | None


def host_needs(jobs: Sequence[Job], needs: Sequence[Need], disk: Disk) -> Host:
    """Return what the stages that are not done take of this machine.

    Args:
        jobs: studies as they stand.
        needs: of the models that are loaded for them.
        disk: what they write and download.
    """
    left = [status for job in jobs for status in job.pending("run")]
    kinds = {status.stage.kind for status in left}
    large = [status for status in left if status.stage.kind in ("generate", "extract")]
    hours = [_analysis_hours(job.plan, job.pending("run")) for job in jobs]
    held = [0.0]
    if kinds & {"generate", "extract"}:
        held.append(max((need.host(has_gpu()) for need in needs), default=PROGRAM))
    if "analyze" in kinds:
        held.append(PROGRAM + cpu_count() * ANALYST)
    return Host(
        disk=sum(left_bytes(status) for status in large),
        whole=all(status.size is not None for status in large),
        free=disk.free,
        downloads=sum(disk.downloads.values()),
        cache_free=disk.cache_free,
        memory=max(held),
        total=psutil.virtual_memory().total,
        core_hours=None if None in hours else sum(h for h in hours if h is not None),
    )


def _analysis_hours(plan: Plan, left: Iterable[Status]) -> float | None:
    manifest = plan.study.manifest
    each = LAYER_SECONDS + DRAW_SECONDS * manifest.analysis.bootstraps
    seconds = 0.0
    for status in left:
        if status.stage.kind == "analyze":
            layers = plan.layers(plan.cell(status.stage.name).model)
            if layers is None:
                return None
            seconds += each * len(layers) * len(manifest.extraction.windows)
    return seconds / 3600
