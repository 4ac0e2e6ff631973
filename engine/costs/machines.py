"""Machines that a manifest is costed on, by their data sheets."""

from __future__ import annotations

from dataclasses import dataclass

READING = 0.4
"""Share of a GPU's peak that reading is taken to reach: long products of matrices, no sampling."""

WRITING = 0.1
"""Share that writing is taken to reach: every token waits for the one before it, so that memory
and not arithmetic decides. `emovec plan --utilisation` takes your own for both."""


@dataclass(frozen=True)
class Shares:
    """Shares of a GPU's peak that reading and writing are taken to reach."""

    reading: float = READING
    writing: float = WRITING


@dataclass(frozen=True)
class Gpu:
    """A GPU as its data sheet has it.

    Attributes:
        memory: bytes.
        flops: operations a second by dtype, dense.
    """

    memory: int
    flops: dict[str, float]


def _gpu(memory: float, half: float, single: float) -> Gpu:
    return Gpu(int(memory), {"bfloat16": half, "float16": half, "float32": single})


GPUS: dict[str, Gpu] = {
    "A100-40GB": _gpu(40 * 2**30, 312e12, 19.5e12),
    "A100-80GB": _gpu(80 * 2**30, 312e12, 19.5e12),
    "H100": _gpu(80 * 2**30, 989e12, 67e12),
    "H200": _gpu(141e9, 989e12, 67e12),
}
"""NVIDIA's data sheets of the SXM versions (A100 2021, H100 2023, H200 2024); TF32 is not used."""


def gpu_hours(flops: float, gpu: Gpu, dtype: str, share: float) -> float:
    """Return the hours that some operations take one GPU at a share of its peak."""
    return flops / (gpu.flops[dtype] * share) / 3600


def gpu_of(name: str) -> str | None:
    """Return the key of GPUS for a name that nvidia-smi gives, None for one of other figures.

    PCIe and NVL versions of the H100 and H200 are slower; those of the A100 have the same peak.
    """
    if "A100" in name:
        return next((f"A100-{size}GB" for size in (40, 80) if f"{size}GB" in name), None)
    if any(slower in name for slower in ("PCIe", "NVL")):
        return None
    return next((kind for kind in ("H100", "H200") if kind in name), None)
