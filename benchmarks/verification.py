"""How fast `emovec verify` reads a run, beside reading it only and taking its sha256 only.

    python -m benchmarks.verification [--texts 4000] [--rounds 5]

The run is a corpus of random words, imported, and random story vectors of SmolLM2-135M's shape,
written as reading writes them (three windows, 31 layers, 576 dimensions). Files are in the page
cache, so what is measured is the work, not the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tokenizers import Tokenizer

from benchmarks.random_models import builtin_folder
from benchmarks.report import about, heading, write
from engine.ledger import Ledger, resolved_manifest
from engine.plan import Plan, made_from
from engine.reading.windows import spans_of, window_counts
from engine.verification.look import Look
from manifests.resolve import load_study
from store.atomic import write_text
from store.corpus import read_corpus, seal_corpus
from store.digests import digests_of, write_digests
from store.layout import Layout
from store.places import sizes
from store.residuals import ShardBlock, create_residuals, write_shard
from store.shards import n_shards, shard_span

PROGRAMS = ("zarr", "numpy", "numcodecs", "google-crc32c")
WORDS = ("rain", "walked", "home", "past", "lit", "windows", "and", "closed", "doors", "slowly")
EMOTIONS = ("happy", "calm", "sad", "angry")
CELL = "smollm2@own"


def main() -> None:
    """Measure, print and write a report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        plan, layout = _make_run(Path(temporary), options.texts)
        ways: dict[str, Callable[[], object]] = {
            "read only": lambda: _read(layout),
            "sha256 only": lambda: digests_of(layout, sizes(layout.run)),
            "verify": lambda: _verify(plan, layout),
        }
        megabytes = sum(sizes(layout.run).values()) / 1e6
        rows: list[dict[str, Any]] = []
        for number in range(options.rounds):
            for name in list(ways)[:: -1 if number % 2 else 1]:
                rows.append({"round": number, "way": name, **_timed(ways[name], megabytes)})
                print(rows[-1], flush=True)
    command = f"python -m benchmarks.verification --texts {options.texts}"
    work = f"{options.texts:,} texts, {megabytes:,.0f} MB in all, files in the page cache"
    facts = about(f"{command} --rounds {options.rounds}", work, PROGRAMS)
    lines = [*heading("verification", facts), "", "| | MB/s | MB a CPU second |", "|---|---|---|"]
    for name in ways:
        mine = [row for row in rows if row["way"] == name]
        wall, cpu = ([row[key] for row in mine] for key in ("mb_s", "mb_cpu_s"))
        lines.append(
            f"| {name} | {np.median(wall):,.0f} ({min(wall):,.0f} to {max(wall):,.0f}) | "
            f"{np.median(cpu):,.0f} |"
        )
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    lines += ["", f"Median and range of the rounds. Load of the machine at the end: {load}."]
    write(options.out, f"{facts['date']}-verification", lines, {"about": facts, "rows": rows})


def _timed(work: Callable[[], object], megabytes: float) -> dict[str, float]:
    wall, cpu = time.monotonic(), time.process_time()
    work()
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    return {"mb_s": megabytes / wall, "mb_cpu_s": megabytes / cpu}


def _read(layout: Layout) -> None:
    buffer = bytearray(1 << 20)
    for key in sizes(layout.run):
        with (layout.run / key).open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass


def _verify(plan: Plan, layout: Layout) -> None:
    look = Look(plan, layout, lambda read, total: None)
    look.take()
    assert not look.report.findings, look.report.findings[:3]


def _make_run(folder: Path, n_texts: int) -> tuple[Plan, Layout]:
    """Write a corpus and story vectors with records and digests, as a run leaves them."""
    rng = random.Random(0)
    with (folder / "stories.jsonl").open("w") as stream:
        for number in range(n_texts):
            story = " ".join(rng.choice(WORDS) for _ in range(rng.randint(100, 200)))
            row = {"emotion": EMOTIONS[number % 4], "topic": "rain", "stories": [story]}
            stream.write(json.dumps(row) + "\n")
    manifest: dict[str, Any] = {
        "version": 1,
        "name": "verified",
        "models": {"smollm2": {"path": str(builtin_folder())}},
        "corpora": {"own": {"import": {"stories": "stories.jsonl"}}},
        "analysis": {"norms": ["glasgow"], "contrasts": ["mean-centered"]},
    }
    file = folder / "verified.yaml"
    file.write_text(yaml.safe_dump(manifest))
    plan, layout = Plan(load_study(file)), Layout(folder / "runs", "verified")
    write_text(layout.manifest, resolved_manifest(plan))
    listed = digests_of(layout, [layout.manifest.name])
    write_digests(layout.digests("manifest", "all"), "manifest:all", listed)
    ledger = Ledger(plan, layout, {}, lambda event: None)
    imported = plan.import_texts("own", layout, sealed=False)
    sealed = seal_corpus(layout.stories("own"), imported)
    stage = plan.stages["import:own"]
    ledger.finish(stage, time.monotonic(), {"texts": n_texts}, identity=sealed.identity)
    _write_vectors(ledger)
    return plan, layout


def _write_vectors(ledger: Ledger) -> None:
    plan, layout, stage = ledger.plan, ledger.layout, ledger.plan.stages[f"extract:{CELL}"]
    extraction = plan.study.manifest.extraction.model_dump(mode="json")
    texts, layers = read_corpus(layout.stories("own")).texts, plan.layers("smollm2")
    shape, folder = plan.shapes["smollm2"], layout.residuals(CELL)
    assert shape is not None
    assert layers is not None
    windows = [window["name"] for window in extraction["windows"]]
    origin = made_from(stage, ledger.inputs(stage))
    attributes = {"made_from": origin, "extraction": extraction, "n_layers": shape.n_layers}
    create_residuals(folder, texts, windows, layers, shape.d_model, attributes)
    tokenizer = Tokenizer.from_file(str(builtin_folder() / "tokenizer.json"))
    counts = [len(found.ids) for found in tokenizer.encode_batch([text.text for text in texts])]
    rng = np.random.default_rng(0)
    for shard in range(n_shards(folder)):
        span = shard_span(folder, shard)
        n, tokens = len(span), counts[span.start : span.stop]
        norms = np.ones((n, len(layers)), np.float32)
        block = ShardBlock(
            rng.standard_normal((n, len(windows), len(layers), shape.d_model), np.float32),
            window_counts(tokens, spans_of(extraction["windows"])),
            np.array(tokens, np.int32),
            norms,
            np.zeros((n, len(layers)), np.int32),
            norms,
            norms,
            np.ones((len(layers), shape.d_model), np.float32),
        )
        write_shard(folder, shard, block)
    ledger.finish(stage, time.monotonic(), {"texts": len(texts)})


if __name__ == "__main__":
    main()
