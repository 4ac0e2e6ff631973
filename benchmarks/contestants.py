"""One runtime with one model in a process of its own, which `benchmarks.extraction` sets going.

    python -m benchmarks.contestants RUNTIME SETTINGS.json

Reads names of ways from standard input, one a line, and answers each with a JSON line: seconds, and
peak memory so far. The runtime is `huggingface`, `transformer_lens`,
`with_cache` (TransformerLens as it comes) or `vllm`.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from engine.device import child_environment

os.environ.update(child_environment())  # before vllm is imported
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")

import torch

from engine.reading import shards
from engine.reading.batching import batches, default_budget
from engine.reading.reader import Reader
from engine.reading.windows import spans_of
from manifests.schema import Extraction
from store.corpus import read_corpus
from store.residuals import create_residuals

PAPER_BATCH = 4
MATRIX = {"cpu": 2048, "cuda": 8192}


def main() -> None:
    """Load the runtime, say so, and answer until standard input ends."""
    settings = json.loads(Path(sys.argv[2]).read_text())
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the runtimes print is not an answer
    ways = RUNTIMES[sys.argv[1]](settings)
    answers.write(json.dumps({"ready": list(ways)}) + "\n")
    for line in sys.stdin:
        started = time.perf_counter()
        result = ways[line.strip()]()
        _wait()
        seconds = time.perf_counter() - started
        answers.write(json.dumps({"seconds": seconds, "result": result, **_memory()}) + "\n")


def _ways_of_a_reader(settings: dict[str, Any], backend: str) -> dict[str, Callable[[], Any]]:
    """`read`: the reader alone. `written`, `thrown away`: as a run does it, shard by shard."""
    extraction = Extraction(backend=backend, dtype=settings["dtype"])
    layers = list(range(-1, settings["n_layers"]))
    parts = [Path(part) for part in settings["corpora"]]
    jobs = []
    for part in parts:
        folder = part.with_name(f"{part.stem}-{backend}-{settings['dtype']}.zarr")
        names = [window.name for window in extraction.windows]
        d_model = settings["d_model"]
        create_residuals(folder, read_corpus(part).texts, names, layers, d_model, {})
        job = {
            "model": {
                "folder": settings["folder"],
                "trust_remote_code": False,
                "tensor_parallel_size": 1,
                "gpu_memory_utilization": settings["memory_share"],
            },
            "extraction": {**extraction.model_dump(mode="json"), "layers": layers},
            "corpus": str(part),
            "residuals": str(folder),
            "shard": 0,
        }
        jobs.append(job)
    reader = shards.reader_of(jobs[0])
    ids = _token_ids(reader, settings)
    spans = spans_of(jobs[0]["extraction"]["windows"])

    def run_shards(keep: bool) -> None:
        left: Future[Any] | None = None
        with ThreadPoolExecutor(max_workers=1) as writing:
            for job in jobs:
                write = shards.read_shard(job, lambda event: None)
                if left is not None:
                    left.result()
                left = writing.submit(write) if keep else None

    return {
        "read": lambda: reader.read(ids, spans, lambda event: None) and None,
        "hooks off": lambda: reader.forward_only(ids),
        "written": lambda: run_shards(keep=True),
        "thrown away": lambda: run_shards(keep=False),
    }


def _token_ids(reader: Reader, settings: dict[str, Any]) -> list[list[int]]:
    texts = [text.text for part in settings["corpora"] for text in read_corpus(Path(part)).texts]
    limit = Extraction().max_tokens
    return [tokens[:limit] for tokens in reader.tokenize(texts)]


def _huggingface(settings: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """`bare`: same batches, no head, no hooks. `paper`: its way in our words. `ceiling`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = getattr(torch, settings["dtype"])
    torch.set_float32_matmul_precision("highest")
    model = AutoModelForCausalLM.from_pretrained(settings["folder"], dtype=dtype)
    model = model.to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(settings["folder"])
    texts = [text.text for part in settings["corpora"] for text in read_corpus(Path(part)).texts]
    limit = Extraction().max_tokens
    ids = [list(tokenizer(text)["input_ids"])[:limit] for text in texts]
    budget = default_budget(device)

    @torch.inference_mode()
    def bare() -> None:
        for batch in batches([len(i) for i in ids], budget):
            input_ids, mask = _padded([ids[i] for i in batch], device)
            model.base_model(input_ids=input_ids, attention_mask=mask, use_cache=False)

    @torch.inference_mode()
    def paper() -> None:
        kept: dict[int, torch.Tensor] = {}

        def keep(layer: int) -> Callable[..., None]:
            def hook(module: Any, inputs: Any, output: Any) -> None:
                kept[layer] = (output[0] if isinstance(output, tuple) else output).cpu().float()

            return hook

        handles = [b.register_forward_hook(keep(i)) for i, b in enumerate(_blocks(model))]
        for start in range(0, len(ids), PAPER_BATCH):
            input_ids, mask = _padded(ids[start : start + PAPER_BATCH], device)
            model(input_ids=input_ids, attention_mask=mask)
            mask = mask.cpu()
            for residual in kept.values():
                _ = (residual * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        for handle in handles:
            handle.remove()

    size = MATRIX[device.type]
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    @torch.inference_mode()
    def ceiling() -> float:
        """FLOP done: ten products of square matrices."""
        for _ in range(10):
            left @ right
        return 10 * 2.0 * size**3

    @torch.inference_mode()
    def count() -> dict[str, float]:
        """Tokens, and FLOP that the blocks need for them: linear maps, and causal attention."""
        blocks = _blocks(model)
        weights = sum(p.numel() for block in blocks for p in block.parameters() if p.ndim == 2)
        config = model.config.get_text_config()
        head_dim = getattr(config, "head_dim", None)
        head_dim = head_dim or config.hidden_size // config.num_attention_heads
        width = config.num_attention_heads * head_dim * len(blocks)
        pairs = sum(len(i) * (len(i) + 1) / 2 for i in ids)
        tokens = sum(map(len, ids))
        return {"tokens": tokens, "flop": 2.0 * weights * tokens + 4.0 * width * pairs}

    return {"bare": bare, "paper": paper, "ceiling": ceiling, "count": count}


def _with_cache(settings: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """`run_with_cache`: TransformerLens as it comes, same batches, every block's residual kept."""
    from transformer_lens.model_bridge import TransformerBridge

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, settings["dtype"])
    bridge = TransformerBridge.boot_transformers(settings["folder"], device=device, dtype=dtype)
    texts = [text.text for part in settings["corpora"] for text in read_corpus(Path(part)).texts]
    limit = Extraction().max_tokens
    ids = [list(bridge.tokenizer(text)["input_ids"])[:limit] for text in texts]
    names = [f"blocks.{i}.hook_out" for i in range(settings["n_layers"])]
    budget = default_budget(torch.device(device))

    @torch.inference_mode()
    def run_with_cache() -> None:
        for batch in batches([len(i) for i in ids], budget):
            input_ids, mask = _padded([ids[i] for i in batch], torch.device(device))
            _, cache = bridge.run_with_cache(
                input_ids, attention_mask=mask, return_type=None, names_filter=names
            )
            for name in names:
                residual_BPD = cache[name].float()
                _ = ((residual_BPD * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).cpu()

    return {"run_with_cache": run_with_cache}


def _blocks(model: Any) -> torch.nn.ModuleList:
    n = model.config.get_text_config().num_hidden_layers
    lists = (m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == n)
    return next(lists)


def _padded(
    batch: Sequence[Sequence[int]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    input_ids = torch.zeros((len(batch), max(map(len, batch))), dtype=torch.long)
    mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(batch):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = 1
    return input_ids.to(device), mask.to(device)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _memory() -> dict[str, float]:
    """Return peak memory so far in GiB, of the process and of the GPU."""
    memory = {"host_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    if torch.cuda.is_available():
        memory["gpu_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return memory


RUNTIMES: dict[str, Callable[[dict[str, Any]], dict[str, Callable[[], Any]]]] = {
    "huggingface": _huggingface,
    "transformer_lens": lambda settings: _ways_of_a_reader(settings, "transformer_lens"),
    "vllm": lambda settings: _ways_of_a_reader(settings, "vllm"),
    "with_cache": _with_cache,
}


if __name__ == "__main__":
    main()
