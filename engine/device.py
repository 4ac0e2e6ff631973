"""What this machine computes on, told without importing torch or vllm."""

from __future__ import annotations

import os
import subprocess
import time
from functools import cache
from pathlib import Path

import psutil

WORKERS_PER_JOB = "EMOVEC_WORKERS_PER_JOB"
"""Environment variable by which the workers of a job know how many they are."""

RELEASE_SECONDS = 10.0
"""How long a GPU that is not free is waited for."""


def has_gpu() -> bool:
    """Tell whether an NVIDIA GPU may be used (present and not hidden by CUDA_VISIBLE_DEVICES)."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    return Path("/dev/nvidiactl").exists()


def free_gpus(share: float) -> list[str]:
    """Return the GPUs, as CUDA_VISIBLE_DEVICES names them, with this share of their memory free.

    They come in the order of CUDA_VISIBLE_DEVICES, under the names used there, else by UUID, since
    CUDA and nvidia-smi may number them differently. A MIG slice counts as free.

    Raises:
        RuntimeError: nvidia-smi does not answer, or does not tell a GPU's memory.
    """
    query = "--query-gpu=index,uuid,memory.used,memory.total"
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        rows = [[f.strip() for f in line.split(",")] for line in answer.stdout.splitlines()]
        free = {
            (index, uuid): float(used) <= (1 - share) * float(total)
            for index, uuid, used, total in rows
        }
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise RuntimeError(f"nvidia-smi does not tell which GPUs are free: {error}") from None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [uuid for (_, uuid), is_free in free.items() if is_free]
    return [
        name
        for name in (part.strip() for part in visible.split(","))
        if name.startswith("MIG-")
        or any(ok and (name == i or (len(name) > 3 and u.startswith(name)))
               for (i, u), ok in free.items())
    ]  # fmt: skip


def gpu_memory() -> list[int]:
    """Return the bytes of each GPU's memory; nothing where nvidia-smi does not tell."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return [int(float(line)) * 2**20 for line in answer.stdout.splitlines() if line.strip()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


@cache
def gpu_name() -> str | None:
    """Return the name of this machine's GPUs; None where there are none, or of several kinds."""
    if not has_gpu():
        return None
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    names = {line.strip() for line in answer.stdout.splitlines() if line.strip()}
    return names.pop() if len(names) == 1 else None


def _free_gpus_soon(share: float, wanted: int | None) -> list[str]:
    """Return the free GPUs, giving a process that has just ended time to hand its memory back.

    Args:
        share: share of a GPU's memory that has to be free.
        wanted: how many are enough; None for all that there are.
    """
    deadline = time.monotonic() + RELEASE_SECONDS
    everything = free_gpus(0.0) if wanted is None else []
    while True:
        found = free_gpus(share)
        if len(found) >= (wanted or len(everything)) or time.monotonic() > deadline:
            return found
        time.sleep(1.0)


def replica_environments(
    replicas: int | None, gpus_each: int, share: float
) -> list[dict[str, str]]:
    """Return the environment of each copy of a model that is to run at once.

    GPUs are dealt out in order; the CPUs and the cache of a machine without any are divided, and
    shared where there are fewer CPUs than copies.

    Args:
        replicas: how many; None for as many as free GPUs allow, one on a CPU.
        gpus_each: GPUs for each.
        share: share of a GPU's memory that a copy takes.

    Raises:
        ValueError: fewer GPUs are free than are asked for.
    """
    if has_gpu():
        gpus = _free_gpus_soon(share, replicas and replicas * gpus_each)
        wanted = replicas or max(1, len(gpus) // gpus_each)
        if wanted * gpus_each > len(gpus):
            raise ValueError(
                f"{wanted} x {gpus_each} GPUs are needed, {len(gpus)} have {share:.0%} of their "
                "memory free; lower replicas, extraction.workers, tensor_parallel_size or "
                "gpu_memory_utilization"
            )
        groups = [gpus[i * gpus_each : (i + 1) * gpus_each] for i in range(wanted)]
        return [{"CUDA_VISIBLE_DEVICES": ",".join(group)} for group in groups]
    n = replicas or 1
    cpus = sorted(os.sched_getaffinity(0))
    if n == 1:
        return [{}]
    cache = max(1, int(os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")) // n)
    bounds = [(i * len(cpus) // n, (i + 1) * len(cpus) // n) for i in range(n)]
    shares = [cpus[first : max(last, first + 1)] for first, last in bounds]
    return [
        {
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, mine)),
            "OMP_NUM_THREADS": str(len(mine)),
            "VLLM_CPU_KVCACHE_SPACE": str(cache),
        }
        for mine in shares
    ]


def take_share(number: int, together: int) -> None:
    """Leave to this process, and to all it starts, its share of the CPUs and GPUs it could use.

    Args:
        number: of this process among those that share, from 0.
        together: how many they are.
    """
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) >= together:
        os.sched_setaffinity(0, cpus[number * len(cpus) // together :][: len(cpus) // together])
    gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    if len(gpus) >= together:
        each = len(gpus) // together
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[number * each :][:each])


def cpu_count() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def child_environment() -> dict[str, str]:
    """Return environment variables that vLLM and torch must find before they are imported.

    On a CPU, vLLM would otherwise keep a core for itself and guess its cache size; a quarter of
    the free memory, 8 GiB at most, goes to its KV cache. What the user has set stays.
    """
    settings = {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
    if not has_gpu():
        cpus = sorted(os.sched_getaffinity(0))
        free = psutil.virtual_memory().available / 2**30
        settings |= {
            "VLLM_CPU_KVCACHE_SPACE": str(max(1, min(8, int(free / 4)))),
            "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cpus)),
            "OMP_NUM_THREADS": str(len(cpus)),
        }
    return {key: os.environ.get(key, value) for key, value in settings.items()}
