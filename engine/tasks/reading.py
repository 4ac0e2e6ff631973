"""Models read corpora, and write while they are steered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from distributed import get_worker

from engine.device import gpu_name
from engine.events import Note, StageProgress
from engine.tasks.worker import emit, end_child, in_child, my_run
from engine.versions import program_versions
from store.places import place, total_size


def read_shard(job: dict[str, Any]) -> dict[str, Any]:
    """Read one shard of a cell.

    Args:
        job: as `engine.reading.shards.read_shard` takes it, with `log` and `stage`.
    """

    def on_event(event: dict[str, Any]) -> None:
        if "note" in event:
            emit(Note(event["note"]))
        else:
            emit(StageProgress(f"{job['stage']}#{job['shard']}", event["texts"], event["tokens"]))

    extraction = job["extraction"]
    key = f"read:{job['model']['folder']}:{extraction['backend']}:{extraction['dtype']}"
    figures = dict(in_child(key, Path(job["log"]), "read", job, on_event))
    return {
        **figures,
        "worker": get_worker().address,
        "versions": program_versions(),
        "gpu": gpu_name(),
    }


def cell_figures(residuals: str, max_tokens: int) -> dict[str, Any]:
    """Return counts over a complete cell: texts, tokens read, texts cut, texts outside windows."""
    from store.residuals import open_residuals

    cell = open_residuals(place(residuals), as_dask=False)
    text_tokens = cell["text_tokens"].to_numpy()
    empty = (cell["token_count"] == 0).sum("text")
    return {
        "texts": len(text_tokens),
        "tokens": int(np.minimum(text_tokens, max_tokens).sum()),
        "cut_texts": int((text_tokens > max_tokens).sum()),
        "texts_without_token": {
            str(w): int(n) for w, n in zip(cell["window"].to_numpy(), empty, strict=True)
        },
        "bytes": total_size(place(residuals)),
    }


def steer(job: dict[str, Any]) -> dict[str, Any]:
    """Have a cell's model write under every condition, then measure what needs no writing.

    Args:
        job: as `engine.steering.jobs` describes it, with `log`.
    """

    def on_event(event: dict[str, Any]) -> None:
        emit(StageProgress(event["stage"], event["done"], event["tokens"]))

    found: dict[str, Any] = {}
    for task in ("steer-write", "steer-score"):
        key = f"{task}:{job['stage']}:{job['fingerprint']}"
        try:
            found[task] = in_child(key, Path(job["log"]), task, job, on_event)
        finally:
            end_child(my_run().token)
    written, scored = found["steer-write"], found["steer-score"]
    return {**written, "texts": scored["texts"], "conditions": scored["conditions"]}
