"""The real built-in model writes with the real vLLM, is interrupted, goes on, and is read."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from store import Layout, open_cell
from store.corpus import Text, read_corpus
from store.journal import read_journal
from tests.test_run import EMOVEC, ROOT, children_of_this_run, emovec, states

MANIFEST = {
    "version": 1,
    "name": "study",
    "models": {"writer": {"builtin": "smollm2-135m"}},
    "corpora": {
        "own": {
            "generate": {
                "model": "writer",
                "emotions": ["happy", "calm", "sad", "angry"],
                "topics_per_emotion": 1,
                "stories_per_topic": 2,
                "neutral": 2,
                "max_new_tokens": 160,
                "min_words": 20,
                "attempts": 20,
            }
        }
    },
    "extraction": {"layers": [0, 29], "windows": ["no-first"]},
}
WANTED = 4 * 2 + 2


@dataclass(frozen=True)
class Story:
    """What happened: files, the interrupted process' end, and rows it had kept."""

    manifest: Path
    root: Path
    returncode: int
    error: str
    kept_before: list[dict[str, object]]
    printed: str


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("generation")
    manifest, root = folder / "m.yaml", folder / "runs"
    manifest.write_text(yaml.safe_dump(MANIFEST))
    process = subprocess.Popen(
        [*EMOVEC, "run", str(manifest), "--root", str(root)],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    journal = Layout(root, "study").journal("own")
    deadline = time.monotonic() + 400
    while not any(row["outcome"] == "kept" for row in read_journal(journal)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    kept = [row for row in read_journal(journal) if row["outcome"] == "kept"]
    assert not children_of_this_run(root)
    done = emovec("run", manifest, "--root", root)
    return Story(manifest, root, process.returncode, error, kept, done.stdout)


def corpus(story: Story) -> tuple[Text, ...]:
    return read_corpus(Layout(story.root, "study").stories("own")).texts


def test_an_interruption_exits_130_and_says_how_to_go_on(story: Story) -> None:
    assert story.returncode == 130
    assert "the same command goes on from here" in story.error
    assert "Traceback" not in story.error


def test_counts_are_exact_and_every_kept_story_survives(story: Story) -> None:
    texts = corpus(story)
    assert len(texts) == len({text.text_id for text in texts}) == WANTED
    assert [text.kind for text in texts].count("neutral") == 2
    bodies = [text.text for text in texts]
    assert story.kept_before
    for row in story.kept_before:
        assert isinstance(row["stories"], list)
        for body in row["stories"]:
            assert body in bodies


def test_the_journal_holds_every_reply_with_its_reason(story: Story) -> None:
    rows = list(read_journal(Layout(story.root, "study").journal("own")))
    for row in rows:
        assert (row["outcome"] == "kept") == (row["reason"] == "")
        assert row["output_tokens"] > 0
        assert isinstance(row["reply"], str)
    attempts = [(row["request"], row["attempt"]) for row in rows]
    assert len(attempts) == len(set(attempts))


def test_the_corpus_is_read_by_its_own_writer(story: Story) -> None:
    cell = open_cell(story.root / "study", "writer@own")
    assert cell.sizes == {"text": WANTED, "window": 1, "layer": 3, "d_model": 576}
    assert cell["residual_mean"].notnull().all()
    assert "writer@own" in story.printed


def test_nothing_is_left_to_do_and_more_attempts_change_nothing(
    story: Story, tmp_path: Path
) -> None:
    assert set(states(story.manifest, story.root).values()) == {"done"}
    patient = json.loads(json.dumps(MANIFEST))
    patient["corpora"]["own"]["generate"]["attempts"] = 50
    patient["models"]["writer"]["max_num_seqs"] = 8
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(patient))
    assert set(states(tmp_path / "m.yaml", story.root).values()) == {"done"}


def test_another_temperature_is_another_corpus(story: Story, tmp_path: Path) -> None:
    warmer = json.loads(json.dumps(MANIFEST))
    warmer["corpora"]["own"]["generate"]["temperature"] = 0.9
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(warmer))
    found = states(tmp_path / "m.yaml", story.root)
    assert "done" not in found.values()
