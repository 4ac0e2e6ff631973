"""What one worker writes, and how a model's corpora are divided among several."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.writings import Share


def share(folder: Path, **sizes: int) -> Share:
    """Return corpora of so many texts each, by name."""
    ledger: Any = SimpleNamespace(
        plan=SimpleNamespace(n_texts=lambda corpus, layout: sizes[corpus]),
        layout=SimpleNamespace(journal=lambda corpus: folder / f"{corpus}.jsonl"),
    )
    stages: list[Any] = [SimpleNamespace(name=name, id=f"generate:{name}") for name in sizes]
    model = {"tensor_parallel_size": 2, "folder": "model"}
    job = {"log": "x", "model": model, "corpora": [{"name": name} for name in sizes]}
    return Share([(ledger, stage) for stage in stages], job)


@pytest.mark.parametrize(
    ("n", "parts"),
    [
        (1, [["a", "b", "c", "d"]]),
        (2, [["b", "d"], ["a", "c"]]),
        (3, [["b"], ["a"], ["c", "d"]]),
        (9, [["b"], ["a"], ["c"], ["d"]]),
    ],
)
def test_corpora_are_divided_evenly_and_keep_their_order(
    tmp_path: Path, n: int, parts: list[list[str]]
) -> None:
    found = share(tmp_path, a=60, b=100, c=50, d=20).divided(n)
    assert [[corpus["name"] for corpus in part.job["corpora"]] for part in found] == parts
    assert [[stage.name for _, stage in part.ordered] for part in found] == parts
    assert {part.gpus for part in found} == {2}


def test_a_share_gets_on_with_every_row_of_its_journals(tmp_path: Path) -> None:
    one = share(tmp_path, a=3, b=3)
    assert one.progress() == 0
    (tmp_path / "a.jsonl").write_text("x\n")
    (tmp_path / "b.jsonl").write_text("xy\n")
    assert one.progress() == 5
