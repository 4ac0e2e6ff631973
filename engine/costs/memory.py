"""Whether models fit: their weights and some room to work, on GPUs or in this machine's memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import psutil
from dask.utils import parse_bytes

from engine.costs.architecture import Architecture
from engine.costs.machines import GPUS, Gpu
from engine.device import gpu_memory, has_gpu
from manifests.errors import InputError, Problem
from manifests.profile import Profile
from manifests.resolve import Study

WORKSPACE = 2 * 2**30
"""Bytes on each GPU for what a pass computes, CUDA's own things and libraries."""

SEQUENCES = 8
"""Texts that must fit into the cache at once for writing to be worth starting."""

MEMORY_SHARE = 0.9
"""Of a GPU's memory that a model may take, vLLM's default."""

TENSOR_PARALLEL = (1, 2, 4, 8)


@dataclass(frozen=True)
class Need:
    """What one copy of a model needs.

    Attributes:
        model: its name.
        writes: whether it writes texts, or reads them.
        dtype: of its weights.
        weights: bytes.
        cache: bytes of the key-value cache for SEQUENCES texts at once; 0 for reading.
        packed: the weights come quantised, so that `weights` is the most that they may take.
    """

    model: str
    writes: bool
    dtype: str
    weights: int
    cache: int
    packed: bool = False

    def gpus(self, gpu: Gpu, share: float) -> int | None:
        """Return the fewest GPUs of a kind that hold it, None where eight do not.

        Args:
            gpu: the kind.
            share: of a GPU's memory that may be taken.
        """
        for n in TENSOR_PARALLEL:
            if (self.weights + self.cache) / n + WORKSPACE <= gpu.memory * share:
                return n
        return None


def check_memory(study: Study, needs: Iterable[Need], profile: Profile | None = None) -> None:
    """Refuse a model that its GPUs, or a machine's memory, cannot hold, before anything starts.

    Args:
        study: that has the models.
        needs: what each takes.
        profile: of the machines that do the work; this machine when None.

    Raises:
        InputError: with the figures, and what would hold it.
    """
    if profile is not None:
        _check_profile(study, needs, profile)
        return
    total, gpus = psutil.virtual_memory().total, gpu_memory() if has_gpu() else []
    for one in needs:
        together = study.manifest.models[one.model].tensor_parallel_size
        if together > 1 and (gpus or not has_gpu()) and together > len(gpus):
            there = f"{len(gpus)}" if gpus else "none"
            what = f"it is to be shared by {together} GPUs, this machine has {there}"
            raise InputError(_at(study, one, what, "tensor_parallel_size"))
        if one.packed:
            continue
        if gpus:
            _check_gpus(study, one, min(gpus))
            continue
        if has_gpu() or one.weights + one.cache <= total:
            continue
        kinds = {name: one.gpus(gpu, MEMORY_SHARE) for name, gpu in GPUS.items()}
        fits = [f"{n} x {name}" for name, n in kinds.items() if n is not None]
        held = f"; it would fit on {' or '.join(fits)}" if fits else ""
        what = (
            f"its weights in {one.dtype} take {one.weights / 1e9:,.1f} GB, this machine has "
            f"{total / 1e9:,.1f} GB of memory and no GPU{held}"
        )
        raise InputError(_at(study, one, what))


def _check_profile(study: Study, needs: Iterable[Need], profile: Profile) -> None:
    """Refuse a model that a worker of the profile's jobs cannot hold, as far as it says."""
    slurm = profile.slurm
    if slurm is None:
        return
    each = slurm.gpus // slurm.workers_per_job
    for one in needs:
        together = study.manifest.models[one.model].tensor_parallel_size
        if together > max(1, each):
            what = f"it is to be shared by {together} GPUs, a worker of the profile has {each}"
            raise InputError(_at(study, one, what, "tensor_parallel_size"))
        if one.packed:
            continue
        if each and slurm.gpu is not None:
            _check_gpus(study, one, GPUS[slurm.gpu].memory)
        memory = parse_bytes(slurm.memory) / slurm.workers_per_job
        if not each and one.weights + one.cache > memory:
            what = (
                f"its weights in {one.dtype} take {one.weights / 1e9:,.1f} GB, a worker of the "
                f"profile has {memory / 1e9:,.1f} GB of memory and no GPU"
            )
            raise InputError(_at(study, one, what))


def _at(study: Study, one: Need, what: str, *key: str) -> Problem:
    return study.document.problem(("models", one.model, *key), what)


def _check_gpus(study: Study, one: Need, memory: int) -> None:
    """Refuse a model that the GPUs which are to share it cannot hold."""
    entry = study.manifest.models[one.model]
    share, n = entry.gpu_memory_utilization, entry.tensor_parallel_size
    taken = (one.weights + one.cache) / n + WORKSPACE
    if taken <= memory * share:
        return
    gpu = Gpu(memory, {})
    wanted = one.gpus(gpu, share)
    mend = (
        f"tensor_parallel_size: {wanted} would fit"
        if wanted
        else f"not even {TENSOR_PARALLEL[-1]} such GPUs hold it"
    )
    what = (
        f"its weights in {one.dtype}, a cache and room to work take {taken / 1e9:,.1f} GB on each "
        f"of {n} GPUs, {share:.0%} of their {memory / 1e9:,.1f} GB may be taken; {mend}"
    )
    raise InputError(_at(study, one, what))


def need(model: str, size: Architecture, writes: bool, dtype: str, tokens: int) -> Need:
    """Return what one copy of a model needs.

    Args:
        model: its name.
        size: its sizes.
        writes: whether it writes texts, or reads them.
        dtype: of its weights.
        tokens: of the longest text with its prompt.
    """
    cache = size.cache_bytes(SEQUENCES * tokens, dtype) if writes else 0
    return Need(model, writes, dtype, size.weight_bytes(dtype), cache, size.packed)
