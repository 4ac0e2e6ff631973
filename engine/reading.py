"""Reads texts with TransformerLens hooks, in a child process: a shard of texts in, means out.

Each text is read alone (no chat template, the tokenizer's own special tokens), right-padded with an
explicit mask. Hooks on the blocks reduce the residual stream to window means on the device, in
float32; nothing is kept per token and no logits are computed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from store.corpus import Corpus, Text, read_corpus
from store.residuals import ShardBlock, write_shard
from store.shards import shard_span

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Span:
    """A token window [start, end); end None for the end of the text."""

    start: int
    end: int | None


class _Enough(Exception):
    """Raised by the last wanted layer's hook to end a forward pass early."""


class Reader:
    """A model that reads token sequences and returns window means of all wanted layers."""

    def __init__(self, folder: str, dtype: str, layers: Sequence[int], trust_remote_code: bool):
        """Load model and tokenizer from a folder onto the GPU, or the CPU where there is none.

        Args:
            folder: config, tokenizer and safetensors.
            dtype: precision of the forward pass.
            layers: wanted layers in order, -1 for the embedding output.
            trust_remote_code: run code that comes with the model.
        """
        from transformer_lens.model_bridge import TransformerBridge
        from transformers import AutoTokenizer

        torch.set_float32_matmul_precision("highest")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        self.bridge: TransformerBridge = TransformerBridge.boot_transformers(
            folder,
            device=self.device,
            dtype=getattr(torch, dtype),
            trust_remote_code=trust_remote_code,
        )
        self.bridge.eval()
        self.layers = list(layers)
        self.d_model = int(self.bridge.cfg.d_model)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, whole, with the tokenizer's own special tokens."""
        return [self.tokenizer(text)["input_ids"] for text in texts]

    @torch.inference_mode()
    def window_means(
        self, batch: Sequence[Sequence[int]], windows: Sequence[Span]
    ) -> Float[Tensor, "text window layer d_model"]:
        """Return float32 window means on the CPU, NaN where a window has no token.

        Args:
            batch: token ids of each text, none empty.
            windows: token windows.

        Raises:
            FloatingPointError: a mean over real tokens is not finite.
        """
        lengths = [len(ids) for ids in batch]
        input_ids = torch.zeros((len(batch), max(lengths)), dtype=torch.long)
        attention_mask = torch.zeros_like(input_ids)
        weights_BWT = torch.zeros(len(batch), len(windows), max(lengths))
        counts_BW = window_counts(lengths, windows)
        for row, ids in enumerate(batch):
            input_ids[row, : len(ids)] = torch.tensor(ids)
            attention_mask[row, : len(ids)] = 1
            for column, window in enumerate(windows):
                weights_BWT[row, column, window.start : window.end] = 1
            weights_BWT[row, :, len(ids) :] = 0
        weights_BWT = weights_BWT.to(self.device)
        sums_LBWD = torch.full(
            (len(self.layers), len(batch), len(windows), self.d_model),
            float("nan"),
            device=self.device,
        )
        self._forward(input_ids, attention_mask, weights_BWT, sums_LBWD)
        counts = counts_BW.to(self.device)[None, :, :, None]
        means_LBWD = sums_LBWD / counts  # 0 / 0 is NaN: a window without tokens
        finite = torch.isfinite(means_LBWD) | (counts == 0)
        if not bool(finite.all()):
            layer, row = (int(i) for i in (~finite).nonzero()[0, :2])
            raise FloatingPointError(
                f"text {row} of the batch has a residual that is not finite at layer "
                f"{self.layers[layer]}; try another extraction.dtype"
            )
        return means_LBWD.permute(1, 2, 0, 3).cpu()

    def _forward(
        self,
        input_ids: Int[Tensor, "text token"],
        attention_mask: Int[Tensor, "text token"],
        weights_BWT: Float[Tensor, "text window token"],
        sums_LBWD: Float[Tensor, "layer text window d_model"],
    ) -> None:
        """Run the blocks once; hooks fill `sums_LBWD` with sums over each window's tokens."""

        def hook_for(slot: int, last: bool) -> Callable[..., None]:
            def add_up(residual: Float[Tensor, "text token d_model"], hook: Any) -> None:
                sums_LBWD[slot] = einsum(
                    weights_BWT,
                    residual.to(torch.float32),
                    "text window token, text token d_model -> text window d_model",
                )
                if last:
                    raise _Enough

            return add_up

        n_blocks = int(self.bridge.cfg.n_layers)
        hooks = []
        for slot, layer in enumerate(self.layers):
            name = "blocks.0.hook_in" if layer < 0 else f"blocks.{layer}.hook_out"
            last = layer == max(self.layers) and layer < n_blocks - 1
            hooks.append((name, hook_for(slot, last)))
        with suppress(_Enough), self.bridge.hooks(fwd_hooks=hooks):
            self.bridge.original_model.base_model(
                input_ids=input_ids.to(self.device),
                attention_mask=attention_mask.to(self.device),
                use_cache=False,
            )


def window_counts(lengths: Sequence[int], windows: Sequence[Span]) -> Float[Tensor, "text window"]:
    """Return how many tokens each window has in texts of the given lengths, as float32."""
    counts = [
        [max(0, min(length, length if w.end is None else w.end) - w.start) for w in windows]
        for length in lengths
    ]
    return torch.tensor(counts, dtype=torch.float32)


def batches(lengths: Sequence[int], padded_tokens: int) -> Iterator[list[int]]:
    """Yield indices of texts to read together: longest first, at most `padded_tokens` each.

    A text longer than the budget is read alone. Depends on the lengths only.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * lengths[batch[0]] > padded_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def read_shard(job: dict[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Read one shard of a cell and write it.

    Args:
        job: `model` (folder, trust_remote_code), `extraction` (dtype, layers, windows,
            max_tokens, batch_tokens), `corpus` and `residuals` (paths), `shard`.
        on_event: called with {texts, tokens} after each batch.

    Returns:
        texts, tokens, padded_tokens, cut_texts (longer than `max_tokens`) and seconds.

    Raises:
        ValueError: a text without tokens.
    """
    extraction = job["extraction"]
    reader = _reader(
        job["model"]["folder"],
        extraction["dtype"],
        tuple(extraction["layers"]),
        job["model"]["trust_remote_code"],
    )
    windows = [Span(w["start"], w["end"]) for w in extraction["windows"]]
    folder = Path(job["residuals"])
    span = shard_span(folder, job["shard"])
    texts = _corpus(job["corpus"], Path(job["corpus"]).stat().st_mtime_ns).texts
    started = time.monotonic()
    block, padded = _read_texts(
        reader, texts[span.start : span.stop], windows, extraction, on_event
    )
    write_shard(folder, job["shard"], block)
    return {
        "texts": len(span),
        "tokens": int(np.minimum(block.text_tokens, extraction["max_tokens"]).sum()),
        "padded_tokens": padded,
        "cut_texts": int((block.text_tokens > extraction["max_tokens"]).sum()),
        "seconds": time.monotonic() - started,
    }


def _read_texts(
    reader: Reader,
    texts: Sequence[Text],
    windows: Sequence[Span],
    extraction: dict[str, Any],
    on_event: OnEvent,
) -> tuple[ShardBlock, int]:
    """Return a shard's arrays and the padded tokens it took."""
    ids = reader.tokenize([text.text for text in texts])
    if empty := [text.text_id for text, tokens in zip(texts, ids, strict=True) if not tokens]:
        raise ValueError(f"text {empty[0]} has no tokens under this model's tokenizer")
    text_tokens = np.array([len(tokens) for tokens in ids], dtype=np.int32)
    ids = [tokens[: extraction["max_tokens"]] for tokens in ids]
    lengths = [len(tokens) for tokens in ids]
    means = np.empty((len(texts), len(windows), len(reader.layers), reader.d_model), np.float32)
    done = {"texts": 0, "tokens": 0}
    padded = 0
    for batch in batches(lengths, extraction["batch_tokens"]):
        means[batch] = reader.window_means([ids[i] for i in batch], windows).numpy()
        padded += len(batch) * lengths[batch[0]]
        done["texts"] += len(batch)
        done["tokens"] += sum(lengths[i] for i in batch)
        on_event(dict(done))
    counts = window_counts(lengths, windows).numpy().astype(np.int32)
    return ShardBlock(means, counts, text_tokens), padded


@lru_cache(maxsize=1)
def _reader(folder: str, dtype: str, layers: tuple[int, ...], trust_remote_code: bool) -> Reader:
    return Reader(folder, dtype, layers, trust_remote_code)


@lru_cache(maxsize=1)
def _corpus(file: str, changed_ns: int) -> Corpus:
    return read_corpus(Path(file))
