"""Models with the shape of real ones and random weights, for measuring without a download."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

EIGHT_HEADS = {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}

SHAPES: dict[str, dict[str, Any]] = {
    "apertus-8b": EIGHT_HEADS
    | {
        "model_type": "apertus",
        "hidden_size": 4096,
        "intermediate_size": 21_504,
        "num_hidden_layers": 32,
        "vocab_size": 131_072,
    },
    "llama-3.1-8b": EIGHT_HEADS
    | {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "vocab_size": 128_256,
    },
    "qwen3-8b": EIGHT_HEADS
    | {
        "model_type": "qwen3",
        "hidden_size": 4096,
        "intermediate_size": 12_288,
        "num_hidden_layers": 36,
        "vocab_size": 151_936,
    },
    "gemma-4-e4b": {
        "model_type": "gemma4_text",
        "hidden_size": 2560,
        "intermediate_size": 10_240,
        "num_hidden_layers": 42,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "global_head_dim": 512,
        "num_kv_shared_layers": 18,
        "hidden_size_per_layer_input": 256,
        "vocab_size": 262_144,
        "vocab_size_per_layer_input": 262_144,
    },
    "small": {
        "model_type": "llama",
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "vocab_size": 49_152,
    },
}
"""Configurations as published on the models' pages; `small` is of our own, for quick trials."""


def write_random_model(folder: Path, shape: str, tokenizer: Path) -> None:
    """Write a model of a shape in bfloat16 to a folder, with the tokenizer of another model."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = dict(SHAPES[shape])
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    for file in tokenizer.glob("*token*"):
        shutil.copy(file, folder)
