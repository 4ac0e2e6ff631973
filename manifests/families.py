"""Families of language models that are proved to be read right, and by which backend.

Each is held to plain Hugging Face hidden states on a small random model, within 1e-5 (Gemma 4
within 5e-5), in tests/test_families.py. TransformerLens reads others too, unproved; vLLM's reader
refuses what it has no rule for.
"""

from __future__ import annotations

FAMILIES: dict[str, str] = {
    "apertus": "Apertus",
    "cohere": "Command R",
    "falcon": "Falcon",
    "gemma": "Gemma",
    "gemma2": "Gemma 2",
    "gemma3_text": "Gemma 3",
    "gemma4_text": "Gemma 4",
    "glm4": "GLM-4",
    "gpt2": "GPT-2",
    "gpt_neox": "GPT-NeoX, Pythia",
    "gpt_oss": "gpt-oss",
    "granite": "Granite 3",
    "llama": "Llama 1 to 3, SmolLM, SmolLM2, Falcon3, DeepSeek distills of Llama",
    "mistral": "Mistral, Ministral",
    "mixtral": "Mixtral",
    "olmo2": "OLMo 2",
    "olmo3": "OLMo 3",
    "olmoe": "OLMoE",
    "phi3": "Phi-3, Phi-3.5, Phi-4",
    "qwen2": "Qwen 2, Qwen 2.5, DeepSeek distills of Qwen",
    "qwen3": "Qwen 3",
    "qwen3_moe": "Qwen 3 (experts)",
    "smollm3": "SmolLM3",
    "stablelm": "StableLM",
    "starcoder2": "StarCoder2",
}
"""Models by Hugging Face's `model_type`; TransformerLens reads all of them."""

READ_BY_VLLM = frozenset(FAMILIES) - {
    *("gpt_neox", "mixtral", "olmo2", "olmo3", "smollm3", "starcoder2"),
}
"""Those that the vllm backend reads, too."""

INSIDE = {"gemma3": "gemma3_text", "gemma4": "gemma4_text"}
"""The text model inside a model of text and images."""


def readers(family: str) -> tuple[str, ...]:
    """Return the backends that are proved to read a family."""
    family = INSIDE.get(family, family)
    if family not in FAMILIES:
        return ()
    return ("transformer_lens", *(["vllm"] if family in READ_BY_VLLM else []))
