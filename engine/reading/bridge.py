"""The reference reader: TransformerLens hooks on the blocks of a Hugging Face model.

Each text is read alone (no chat template, the tokenizer's own special tokens), right-padded with an
explicit mask. Only the inner model runs, so no logits are computed, and the forward pass ends with
the last wanted layer. TransformerLens wraps every module and asks for attention that returns its
pattern; where only the stream between blocks is wanted, both cost a sixth of the time for nothing,
so inside the blocks Hugging Face's own modules and its own choice of attention are put back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from engine.reading.batching import Budget, batches, default_budget, padded, read_in_batches
from engine.reading.pooling import Layout, Pool, Pooled
from engine.reading.reader import OnEvent, ReaderSettings, tokenize
from engine.reading.windows import Span
from manifests.weights import weights_refusal

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


class _Enough(Exception):
    """Raised by the last wanted layer's hook to end a forward pass early."""


class BridgeReader:
    """A model in TransformerLens that reads token sequences."""

    def __init__(self, settings: ReaderSettings):
        """Load model and tokenizer onto the GPU, or the CPU where there is none."""
        from transformers import AutoTokenizer

        trust = settings.trust_remote_code
        self._tokenizer = AutoTokenizer.from_pretrained(settings.folder, trust_remote_code=trust)
        self.device, self._bridge = load_bridge(
            settings.folder, settings.dtype, trust, settings.devices
        )
        self.layers = settings.layers
        self._budget = Budget(settings.batch_tokens or default_budget(self.device))

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, whole, with the tokenizer's own special tokens."""
        return tokenize(self._tokenizer, texts)

    @torch.inference_mode()
    def read(
        self, sequences: Sequence[Sequence[int]], windows: Sequence[Span], on_event: OnEvent
    ) -> Pooled:
        """Read texts in batches of like lengths.

        On a CPU in float32, the same texts under the same budget give the same bits.

        Raises:
            NotFinite: a mean over real tokens is not finite.
            TooLarge: one text alone does not fit the memory.
        """
        lengths = [len(ids) for ids in sequences]
        d_model = int(self._bridge.cfg.d_model)
        pool = Pool(lengths, windows, len(self.layers), d_model, self.device)
        done = {"texts": 0, "tokens": 0}

        def read(texts: list[int]) -> None:
            self._forward([sequences[i] for i in texts], texts, windows, pool)
            pool.commit()

        for texts in read_in_batches(lengths, self._budget, read, on_event):
            done["texts"] += len(texts)
            done["tokens"] += sum(lengths[i] for i in texts)
            on_event(dict(done))
        return pool.finish(self.layers)

    @torch.inference_mode()
    def forward_only(self, sequences: Sequence[Sequence[int]]) -> None:
        """Run texts through the model and keep nothing, to see what keeping costs."""
        for batch in batches([len(ids) for ids in sequences], self._budget.tokens):
            self._run([sequences[i] for i in batch])

    def _forward(
        self,
        batch: Sequence[Sequence[int]],
        texts: Sequence[int],
        windows: Sequence[Span],
        pool: Pool,
    ) -> None:
        """Run the blocks once over a batch; hooks fill the pool."""
        lengths = [len(ids) for ids in batch]
        layout = Layout(texts, [0] * len(batch), lengths, windows, self.device)

        def hook_for(slot: int, last: bool) -> Callable[..., None]:
            def add(residual: Float[Tensor, "text token d_model"], hook: Any) -> None:
                pool.add(slot, residual, layout)
                if last:
                    raise _Enough

            return add

        n_blocks = int(self._bridge.cfg.n_layers)
        hooks = []
        for slot, layer in enumerate(self.layers):
            name = "blocks.0.hook_in" if layer < 0 else f"blocks.{layer}.hook_out"
            last = layer == max(self.layers) and layer < n_blocks - 1
            hooks.append((name, hook_for(slot, last)))
        with suppress(_Enough), self._bridge.hooks(fwd_hooks=hooks):
            self._run(batch)

    def _run(self, batch: Sequence[Sequence[int]]) -> None:
        """Run the inner model over a batch, right-padded under an explicit mask."""
        input_ids, attention_mask = padded(batch, self.device)
        self._bridge.original_model.base_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            use_cache=False,
        )


def load_bridge(
    folder: str, dtype: str, trust_remote_code: bool, devices: int
) -> tuple[torch.device, TransformerBridge]:
    """Load a model with hooks on its blocks and Hugging Face's own modules inside them.

    Args:
        folder: config and safetensors.
        dtype: precision of the forward pass.
        trust_remote_code: run code that comes with the model.
        devices: GPUs that it is spread over.

    Returns:
        Device of what goes in, and the model.

    Raises:
        ValueError: the weights are no safetensors.
    """
    if (why := weights_refusal(Path(folder))) is not None:
        raise ValueError(why)
    from transformer_lens.model_bridge import TransformerBridge

    torch.set_float32_matmul_precision("highest")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spread = devices > 1 and device.type == "cuda"
    bridge: TransformerBridge = TransformerBridge.boot_transformers(
        folder,
        device=None if spread else device,
        n_devices=devices if spread else None,
        dtype=getattr(torch, dtype),
        trust_remote_code=trust_remote_code,
    )
    bridge.eval()
    _lay_bare(bridge)
    return device, bridge


def _lay_bare(bridge: TransformerBridge) -> None:
    """Leave TransformerLens' hooks on the blocks, and put back what it wrapped inside them."""
    from transformer_lens.model_bridge.generalized_components import BlockBridge
    from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

    for block in bridge.blocks:
        if not isinstance(block, BlockBridge) or block.original_component is None:
            continue
        for module in list(block.original_component.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, GeneralizedComponent) and child.original_component is not None:
                    setattr(module, name, child.original_component)
    bridge.original_model.set_attn_implementation(attention_of(bridge.original_model))


def attention_of(model: Any) -> str:
    """Return the attention that a model is read with: its own choice, where that is right.

    The fused attention of transformers 5.19 leaves out what caps attention logits (Gemma 2).
    """
    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None)
    return "eager" if capped else str(model.get_correct_attn_implementation(None))
