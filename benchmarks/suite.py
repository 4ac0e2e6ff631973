"""`emovec bench`: the benchmarks one after another, at a size that fits a quarter of an hour each.

Each is a module of its own with options of its own; here are those that suit most machines. The
command line reads its help from here, so that nothing heavy is imported at the top.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PARTS = (
    "generation",
    "extraction",
    "analysis",
    "page",
    "storage",
    "machines",
    "steering",
    "reading",
)


def commands(
    parts: Sequence[str],
    model: str | None,
    weights: str,
    rounds: int,
    out: Path,
    root: str | None = None,
) -> list[list[str]]:
    """Return the commands of some parts.

    Args:
        parts: of PARTS.
        model: a folder or a known shape; the built-in model when None.
        weights: `trained` or `random`.
        rounds: that each is measured in.
        out: where reports go.
        root: an object store's address, for `storage`.
    """
    from engine.device import has_gpu

    large = has_gpu()
    of_model = [*(["--model", model] if model else []), "--weights", weights]
    settings = {
        "generation": ["--emotions", "128" if large else "24", *of_model],
        "extraction": ["--texts", "512" if large else "32", *of_model],
        "analysis": ["--layers", "8", "--width", "4096"],
        "page": ["--models", "2"],
        "storage": ["--texts", "512", *(["--root", root] if root else [])],
        "machines": ["--texts", "2048"],
        "steering": ["--requests", "512" if large else "128", *of_model],
        "reading": ["--texts", "512" if large else "64"],
    }
    found = []
    for part in parts:
        command = [sys.executable, "-m", f"benchmarks.{part}", *settings[part], "--out", str(out)]
        if part != "analysis":
            command += ["--rounds", str(rounds)]
        found.append(command)
    return found


def run_suite(found: Sequence[Sequence[str]]) -> list[str]:
    """Run commands one after another, what they print passed on; return those that failed."""
    root = Path(__file__).parents[1]
    failed = []
    for command in found:
        print(f"\n$ {' '.join(command[1:])}", flush=True)
        if subprocess.run(command, cwd=root).returncode:
            failed.append(command[2])
    return failed
