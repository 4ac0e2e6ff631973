"""Tiny random models of many families, and what plain Hugging Face says of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.reading.windows import Span
from tests.tiny import make_tiny_model

VOCABULARY = 320
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,  # so large that a block left out or added twice is seen
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
MOE: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
HEADS = {"num_key_value_heads": 2}

FAMILIES: dict[str, dict[str, Any]] = {
    "apertus": {},
    "cohere": {},
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 1, "head_dim": None},
    "gemma": {},
    "gemma2": {"sliding_window": 16, "query_pre_attn_scalar": 64},
    "gemma3_text": {"sliding_window": 16, "query_pre_attn_scalar": 64},
    "gemma4_text": {
        "num_hidden_layers": 12,
        "num_kv_shared_layers": 4,
        "hidden_size_per_layer_input": 32,
        "vocab_size_per_layer_input": VOCABULARY,
        "global_head_dim": 64,
        "sliding_window": 16,
    },
    "glm4": {"partial_rotary_factor": 0.5},
    "gpt2": {"n_embd": 128, "n_layer": 3, "n_head": 2, "n_positions": 512, "n_inner": 192},
    "gpt_neox": {},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16},
    "granite": {"residual_multiplier": 0.5, "embedding_multiplier": 3.0},
    "llama": {"tie_word_embeddings": True},
    "mistral": {"sliding_window": 16},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "olmo2": HEADS,
    "olmo3": HEADS | {"sliding_window": 16},
    "olmoe": MOE | HEADS,
    "phi3": {"original_max_position_embeddings": 512},
    "qwen2": {},
    "qwen3": {},
    "qwen3_moe": MOE | {"decoder_sparse_step": 1},
    "smollm3": {},
    "stablelm": {},
    "starcoder2": {},
}
"""Settings of each family beyond `SMALL`, by Hugging Face's `model_type`; None takes one away."""


def make_family(folder: Path, family: str, **changes: Any) -> Path:
    """Write a random model of a family, with a tokenizer, to a folder."""
    from transformers import AutoConfig, AutoModelForCausalLM

    make_tiny_model(folder)  # for its tokenizer
    settings = {**SMALL, **FAMILIES[family], **changes}
    config = AutoConfig.for_model(family, **{k: v for k, v in settings.items() if v is not None})
    torch.manual_seed(len(family))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms that are all ones would hide a mix-up
                parameter.add_(0.2 * torch.randn_like(parameter))
            parameter.copy_(parameter.bfloat16())  # as published weights are: vLLM keeps some so
    model.save_pretrained(folder)
    return folder


def n_layers(family: str) -> int:
    """Return the number of a family's blocks."""
    return int(FAMILIES[family].get("num_hidden_layers", SMALL["num_hidden_layers"]))


def plain_means(
    folder: Path, token_ids: Sequence[Sequence[int]], windows: Sequence[Span]
) -> np.ndarray:
    """Means in float64 of what enters the first block and leaves each, one text at a time.

    Returns:
        [text, window, layer, d_model], the first layer being -1.
    """
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    n = model.config.num_hidden_layers
    (blocks,) = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == n][:1]
    kept: list[torch.Tensor] = []

    def before(module: Any, args: Any, kwargs: Any) -> None:
        kept.append(args[0] if args else kwargs["hidden_states"])

    def after(module: Any, args: Any, output: Any) -> None:
        kept.append(output[0] if isinstance(output, tuple) else output)

    blocks[0].register_forward_pre_hook(before, with_kwargs=True)
    for block in blocks:
        block.register_forward_hook(after)
    found = []
    for ids in token_ids:
        kept.clear()
        with torch.no_grad():
            model(torch.tensor([list(ids)]))
        tokens = torch.stack([residual[0] for residual in kept]).double()
        found.append([tokens[:, w.start : w.end].mean(dim=1).numpy() for w in windows])
    return np.array(found)
