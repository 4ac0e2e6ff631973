"""What vLLM's decoder layers return, by model class: a rule for each, proved in a test.

The rule says both how the stream is read and how something enters it exactly once.

vLLM fuses the addition of the residual stream into the next layer's norm, so most layers return
(hidden, residual), whose sum is the stream after the block. Others return the stream itself. An
architecture that is not named here is refused: a wrong guess would give plausible numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

SUM = (
    *("ApertusForCausalLM", "GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM"),
    *("Glm4ForCausalLM", "GptOssForCausalLM", "LlamaForCausalLM", "MistralForCausalLM"),
    *("OlmoeForCausalLM", "Phi3ForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"),
    "Qwen3MoeForCausalLM",
)
FIRST = (
    *("CohereForCausalLM", "FalconForCausalLM", "Gemma4ForCausalLM", "GPT2LMHeadModel"),
    *("GraniteForCausalLM", "StablelmForCausalLM", "TransformersForCausalLM"),
)


class UnknownFamily(Exception):
    """It is not known what this architecture's decoder layers return."""


def stream_of(architecture: str) -> Callable[[Any], Tensor]:
    """Return the function that makes the residual stream, flat [token, d_model], of an output.

    Args:
        architecture: vLLM's model class.

    Raises:
        UnknownFamily: it has no rule.
    """
    _require_known(architecture)
    return _sum if architecture in SUM else _first


def adding_to(architecture: str) -> Callable[[Any, Tensor, Tensor], Any]:
    """Return the function that gives an output whose stream has something added to it.

    It takes the output, rows of the flat stream, and what is added to each, [row, d_model]. In a
    pair whose sum is the stream, and in one whose first is the stream, the first is what the next
    block goes on with.

    Args:
        architecture: vLLM's model class.

    Raises:
        UnknownFamily: it has no rule.
    """
    _require_known(architecture)
    return _added


def raise_precision(blocks: nn.ModuleList) -> None:
    """Hold in float32 what vLLM keeps in half precision whatever is asked for (Apertus' xIELU)."""
    for tensor in [*blocks.parameters(), *blocks.buffers()]:
        if tensor.dtype in (torch.bfloat16, torch.float16):
            tensor.data = tensor.data.float()


def _require_known(architecture: str) -> None:
    if architecture not in (*SUM, *FIRST):
        raise UnknownFamily(
            f"it is not known what layers of {architecture} return in vLLM; "
            "use the backend transformer_lens"
        )


def _added(output: Any, rows: Tensor, vectors: Tensor) -> Any:
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    flat = hidden.flatten(0, -2)
    changed = flat.index_add(0, rows, vectors.to(flat.dtype)).view_as(hidden)
    return (changed, *output[1:]) if isinstance(output, tuple) else changed


def _sum(output: Any) -> Tensor:
    hidden, residual = output
    return hidden.float() + residual.float()  # now: the next norm overwrites both in place


def _first(output: Any) -> Tensor:
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden.flatten(0, -2)  # the backend for Hugging Face's own modules has a batch of one
