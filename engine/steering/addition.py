"""What a backend is told of one condition: which row of which tensor, how much of it, from where.

A position is steered when a token is generated from it: the prompt's last position and those of the
tokens that follow; where the prompt is steered too, every position.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

KEY = "emovec_steering"
"""Where a vLLM request's addition stands in its `extra_args`."""


@dataclass(frozen=True)
class Addition:
    """A vector added to the residual stream behind one block.

    Attributes:
        tensor: name in the file of directions, [layer, d_model] unit vectors.
        row: its row.
        layer: block whose output is changed.
        amount: length of what is added, in residual stream units.
    """

    tensor: str
    row: int
    layer: int
    amount: float


class Directions:
    """The tensors of a file of directions, on a device in float32."""

    def __init__(self, file: str | Path, device: torch.device):
        from safetensors.torch import load_file

        self._tensors: dict[str, Float[Tensor, "layer d_model"]] = {
            name: tensor.to(device, torch.float32) for name, tensor in load_file(file).items()
        }

    def vector(self, addition: Addition) -> Float[Tensor, " d_model"]:
        """Return what is added."""
        return self._tensors[addition.tensor][addition.row] * addition.amount


def request_arguments(addition: Addition | None, start: int) -> dict[str, Any]:
    """Return a vLLM request's `extra_args`: its addition, from a position on."""
    if addition is None:
        return {}
    return {KEY: {**vars(addition), "start": start}}


def of_arguments(arguments: dict[str, Any] | None) -> tuple[Addition, int] | None:
    """Return the addition and its first position, None for a request that is left alone."""
    if not arguments or KEY not in arguments:
        return None
    asked = dict(arguments[KEY])
    start = asked.pop("start")
    return Addition(**asked), start
