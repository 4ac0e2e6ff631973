"""Whether models fit: their weights and some room to work, on GPUs or in this machine's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import psutil
from dask.utils import parse_bytes

from engine.costs.architecture import BYTES, Architecture
from engine.costs.machines import GPUS, Gpu
from engine.device import gpu_memory, has_gpu
from manifests.errors import Problem
from manifests.profile import Profile
from manifests.resolve import Study
from store.shards import shard_texts

WORKSPACE = 2 * 2**30
"""Bytes on each GPU for what a pass computes, CUDA's own things and libraries."""

SEQUENCES = 8
"""Texts that must fit into the cache at once for writing to be worth starting."""

MEMORY_SHARE = 0.9
"""Of a GPU's memory that a model may take, vLLM's default."""

TENSOR_PARALLEL = (1, 2, 4, 8)

PROGRAM = int(1.5 * 2**30)
"""Bytes of memory of the command and of a model's process beside its weights."""

SHARDS_HELD = 3
"""Shards in memory while one is read and one is written, with what they are made from."""


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
        shards: bytes of the story vectors in memory at once; 0 for writing.
        windows: token windows that `shards` is of.
        splits: GPUs over which its heads can be divided.
    """

    model: str
    writes: bool
    dtype: str
    weights: int
    cache: int
    packed: bool = False
    shards: int = 0
    windows: int = 1
    splits: tuple[int, ...] = TENSOR_PARALLEL

    def host(self, on_gpus: bool) -> int:
        """Return the bytes of a machine's memory that it takes, weights on GPUs left out."""
        return PROGRAM + self.shards + (0 if on_gpus else self.weights + self.cache)

    def gpus(self, gpu: Gpu, share: float) -> int | None:
        """Return the fewest GPUs of a kind that hold it, None where eight do not.

        Args:
            gpu: the kind.
            share: of a GPU's memory that may be taken.
        """
        return next((n for n in self.splits if self.fits(n, gpu.memory, share)), None)

    def each(self, n: int) -> float:
        """Return the bytes that it takes on each of n GPUs."""
        return (self.weights + self.cache) / n + WORKSPACE

    def fits(self, n: int, gpu_bytes: int, share: float) -> bool:
        """Tell whether n GPUs hold it, of whose memory a share may be taken."""
        return self.each(n) <= gpu_bytes * share


@dataclass(frozen=True)
class Room:
    """What there is for one model, None where that is not known.

    Attributes:
        name: of the place, as a sentence has it.
        memory: bytes of the machine's memory.
        n_gpus: GPUs that a model may have.
        gpu_bytes: of memory on the smallest of them.
    """

    name: str
    memory: float | None
    n_gpus: int | None
    gpu_bytes: int | None

    def __str__(self) -> str:
        parts = [] if self.memory is None else [f"{self.memory / 1e9:,.1f} GB of memory"]
        if self.n_gpus and self.gpu_bytes is not None:
            parts.append(f"{self.n_gpus} x {self.gpu_bytes / 1e9:,.1f} GB of GPU")
        elif self.n_gpus == 0:
            parts.append("no GPU")
        return f"{self.name} has {' and '.join(parts)}" if parts else self.name


def room_of(profile: Profile | None, gpus: int = 1) -> Room:
    """Return what there is for a model.

    Args:
        profile: of the jobs that do the work; this machine when None.
        gpus: that the model is spread over: jobs are as large as it needs.
    """
    if profile is None:
        gpus = gpu_memory() if has_gpu() else []
        silent = has_gpu() and not gpus  # nvidia-smi does not tell: whoever loads the model will
        total = psutil.virtual_memory().total
        return Room("this machine", total, None if silent else len(gpus), min(gpus, default=None))
    if profile.slurm is None:
        return Room("a worker of the scheduler", None, None, None)
    slurm = profile.slurm.sized(gpus)
    each = slurm.gpus // slurm.workers_per_job
    memory = parse_bytes(slurm.memory) / slurm.workers_per_job
    gpu_bytes = GPUS[slurm.gpu].memory if each and slurm.gpu is not None else None
    return Room("a worker of the profile", memory, each, gpu_bytes)


def memory_refusals(
    study: Study, needs: Iterable[Need], room: Callable[[int], Room]
) -> Iterator[Problem]:
    """Yield why models do not fit onto the GPUs, or into the memory, that there are for one.

    Each says what would hold it.

    Args:
        study: that has the models.
        needs: what each takes.
        room: says what there is for a model by the GPUs that it is spread over (`room_of`).
    """
    for need in needs:
        gpus = study.manifest.models[need.model].tensor_parallel_size
        yield from _refusals(study, need, room(gpus))


def _refusals(study: Study, one: Need, room: Room) -> Iterator[Problem]:
    """Yield why a model does not fit, nothing where it does or where that is not known."""

    def at(what: str, *key: str) -> Problem:
        return study.document.problem(("models", one.model, *key), what)

    entry = study.manifest.models[one.model]
    together, share = entry.tensor_parallel_size, entry.gpu_memory_utilization
    if room.n_gpus is not None and together > max(1, room.n_gpus):
        there = room.n_gpus or "none"
        what = f"it is to be shared by {together} GPUs, {room.name} has {there}"
        yield at(what, "tensor_parallel_size")
    elif together in TENSOR_PARALLEL and together not in one.splits:
        can = ", ".join(str(n) for n in one.splits)
        what = f"its attention heads cannot be divided among {together} GPUs, but among {can}"
        yield at(what, "tensor_parallel_size")
    elif one.packed or room.n_gpus is None:
        return
    elif (
        room.n_gpus and room.gpu_bytes is not None and not one.fits(together, room.gpu_bytes, share)
    ):
        each = one.each(together)
        yield at(
            f"its weights in {one.dtype}, a cache and room to work take {each / 1e9:,.1f} GB on "
            f"each of {together} GPUs, {share:.0%} of their {room.gpu_bytes / 1e9:,.1f} GB may be "
            f"taken; {_mend_on_gpus(one, together, room.gpu_bytes, share)}"
        )
    elif room.memory is not None and (takes := one.host(bool(room.n_gpus))) > room.memory:
        beside = "the program and story vectors" if one.shards else "the program"
        if room.n_gpus:
            what = f"{beside} take {takes / 1e9:,.1f} GB"
        else:
            what = (
                f"its weights in {one.dtype} take {one.weights / 1e9:,.1f} GB, with "
                f"{'a cache, ' if one.cache else ''}{beside} {takes / 1e9:,.1f} GB"
            )
        yield at(f"{what}, {room}; {_mend_in_memory(one, room)}")


def _halved(one: Need) -> tuple[Need, str] | None:
    """Return what a model takes in half precision, and the key that says so; None if it is there.

    The key is written as it stands in a manifest.
    """
    if BYTES[one.dtype] == 2:
        return None
    halved = replace(one, dtype="bfloat16", weights=one.weights // 2, cache=one.cache // 2)
    key = f"models.{one.model}.{'dtype' if one.writes else 'reading_dtype'}"
    return halved, f"`{key}: bfloat16`"


def _mend_on_gpus(one: Need, together: int, gpu_bytes: int, share: float) -> str:
    """Return what would make a model fit onto GPUs: half precision before more of them."""
    gpu, mends = Gpu(gpu_bytes, {}), []
    halved = _halved(one)
    if halved is not None:
        half, key = halved
        takes = f"{key} would take {half.each(together) / 1e9:,.1f} GB"
        if half.fits(together, gpu_bytes, share):
            return f"{takes}: fits"
        wanted = half.gpus(gpu, share)
        if wanted is not None:
            mends.append(f"{key} with tensor_parallel_size: {wanted} would fit")
    wanted = one.gpus(gpu, share)
    if wanted is not None:
        mends.append(f"tensor_parallel_size: {wanted} would fit")
    return ", ".join(mends) or f"not even {one.splits[-1]} such GPUs hold it"


def _mend_in_memory(one: Need, room: Room) -> str:
    """Return what would make a model fit into a machine's memory, or which GPUs would hold it."""
    on_gpus, memory = bool(room.n_gpus), room.memory or 0.0
    halved = None if on_gpus else _halved(one)
    ways = [] if halved is None else [halved]
    if one.windows > 1 and one.shards:
        fewer = one.shards // one.windows
        ways.append((replace(one, shards=fewer), "one window in `extraction.windows`"))
        if halved is not None:
            half, key = halved
            ways.append((replace(half, shards=fewer), f"{key} with one window"))
    for way, what in ways:
        if way.host(on_gpus) <= memory:
            return f"{what} would take {way.host(on_gpus) / 1e9:,.1f} GB: fits"
    kinds = {name: one.gpus(gpu, MEMORY_SHARE) for name, gpu in GPUS.items()}
    fits = [f"{n} x {name}" for name, n in kinds.items() if n is not None]
    if on_gpus:
        return "it takes a machine with more memory"
    return f"it would fit on {' or '.join(fits)}" if fits else "no eight GPUs known here hold it"


def need(
    model: str,
    size: Architecture,
    writes: bool,
    dtype: str,
    tokens: int,
    windows: int = 0,
    layers: int = 0,
) -> Need:
    """Return what one copy of a model needs.

    Args:
        model: its name.
        size: its sizes.
        writes: whether it writes texts, or reads them.
        dtype: of its weights.
        tokens: of the longest text with its prompt.
        windows: token windows that are kept of what it reads.
        layers: that are kept, the embedding output with them.
    """
    cache = size.cache_bytes(SEQUENCES * tokens, dtype) if writes else 0
    shards = 0
    if windows and layers:
        text = windows * layers * size.d_model * 4
        shards = SHARDS_HELD * shard_texts(windows, layers, size.d_model) * text
    weights = size.weight_bytes(dtype)
    splits = tuple(n for n in TENSOR_PARALLEL if size.splits_over(n))
    return Need(model, writes, dtype, weights, cache, size.packed, shards, max(1, windows), splits)
