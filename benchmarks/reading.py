"""Reading emotion token by token against extracting story vectors, and how soon the first line is.

    python -m benchmarks.reading [--texts 64] [--rounds 5]

A cell of the built-in model, of one topic of each of 171 emotions, is extracted first. In each
round one process reads the same texts as extraction does (TransformerLens, all layers, three
windows) and as `emovec read` does, every score written as CSV, at the last layer and at all of
them; every other round goes backwards. Then `emovec read` is started anew for one sentence, with
the model in the machine's page cache and, where this may be emptied (as root on Linux), without.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from analysis.token_spread import WIDTHS
from benchmarks.report import about, heading, write

PROGRAMS = ("torch", "transformers", "transformer-lens")
CORPUS = Path("docs/results/corpora/smollm2-stories")
CELL = "smollm2-135m@stories"
EXTRACT, LAST, ALL = "extraction, all layers", "read, last layer", "read, all layers"
SENTENCE = "I sat alone in the kitchen and could not stop smiling at the letter."


def main() -> None:
    """Measure, print and write a report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = extracted(Path(temporary))
        rates = measured_rates(root, options.texts, options.rounds)
        starts = measured_starts(root, Path(temporary), options.rounds)
    command = f"python -m benchmarks.reading --texts {options.texts} --rounds {options.rounds}"
    work = f"smollm2-135m, float32, {options.texts} of our stories, 171 emotions, CSV"
    facts = about(command, work, PROGRAMS)
    lines = heading("reading", facts)
    lines += ["", "| way | tokens/s, median | min | max | of extraction |", "|---|---|---|---|---|"]
    for way, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(values, rates[EXTRACT], strict=True))
        middle = statistics.median(values)
        lines.append(
            f"| {way} | {middle:.0f} | {min(values):.0f} | {max(values):.0f} | {ratio:.2f} |"
        )
    lines += [
        "",
        "| first line of one sentence | seconds, median | min | max |",
        "|---|---|---|---|",
    ]
    for way, values in starts.items():
        middle = statistics.median(values)
        lines.append(f"| {way} | {middle:.1f} | {min(values):.1f} | {max(values):.1f} |")
    data = {"about": facts, "tokens_per_second": rates, "seconds_to_first_line": starts}
    write(options.out, f"{facts['date']}-reading", lines, data)


def extracted(folder: Path) -> Path:
    """Extract a cell of one topic of each emotion, and return the root of its run."""
    first: dict[str, str] = {}
    for line in (CORPUS / "stories.jsonl").read_text().splitlines():
        first.setdefault(json.loads(line)["emotion"], line)
    (folder / "stories.jsonl").write_text("\n".join(first.values()) + "\n")
    neutral = str((CORPUS / "neutral.jsonl").resolve())
    manifest = {
        "version": 1,
        "name": "reading",
        "models": {"smollm2-135m": {"builtin": "smollm2-135m"}},
        "corpora": {"stories": {"import": {"stories": "stories.jsonl", "neutral": neutral}}},
        "extraction": {"windows": ["no-first"], "dtype": "float32", "backend": "vllm"},
    }
    file = folder / "reading.yaml"
    file.write_text(yaml.safe_dump(manifest))
    command = [sys.executable, "-m", "engine.cli", "extract", str(file)]
    subprocess.run([*command, "--root", str(folder / "runs")], check=True)
    return folder / "runs"


def measured_rates(root: Path, n_texts: int, rounds: int) -> dict[str, list[float]]:
    """Return tokens per second of each way, one number a round."""
    from engine.detection.source import open_source
    from engine.detection.weights import make_weights
    from engine.models import fetch_model
    from engine.reading.bridge import BridgeReader
    from engine.reading.reader import ReaderSettings
    from engine.reading.windows import Span
    from store.corpus import iter_texts
    from store.layout import layout_of

    layout = layout_of(root, "reading")
    source = open_source(layout, CELL, "no-first", None)
    folder = str(fetch_model(source.model, _nothing_to_make))
    texts = [t.text for t in iter_texts(layout.stories("stories")) if t.emotion][:n_texts]
    blocks = tuple(range(int(source.data.attrs["n_layers"])))
    reader = BridgeReader(ReaderSettings(folder, "float32", blocks, 512, None, False, 1))
    spans = [Span(0, None), Span(1, None), Span(50, None)]

    def extract() -> int:
        ids = [tokens[:512] for tokens in reader.tokenize(texts)]
        reader.read(ids, spans, lambda event: None)
        return sum(map(len, ids))

    ways: dict[str, Callable[[], int]] = {EXTRACT: extract}
    for way, layers in ((LAST, blocks[-1:]), (ALL, blocks)):
        ways[way] = _reading(source, folder, make_weights(source, layers, None), texts)
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for do in ways.values():
        do()  # warms up
    for number in range(rounds):
        order = list(ways.items())
        for way, do in order if number % 2 == 0 else reversed(order):
            started = time.perf_counter()
            tokens = do()
            rates[way].append(tokens / (time.perf_counter() - started))
        print({way: round(values[-1], 1) for way, values in rates.items()}, flush=True)
    return rates


def _reading(source: Any, folder: str, weights: Any, texts: Sequence[str]) -> Callable[[], int]:
    """Return what reads and writes as `emovec read` does, and says how many tokens there were."""
    from transformers import AutoTokenizer

    from engine.detection.model import TokenModel
    from engine.detection.output import About, table_file
    from engine.detection.reading import read_texts
    from engine.detection.texts import GivenText
    from engine.reading.windows import Span

    model = TokenModel(folder, "float32", False, weights, by_rms=False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    layers = weights.layers
    spread_LW = np.ones((len(layers), len(WIDTHS)))
    shown = About(CELL, layers, layers[-1], "", "no-first", weights.emotions, {}, spread_LW)
    given = [GivenText(str(number), text) for number, text in enumerate(texts)]

    def read() -> int:
        n = 0
        with (
            tempfile.TemporaryDirectory() as folder,
            table_file(Path(folder) / "scores.csv", shown, by_text=False) as writer,
        ):
            for piece in read_texts(
                given,
                tokenizer,
                lambda sequences: model.scores(sequences, print),
                Span(1, None),
                512,
                model.block_tokens,
                len(layers) * len(weights.emotions),
            ):
                writer.take(piece)
                n += len(piece.token)
        return n

    return read


def measured_starts(root: Path, folder: Path, rounds: int) -> dict[str, list[float]]:
    """Return seconds from the command to its first line for one sentence."""
    file = folder / "sentence.txt"
    file.write_text(SENTENCE)
    command = [sys.executable, "-m", "engine.cli", "read", CELL, str(file), "--root", str(root)]

    def first_line() -> float:
        started = time.perf_counter()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            while not process.stdout.readline().strip():
                assert process.poll() is None
            seconds = time.perf_counter() - started
            process.stdout.read()
        assert process.returncode == 0
        return seconds

    first_line()
    found = {"page cache warm": [first_line() for _ in range(rounds)]}
    drop = Path("/proc/sys/vm/drop_caches")
    if os.access(drop, os.W_OK):
        cold = []
        for _ in range(rounds):
            os.sync()
            drop.write_text("3\n")
            cold.append(first_line())
        found["page cache empty"] = cold
    return found


def _nothing_to_make(task: str, job: dict[str, Any]) -> Any:
    raise AssertionError(f"the model is unpacked already, and {task} is asked for")


if __name__ == "__main__":
    main()
