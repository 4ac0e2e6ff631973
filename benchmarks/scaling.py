"""How reading grows with the corpus: time for each token, and memory, at several numbers of texts.

    python -m benchmarks.scaling [--texts 1000 4000 16000 20000]

Runs the whole program (`emovec extract`) on a small random model and random texts of equal length
distribution, one run for each size in a fresh folder, and samples the resident memory of all its
processes together.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml

from benchmarks.random_models import builtin_folder, write_random_model
from benchmarks.report import about, heading, write
from store.layout import Layout
from store.records import read_record

WORDS = ("rain", "walked", "home", "past", "lit", "windows", "and", "closed", "doors", "slowly")
EMOTIONS = ("happy", "calm", "sad", "angry")
SAMPLE_SECONDS = 0.2
PROGRAMS = ("torch", "transformers", "transformer-lens", "zarr", "dask")


def main() -> None:
    """Measure, print and write a report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=int, nargs="+", default=[1000, 4000, 16_000, 20_000])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_random_model(folder / "model", "small", builtin_folder())
        for n_texts in options.texts:
            rows.append(_run(folder, n_texts))
            print(rows[-1], flush=True)
    sizes = " ".join(map(str, options.texts))
    work = "random Llama, d_model 512, 4 blocks and the embedding output, three windows, float32"
    facts = about(f"python -m benchmarks.scaling --texts {sizes}", work, PROGRAMS)
    lines = heading("scaling", facts)
    lines += [
        "",
        "| texts | tokens | reading, s | us a token | whole run, s | written, MB | peak, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['texts']:,} | {row['tokens']:,} | {row['reading_s']:.0f} | "
            f"{1e6 * row['reading_s'] / row['tokens']:.0f} | {row['whole_s']:.0f} | "
            f"{row['written_mb']:.0f} | {row['peak_mb']:.0f} |"
        )
    lines += [
        "",
        "Memory is the sum over all processes of the run, pages they share counted twice.",
    ]
    write(options.out, f"{facts['date']}-scaling", lines, {"about": facts, "rows": rows})


def _run(folder: Path, n_texts: int) -> dict[str, float]:
    """Run once over a corpus of this many texts and return what it took."""
    home = folder / str(n_texts)
    home.mkdir()
    rng = random.Random(n_texts)
    with (home / "stories.jsonl").open("w") as stream:
        for number in range(n_texts):
            story = " ".join(rng.choice(WORDS) for _ in range(rng.randint(20, 60)))
            row = {"emotion": EMOTIONS[number % 4], "topic": "rain", "stories": [story]}
            stream.write(json.dumps(row) + "\n")
    manifest = {
        "version": 1,
        "name": "scaling",
        "models": {"small": {"path": str(folder / "model")}},
        "corpora": {"own": {"import": {"stories": "stories.jsonl"}}},
        "analysis": {"contrasts": ["mean-centered"]},
    }
    (home / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    command = [sys.executable, "-m", "engine.cli", "extract", str(home / "manifest.yaml")]
    started, peak = time.perf_counter(), 0
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--root", str(home)], stdout=log, stderr=log)
        while process.poll() is None:
            peak = max(peak, _resident(process.pid))
            time.sleep(SAMPLE_SECONDS)
    if process.returncode:
        raise SystemExit((home / "log").read_text())
    whole = time.perf_counter() - started
    record = read_record(Layout(home, "scaling").record("extract", "small@own"))
    assert record is not None
    figures = record.figures
    return {
        "texts": n_texts,
        "tokens": figures["tokens"],
        "reading_s": figures["tokens"] / figures["tokens_per_second"],
        "whole_s": whole,
        "written_mb": figures["bytes"] / 1e6,
        "peak_mb": peak / 1e6,
    }


def _resident(pid: int) -> int:
    """Return the resident memory of a process and all below it, in bytes."""
    total = 0
    try:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            total += process.memory_info().rss
    except psutil.Error:
        pass
    return total


if __name__ == "__main__":
    main()
