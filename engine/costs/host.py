"""What a plan takes of this machine: disk, memory, and core-hours of the analysis."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from engine.costs.memory import Need
from engine.device import cpu_count, has_gpu
from engine.plan import Plan, State, Status
from store.layout import Layout
from store.shards import SHARD_BYTES

LAYER_SECONDS, DRAW_SECONDS = 1.7, 0.0046
"""Of one core for a window and layer of 171 emotions with 10,000 permutations and the detection of
held-out stories, and for each draw of stories and emotions beyond: a cell of 96 with 1,000 draws
takes 304 s on two processes (2026-11-26)."""

ANALYST = 2**30
"""Bytes of a process that analyses."""

PROGRAM = 1.5 * 2**30
"""Bytes of the command and of a model's process beside its weights."""

SHARDS_HELD = 3
"""Shards in memory while one is read and one is written, with what they are made from."""


@dataclass(frozen=True)
class Host:
    """What is left to do takes this much of a machine.

    Attributes:
        disk: bytes that will be written, before compression.
        whole: whether the size of everything that will be written is known.
        free: bytes that are free there, None in an object store.
        memory: bytes held at once by all processes, at most.
        total: bytes of memory that there are.
        core_hours: of the analysis, None while its layers are not known.
    """

    disk: int
    whole: bool
    free: int | None
    memory: float
    total: int
    core_hours: float | None


def host_needs(
    plan: Plan, layout: Layout, statuses: Iterable[Status], needs: Sequence[Need]
) -> Host:
    """Return what the stages that are not done take of this machine."""
    left = [status for status in statuses if status.state is not State.DONE]
    kinds = {status.stage.kind for status in left}
    large = [status for status in left if status.stage.kind in ("generate", "extract")]
    disk = sum(status.size or 0 for status in large)
    held = [0.0]
    if kinds & {"generate", "extract"}:
        largest = max((need.weights + need.cache for need in needs), default=0)
        held.append(PROGRAM + SHARDS_HELD * SHARD_BYTES + (0 if has_gpu() else largest))
    if "analyze" in kinds:
        held.append(PROGRAM + cpu_count() * ANALYST)
    return Host(
        disk,
        all(status.size is not None for status in large),
        None if layout.far is not None else shutil.disk_usage(_existing(layout.root)).free,
        max(held),
        psutil.virtual_memory().total,
        _analysis_hours(plan, left),
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


def _existing(folder: Path) -> Path:
    folder = folder.resolve()
    while not folder.exists():
        folder = folder.parent
    return folder
