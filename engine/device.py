"""What this machine computes on, told without importing torch or vllm."""

from __future__ import annotations

import os
from pathlib import Path

import psutil


def has_gpu() -> bool:
    """Tell whether an NVIDIA GPU may be used (present and not hidden by CUDA_VISIBLE_DEVICES)."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    return Path("/dev/nvidiactl").exists()


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
