"""Reads a cell's shards in a child process: texts of a shard in, arrays on disk out.

Reading and writing overlap: a shard is written by a thread of its own while the next is read, so
at most two are held.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from engine.reading.pooling import NotFinite
from engine.reading.reader import OnEvent, Reader, ReaderSettings
from engine.reading.windows import spans_of, window_counts
from store.corpus import Corpus, Text, read_corpus
from store.places import Place, place
from store.residuals import ShardBlock, write_shard
from store.shards import group_attributes, shard_span


def load_reader(backend: str, settings: ReaderSettings) -> Reader:
    """Load a model into one of the readers."""
    if backend == "vllm":
        from engine.reading.vllm_reader import VllmReader

        return VllmReader(settings)
    from engine.reading.bridge import BridgeReader

    return BridgeReader(settings)


def read_shard(job: dict[str, Any], on_event: OnEvent) -> Callable[[], dict[str, Any]]:
    """Read one shard of a cell; what is returned writes it.

    Args:
        job: `model` (folder, trust_remote_code, tensor_parallel_size, gpu_memory_utilization),
            `extraction` (backend, dtype, layers, windows, max_tokens, batch_tokens), `corpus` and
            `residuals` (paths), `shard`.
        on_event: called with {texts, tokens} after each forward pass, and with {note}.

    Returns:
        Function that writes the shard and returns texts, tokens, cut_texts (longer than
        `max_tokens`) and seconds of reading.

    Raises:
        ValueError: a text without tokens, or one whose residual is not finite.
    """
    extraction, reader = job["extraction"], reader_of(job)
    folder = place(job["residuals"])
    span = shard_span(folder, job["shard"])
    texts = _corpus(job["corpus"], Path(job["corpus"]).stat().st_mtime_ns).texts
    started = time.monotonic()
    block = read_texts(reader, texts[span.start : span.stop], extraction, on_event)
    seconds = time.monotonic() - started

    def write() -> dict[str, Any]:
        _require_same(folder, job)
        write_shard(folder, job["shard"], block)
        return {
            "texts": len(span),
            "tokens": int(np.minimum(block.text_tokens, extraction["max_tokens"]).sum()),
            "cut_texts": int((block.text_tokens > extraction["max_tokens"]).sum()),
            "seconds": seconds,
        }

    return write


def _require_same(folder: Place, job: dict[str, Any]) -> None:
    """Refuse to write into a store that was made for other settings while a text was read.

    Raises:
        ValueError: it was.
    """
    found = group_attributes(folder) or {}
    if "made_from" in job and found.get("made_from") != job["made_from"]:
        raise ValueError(f"{folder} was made anew with other settings in the meantime")


def read_texts(
    reader: Reader, texts: Sequence[Text], extraction: dict[str, Any], on_event: OnEvent
) -> ShardBlock:
    """Read some texts of a corpus and return what a shard of them would hold.

    Raises:
        ValueError: a text without tokens, or one whose residual is not finite.
    """
    ids = reader.tokenize([text.text for text in texts])
    if empty := [text.text_id for text, tokens in zip(texts, ids, strict=True) if not tokens]:
        raise ValueError(f"text {empty[0]} has no tokens under this model's tokenizer")
    text_tokens = np.array([len(tokens) for tokens in ids], dtype=np.int32)
    ids = [tokens[: extraction["max_tokens"]] for tokens in ids]
    windows = spans_of(extraction["windows"])
    try:
        pooled = reader.read(ids, windows, on_event)
    except NotFinite as error:
        raise ValueError(
            f"text {texts[error.text].text_id} has a residual that is not finite at layer "
            f"{error.layer}; try another extraction.dtype"
        ) from None
    return ShardBlock(
        **vars(pooled),
        token_count=window_counts([len(tokens) for tokens in ids], windows),
        text_tokens=text_tokens,
    )


def reader_of(job: dict[str, Any]) -> Reader:
    """Return the reader that a job asks for; this process loads it once."""
    model, extraction = job["model"], job["extraction"]
    settings = ReaderSettings(
        folder=model["folder"],
        dtype=extraction["dtype"],
        layers=tuple(extraction["layers"]),
        max_tokens=extraction["max_tokens"],
        batch_tokens=extraction["batch_tokens"],
        trust_remote_code=model["trust_remote_code"],
        devices=model["tensor_parallel_size"],
        memory_share=model["gpu_memory_utilization"],
    )
    key = (extraction["backend"], settings)
    if not _held or _held[0][0] != key:
        _held.clear()
        _held.append((key, load_reader(*key)))
    return _held[0][1]


_held: list[tuple[tuple[str, ReaderSettings], Reader]] = []


@lru_cache(maxsize=1)
def _corpus(file: str, changed_ns: int) -> Corpus:
    return read_corpus(Path(file))
