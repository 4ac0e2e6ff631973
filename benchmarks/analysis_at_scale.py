"""Analysis of a store larger than memory: time with one worker and with two, memory, agreement.

    python -m benchmarks.analysis_at_scale [--gigabytes 48] [--layers 36] [--width 4096]

Makes a store of one window, with as many stories (171 emotions, 100 topics) as fill the gigabytes:
noise that differs from text to text, around a vector of each emotion, layer and topic. It is then
analysed as `emovec analyze --scheduler` does, on worker processes of one thread each. Two layers
are analysed again with all their vectors in memory: every number must agree, and Gram matrices and
the share of variance between emotions with plain numpy as well.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import dask
import numpy as np
import psutil
import xarray as xr
import zarr
from distributed import Client, LocalCluster

from analysis.cell import join_layers
from analysis.contrasts import emotion_names
from analysis.layer import analyse_layer
from analysis.settings import Settings
from benchmarks.report import about, heading, write
from engine.analyses import submit_analysis
from engine.machines.workers import Workers, new_run
from store.corpus import Text
from store.residuals import ShardBlock, create_residuals, open_residuals, write_shard
from store.results import open_analysis
from store.shards import n_shards, shard_span

EMOTIONS, TOPICS, STORIES, NEUTRAL = 171, 100, 12, 1000
POOL = 1 << 24
"""Random numbers that the noise is cut from, at a random place for each text."""
CHECKED = 2
"""Layers that are computed again in memory."""
TOLERANCE = 1e-6
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": None, "OMP_NUM_THREADS": 1}
"""Dask has workers give freed memory back at once, which makes large arrays 1.6 times slower."""
PROGRAMS = ("numpy", "scipy", "dask", "zarr")


def main() -> None:
    """Measure, print and write a report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=48)
    parser.add_argument("--layers", type=int, default=36)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--store", type=Path, help="keep the store here, or use the one that is")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        store = options.store or Path(temporary) / "residuals.zarr"
        if not store.is_dir():
            _make(store, options.gigabytes, options.layers, options.width)
        figures = [_analyse(store, Path(temporary), n) for n in options.workers]
        worst = _check(store, Path(temporary) / "analysis.zarr")
        cell = open_residuals(store, as_dask=False)
        n_texts = cell.sizes["text"]
        size = sum(file.stat().st_size for file in store.rglob("*") if file.is_file()) / 1e9
    memory = psutil.virtual_memory().total / 1e9
    command = (
        f"python -m benchmarks.analysis_at_scale --gigabytes {options.gigabytes:g} "
        f"--layers {options.layers} --width {options.width}"
    )
    work = (
        f"{n_texts:,} texts, {options.layers} layers, d_model {options.width:,}, one window, two "
        f"contrasts: {size:.1f} GB on disk, {size / memory:.1f} times the machine's memory"
    )
    facts = about(command, work, PROGRAMS)
    lines = heading("analysis of a store larger than memory", facts)
    lines += ["", "| workers | seconds | MB/s | peak of a worker, GiB |", "|---|---|---|---|"]
    lines += [
        f"| {f['workers']} | {f['seconds']:.0f} | {1000 * size / f['seconds']:.0f} | "
        f"{f['peak_gib']:.2f} |"
        for f in figures
    ]
    speedup = figures[0]["seconds"] / figures[-1]["seconds"]
    lines += [
        "",
        f"Speed-up from {figures[0]['workers']} to {figures[-1]['workers']}: {speedup:.2f}. "
        f"Every number of {CHECKED} layers analysed again with all vectors in memory: largest"
        f" relative difference {worst:.1e}.",
    ]
    name = f"{facts['date']}-analysis-at-scale"
    write(options.out, name, lines, {"about": facts, "runs": figures, "difference": worst})


def _make(store: Path, gigabytes: float, n_layers: int, width: int) -> None:
    """Write a store whose stories have an emotion's and a topic's vector, and noise."""
    rng = np.random.default_rng(0)
    wanted = int(gigabytes * 1e9 / (n_layers * width * 4)) - NEUTRAL
    stories = [
        Text(f"e{e:03d}/{t:03d}/{s}", "emotion", f"e{e:03d}", str(t), s, "x")
        for e in range(EMOTIONS)
        for t in range(TOPICS)
        for s in range(max(1, min(STORIES, wanted // (EMOTIONS * TOPICS))))
    ]
    texts = stories + [
        Text(f"neutral-{i:04d}", "neutral", None, None, 0, "x") for i in range(NEUTRAL)
    ]
    attributes = {"n_layers": n_layers, "extraction": {"max_tokens": 512}}
    create_residuals(store, texts, ["no-first"], range(n_layers), width, attributes)
    pool = rng.standard_normal(POOL, dtype=np.float32)
    emotion_ELD = 0.3 * rng.standard_normal((EMOTIONS, n_layers, width), dtype=np.float32)
    topic_TLD = 0.2 * rng.standard_normal((TOPICS, n_layers, width), dtype=np.float32)
    for shard in range(n_shards(store)):
        rows = shard_span(store, shard)
        starts = rng.integers(0, POOL - n_layers * width, len(rows))
        x = np.stack([pool[s : s + n_layers * width] for s in starts])
        x = x.reshape(len(rows), n_layers, width)
        for at, row in enumerate(rows):
            text = texts[row]
            if text.emotion is not None:
                x[at] += emotion_ELD[int(text.emotion[1:])] + topic_TLD[int(str(text.topic))]
        by_layer = np.ones((len(rows), n_layers), dtype=np.float32)
        block = ShardBlock(
            residual_mean=x[:, None],
            token_count=np.full((len(rows), 1), 150, dtype=np.int32),
            text_tokens=np.full(len(rows), 200, dtype=np.int32),
            peak_norm=3 * by_layer,
            peak_position=np.zeros((len(rows), n_layers), dtype=np.int32),
            mean_norm=by_layer,
            first_norm=by_layer,
            mean_square=np.ones((n_layers, width), dtype=np.float32),
        )
        write_shard(store, shard, block)


def _analyse(store: Path, folder: Path, n_workers: int) -> dict[str, Any]:
    """Return seconds and the peak memory of a worker, the cluster's start not counted."""
    settings = _settings()
    target = folder / "analysis.zarr"
    shutil.rmtree(target, ignore_errors=True)
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": KEEP_MEMORY}),
        LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            memory_limit=0,
            dashboard_address=None,
        ) as cluster,
        Client(cluster) as client,
    ):
        started = time.perf_counter()
        workers = Workers(client, new_run(()), lambda event: None)
        submit_analysis(workers, store, target, settings, {}).joined.result()
        seconds = time.perf_counter() - started
        peaks = client.run(_peak)
    peak = max(peaks.values())
    print(f"{n_workers} workers: {seconds:.0f} s, {peak:.2f} GiB", flush=True)
    return {"workers": n_workers, "seconds": seconds, "peak_gib": peak}


def _settings() -> Settings:
    ratings = np.random.default_rng(1).normal(size=(EMOTIONS, 2))
    return Settings(("neutral-pca", "mean-centered"), 0.5, {"made": ratings})


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _check(store: Path, analysis: Path) -> float:
    """Return the largest relative difference from what is computed with a layer in memory."""
    cell, found = open_residuals(store, as_dask=False), open_analysis(analysis, as_dask=False)
    settings = _settings()
    labels = cell["emotion"].to_numpy()
    emotions = emotion_names(cell)
    array = zarr.open_group(store, mode="r")["residual_mean"]
    worst = 0.0
    for layer in np.linspace(0, cell.sizes["layer"] - 1, CHECKED).astype(int):
        x_ND = np.asarray(array[:, 0, int(layer), :])  # type: ignore[index]
        means = np.stack([x_ND[labels == e].mean(axis=0, dtype=np.float64) for e in emotions])
        centred = means - means.mean(axis=0)
        ours = found["gram"].sel(contrast="mean-centered").isel(window=0, layer=int(layer))
        theirs = centred @ centred.T
        worst = max(worst, float(np.abs(ours.to_numpy() - theirs).max() / np.abs(theirs).max()))
        stories = x_ND[labels != ""]
        grand = stories.mean(axis=0, dtype=np.float64)
        total = sum(float(np.square(row - grand).sum()) for row in np.array_split(stories, 64))
        sizes = np.array([(labels == e).sum() for e in emotions])
        between = float((sizes * np.square(means - grand).sum(axis=1)).sum()) / total
        share = float(found["variance_emotion_ss"].isel(window=0, layer=int(layer)))
        worst = max(worst, abs(share / between - 1))
        loaded = (
            cell[["residual_mean"]]
            .isel(layer=[int(layer)])
            .assign(residual_mean=(("text", "window", "layer", "d_model"), x_ND[:, None, None]))
        )
        window, number = str(cell["window"].to_numpy()[0]), int(cell["layer"].to_numpy()[layer])
        again = join_layers(
            {(window, number): analyse_layer(loaded, window, number, settings)},
            emotions,
            cell.sizes["layer"],
            settings,
        )
        worst = max(worst, _difference(again, found.sel(layer=[number], layer_b=[number])))
    if worst > TOLERANCE:
        raise SystemExit(f"the store and the computation in memory differ by {worst}")
    return worst


def _difference(a: xr.Dataset, b: xr.Dataset) -> float:
    """Return the largest difference of any numbers, relative to the largest of their kind."""
    worst = 0.0
    for name in a.data_vars:
        one, other = (d[name].transpose(*a[name].dims).to_numpy() for d in (a, b))
        if one.dtype.kind == "f":
            if not np.array_equal(np.isnan(one), np.isnan(other)):
                raise SystemExit(f"{name} is missing in other places")
            if np.isfinite(one).any():
                largest = np.nanmax(np.abs(one)) or 1.0
                worst = max(worst, float(np.nanmax(np.abs(one - other)) / largest))
        elif [str(v) for v in one.ravel()] != [str(v) for v in other.ravel()]:
            raise SystemExit(f"{name} differs")
    return worst


if __name__ == "__main__":
    main()
