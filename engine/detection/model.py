"""The model that reads: scores of every token at some layers, on the device in float32.

Hooks on the blocks of the Hugging Face model itself: `engine.reading.bridge` puts its own modules
back inside TransformerLens' blocks, so this is the same forward pass (held to it in a test) without
the seconds that TransformerLens takes to import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy import ndarray
from torch import Tensor, nn

from engine.detection.weights import Weights
from engine.reading.batching import Budget, default_budget, padded, read_in_batches
from engine.reading.bridge import attention_of
from engine.reading.pooling import NotFinite


class _Enough(Exception):
    """Raised behind the last layer to end a forward pass early."""


class TokenModel:
    """A model that scores tokens."""

    def __init__(
        self,
        folder: str,
        dtype: str,
        trust_remote_code: bool,
        weights: Weights,
        by_rms: bool,
        batch_tokens: int | None = None,
    ):
        """Load the model onto the GPU, or the CPU where there is none.

        Args:
            folder: config, tokenizer and safetensors.
            dtype: precision of the forward pass.
            trust_remote_code: run code that comes with the model.
            weights: what residuals are scored with.
            by_rms: divide a residual by its root mean square first.
            batch_tokens: padded tokens of one forward pass; None for what suits the device.
        """
        from transformers import AutoModelForCausalLM

        torch.set_float32_matmul_precision("highest")
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            device_map="auto" if self._device.type == "cuda" else None,
        )
        model.set_attn_implementation(attention_of(model))
        self._model = model.eval()
        self._blocks = _blocks(model)
        self._layers, self._by_rms = weights.layers, by_rms
        self._weight_LED = torch.from_numpy(weights.weight_LED).to(self._device)
        self._zero_LE = torch.from_numpy(weights.zero_LE).to(self._device)
        self._budget = Budget(batch_tokens or default_budget(self._device))

    @property
    def block_tokens(self) -> int:
        """Tokens of a few forward passes, among which texts of like lengths are found."""
        return 4 * self._budget.tokens

    def scores(
        self, sequences: Sequence[Sequence[int]], on_event: Callable[[dict[str, str]], None]
    ) -> list[Float32[ndarray, "token layer emotion"]]:
        """Return the scores of every token of each sequence.

        Args:
            sequences: token ids, none empty.
            on_event: told, under `note`, where batches had to be made smaller.

        Raises:
            NotFinite: a token has a score that is not finite.
            TooLarge: one sequence alone does not fit the memory.
        """
        lengths = [len(ids) for ids in sequences]
        found: list[Any] = [None] * len(sequences)

        def read(texts: list[int]) -> None:
            score_RTLE = self._forward([sequences[i] for i in texts])
            for row, i in enumerate(texts):
                found[i] = score_RTLE[row, : lengths[i]]

        for texts in read_in_batches(lengths, self._budget, read, on_event):
            for i in texts:
                self._require_finite(found[i])
        return found

    def _require_finite(self, score_TLE: Float32[ndarray, "token layer emotion"]) -> None:
        finite_TL = np.isfinite(score_TLE).all(axis=2)
        if not finite_TL.all():
            token, slot = np.argwhere(~finite_TL)[0]
            raise NotFinite(int(token), self._layers[int(slot)])

    @torch.inference_mode()
    def _forward(
        self, batch: Sequence[Sequence[int]]
    ) -> Float32[ndarray, "row token layer emotion"]:
        """Run the blocks once over a batch, right-padded under an explicit mask."""
        ids_RT, mask_RT = padded(batch, self._device)
        shape = (*ids_RT.shape, len(self._layers), self._weight_LED.shape[1])
        out = torch.full(shape, torch.nan, device=self._device)
        with suppress(_Enough), self._hooked(out):
            self._model.base_model(
                input_ids=ids_RT,
                attention_mask=mask_RT,
                use_cache=False,
            )
        return np.asarray(out.cpu().numpy())

    @contextmanager
    def _hooked(self, out: Float[Tensor, "row token layer emotion"]) -> Iterator[None]:
        def hook_for(slot: int, last: bool) -> Callable[..., None]:
            def hook(module: Any, args: Any, output: Any) -> None:
                residual_RTD = output[0] if isinstance(output, tuple) else output
                out[:, :, slot] = self._score(residual_RTD, slot)
                if last:
                    raise _Enough

            return hook

        last = max(self._layers)
        handles = [
            self._blocks[layer].register_forward_hook(hook_for(slot, layer == last))
            for slot, layer in enumerate(self._layers)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _score(
        self, residual_RTD: Float[Tensor, "row token d_model"], slot: int
    ) -> Float[Tensor, "row token emotion"]:
        residual_RTD = residual_RTD.to(torch.float32)
        if self._by_rms:
            rms_RT1 = residual_RTD.square().mean(dim=2, keepdim=True).sqrt()
            residual_RTD = torch.where(rms_RT1 > 0, residual_RTD / rms_RT1, 0.0)
        device = residual_RTD.device  # a large model's layers may lie on several
        weight_ED, zero_E = self._weight_LED[slot].to(device), self._zero_LE[slot].to(device)
        return residual_RTD @ weight_ED.T - zero_E


def _blocks(model: Any) -> nn.ModuleList:
    """Return the blocks of a model's text decoder, wherever the architecture keeps them."""
    n_layers = int(model.config.get_text_config().num_hidden_layers)
    for module in model.get_decoder().modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_layers:
            return module
    raise ValueError(f"{type(model).__name__} keeps its {n_layers} blocks where they are not found")
