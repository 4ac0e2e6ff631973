"""The real built-in model writes with the real vLLM, is interrupted, goes on, and is read."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from engine.generation.demand import Demand
from engine.generation.prompts import PromptEncoder
from engine.ledger import Ledger
from engine.models import cache_folder
from engine.plan import Plan
from engine.reading.windows import Span
from engine.writings import claim_corpus_folder
from manifests import load_study
from manifests.schema import ModelEntry
from store import Layout, open_cell
from store.corpus import Text, read_corpus
from store.journal import read_journal
from store.journal_shapes import odd_reply
from tests.test_reading import hugging_face_means, relative_error
from tests.test_run import Interrupted, emovec, interrupt, states

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
                "stories_per_prompt": 1,
                "neutral": 2,
                "prompts": "prompts.yaml",
                "max_new_tokens": 200,
                "checks": {"min_words": 8},
                "attempts": 60,
            }
        }
    },
    "extraction": {"layers": [0, 15, 29], "windows": ["all", "no-first"]},
}
PROMPTS = {
    "stories": "Write {n_stories} stories of two sentences about {topic}, someone is {emotion}.",
    "story": "Write two short sentences: someone is {emotion}. Topic: {topic}",
    "neutral_narrative": "Write two short plain sentences about {topic}.",
    "neutral_expository": "Explain {topic} in two short sentences.",
}
WANTED = 4 * 2 + 2


def write(manifest: Path, content: dict[str, Any]) -> None:
    manifest.write_text(yaml.safe_dump(content))
    (manifest.parent / "prompts.yaml").write_text(yaml.safe_dump(PROMPTS))


@dataclass(frozen=True)
class Story:
    """What happened: files, how the interruption ended, and the rows kept by then."""

    manifest: Path
    root: Path
    end: Interrupted
    kept_before: list[dict[str, object]]
    printed: str


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("generation")
    manifest, root = folder / "m.yaml", folder / "runs"
    write(manifest, MANIFEST)
    journal = Layout(root, "study").journal("own")

    def kept() -> list[dict[str, object]]:
        return [row for row in read_journal(journal, odd_reply) if row["outcome"] == "kept"]

    end = interrupt(manifest, root, signal.SIGINT, lambda: bool(kept()))
    before = kept()
    done = emovec("run", manifest, "--root", root)
    return Story(manifest, root, end, before, done.stdout)


def corpus(story: Story) -> tuple[Text, ...]:
    return read_corpus(Layout(story.root, "study").stories("own")).texts


def test_an_interruption_exits_130_and_says_how_to_go_on(story: Story) -> None:
    assert story.end.returncode == 130
    assert "the same command goes on from here" in story.end.error
    assert "Traceback" not in story.end.error
    assert not story.end.left


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
    rows = list(read_journal(Layout(story.root, "study").journal("own"), odd_reply))
    rows = [row for row in rows if row["outcome"] != "withdrawn"]
    for row in rows:
        assert (row["outcome"] == "refused") == (row["reason"] != "")
        assert row["outcome"] in ("kept", "ahead", "refused")
        assert row["output_tokens"] > 0
        assert isinstance(row["reply"], str)
    attempts = [(row["request"], row["attempt"]) for row in rows]
    assert len(attempts) == len(set(attempts))


def test_each_token_is_the_one_that_seed_and_position_draw(story: Story) -> None:
    """Plain Hugging Face in float32 and the same draws give the tokens that vLLM wrote."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from engine.generation.drawing import draw, uniform_number

    (folder,) = (cache_folder() / "models").glob("smollm2-135m-*/")
    entry = ModelEntry(path=str(folder)).model_dump(mode="json")
    encoder = PromptEncoder({**entry, "folder": str(folder)})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    demand = Demand("own", load_study(story.manifest).writing["own"])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rows = [
        r
        for r in read_journal(Layout(story.root, "study").journal("own"), odd_reply)
        if "request" in r
    ]
    same = []
    for row in rows[:4]:
        prompt = encoder.encode(demand.prompt(demand.request(row["request"])))
        reply = tokenizer(row["reply"], add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
        n = len(reply)
        u = torch.tensor([uniform_number(row["seed"], position) for position in range(n)])
        drawn = draw(logits, torch.full((n,), 0.8), torch.full((n,), 0.95), u)
        same.append(np.mean(np.array(reply) == drawn.numpy()))
    assert np.mean(same) > 0.8  # bfloat16 there; a draw with another number agrees on a third


def test_the_corpus_is_read_by_its_own_writer(story: Story) -> None:
    cell = open_cell(story.root / "study", "writer@own")
    assert cell["residual_mean"].sizes == {"text": WANTED, "window": 2, "layer": 4, "d_model": 576}
    assert cell["residual_mean"].notnull().all()
    assert "writer@own" in story.printed


def test_a_real_models_residuals_equal_plain_hugging_face(story: Story) -> None:
    from transformers import AutoTokenizer

    (folder,) = (cache_folder() / "models").glob("smollm2-135m-*/")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer(text.text)["input_ids"] for text in corpus(story)]
    windows = [Span(0, None), Span(1, None)]
    want = hugging_face_means(folder, ids, [-1, 0, 15, 29], windows)
    got = open_cell(story.root / "study", "writer@own")["residual_mean"].to_numpy()
    assert relative_error(got, want) < 1e-5
    assert relative_error(got, want, leave_out=3) < 1e-5
    first_token = np.linalg.norm(want[:, 0, 2], axis=-1) / np.linalg.norm(want[:, 1, 2], axis=-1)
    assert np.median(first_token) > 2  # one massive token in the mean, and still as close


def test_nothing_is_left_to_do_and_more_attempts_change_nothing(
    story: Story, tmp_path: Path
) -> None:
    assert set(states(story.manifest, story.root).values()) == {"done"}
    patient = json.loads(json.dumps(MANIFEST))
    patient["corpora"]["own"]["generate"]["attempts"] = 50
    patient["models"]["writer"]["max_num_seqs"] = 8
    write(tmp_path / "m.yaml", patient)
    assert set(states(tmp_path / "m.yaml", story.root).values()) == {"done"}


def test_another_temperature_is_another_corpus(story: Story, tmp_path: Path) -> None:
    warmer = json.loads(json.dumps(MANIFEST))
    warmer["corpora"]["own"]["generate"]["temperature"] = 0.9
    write(tmp_path / "m.yaml", warmer)
    found = states(tmp_path / "m.yaml", story.root)
    assert "done" not in found.values()


def test_a_corpus_of_other_settings_goes_aside_and_comes_back(story: Story, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "runs", "study")
    shutil.copytree(story.root, layout.root)
    sealed = layout.stories("own").read_bytes()
    warmer = json.loads(json.dumps(MANIFEST))
    warmer["corpora"]["own"]["generate"]["temperature"] = 0.9
    write(tmp_path / "m.yaml", warmer)
    notes: list[str] = []

    def claim(manifest: Path) -> None:
        plan = Plan(load_study(manifest))
        ledger = Ledger(plan, layout, {}, lambda event: notes.append(str(event)))
        claim_corpus_folder(ledger, plan.stages["generate:own"])

    claim(tmp_path / "m.yaml")
    assert not layout.corpus("own").exists()
    claim(story.manifest)
    assert layout.stories("own").read_bytes() == sealed
    assert len(notes) == 2
    emovec("generate", story.manifest, "--root", layout.root)
    assert layout.stories("own").read_bytes() == sealed


@pytest.mark.slow
def test_studies_that_run_together_share_loads_and_a_corpus(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        **MANIFEST["corpora"]["own"]["generate"],
        "emotions": ["happy", "sad", "calm"],
        "stories_per_topic": 1,
        "max_new_tokens": 120,
    }
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    own = {"own": {"generate": settings}}
    more = {"more": {"generate": json.loads(json.dumps({**settings, "seed": 7}))}}
    write(one, {**MANIFEST, "name": "one", "corpora": own})
    write(two, {**MANIFEST, "name": "two", "corpora": {**own, **more}})
    root = tmp_path / "runs"
    done = emovec("extract", one, two, "--root", root)
    assert "own: two takes over the corpus of one" in done.stdout
    assert "done    two/extract:writer@more" in done.stdout
    first, second = Layout(root, "one"), Layout(root, "two")
    assert first.stories("own").read_bytes() == second.stories("own").read_bytes()
    assert read_corpus(second.stories("more")).texts != read_corpus(second.stories("own")).texts
    logs = [file.read_text() for file in root.rglob("write-*.log")]
    assert sum(log.count("Starting to load model") for log in logs) == 1
    logs = [file.read_text() for file in root.rglob("read-*.log")]
    assert sum(log.count("Loading weights: 100%") for log in logs) == 1
    for manifest in (one, two):
        assert set(states(manifest, root).values()) >= {"done", "to do"}
    again = emovec("extract", one, two, "--root", root)
    assert "nothing to do: all 8 stages are up to date" in again.stdout
