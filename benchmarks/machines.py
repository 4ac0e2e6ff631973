"""What Dask costs over a plain loop, and how reading grows with workers and with models.

    python -m benchmarks.machines [--texts 3072] [--rounds 5] [--workers 1 2 4] [--models 1 2 4]

The same shards are read by one child process, asked for two shards at a time by two threads, and
through Dask as a run does it, in turn within each round, every other one backwards; the model is
loaded before. Then whole runs (`emovec extract`) over one corpus: with several processes that read,
and with several models one after another.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from benchmarks.random_models import builtin_folder, write_random_model
from benchmarks.report import about, heading, write
from engine import tasks
from engine.child import Child
from engine.dealing import SHARDS_IN_HAND, Dealer
from engine.device import child_environment
from engine.machines.local import local_cluster
from engine.machines.workers import new_run
from manifests.schema import Extraction
from store.corpus import Text, seal_corpus
from store.layout import Layout
from store.records import read_record
from store.residuals import create_residuals
from store.shards import n_shards

WORDS = ("rain", "walked", "home", "past", "lit", "windows", "and", "closed", "doors", "slowly")
EMOTIONS = ("happy", "calm", "sad", "angry")
PROGRAMS = ("torch", "transformers", "transformer-lens", "zarr", "dask")
D_MODEL, LAYERS = 512, 4


def main() -> None:
    """Measure, print and write a report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=int, default=3072)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--models", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_random_model(folder / "model", "small", builtin_folder())
        texts = _texts(options.texts)
        ratios = _overhead(folder, texts, options.rounds)
        by_workers = [_whole(folder, texts, {}, workers=n) for n in options.workers]
        by_models = [_whole(folder, texts, {"models": n}, workers=1) for n in options.models]
    command = f"python -m benchmarks.machines --texts {options.texts} --rounds {options.rounds}"
    work = f"random Llama, d_model {D_MODEL}, {LAYERS} blocks, {options.texts:,} texts, float32"
    facts = about(command, work, PROGRAMS)
    middle = statistics.median(ratios)
    lines = heading("machines", facts)
    lines += [
        "",
        f"Through Dask / plain loop, seconds, same round: median {middle:.3f}, "
        f"{min(ratios):.3f} to {max(ratios):.3f} (aim at most 1.02).",
        "",
        "| processes that read | tokens/s | of one |",
        "|---|---|---|",
    ]
    for n, row in zip(options.workers, by_workers, strict=True):
        share = row["rate"] / by_workers[0]["rate"]
        lines.append(f"| {n} | {row['rate']:,.0f} | {share:.2f} |")
    lines += ["", "| models, one after another | whole run, s | s a model |", "|---|---|---|"]
    for n, row in zip(options.models, by_models, strict=True):
        lines.append(f"| {n} | {row['seconds']:.0f} | {row['seconds'] / n:.0f} |")
    data = {"about": facts, "ratios": ratios, "workers": by_workers, "models": by_models}
    write(options.out, f"{facts['date']}-machines", lines, data)


def _texts(n: int) -> list[Text]:
    rng = random.Random(n)
    return [
        Text(f"{i}", "emotion", EMOTIONS[i % 4], "rain", i,
             " ".join(rng.choice(WORDS) for _ in range(rng.randint(20, 60))))
        for i in range(n)
    ]  # fmt: skip


class _Cell:
    """A store to fill, as `engine.dealing` wants it."""

    holds, size, ended = "small", None, False

    def __init__(self, folder: Path, texts: list[Text]):
        self.store = folder / "residuals.zarr"
        self._corpus = folder / "corpus.parquet"
        extraction = Extraction()
        layers = list(range(-1, LAYERS))
        if not self._corpus.exists():
            seal_corpus(self._corpus, texts)
        windows = [window.name for window in extraction.windows]
        create_residuals(self.store, texts, windows, layers, D_MODEL, {})
        self.job = {
            "stage": "extract:bench",
            "log": str(folder / "read.log"),
            "model": {
                "folder": str(folder / "model"),
                "trust_remote_code": False,
                "tensor_parallel_size": 1,
                "gpu_memory_utilization": 0.9,
            },
            "extraction": {**extraction.model_dump(mode="json"), "layers": layers},
            "corpus": str(self._corpus),
            "residuals": str(self.store),
        }

    def begin(self) -> list[int]:
        return list(range(n_shards(self.store)))

    def task(self, shard: int) -> tuple[Any, ...]:
        return tasks.read_shard, {**self.job, "shard": shard}

    def take(self, figures: dict[str, Any]) -> None:
        pass

    def progress(self) -> int:
        return 0

    def end(self) -> None:
        pass

    def fail(self, error: Exception) -> None:
        raise error


def _overhead(folder: Path, texts: list[Text], rounds: int) -> list[float]:
    """Return the seconds through Dask over those of a plain loop, for each round."""
    child = Child(folder / "child.log", child_environment())
    with local_cluster(new_run(()), lambda event: None) as workers:

        def plain() -> float:
            cell = _Cell(folder, texts)
            started = time.perf_counter()
            with ThreadPoolExecutor(SHARDS_IN_HAND) as pool:
                jobs = [{**cell.job, "shard": shard} for shard in cell.begin()]
                list(pool.map(lambda job: child.call("read", job, lambda event: None), jobs))
            return time.perf_counter() - started

        def through_dask() -> float:
            cell = _Cell(folder, texts)
            started = time.perf_counter()
            Dealer(workers, [cell], SHARDS_IN_HAND).deal(print)
            return time.perf_counter() - started

        ratios = []
        for number in range(rounds + 1):
            ways = [plain, through_dask] if number % 2 else [through_dask, plain]
            seconds = {way.__name__: way() for way in ways}
            if number:  # the first round loads the models
                ratios.append(seconds["through_dask"] / seconds["plain"])
                print({name: round(s, 2) for name, s in seconds.items()}, flush=True)
    child.stop()
    return ratios


def _whole(folder: Path, texts: list[Text], what: dict[str, int], workers: int) -> dict[str, float]:
    """Run `emovec extract` and return seconds, and tokens/s of the first cell."""
    home = Path(tempfile.mkdtemp(dir=folder))
    with (home / "stories.jsonl").open("w") as stream:
        for text in texts:
            row = {"emotion": text.emotion, "topic": text.topic, "stories": [text.text]}
            stream.write(json.dumps(row) + "\n")
    models = {}
    for number in range(what.get("models", 1)):
        own = folder / f"model-{number}"
        if not own.exists():
            shutil.copytree(folder / "model", own)
        models[f"small-{number}"] = {"path": str(own)}
    manifest = {
        "version": 1,
        "name": "bench",
        "models": models,
        "corpora": {"own": {"import": {"stories": "stories.jsonl"}}},
        "extraction": {"workers": workers},
        "analysis": {"contrasts": ["mean-centered"]},
    }
    (home / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    command = [sys.executable, "-m", "engine.cli", "extract", str(home / "manifest.yaml")]
    started = time.perf_counter()
    subprocess.run([*command, "--root", str(home)], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    record = read_record(Layout(home, "bench").record("extract", "small-0@own"))
    assert record is not None
    shutil.rmtree(home)
    print({**what, "workers": workers, "seconds": round(seconds, 1)}, flush=True)
    return {"seconds": seconds, "rate": record.figures["tokens_per_second"]}


if __name__ == "__main__":
    main()
