"""Draws the next tokens on a CPU as temperature and top_p say, without sorting the vocabulary.

vLLM's own sampler sorts every logit and draws one random number for each on a CPU, which takes most
of a step of a small model. Here the largest logits are taken first, the others are sorted only
where those hold too little, and one number a token is drawn. vLLM loads the class by its name into
its engine's process; on a GPU its own sampler is used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, process_dict_updates

from engine.generation.drawing import draw, uniform_number

KEY = "nucleus"
"""Where a request's temperature, top_p and seed stand in its `extra_args`."""

Draws = tuple[float, float, int, list[int]]
"""Temperature, top_p, seed and the tokens that a request has so far."""


def ours(params: SamplingParams) -> SamplingParams:
    """Return the same parameters with the same temperature, top_p and seed left to this sampler."""
    drawn = params.clone()
    if params.temperature > 0:
        how = {"temperature": params.temperature, "top_p": params.top_p, "seed": params.seed}
        drawn.extra_args = {**(params.extra_args or {}), KEY: how}
    drawn.temperature, drawn.top_p, drawn.seed = 0.0, 1.0, None
    return drawn


class NucleusSampler(LogitsProcessor):
    """Draws a token for each request whose `extra_args` ask for it; vLLM then takes the largest.

    The nucleus is the fewest most probable tokens that hold at least top_p at this temperature
    (Holtzman et al. 2020, arXiv 1904.09751). The number that token n of a request is drawn by
    depends on its seed and n alone (Philox), so a request that is preempted or whose prompt is
    taken in pieces draws the same ones.
    """

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool):
        self._draws: dict[int, Draws] = {}

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Raise ValueError if vLLM would draw a second time over what is drawn here."""
        if _of(sampling_params, []) is not None and sampling_params.temperature != 0:
            raise ValueError(f"{KEY} asks for vLLM's own temperature to be 0")

    def is_argmax_invariant(self) -> bool:
        """Tell vLLM that the largest logit changes."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Take note of requests that came, went or moved to another row."""
        process_dict_updates(self._draws, batch_update, lambda p, _, made: _of(p, made))

    def apply(self, logits: Tensor) -> Tensor:
        """Make the token drawn the largest of its row; logits are [request, vocabulary]."""
        if not self._draws:
            return logits
        rows = torch.tensor(list(self._draws))
        temperature, top_p, seeds, made = zip(*self._draws.values(), strict=True)
        by = [uniform_number(seed, len(m)) for seed, m in zip(seeds, made, strict=True)]
        chosen = draw(
            logits if len(rows) == len(logits) and bool((rows.diff() == 1).all()) else logits[rows],
            torch.tensor(temperature),
            torch.tensor(top_p),
            torch.tensor(by),
        )
        logits[rows, chosen] = torch.inf
        return logits


def _of(params: SamplingParams, made: list[int]) -> Draws | None:
    """Return what a request's parameters ask for, None where vLLM is to do as it does."""
    asked: dict[str, Any] | None = (params.extra_args or {}).get(KEY)
    return None if asked is None else (asked["temperature"], asked["top_p"], asked["seed"], made)
