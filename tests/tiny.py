"""Tiny things made on the spot: a random model, a corpus, a manifest that uses them."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from pathlib import Path
from typing import Any

import yaml

EMOTIONS = ("happy", "calm", "sad", "angry", "proud", "bored")
WORDS = (
    "the a she he it walked home slowly rain window table laughed looked away nobody spoke light "
    "door garden morning letter hands voice street water cold warm bread old young friend road"
).split()


def make_tiny_model(folder: Path, seed: int = 0, layers: int = 3) -> Path:
    """Write a random Llama with head_dim 64 (vLLM's CPU kernels want it) to a folder."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"])
    tokenizer.train_from_iterator([" ".join(WORDS)] * 20, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    config = AutoConfig.for_model(
        "llama",
        vocab_size=len(fast),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=1024,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def sentence(rng: random.Random, n_words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(n_words))


def write_corpus_files(folder: Path, per_emotion: int = 4, neutral: int = 6, seed: int = 1) -> None:
    """Write stories.jsonl and neutral.txt with texts of 20 to 90 words."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "stories.jsonl").open("w") as stream:
        for emotion in EMOTIONS:
            stories = [sentence(rng, rng.randint(60, 90)) for _ in range(per_emotion)]
            row = {"emotion": emotion, "topic": "a walk home", "stories": stories}
            stream.write(json.dumps(row) + "\n")
    lines = [sentence(rng, rng.randint(60, 90)) for _ in range(neutral)]
    (folder / "neutral.txt").write_text("\n".join(lines) + "\n")


def write_manifest(folder: Path, model: Path, **changes: Any) -> Path:
    """Write an import manifest; `changes` replace top-level keys."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "stories.jsonl").exists():
        write_corpus_files(folder)
    manifest: dict[str, Any] = {
        "version": 1,
        "name": "study",
        "models": {"tiny": {"path": str(model)}},
        "corpora": {"own": {"import": {"stories": "stories.jsonl", "neutral": "neutral.txt"}}},
        "extraction": {"max_tokens": 256},
        "analysis": {"norms": ["glasgow"], "bootstraps": 100, "permutations": 1000},
    }
    manifest.update(changes)
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(manifest, sort_keys=False))
    return file


def write_description(cache: Path, repository: str, config: dict[str, Any], model: Path) -> Path:
    """Write a hub model's config, and another model's tokenizer, as a hub's cache holds them.

    Args:
        cache: folder of the hub's library (`HF_HUB_CACHE`).
        repository: `owner/name`.
        config: what its `config.json` says.
        model: folder that has a tokenizer.

    Returns:
        The folder of the files.
    """
    commit = hashlib.sha1(repository.encode(), usedforsecurity=False).hexdigest()
    home = cache / f"models--{repository.replace('/', '--')}"
    folder = home / "snapshots" / commit
    folder.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(model / name, folder / name)
    return folder
