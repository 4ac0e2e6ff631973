"""What analysing a cell of the paper's size costs, and the CKA grid against the released way.

    python -m benchmarks.analysis [--texts 1579] [--layers 32] [--width 4096]

Makes a store of random story vectors (171 emotions with nine stories each on three topics, and
neutral texts), then analyses it as `emovec analyze` does: every window and layer, two contrasts,
all estimators, 1,000 draws of stories and of emotions, 10,000 permutations, in Dask processes on
this machine's cores. The CKA grid from Gram matrices is set against products of d by d matrices
pair by pair, of which some pairs are timed.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import xarray as xr

from analysis.baselines import corpus_baselines
from analysis.settings import Settings
from analysis.similarity import cka_grid, gram
from benchmarks.report import about, heading, write
from engine.analyses import submit_analysis
from engine.machines.local import analysis_processes, local_cluster
from engine.machines.workers import WORTH_PROCESSES, new_run
from engine.tasks import AnalysedCell, model_tables, write_tables
from manifests.norms import Norms
from store.corpus import Text
from store.residuals import ShardBlock, create_residuals, open_residuals, write_shard
from store.results import write_analysis
from store.shards import n_shards, shard_span

WINDOWS = ("all", "no-first", "after-50")
EMOTIONS = 171
PAIRS = 3
PROGRAMS = ("numpy", "scipy", "dask", "zarr")


def main() -> None:
    """Measure, print and write a report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=int, default=1579)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--cells", type=int, default=1)
    parser.add_argument("--norms", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        store = Path(temporary) / "residuals.zarr"
        # In a process of its own: what making leaves in memory is no part of an analysis.
        shape = (store, options.texts, options.layers, options.width)
        maker = multiprocessing.get_context("spawn").Process(target=_make, args=shape)
        maker.start()
        maker.join()
        if maker.exitcode:
            raise SystemExit(f"the store could not be made (exit code {maker.exitcode})")
        with Memory() as memory:
            seconds, tables = _analyse(store, Path(temporary), options.cells, options.norms)
    peak = memory.peak / 2**30
    ours, theirs = _cka(options.layers - 1, options.width)
    command = (
        f"python -m benchmarks.analysis --texts {options.texts} --layers {options.layers} "
        f"--width {options.width} --cells {options.cells} --norms {options.norms}"
    )
    work = (
        f"{options.texts:,} texts, {EMOTIONS} emotions, {options.layers} layers, d_model "
        f"{options.width:,}, three windows, two contrasts, {options.norms} set(s) of norms, 1,000 "
        "draws of stories and of emotions, 10,000 permutations"
    )
    facts = about(command, work, PROGRAMS)
    lines = heading("analysis", facts)
    lines += [
        "",
        "| what | figure |",
        "|---|---|",
        f"| a cell, reading included, mean of {options.cells} | {seconds / options.cells:.1f} s |",
        f"| all tables of {options.cells} cells | {tables:.1f} s |",
        f"| peak memory over all processes (PSS) | {peak:.2f} GiB |",
        f"| CKA grid of {options.layers - 1} layers from Gram matrices | {ours:.3f} s |",
        f"| the same by products of d by d, {PAIRS} pairs timed | {theirs:.0f} s |",
        f"| ratio | {theirs / ours:,.0f} |",
    ]
    figures = {
        "cells": options.cells,
        "cells_s": seconds,
        "tables_s": tables,
        "peak_gib": peak,
        "cka_s": ours,
        "cka_d_by_d_s": theirs,
    }
    write(options.out, f"{facts['date']}-analysis", lines, {"about": facts, **figures})


def _make(store: Path, n_texts: int, n_layers: int, width: int) -> None:
    """Write a store of random story vectors with ratings along two axes."""
    rng = np.random.default_rng(0)
    per_emotion = (n_texts - 40) // EMOTIONS
    texts = [
        Text(f"e{e}/{s // 3}/{s % 3}", "emotion", f"e{e}", "t", s % 3, "x")
        for e in range(EMOTIONS)
        for s in range(per_emotion)
    ]
    texts += [Text(f"neutral-{i}", "neutral", None, "t", 0, "x") for i in range(40)]
    attributes = {"n_layers": n_layers, "extraction": {"max_tokens": 512}}
    create_residuals(store, texts, WINDOWS, range(-1, n_layers - 1), width, attributes)
    for shard in range(n_shards(store)):
        n = len(shard_span(store, shard))
        by_layer = np.ones((n, n_layers), dtype=np.float32)
        block = ShardBlock(
            residual_mean=rng.standard_normal((n, len(WINDOWS), n_layers, width), dtype=np.float32),
            token_count=np.full((n, len(WINDOWS)), 150, dtype=np.int32),
            text_tokens=np.full(n, 200, dtype=np.int32),
            peak_norm=3 * by_layer,
            peak_position=np.zeros((n, n_layers), dtype=np.int32),
            mean_norm=by_layer,
            first_norm=by_layer,
            mean_square=np.ones((n_layers, width), dtype=np.float32),
        )
        write_shard(store, shard, block)


def _analyse(store: Path, folder: Path, n_cells: int, n_norms: int) -> tuple[float, float]:
    """Return the seconds that so many cells take at once, and their tables after them."""
    rng = np.random.default_rng(1)
    ratings = {f"norms-{n}": rng.normal(size=(EMOTIONS, 2)) for n in range(n_norms)}
    settings = Settings(("neutral-pca", "mean-centered"), 0.5, ratings)
    tables = folder / "tables"
    n_tasks = len(WINDOWS) * open_residuals(store).sizes["layer"]
    with (
        local_cluster(new_run(()), lambda event: None) as here,
        analysis_processes(here, n_tasks, lambda event: None, WORTH_PROCESSES) as analysts,
    ):
        started = time.perf_counter()
        running = [
            submit_analysis(analysts, store, folder / f"analysis-{cell}.zarr", settings, {})
            for cell in range(n_cells)
        ]
        while running:
            running.pop(0).joined.result()
        analysed = time.perf_counter() - started
        words = folder / "words.zarr"
        write_analysis(words, _words(settings))
        cells = [
            AnalysedCell(
                *("m", f"corpus-{cell}", str(cell) * 64, str(folder / f"analysis-{cell}.zarr")),
                *(str(words), None, None),
            )
            for cell in range(n_cells)
        ]
        parts = [here.do(model_tables, cells, "m", 0)]
        here.do(write_tables, cells, parts, str(tables))
        return analysed, time.perf_counter() - started - analysed


class Memory:
    """Watches the memory of this process and its children, shared pages counted once (PSS)."""

    def __init__(self) -> None:
        self.peak = 0
        self._done = threading.Event()
        self._watch = threading.Thread(target=self._run)

    def __enter__(self) -> Memory:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watch.join()

    def _run(self) -> None:
        own = psutil.Process()
        while not self._done.wait(0.2):
            total = 0
            for process in [own, *own.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    total += process.memory_full_info().pss
            self.peak = max(self.peak, total)


def _words(settings: Settings) -> xr.Dataset:
    """Return what words give a corpus that has none."""
    texts = [Text(f"e{e}/0/0", "emotion", f"e{e}", "t", 0, f"w{e} w{e + 1}") for e in range(9)]
    few = replace(settings, ratings={key: value[:9] for key, value in settings.ratings.items()})
    norms = [
        Norms(name, Path(name), {f"e{e}": (float(v), float(a)) for e, (v, a) in enumerate(rows)}, 0)
        for name, rows in few.ratings.items()
    ]
    return corpus_baselines(texts, [f"e{e}" for e in range(9)], norms, few)


def _cka(n_layers: int, width: int) -> tuple[float, float]:
    """Return the seconds of a grid of layers: from Gram matrices, and by d by d products."""
    rng = np.random.default_rng(2)
    x_LED = rng.normal(size=(n_layers, EMOTIONS, width))
    started = time.perf_counter()
    grams = np.array([gram(x_ED) for x_ED in x_LED])
    grid = cka_grid(grams, grams)
    ours = time.perf_counter() - started
    started = time.perf_counter()
    for pair in range(PAIRS):
        x, y = (v - v.mean(axis=0) for v in (x_LED[0], x_LED[1 + pair]))
        cross, own, other = (np.linalg.norm(a.T @ b) ** 2 for a, b in ((x, y), (x, x), (y, y)))
        found = cross / np.sqrt(own * other)
        if abs(found - grid[0, 1 + pair]) > 1e-8:
            raise SystemExit(f"the two ways disagree: {found} and {grid[0, 1 + pair]}")
    return ours, (time.perf_counter() - started) / PAIRS * n_layers**2


if __name__ == "__main__":
    main()
