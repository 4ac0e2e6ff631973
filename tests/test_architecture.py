"""Sizes from a config alone, held to the model that transformers makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.costs.architecture import architecture, read_architecture
from engine.models import ModelUnavailable
from tests.tiny import make_tiny_model

GEMMA4 = {
    "shared": {"num_kv_shared_layers": 10, "use_double_wide_mlp": True},
    "one matrix": {"attention_k_eq_v": True, "num_global_key_value_heads": 2},
    "experts": {
        "enable_moe_block": True,
        "num_experts": 16,
        "top_k_experts": 2,
        "moe_intermediate_size": 512,
    },
}
FAMILIES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in (
        "llama gemma2 gemma3_text gemma4_text qwen2 qwen3 qwen3_moe mistral olmo2 olmo3 phi phi3 "
        "granite smollm3 glm glm4 falcon gpt_oss gpt2 gpt_neox apertus mixtral deepseek_v3 cohere "
        "stablelm starcoder2 opt bloom gptj exaone4 ernie4_5 seed_oss"
    ).split()),
    *(("gemma4_text", changes) for changes in GEMMA4.values()),
    ("llama", {"num_key_value_heads": 4, "head_dim": 96, "tie_word_embeddings": True}),
    ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 8}),
    ("qwen3_moe", {"mlp_only_layers": [0, 3], "decoder_sparse_step": 2}),
    ("deepseek_v3", {"q_lora_rank": None, "num_hidden_layers": 5}),
]  # fmt: skip


@pytest.mark.parametrize(("family", "changes"), FAMILIES)
def test_parameters_are_those_that_transformers_makes(family: str, changes: dict[str, Any]) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(family, **changes)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    held = sum(parameter.numel() for parameter in model.parameters())
    written = json.loads(json.dumps(config.to_dict(), default=str))
    if "tie_word_embeddings" not in changes:
        written.pop("tie_word_embeddings", None)  # as configs of older files have it
    found = architecture(written)
    assert found.parameters == pytest.approx(held, rel=0.01)
    embedding = model.get_input_embeddings().weight.numel()
    assert found.output == embedding or family == "opt"
    assert 0 < found.active < held
    if "moe" not in family and family not in ("mixtral", "gpt_oss", "deepseek_v3", "gemma4_text"):
        tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
        blocks = held - embedding * (1 if tied else 2)
        assert found.active == pytest.approx(blocks, rel=0.02)


def test_a_token_meets_only_its_experts() -> None:
    """Mixtral 8x7B: 46.7 billion parameters, 12.9 active ones with embeddings (Mistral AI)."""
    from transformers import AutoConfig

    found = architecture(AutoConfig.for_model("mixtral").to_dict())
    assert found.parameters == pytest.approx(46.7e9, rel=0.01)
    assert found.active + 2 * found.output == pytest.approx(12.9e9, rel=0.01)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "gpt2"])
def test_the_cache_is_as_large_as_the_one_that_transformers_fills(family: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

    small = {"num_hidden_layers": 3, "vocab_size": 64}
    config = AutoConfig.for_model(family, **small)
    model = AutoModelForCausalLM.from_config(config)
    cache = DynamicCache(config=config)
    with torch.no_grad():
        model(torch.ones((1, 7), dtype=torch.long), past_key_values=cache, use_cache=True)
    held = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    found = architecture(config.to_dict())
    assert found.cached * 7 == held
    assert found.cache_bytes(7, "bfloat16") == 2 * held


def test_operations_are_those_that_torch_counts(tmp_path: Path) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    folder = make_tiny_model(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    length = 40
    ids = torch.ones((1, length), dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.model(ids)
    found = read_architecture(folder / "config.json")
    square = 2 * found.heads_width * length * length  # eager attention sees what comes after, too
    assert found.read_flops(length, length) + square == pytest.approx(
        counter.get_total_flops(), rel=0.02
    )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids)
    assert found.write_flops(length, length) + square == pytest.approx(
        counter.get_total_flops(), rel=0.02
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "KeyError: 'model_type'"),
        ('{"model_type": "llama", "num_hidden_layers": 2}', "hidden_size"),
        ('{"model_type": "llama", "num_hidden_layers": "many"}', "ValueError"),
        ("[1]", "AttributeError"),
        ("{", "JSONDecodeError"),
    ],
)
def test_a_config_without_sizes_is_refused_in_one_line(
    content: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "config.json"
    file.write_text(content)
    with pytest.raises(ModelUnavailable, match="does not give the model's sizes") as error:
        read_architecture(file)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
