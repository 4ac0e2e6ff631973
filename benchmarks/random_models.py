"""Models to measure with: the built-in one, a folder, or random weights of a real configuration."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from engine.fetching import fetch_here
from engine.models import ModelSource

BUILTIN = "smollm2-135m"

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
    "deep": {
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 36,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "vocab_size": 49_152,
    },
}
"""Configurations as published on the models' pages; two are of our own: `small` for quick trials,
`deep` with about as many layers as the paper's models and little else."""


def builtin_folder() -> Path:
    """Return the folder of the built-in model, unpacked first where it is not."""
    return fetch_here(ModelSource(BUILTIN, BUILTIN, None, None, None), lambda task: None)


def benchmark_model(model: str | None, weights: str, scratch: Path) -> tuple[str, Path]:
    """Return the name and folder of a model to measure with.

    Args:
        model: a key of SHAPES, a folder, or None for the built-in model.
        weights: `trained`, or `random` for those that the model's configuration begins with.
        scratch: where random weights are written.

    Raises:
        SystemExit: there is no such model, or trained weights are asked for a mere shape.
    """
    if model is None and weights == "trained":
        return BUILTIN, builtin_folder()
    name = BUILTIN if model is None else Path(model).name
    source = builtin_folder() if model is None else Path(model)
    if model in SHAPES:
        if weights == "trained":
            raise SystemExit(f"{model} is a configuration only; add --weights random")
        settings = dict(SHAPES[model])
    elif (source / "config.json").is_file():
        if weights == "trained":
            return name, source
        settings = json.loads((source / "config.json").read_text())
    else:
        raise SystemExit(f"{model} is no folder of a model; known shapes: {', '.join(SHAPES)}")
    target = scratch / f"{name}-random"
    tokenizer = builtin_folder() if model in SHAPES else source
    _write_random_model(target, settings, tokenizer)
    return f"{name}, random weights", target


def write_random_model(folder: Path, shape: str, tokenizer: Path, seed: int = 0) -> None:
    """Write a model of a shape in bfloat16 to a folder, with the tokenizer of another model."""
    _write_random_model(folder, SHAPES[shape], tokenizer, seed)


def _write_random_model(
    folder: Path, settings: dict[str, Any], tokenizer: Path, seed: int = 0
) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    others = {k: v for k, v in settings.items() if k not in ("model_type", "transformers_version")}
    config = AutoConfig.for_model(settings["model_type"], **others)
    torch.manual_seed(seed)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    for file in tokenizer.glob("*token*"):
        shutil.copy(file, folder)
