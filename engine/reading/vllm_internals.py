"""The few places of vLLM's worker that are looked into; a vLLM that moved them is told here.

Seen with vLLM 0.25 and 0.32, with its first model runner (VLLM_USE_V2_MODEL_RUNNER=0).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import nn

T = TypeVar("T")


class MovedInternals(Exception):
    """This vLLM keeps something elsewhere."""


@dataclass(frozen=True)
class Row:
    """A run of one text's tokens in the step being computed.

    Attributes:
        text: the request's number.
        start: position in the text of the first token.
        first: index of that token in the step's flat rows.
        n_tokens: tokens in the run.
    """

    text: int
    start: int
    first: int
    n_tokens: int


def _told(look: Callable[[Any], T]) -> Callable[[Any], T]:
    @wraps(look)
    def looked(worker: Any) -> T:
        try:
            return look(worker)
        except (AttributeError, KeyError, IndexError, TypeError) as error:
            import vllm

            raise MovedInternals(
                f"vLLM {vllm.__version__} keeps its {look.__name__} elsewhere ({error}); use "
                "extraction.backend: transformer_lens, or a vLLM that emovec was tried with"
            ) from error

    return looked


@dataclass(frozen=True)
class Run:
    """A run of one request's tokens in the step being computed.

    Attributes:
        arguments: the request's `extra_args`.
        start: position in the request of the first token.
        first: index of that token in the step's flat rows.
        n_tokens: tokens in the run.
    """

    arguments: dict[str, Any] | None
    start: int
    first: int
    n_tokens: int


@_told
def scheduled_rows(worker: Any) -> list[Row]:
    """Return the runs of tokens in the step being computed, in the order of its flat rows."""
    return [
        Row(int(name.partition("-")[0]), start, first, n)
        for name, start, first, n in _scheduled(worker)
    ]


@_told
def scheduled_runs(worker: Any) -> list[Run]:
    """Return the same with what each request says of itself."""
    requests = worker.model_runner.requests
    return [
        Run(requests[name].sampling_params.extra_args, start, first, n)
        for name, start, first, n in _scheduled(worker)
    ]


def _scheduled(worker: Any) -> list[tuple[str, int, int, int]]:
    """Return name, first position, first flat row and tokens of each run."""
    runner = worker.model_runner
    names = runner.input_batch.req_ids
    bounds = runner.query_start_loc.np[: len(names) + 1].tolist()
    starts = runner.input_batch.num_computed_tokens_cpu[: len(names)].tolist()
    return [
        (name, start, first, last - first)
        for name, start, first, last in zip(names, starts, bounds[:-1], bounds[1:], strict=True)
        if last > first
    ]


@_told
def decoder_layers(worker: Any) -> nn.ModuleList:
    """Return the list of decoder layers, wherever the architecture keeps it."""
    n_layers = worker.model_runner.model_config.hf_text_config.num_hidden_layers
    found = [
        module
        for module in worker.model_runner.model.modules()
        if isinstance(module, nn.ModuleList) and len(module) == n_layers
    ]
    return found[0]


@_told
def architecture(worker: Any) -> str:
    """Return the name of vLLM's model class."""
    return type(worker.model_runner.model).__name__


@_told
def d_model(worker: Any) -> int:
    """Return the width of the residual stream."""
    return int(worker.model_runner.model_config.get_hidden_size())


@_told
def device(worker: Any) -> torch.device:
    """Return where the model is."""
    return torch.device(worker.device)


@_told
def dtype(worker: Any) -> torch.dtype:
    """Return the precision of the forward pass."""
    found = worker.model_runner.model_config.dtype
    assert isinstance(found, torch.dtype)
    return found
