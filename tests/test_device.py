"""How GPUs and CPUs are dealt out; nvidia-smi is a script that answers as the real one would."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine import device

ANSWER = """\
0, GPU-aaaa, 12, 81920
1, GPU-bbbb, 70000, 81920
2, GPU-cccc, 0, 81920
3, GPU-dddd, 5, 81920
"""


@pytest.fixture
def four_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Four GPUs, the second of them in use."""
    script = tmp_path / "nvidia-smi"
    script.write_text(f"#!/bin/sh\ncat <<'END'\n{ANSWER}END\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(device, "has_gpu", lambda: True)
    monkeypatch.setattr(device, "RELEASE_SECONDS", 0.0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return monkeypatch


def visible(environments: list[dict[str, str]]) -> list[str]:
    return [environment["CUDA_VISIBLE_DEVICES"] for environment in environments]


def test_each_free_gpu_gets_a_replica(four_gpus: pytest.MonkeyPatch) -> None:
    a, b, c, d = "GPU-aaaa", "GPU-bbbb", "GPU-cccc", "GPU-dddd"
    assert visible(device.replica_environments(None, 1, 0.9)) == [a, c, d]
    assert visible(device.replica_environments(None, 2, 0.9)) == [f"{a},{c}"]
    assert visible(device.replica_environments(2, 1, 0.9)) == [a, c]
    assert visible(device.replica_environments(None, 1, 0.1)) == [a, b, c, d]


def test_a_gpu_that_becomes_free_in_time_is_taken(
    four_gpus: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    four_gpus.setattr(device, "RELEASE_SECONDS", 60.0)
    script = tmp_path / "nvidia-smi"
    free = ANSWER.replace("70000", "7")
    looked = tmp_path / "looked"  # the second look at the memory finds it free
    script.write_text(
        f"#!/bin/sh\nif [ -e {looked} ]; then cat <<'END'\n{free}END\n"
        f"else cat <<'END'\n{ANSWER}END\nfi\n"
    )
    four_gpus.setattr(device.time, "sleep", lambda seconds: looked.touch())
    assert len(device.replica_environments(4, 1, 0.9)) == 4
    assert len(device.replica_environments(None, 1, 0.9)) == 4


def test_only_visible_gpus_are_dealt_by_the_names_given(four_gpus: pytest.MonkeyPatch) -> None:
    four_gpus.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    assert visible(device.replica_environments(None, 1, 0.9)) == ["2", "0"]
    four_gpus.setenv("CUDA_VISIBLE_DEVICES", "GPU-cc,GPU-bbbb,MIG-1234")
    assert visible(device.replica_environments(None, 1, 0.9)) == ["GPU-cc", "MIG-1234"]


def test_a_gpu_that_does_not_tell_its_memory_is_one_line(
    four_gpus: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho '0, GPU-aaaa, [N/A], [N/A]'\n")
    with pytest.raises(RuntimeError, match="does not tell which GPUs are free"):
        device.free_gpus(0.9)


def test_too_few_gpus_are_refused_with_figures(four_gpus: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="2 x 2 GPUs are needed, 3 have 90% of their memory free"):
        device.replica_environments(2, 2, 0.9)
    with pytest.raises(ValueError, match="1 x 4 GPUs are needed, 3 have"):
        device.replica_environments(None, 4, 0.9)


def test_cpus_and_cache_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "has_gpu", lambda: False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3, 4})
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "8")
    assert device.replica_environments(None, 1, 0.9) == [{}]
    first, second = device.replica_environments(2, 1, 0.9)
    assert first["VLLM_CPU_OMP_THREADS_BIND"] == "0,1"
    assert second["VLLM_CPU_OMP_THREADS_BIND"] == "2,3,4"
    assert (first["OMP_NUM_THREADS"], second["OMP_NUM_THREADS"]) == ("2", "3")
    assert first["VLLM_CPU_KVCACHE_SPACE"] == "4"
    nine = device.replica_environments(9, 1, 0.9)
    assert {e["VLLM_CPU_OMP_THREADS_BIND"] for e in nine} == {"0", "1", "2", "3", "4"}
    assert len(nine) == 9


def test_gpus_of_one_kind_have_a_name(four_gpus: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def name(answer: str) -> str | None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{answer}\n")
        device.gpu_name.cache_clear()
        return device.gpu_name()

    kind = "NVIDIA A100-SXM4-80GB"
    assert name(f"printf '{kind}\\n{kind}\\n'") == kind
    assert name(f"printf '{kind}\\nTesla T4\\n'") is None
    assert name("exit 9") is None
    four_gpus.setattr(device, "has_gpu", lambda: False)
    assert name(f"echo '{kind}'") is None
    device.gpu_name.cache_clear()
