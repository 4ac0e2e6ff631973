"""How fast story vectors are extracted, against what one would use instead, in one run.

    python -m benchmarks.extraction --stories STORIES.jsonl [--texts 64] [--rounds 5]

Compares, on the built-in model and the same texts, in turn within each round:

- `emovec`: the TransformerLens reader as `emovec extract` uses it (all layers, three windows);
- `bare`: a plain Hugging Face forward pass of the same batches, no head, no hooks;
- `paper`: the way of the paper's code, in our words: batches of four in file order, hooks on the
  blocks' outputs, logits computed, the mean over tokens taken on the host.

Prints medians in tokens/s and ratios round by round, and writes JSON and a markdown report.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import about, write_rates
from engine.models import cache_folder
from engine.reading.batching import batches
from engine.reading.bridge import BridgeReader
from engine.reading.reader import ReaderSettings
from engine.reading.windows import Span
from manifests.builtin import BUILTIN_MODELS
from manifests.resolve import Importing
from manifests.schema import Import
from store.exchange import read_texts

MODEL = "smollm2-135m"
WINDOWS = [Span(0, None), Span(1, None), Span(50, None)]
PAPER_BATCH = 4
MAX_TOKENS = 512
PROGRAMS = ("torch", "transformers", "transformer-lens")


def main() -> None:
    """Measure, print and write a report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stories", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()

    builtin = BUILTIN_MODELS[MODEL]
    folder = str(cache_folder() / "models" / f"{MODEL}-{builtin.sha256[:12]}")
    reader = BridgeReader(
        ReaderSettings(
            folder=folder,
            dtype="float32",
            layers=tuple(range(-1, builtin.n_layers)),
            max_tokens=MAX_TOKENS,
            batch_tokens=options.batch_tokens,
            trust_remote_code=False,
            devices=1,
        )
    )
    texts = read_texts(Importing(Import(stories=str(options.stories)), options.stories, None))
    step = max(1, len(texts) // options.texts)
    sample = [text.text for text in texts[::step]][: options.texts]
    ids = [tokens[:MAX_TOKENS] for tokens in reader.tokenize(sample)]
    plain = _plain_model(folder)
    ways: dict[str, Callable[[], None]] = {
        "emovec": lambda: _emovec(reader, ids),
        "bare": lambda: _bare(plain, ids, options.batch_tokens),
        "paper": lambda: _paper(plain, ids),
    }
    tokens = sum(map(len, ids))
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(options.rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if round_number:  # the first one warms up
                rates[name].append(tokens / (time.perf_counter() - started))
                print(f"round {round_number} {name:<8}{rates[name][-1]:8.0f} tokens/s", flush=True)
    _report(options, tokens, rates)


def _plain_model(folder: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def _padded(batch: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    input_ids = torch.zeros((len(batch), max(map(len, batch))), dtype=torch.long)
    mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(batch):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = 1
    return input_ids, mask


def _emovec(reader: BridgeReader, ids: Sequence[Sequence[int]]) -> None:
    reader.read(ids, WINDOWS, lambda event: None)


@torch.inference_mode()
def _bare(model: Any, ids: Sequence[Sequence[int]], budget: int) -> None:
    for batch in batches([len(i) for i in ids], budget):
        input_ids, mask = _padded([ids[i] for i in batch])
        model.model(input_ids=input_ids, attention_mask=mask, use_cache=False)


@torch.inference_mode()
def _paper(model: Any, ids: Sequence[Sequence[int]]) -> None:
    kept: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            kept[layer] = (output[0] if isinstance(output, tuple) else output).cpu().float()

        return hook

    handles = [b.register_forward_hook(keep(i)) for i, b in enumerate(model.model.layers)]
    for start in range(0, len(ids), PAPER_BATCH):
        input_ids, mask = _padded(ids[start : start + PAPER_BATCH])
        model(input_ids=input_ids, attention_mask=mask)
        for residual in kept.values():
            _ = (residual * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    for handle in handles:
        handle.remove()


def _report(options: argparse.Namespace, tokens: int, rates: dict[str, list[float]]) -> None:
    command = (
        f"python -m benchmarks.extraction --stories {options.stories.name} "
        f"--texts {options.texts} --rounds {options.rounds} --batch-tokens {options.batch_tokens}"
    )
    work = f"{MODEL}, float32, {options.texts} texts, {tokens:,} tokens"
    facts = about(command, work, PROGRAMS)
    write_rates(options.out, "extraction", facts, rates, {"bare": "emovec", "paper": "emovec"})


if __name__ == "__main__":
    main()
