"""What is mixed into vLLM's worker: hooks on the decoder layers that fill a `Pool`.

vLLM adds this class to its worker's bases (`worker_extension_cls`); its methods are called through
`collective_rpc`. It lives where the model is, and with several GPUs for one model on the first of
them, since every one holds the same residual stream.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from engine.reading import vllm_internals
from engine.reading.families import raise_precision, stream_of
from engine.reading.pooling import Layout, Pool, Pooled
from engine.reading.windows import Span


class ResidualPool:
    """Pools the residual stream of every wanted layer while vLLM runs."""

    rank: int

    def emovec_attach(self, layers: Sequence[int]) -> int | None:
        """Hook the decoder layers; return d_model, or None where nothing is pooled.

        Raises:
            UnknownFamily: it is not known what this architecture's decoder layers return.
            MovedInternals: vLLM has changed.
        """
        if self.rank != 0:
            return None
        blocks = vllm_internals.decoder_layers(self)
        stream = stream_of(vllm_internals.architecture(self))
        if vllm_internals.dtype(self) == torch.float32:
            raise_precision(blocks)
        self._emovec_layers = list(layers)
        self._emovec_pool: Pool | None = None
        self._emovec_layout: tuple[Layout, Tensor] | None = None
        blocks[0].register_forward_pre_hook(self._emovec_begin(blocks[0]), with_kwargs=True)
        for slot, layer in enumerate(layers):
            if layer >= 0:
                blocks[layer].register_forward_hook(self._emovec_hook(slot, stream))
        blocks[-1].register_forward_hook(self._emovec_end)
        return vllm_internals.d_model(self)

    def emovec_open(
        self, lengths: Sequence[int], windows: Sequence[tuple[int, int | None, bool]]
    ) -> None:
        """Make room for texts of these lengths; requests are named by the text's number."""
        if self.rank == 0:
            device, width = vllm_internals.device(self), vllm_internals.d_model(self)
            self._emovec_windows = [Span(*window) for window in windows]
            self._emovec_pool = Pool(
                lengths, self._emovec_windows, len(self._emovec_layers), width, device
            )

    def emovec_close(self) -> Pooled | None:
        """Return what was pooled since `emovec_open`, None from a worker that pools nothing."""
        if self.rank != 0:
            return None
        pool, self._emovec_pool = self._emovec_pool, None
        assert pool is not None
        return pool.finish(self._emovec_layers)

    def _emovec_begin(self, block: torch.nn.Module) -> Callable[..., None]:
        """Return the hook before the first layer: lays out the step, adds the embedding output."""
        names = list(inspect.signature(block.forward).parameters)

        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._emovec_pool is None:
                return
            rows = vllm_internals.scheduled_rows(self)
            device = vllm_internals.device(self)
            layout = Layout(
                [row.text for row in rows],
                [row.start for row in rows],
                [row.n_tokens for row in rows],
                self._emovec_windows,
                device,
            )
            longest = max(row.n_tokens for row in rows)
            at = [[min(k, row.n_tokens - 1) + row.first for k in range(longest)] for row in rows]
            self._emovec_layout = (layout, torch.tensor(at, device=device))
            if self._emovec_layers[0] < 0:
                given = kwargs | dict(zip(names, args, strict=False))
                self._emovec_add(0, given["hidden_states"])

        return hook

    def _emovec_hook(self, slot: int, stream: Callable[[Any], Tensor]) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: Any) -> None:
            if self._emovec_layout is not None:
                self._emovec_add(slot, stream(output))

        return hook

    def _emovec_end(self, module: Any, args: Any, output: Any) -> None:
        if self._emovec_layout is not None and self._emovec_pool is not None:
            self._emovec_layout = None
            self._emovec_pool.commit()

    def _emovec_add(self, slot: int, residual_TD: Tensor) -> None:
        """Add a layer's flat rows, padded to a block; what pads is a real token, weighted 0."""
        assert self._emovec_pool is not None
        assert self._emovec_layout is not None
        layout, at_RT = self._emovec_layout
        self._emovec_pool.add(slot, residual_TD[at_RT], layout)
