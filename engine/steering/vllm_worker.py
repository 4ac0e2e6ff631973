"""What is mixed into vLLM's worker: hooks that add to the residual stream while it writes.

Each request says in its `extra_args` what is added, behind which block and from which position on
(`engine.steering.addition`), so that requests of one batch may carry different directions and
strengths. The position decides, not the step: a request that is preempted, or whose prompt is
taken in pieces, is steered alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from engine.reading import vllm_internals
from engine.reading.families import adding_to, raise_precision
from engine.steering.addition import Directions, of_arguments

Changes = dict[int, tuple[Tensor, Tensor]]
"""By layer: rows of the step that are changed, [row], and what is added to them, [row, d_model]."""


class SteeredStream:
    """Adds what requests ask for; with several GPUs for one model on each, since all hold it."""

    def emovec_steer(self, file: str) -> None:
        """Load directions and hook the decoder layers.

        Raises:
            UnknownFamily: it is not known what this architecture's decoder layers return.
            MovedInternals: vLLM has changed.
        """
        blocks = vllm_internals.decoder_layers(self)
        add = adding_to(vllm_internals.architecture(self))
        if vllm_internals.dtype(self) == torch.float32:
            raise_precision(blocks)
        self._emovec_directions = Directions(file, vllm_internals.device(self))
        self._emovec_changes: Changes = {}
        blocks[0].register_forward_pre_hook(self._emovec_plan)
        for layer, block in enumerate(blocks):
            block.register_forward_hook(self._emovec_adding(layer, add))

    def _emovec_plan(self, module: Any, args: Any) -> None:
        """Before the first block: find what this step changes."""
        rows: dict[int, list[int]] = defaultdict(list)
        added: dict[int, list[Tensor]] = defaultdict(list)
        for run in vllm_internals.scheduled_runs(self):
            asked = of_arguments(run.arguments)
            if asked is None:
                continue
            addition, start = asked
            skipped = max(0, start - run.start)
            if skipped < run.n_tokens:
                here = range(run.first + skipped, run.first + run.n_tokens)
                vector = self._emovec_directions.vector(addition)
                rows[addition.layer] += here
                added[addition.layer].append(vector.expand(len(here), -1))
        device = vllm_internals.device(self)
        self._emovec_changes = {
            layer: (torch.tensor(rows[layer], device=device), torch.cat(added[layer]))
            for layer in rows
        }

    def _emovec_adding(
        self, layer: int, add: Callable[[Any, Tensor, Tensor], Any]
    ) -> Callable[..., Any]:
        def hook(module: Any, args: Any, output: Any) -> Any:
            change = self._emovec_changes.get(layer)
            return output if change is None else add(output, *change)

        return hook
