"""Lists of texts that break a check, and of what was refused too often: what made each row."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

from engine.generation.flags import flag_texts
from engine.plan import Stage
from engine.writings import _list_given_up
from manifests.schema import Checks
from store import Layout
from store.corpus import Text, seal_corpus

PRINT = "0123456789abcdef" * 4


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_every_flagged_text_says_what_stage_described_it(tmp_path: Path) -> None:
    stories = tmp_path / "stories.parquet"
    seal_corpus(stories, [Text("happy/000/0", "emotion", "happy", "t", 0, "I was happy")])
    counts = flag_texts(stories, tmp_path / "flagged.csv", Checks(), PRINT)
    rows = rows_of(tmp_path / "flagged.csv")
    assert {row["check"] for row in rows} == {check for check, n in counts.items() if n}
    assert list(rows[0]) == ["text_id", "check", "found", "fingerprint"]
    assert {row["fingerprint"] for row in rows} == {PRINT[:16]}


def test_every_text_given_up_says_what_stage_asked_for_it(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "study")
    layout.corpus("own").mkdir(parents=True)
    stage = Stage("generate", "own", {}, (), PRINT)
    ledger = SimpleNamespace(layout=layout)
    said = _list_given_up(ledger, stage, {"happy/000/0": "leak: says, happy"}, 3)  # type: ignore[arg-type]
    assert said.startswith("texts refused too often: 1 (the last time for leak 1; all in ")
    assert rows_of(layout.given_up("own")) == [
        {"request": "happy/000/0", "reason": "leak: says, happy", "fingerprint": PRINT[:16]}
    ]
