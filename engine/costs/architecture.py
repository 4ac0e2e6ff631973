"""How large a model is, from its `config.json` alone: parameters, cache and operations a token.

Counted by formula, so that a plan needs neither weights nor torch; held to the parameters that
transformers makes for each family (tests/test_architecture.py), within one per cent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.models import (
    MAX_LAYERS,
    MAX_WIDTH,
    UNREADABLE,
    ModelUnavailable,
    config_file,
    read_config,
)
from manifests.builtin import BUILTIN_MODELS
from manifests.resolve import Study

PLAIN_MLP = {
    *("gpt2", "gptj", "gpt_neox", "phi", "falcon", "opt", "bloom", "starcoder2", "apertus"),
    *("nemotron", "gpt_bigcode"),
}
"""Families whose feed-forward has two matrices; the others have a third, the gate."""

TIED = {
    *("gemma", "gemma2", "gemma3", "gemma3_text", "gemma4", "gemma4_text", "smollm3", "falcon"),
    *("gpt2", "cohere", "cohere2", "starcoder2", "opt", "bloom", "ernie4_5", "lfm2", "gpt_bigcode"),
}
"""Families whose output matrix is their embedding unless the config says otherwise."""

GLOBAL_HEADS = {"gemma4": 512, "gemma4_text": 512}
"""Families whose blocks of full attention have heads of another width, and that width."""

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Of one number."""


@dataclass(frozen=True)
class Architecture:
    """The sizes of a language model.

    Attributes:
        family: `model_type` of its config.
        n_layers: blocks.
        d_model: width of the residual stream.
        parameters: all of them.
        active: those that one token meets in the blocks, embeddings left out: less than all where
            a token goes to some of the experts only.
        output: entries of the output matrix, which reading never computes.
        cached: numbers a token leaves in the key-value cache, over all blocks.
        heads_width: width of the queries of all heads, over all blocks.
        positions: tokens that the model was made for, None where the config does not say.
        packed: its weights come quantised, so that they may take less than their number says.
        stored: bytes of its weights as they are kept, unpacked where they come quantised.
        heads: of attention in a block.
        kv_heads: of keys and values in a block, but for blocks of full attention with others.
    """

    family: str
    n_layers: int
    d_model: int
    parameters: int
    active: int
    output: int
    cached: int
    heads_width: int
    positions: int | None
    packed: bool = False
    stored: int = 0
    heads: int = 0
    kv_heads: int = 0

    def splits_over(self, gpus: int) -> bool:
        """Tell whether the heads can be divided among GPUs, as tensor parallelism does.

        Where there are fewer heads of keys and values than GPUs, some hold the same.
        """
        return self.heads % gpus == 0 and (
            self.kv_heads % gpus == 0 or gpus % max(1, self.kv_heads) == 0
        )

    def weight_bytes(self, dtype: str) -> int:
        """Return the bytes of all parameters, unpacked where they come quantised."""
        return self.parameters * BYTES[dtype]

    def cache_bytes(self, tokens: int, dtype: str) -> int:
        """Return the bytes that some tokens hold in the key-value cache."""
        return self.cached * tokens * BYTES[dtype]

    def read_flops(self, tokens: float, length: float) -> float:
        """Return the operations of reading, in multiplications and additions.

        Two for each active parameter and token, and those of attention: 4 n d L for a text of L
        tokens, halved because a token sees the ones before it only.

        Args:
            tokens: in all.
            length: of a text, in tokens.
        """
        return tokens * (2 * self.active + 2 * self.heads_width * length)

    def write_flops(self, tokens: float, length: float) -> float:
        """Return the operations of writing tokens, the output matrix with them."""
        return self.read_flops(tokens, length) + 2 * tokens * self.output


def model_sizes(study: Study) -> dict[str, Architecture | None]:
    """Return every model's sizes, None where its config is not on this machine or says too little.

    A packaged model's are known without its package.
    """
    found: dict[str, Architecture | None] = {}
    for name, entry in study.manifest.models.items():
        if entry.builtin is not None:
            found[name] = architecture(BUILTIN_MODELS[entry.builtin].config)
            continue
        file = config_file(study, name)
        try:
            found[name] = None if file is None else read_architecture(file)
        except ModelUnavailable:
            found[name] = None
    return found


def read_architecture(file: Path) -> Architecture:
    """Read a model's sizes from a `config.json`, also where a text model sits inside another.

    Raises:
        ModelUnavailable: the file does not give them.
    """
    try:
        return architecture(read_config(file))
    except (*UNREADABLE, ZeroDivisionError, OverflowError) as error:
        message = f"{file} does not give the model's sizes ({type(error).__name__}: {error})"
        raise ModelUnavailable(message) from None


def architecture(config: dict[str, Any]) -> Architecture:
    """Return the sizes that a config gives.

    Raises:
        KeyError: it lacks one of them.
        ValueError: it speaks of more layers or dimensions than any model has.
    """
    outer, config = config, config.get("text_config") or config
    family = str(config.get("model_type") or outer["model_type"])
    n_layers = int(_first(config, "num_hidden_layers", "n_layer"))
    d_model = int(_first(config, "hidden_size", "n_embd"))
    if not (0 < n_layers <= MAX_LAYERS and 0 < d_model <= MAX_WIDTH):
        raise ValueError("layers or a width that no model has")
    vocabulary = int(config["vocab_size"])
    tied = config.get("tie_word_embeddings", outer.get("tie_word_embeddings"))
    if tied is None:
        tied = family in TIED
    narrow = int(config.get("word_embed_proj_dim") or d_model)
    embedding = vocabulary * narrow
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    learned = family in ("gpt2", "opt", "gpt_bigcode")
    seen = [_attention(config, family, d_model, layer) for layer in range(n_layers)]
    fed = [_mlp(config, family, d_model, layer) for layer in range(n_layers)]
    more = sum(weights for weights, _, _ in seen) + _per_layer_inputs(config, d_model, n_layers)
    every, active = (sum(block[way] for block in fed) + more for way in (0, 1))
    total = every + embedding + (0 if tied else embedding)
    total += int(positions) * d_model if learned and positions else 0
    total += _per_layer_table(config, n_layers)
    return Architecture(
        family=family,
        n_layers=n_layers,
        d_model=d_model,
        parameters=total,
        active=active,
        output=embedding,
        cached=sum(cached for _, _, cached in seen),
        heads_width=sum(width for _, width, _ in seen),
        positions=int(positions) if positions else None,
        packed=bool(config.get("quantization_config") or outer.get("quantization_config")),
        stored=total * BYTES[_kept_in(config, outer)],
        heads=int(_first(config, "num_attention_heads", "n_head")),
        kv_heads=_kv_heads(config, family),
    )


def _kept_in(*configs: dict[str, Any]) -> str:
    """Return the dtype that weights are kept in: the first that a config names, else float32."""
    named = (config.get(key) for config in configs for key in ("dtype", "torch_dtype"))
    return next((str(name) for name in named if str(name) in BYTES), "float32")


def _attention(
    config: dict[str, Any], family: str, d_model: int, layer: int
) -> tuple[int, int, int]:
    """Return a block's attention weights, the width of its queries, and what a token caches.

    What a sliding window forgets is counted as cached, so a cache is never larger than said.
    """
    heads = int(_first(config, "num_attention_heads", "n_head"))
    if config.get("kv_lora_rank"):  # multi-head latent attention (DeepSeek-V2, arXiv 2405.04434)
        rotary, plain = int(config["qk_rope_head_dim"]), int(config["qk_nope_head_dim"])
        value, latent = int(config["v_head_dim"]), int(config["kv_lora_rank"])
        query = heads * (rotary + plain)
        low = config.get("q_lora_rank")
        queries = d_model * query if not low else int(low) * (d_model + query)
        keys = d_model * (latent + rotary) + latent * heads * (plain + value)
        return queries + keys + heads * value * d_model, query, latent + rotary
    width = int(config.get("head_dim") or d_model // heads)
    kv = _kv_heads(config, family)
    kinds = config.get("layer_types") or []
    sides = 2
    if family in GLOBAL_HEADS and layer < len(kinds) and kinds[layer] == "full_attention":
        width = int(config.get("global_head_dim") or GLOBAL_HEADS[family])
        if config.get("attention_k_eq_v"):  # one matrix for keys and values
            kv, sides = int(config.get("num_global_key_value_heads") or kv), 1
    own = not _looks_back(config, layer)
    weights = 2 * d_model * width * heads + (sides * kv * width * d_model if own else 0)
    return weights, heads * width, 2 * kv * width if own else 0


def _kv_heads(config: dict[str, Any], family: str) -> int:
    """Return how many heads of keys and values a block has, but for those of full attention."""
    heads = int(_first(config, "num_attention_heads", "n_head"))
    if family == "falcon":
        old = not config.get("new_decoder_architecture")
        shared = old and config.get("multi_query", True)
        return 1 if shared else int(config.get("num_kv_heads") or heads)
    return int(config.get("num_key_value_heads") or heads)


def _looks_back(config: dict[str, Any], layer: int) -> bool:
    """Tell whether a block uses the keys and values of an earlier one (the last ones may)."""
    n_layers = int(_first(config, "num_hidden_layers", "n_layer"))
    return layer >= n_layers - int(config.get("num_kv_shared_layers") or 0)


def _mlp(config: dict[str, Any], family: str, d_model: int, layer: int) -> tuple[int, int]:
    """Return the feed-forward weights that a block holds, and those that one token meets."""
    matrices = 2 if family in PLAIN_MLP else 3
    names = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
    inner = next((config[name] for name in names if config.get(name)), 4 * d_model)
    double = config.get("use_double_wide_mlp") and _looks_back(config, layer)
    dense = matrices * d_model * int(inner) * (2 if double else 1)
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    experts = next((int(config[name]) for name in names if config.get(name)), 0)
    if not experts or layer < int(config.get("first_k_dense_replace") or 0):
        return dense, dense
    if layer in (config.get("mlp_only_layers") or []):
        return dense, dense
    if (layer + 1) % int(config.get("decoder_sparse_step") or 1):
        return dense, dense
    one = 3 * d_model * int(config.get("moe_intermediate_size") or inner)
    shared = one * int(config.get("n_shared_experts") or 0)
    shared += 3 * d_model * int(config.get("shared_expert_intermediate_size") or 0)
    shared += dense if config.get("enable_moe_block") else 0  # Gemma 4 keeps its dense one
    router = d_model * experts
    chosen = int(_first(config, "num_experts_per_tok", "top_k_experts", "experts_per_token"))
    return experts * one + shared + router, chosen * one + shared + router


def _per_layer_inputs(config: dict[str, Any], d_model: int, n_layers: int) -> int:
    """Return the weights that bring an embedding of its own into each block (Gemma 3n and 4)."""
    width = int(config.get("hidden_size_per_layer_input") or 0)
    return n_layers * 3 * d_model * width


def _per_layer_table(config: dict[str, Any], n_layers: int) -> int:
    """Return the entries of the embeddings that each block has of its own (Gemma 3n and 4)."""
    width = int(config.get("hidden_size_per_layer_input") or 0)
    return int(config.get("vocab_size_per_layer_input") or 0) * n_layers * width


def _first(config: dict[str, Any], *names: str) -> Any:
    """Return the first of some keys that has a value.

    Raises:
        KeyError: none has.
    """
    for name in names:
        if config.get(name) is not None:
            return config[name]
    raise KeyError(names[0])
