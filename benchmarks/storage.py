"""How fast story vectors go to a store and come back, against plain files, in one run.

    python -m benchmarks.storage [--root s3://bucket/folder] [--texts 2048] [--rounds 5]

A store as a run makes it (checksums, zstd, an inner chunk for each window and layer) is set against
`numpy.save` of the same shards, and one layer read back from all shards against reading whole files
of which that layer is a part. With --root the store is in an object store, too.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.report import about, heading, write
from store.corpus import Text
from store.places import Far, Place, delete_objects, place, sizes
from store.residuals import ShardBlock, create_residuals, open_residuals, write_shard
from store.shards import n_shards, shard_span

WINDOWS = ("all", "no-first", "after-50")
PROGRAMS = ("zarr", "numpy", "obstore")


def main() -> None:
    """Measure, print and write a report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", help="an object store's address")
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    places = {"folder": None, **({"object store": options.root} if options.root else {})}
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        blocks = _blocks(options.texts, options.layers, options.width)
        megabytes = sum(block.residual_mean.nbytes for block in blocks) / 1e6
        for number in range(options.rounds + 1):
            found = _plain(Path(temporary), blocks)
            for name, root in places.items():
                where = place(root) / "bench" if root else Path(temporary) / "residuals.zarr"
                found |= _store(name, where, blocks, options)
                if isinstance(where, Far):
                    delete_objects(where, list(sizes(where)))
            for way, seconds in found.items():
                part = megabytes if "write" in way else megabytes / 3 / options.layers
                if number:  # the first round warms up
                    rates.setdefault(way, []).append(part / seconds)
    command = f"python -m benchmarks.storage --texts {options.texts} --rounds {options.rounds}"
    work = (
        f"{options.texts:,} texts, {options.layers} layers, d_model {options.width:,}, three "
        f"windows: {megabytes:,.0f} MB of float32 noise, which does not compress"
    )
    facts = about(command + (" --root ..." if options.root else ""), work, PROGRAMS)
    lines = heading("storage", facts)
    lines += ["", "| way | MB/s, median | min | max |", "|---|---|---|---|"]
    for way, values in rates.items():
        middle, low, high = np.median(values), min(values), max(values)
        lines.append(f"| {way} | {middle:,.0f} | {low:,.0f} | {high:,.0f} |")
    lines += ["", "A layer's rate counts that layer's bytes only."]
    write(options.out, f"{facts['date']}-storage", lines, {"about": facts, "rates": rates})


def _blocks(n_texts: int, n_layers: int, width: int) -> list[ShardBlock]:
    """Return shards of noise as a reader would hand them over."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "shape.zarr"
        create_residuals(folder, _texts(n_texts), WINDOWS, range(n_layers), width, {})
        spans = [len(shard_span(folder, shard)) for shard in range(n_shards(folder))]
    return [
        ShardBlock(
            residual_mean=rng.standard_normal((n, 3, n_layers, width), dtype=np.float32),
            token_count=np.full((n, 3), 150, dtype=np.int32),
            text_tokens=np.full(n, 200, dtype=np.int32),
            peak_norm=np.ones((n, n_layers), dtype=np.float32),
            peak_position=np.zeros((n, n_layers), dtype=np.int32),
            mean_norm=np.ones((n, n_layers), dtype=np.float32),
            first_norm=np.ones((n, n_layers), dtype=np.float32),
            mean_square=np.ones((n_layers, width), dtype=np.float32),
        )
        for n in spans
    ]


def _texts(n: int) -> list[Text]:
    return [Text(f"e/0/{i}", "emotion", "e", "t", i, "x") for i in range(n)]


def _plain(folder: Path, blocks: list[ShardBlock]) -> dict[str, float]:
    started = time.perf_counter()
    for number, block in enumerate(blocks):
        np.save(folder / f"{number}.npy", block.residual_mean)
    written = time.perf_counter()
    for number in range(len(blocks)):
        np.load(folder / f"{number}.npy", allow_pickle=False)[:, 1, 3]
    ended = time.perf_counter()
    return {"numpy.save, write": written - started, "numpy.load, a layer": ended - written}


def _store(
    name: str, where: Place, blocks: list[ShardBlock], options: argparse.Namespace
) -> dict[str, float]:
    if isinstance(where, Path):
        shutil.rmtree(where, ignore_errors=True)
    create_residuals(
        where, _texts(options.texts), WINDOWS, range(options.layers), options.width, {}
    )
    started = time.perf_counter()
    for shard, block in enumerate(blocks):
        write_shard(where, shard, block)
    written = time.perf_counter()
    layer = open_residuals(where, as_dask=False)["residual_mean"][:, 1, 3].to_numpy()
    ended = time.perf_counter()
    assert np.array_equal(layer, np.concatenate([b.residual_mean[:, 1, 3] for b in blocks]))
    return {f"{name}, write": written - started, f"{name}, a layer": ended - written}


if __name__ == "__main__":
    main()
