"""What vLLM's decoder layers return, by model class: a rule for each, proved in a test.

vLLM fuses the addition of the residual stream into the next layer's norm, so most layers return
(hidden, residual), whose sum is the stream after the block. Others return the stream itself. An
architecture that is not named here is refused: a wrong guess would give plausible numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

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
    if architecture in SUM:
        return _sum
    if architecture in FIRST:
        return _first
    raise UnknownFamily(
        f"the vllm reader does not know what layers of {architecture} return; "
        "use extraction.backend: transformer_lens"
    )


def _sum(output: Any) -> Tensor:
    hidden, residual = output
    return hidden.float() + residual.float()  # now: the next norm overwrites both in place


def _first(output: Any) -> Tensor:
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden.flatten(0, -2)  # the backend for Hugging Face's own modules has a batch of one
