"""What every benchmark's report says: machine, versions, command, rates and ratios."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil


def about(command: str, work: str, programs: Sequence[str]) -> dict[str, str]:
    """Return date, machine, versions of installed programs, command and work."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "python": platform.python_version(),
        **{name: found for name in programs if (found := _version(name))},
        "command": command,
        "work": work,
    }


def machine() -> str:
    """Return processor, usable cores, memory and GPUs in words."""
    cores = len(os.sched_getaffinity(0))
    memory = psutil.virtual_memory().total / 2**30
    return f"{_cpu_name()}, {cores} cores, {memory:.0f} GiB, {_gpus()}"


def heading(name: str, facts: Mapping[str, str]) -> list[str]:
    """Return the first lines of a report: the benchmark's name, the date, and the facts."""
    title = [f"# {name.capitalize()}, {facts['date']}", ""]
    return title + [f"- {key}: {value}" for key, value in facts.items() if key != "date"]


def write_rates(
    folder: Path,
    name: str,
    facts: Mapping[str, str],
    rates: Mapping[str, Sequence[float]],
    against: Mapping[str, str],
    notes: Sequence[str] = (),
) -> None:
    """Print and write `<date>-<name>.md` and `.json`: medians, ranges and ratios of a round.

    Args:
        folder: where reports lie.
        name: of the benchmark.
        facts: as `about` gives them.
        rates: tokens/s of each way, one number a round.
        against: the way that each way is divided by.
        notes: further lines.
    """
    ratios = {
        f"{way} / {other}": [a / b for a, b in zip(rates[way], rates[other], strict=True)]
        for other, way in against.items()
    }
    lines = heading(name, facts)
    lines += ["", "| way | tokens/s, median | min | max |", "|---|---|---|---|"]
    for way, values in rates.items():
        middle = statistics.median(values)
        lines.append(f"| {way} | {middle:.0f} | {min(values):.0f} | {max(values):.0f} |")
    lines += ["", "| ratio, same round | median | min | max |", "|---|---|---|---|"]
    for ratio, values in ratios.items():
        middle = statistics.median(values)
        lines.append(f"| {ratio} | {middle:.2f} | {min(values):.2f} | {max(values):.2f} |")
    lines += [line for note in notes for line in ("", note)]
    data = {"about": dict(facts), "tokens_per_second": rates, "ratios": ratios, "notes": notes}
    write(folder, f"{facts['date']}-{name}", lines, data)


def write(folder: Path, stem: str, lines: Sequence[str], data: object) -> None:
    """Print a report and write it as Markdown and JSON."""
    text = "\n".join(lines) + "\n"
    print(text)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}.md").write_text(text)
    (folder / f"{stem}.json").write_text(json.dumps(data, indent=1) + "\n")


def _version(program: str) -> str | None:
    try:
        return importlib.metadata.version(program)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _gpus() -> str:
    import torch

    if not torch.cuda.is_available():
        return "no GPU"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
