"""The reference: a model in TransformerLens that writes and judges with something added.

What steering leaves alone is computed once: the prompt up to its last token gives keys and values
that every condition shares, unless the prompt is steered too. Then each row of a batch (a condition
and what may follow) goes on from there, with its own addition behind its own block.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int
from numpy import ndarray
from torch import Tensor

from engine.generation.drawing import draw, uniform_number
from engine.reading.bridge import load_bridge
from engine.steering.addition import Addition, Directions

BATCH_TOKENS = {"cpu": 1024, "cuda": 16_384}
"""Tokens of a batch at most, padding included."""

LOGIT_BYTES = {"cpu": 1 << 28, "cuda": 1 << 32}
"""What a batch's logits may take in float32."""


class SteeredModel:
    """A model whose residual stream can be changed."""

    def __init__(
        self,
        folder: str,
        dtype: str,
        trust_remote_code: bool,
        devices: int,
        directions: str,
        steer_prompt: bool = False,
    ):
        """Load model and directions.

        Args:
            folder: config and safetensors.
            dtype: precision of the forward pass.
            trust_remote_code: run code that comes with the model.
            devices: GPUs that it is spread over.
            directions: file of unit vectors (`engine.steering.addition.Directions`).
            steer_prompt: change all of the prompt's positions, not only its last.
        """
        self._device, self._bridge = load_bridge(folder, dtype, trust_remote_code, devices)
        self._directions = Directions(directions, self._device)
        self._steer_prompt = steer_prompt
        kind = self._device.type
        vocabulary = int(self._bridge.original_model.config.get_text_config().vocab_size)
        self._budget = max(1, min(BATCH_TOKENS[kind], LOGIT_BYTES[kind] // (4 * vocabulary)))

    @torch.inference_mode()
    def log_probabilities(
        self,
        prompt: Sequence[int],
        ends: Sequence[Sequence[int]],
        additions: Sequence[Addition | None],
        on_rows: Callable[[int], None] = lambda n: None,
    ) -> Float64[ndarray, "addition end"]:
        """Return the log-probability of each end of a prompt under each addition.

        Args:
            prompt: token ids, at least one.
            ends: token ids of what may follow, none empty.
            additions: None for the model as it is.
            on_rows: called with the number of rows done after each batch.

        Returns:
            Sums over an end's tokens, in nats.
        """
        past, rest = self._begin(prompt)
        rows = [(a, e) for a in range(len(additions)) for e in range(len(ends))]
        longest = len(rest) + max(len(end) for end in ends) - 1
        per_batch = max(1, self._budget // longest)
        out = np.full((len(additions), len(ends)), np.nan)
        for first in range(0, len(rows), per_batch):
            batch = rows[first : first + per_batch]
            ids = [[*rest, *ends[e]] for _, e in batch]
            logits = self._forward(
                past,
                len(prompt) - len(rest),
                [i[:-1] for i in ids],
                [additions[a] for a, _ in batch],
            )
            for (a, e), tokens, logit_TV in zip(batch, ids, logits, strict=True):
                out[a, e] = _summed(logit_TV, tokens, len(rest) - 1)
            on_rows(len(batch))
        return out

    @torch.inference_mode()
    def write(
        self,
        prompt: Sequence[int],
        addition: Addition | None,
        n_tokens: int,
        stop: set[int],
        drawn: tuple[float, float, int] | None = None,
    ) -> list[int]:
        """Return what the model goes on with.

        Args:
            prompt: token ids, at least one.
            addition: None for the model as it is.
            n_tokens: tokens to write at most.
            stop: tokens that end the text; the one it ends with is among those returned.
            drawn: temperature, top_p and seed; the most probable token when None.
        """
        past, rest = self._begin(prompt)
        made: list[int] = []
        with self._added([addition]):
            while len(made) < n_tokens:
                output = self._run(past, torch.tensor([rest], device=self._device), last=True)
                past, logits = output.past_key_values, output.logits[:, -1].float()
                made.append(_chosen(logits, drawn, len(made)))
                if made[-1] in stop:
                    break
                rest = made[-1:]
        return made

    @torch.inference_mode()
    def text_log_probabilities(
        self, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]
    ) -> Float64[ndarray, " text"]:
        """Return each text's mean log-probability a token behind its prompt, as the model is.

        Args:
            prompts: token ids, at least one each.
            texts: token ids; NaN for an empty one.
        """
        out = np.full(len(texts), np.nan)
        order = sorted(range(len(texts)), key=lambda i: len(prompts[i]) + len(texts[i]))
        for batch in self._packed([i for i in order if texts[i]], prompts, texts):
            ids = [[*prompts[i], *texts[i]] for i in batch]
            logits = self._forward(None, 0, [i[:-1] for i in ids], [None] * len(ids))
            for i, tokens, logit_TV in zip(batch, ids, logits, strict=True):
                out[i] = _summed(logit_TV, tokens, len(prompts[i]) - 1) / len(texts[i])
        return out

    def _packed(
        self,
        order: Sequence[int],
        prompts: Sequence[Sequence[int]],
        texts: Sequence[Sequence[int]],
    ) -> Iterator[list[int]]:
        batch: list[int] = []
        for i in order:  # ascending, so the last is the longest
            if batch and (len(batch) + 1) * (len(prompts[i]) + len(texts[i])) > self._budget:
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def _begin(self, prompt: Sequence[int]) -> tuple[Any, list[int]]:
        """Return keys and values of what no addition changes, and the tokens that are left."""
        if self._steer_prompt or len(prompt) == 1:
            return None, list(prompt)
        output = self._run(None, torch.tensor([list(prompt[:-1])], device=self._device), last=True)
        return output.past_key_values, [prompt[-1]]

    def _forward(
        self,
        past: Any,
        n_past: int,
        sequences: Sequence[Sequence[int]],
        additions: Sequence[Addition | None],
    ) -> list[Tensor]:
        """Run rows behind a shared past; return each row's logits, padding left out."""
        longest = max(len(ids) for ids in sequences)
        ids_RT = torch.zeros((len(sequences), longest), dtype=torch.long)
        mask_RT = torch.zeros((len(sequences), n_past + longest), dtype=torch.long)
        for row, ids in enumerate(sequences):
            ids_RT[row, : len(ids)] = torch.tensor(ids)
            mask_RT[row, : n_past + len(ids)] = 1
        if past is not None:
            past = copy.deepcopy(past)
            past.batch_repeat_interleave(len(sequences))
        with self._added(additions):
            output = self._run(past, ids_RT.to(self._device), mask_RT.to(self._device))
        return [output.logits[row, : len(ids)] for row, ids in enumerate(sequences)]

    def _run(
        self,
        past: Any,
        ids_RT: Int[Tensor, "row token"],
        mask: Tensor | None = None,
        last: bool = False,
    ) -> Any:
        return self._bridge.original_model(
            input_ids=ids_RT,
            attention_mask=mask,
            past_key_values=past,
            use_cache=True,
            logits_to_keep=1 if last else 0,
        )

    @contextmanager
    def _added(self, additions: Sequence[Addition | None]) -> Iterator[None]:
        """Have each row's addition enter the stream behind its block, at every position given."""
        layers = sorted({a.layer for a in additions if a is not None})
        hooks = [(f"blocks.{layer}.hook_out", self._hook(layer, additions)) for layer in layers]
        with self._bridge.hooks(fwd_hooks=hooks):
            yield

    def _hook(self, layer: int, additions: Sequence[Addition | None]) -> Callable[..., Tensor]:
        here = [row for row, a in enumerate(additions) if a is not None and a.layer == layer]
        vectors = [self._directions.vector(a) for row in here if (a := additions[row]) is not None]
        vector_RD = torch.stack(vectors)

        def add(residual_RTD: Tensor, hook: Any) -> Tensor:
            rows = torch.tensor(here, device=residual_RTD.device)
            changed = vector_RD.to(residual_RTD.device, residual_RTD.dtype)[:, None]
            return residual_RTD.index_add(0, rows, changed.expand(-1, residual_RTD.shape[1], -1))

        return add


def _summed(logit_TV: Tensor, tokens: Sequence[int], before: int) -> float:
    """Sum log-probabilities of the tokens behind position `before`, given logits of each."""
    logit_TV = logit_TV[before : len(tokens) - 1].float()
    wanted = torch.tensor(list(tokens[before + 1 :]), device=logit_TV.device)[:, None]
    of_T = torch.log_softmax(logit_TV, dim=-1).gather(1, wanted)[:, 0]
    return float(of_T.double().sum())


def _chosen(logits: Tensor, drawn: tuple[float, float, int] | None, position: int) -> int:
    if drawn is None or drawn[0] == 0:
        return int(logits[0].argmax())
    temperature, top_p, seed = drawn
    by = torch.tensor([uniform_number(seed, position)])
    logits = logits.cpu()
    return int(draw(logits, torch.tensor([temperature]), torch.tensor([top_p]), by)[0])
