"""What vLLM's decoder layers return, by model class: a rule for each, proved in a test.

vLLM fuses the addition of the residual stream into the next layer's norm, so most layers return
(hidden, residual), whose sum is the stream after the block. An architecture that is not named here
is refused: a wrong guess would give plausible numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def _sum(output: Any) -> Tensor:
    hidden, residual = output
    return hidden.float() + residual.float()  # now: the next norm overwrites both in place


STREAMS: dict[str, Callable[[Any], Tensor]] = {"LlamaForCausalLM": _sum}
"""The function for each of vLLM's model classes that is known."""


class UnknownFamily(Exception):
    """It is not known what this architecture's decoder layers return."""


def stream_of(architecture: str) -> Callable[[Any], Tensor]:
    """Return the function that makes the residual stream, flat [token, d_model], of an output.

    Args:
        architecture: vLLM's model class.

    Raises:
        UnknownFamily: it has no rule.
    """
    if architecture not in STREAMS:
        raise UnknownFamily(
            f"the vllm reader does not know what layers of {architecture} return; "
            "use extraction.backend: transformer_lens"
        )
    return STREAMS[architecture]
