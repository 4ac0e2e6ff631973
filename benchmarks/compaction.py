"""Memory and time to turn the largest published corpus' journal into Parquet.

205,200 stories (171 emotions, 100 topics, 12 stories each; arXiv 2609.22208) of random words; the
replay of the journal, the search for near-duplicates and the sealing, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from benchmarks.report import about, heading, write
from engine.generation.demand import Demand
from engine.generation.duplicates import near_duplicates
from manifests import load_study
from store.corpus import seal_corpus
from store.journal import Journal, journal_rows

N_STORIES = 171 * 100 * 12
WORDS_EACH = 135
PROGRAMS = ("datasketch", "numpy", "pyarrow")
STEPS = ("replay", "duplicates", "seal")


def write_large_study(folder: Path) -> tuple[Path, Path]:
    """Write a manifest of 205,200 stories and a journal in which all are kept, out of order."""
    generate = {
        "model": "writer",
        "topics_per_emotion": "all",
        "stories_per_topic": 12,
        "stories_per_prompt": 1,
        "neutral": 0,
    }
    manifest = {
        "version": 1,
        "name": "large",
        "models": {"writer": {"builtin": "smollm2-135m"}},
        "corpora": {"own": {"generate": generate}},
        "analysis": {"contrasts": ["mean-centered"]},
    }
    file = folder / "manifest.yaml"
    file.write_text(yaml.safe_dump(manifest))
    demand = Demand("own", load_study(file).writing["own"])
    rng = random.Random(0)
    words = [f"{chr(97 + i % 26)}{i:x}" for i in range(20_000)]
    requests = demand.replay([])
    rng.shuffle(requests)
    with Journal(folder / "journal.jsonl", "large") as journal:
        for request in requests:
            story = " ".join(rng.choices(words, k=WORDS_EACH)) + "."
            row = {
                "request": request.id,
                "attempt": 0,
                "seed": 0,
                "outcome": "kept",
                "reason": "",
                "checks": demand.checks_id,
                "stories": [story],
                "reply": story,
                "finish_reason": "stop",
            }
            journal.append(row)
    return file, folder / "journal.jsonl"


def main() -> None:
    """Measure each step in a process of its own, print and write a report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        return _step(options.step, options.folder)
    with tempfile.TemporaryDirectory() as temporary:
        write_large_study(Path(temporary))
        size = (Path(temporary) / "journal.jsonl").stat().st_size
        found = {}
        for step in STEPS:
            command = [sys.executable, "-m", "benchmarks.compaction", "--step", step]
            done = subprocess.run(
                [*command, "--folder", temporary], check=True, capture_output=True, text=True
            )
            found[step] = json.loads(done.stdout)
    facts = about(
        "python -m benchmarks.compaction", f"{N_STORIES:,} stories, {size / 1e6:,.0f} MB", PROGRAMS
    )
    lines = heading("compaction", facts)
    lines += ["", "| step (and what it needs of the ones before) | s | peak resident memory, MB |"]
    lines += ["|---|---|---|"]
    lines += [f"| {k} | {f['seconds']:.0f} | {f['bytes'] / 1e6:,.0f} |" for k, f in found.items()]
    write(options.out, f"{facts['date']}-compaction", lines, {"about": facts, "steps": found})
    return None


def _step(step: str, folder: Path) -> None:
    """Replay the journal, then do one step, and print seconds of the step and peak memory."""
    journal = folder / "journal.jsonl"
    demand = Demand("own", load_study(folder / "manifest.yaml").writing["own"])
    started = time.perf_counter()
    demand.replay(journal_rows(journal, demand.oddity))
    if step == "duplicates":
        started = time.perf_counter()
        near_duplicates(demand.kept(journal), 0.5)
    elif step == "seal":
        started = time.perf_counter()
        seal_corpus(folder / "stories.parquet", demand.texts(journal))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "bytes": peak}))


if __name__ == "__main__":
    main()
