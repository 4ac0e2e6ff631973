"""A model that cannot take the requests is refused before any engine starts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from transformers import AutoTokenizer

from engine.generation.prompts import PromptEncoder
from engine.plan import Plan
from manifests import load_study
from store import Layout
from tests.test_faults import write_study
from tests.test_run import emovec


@pytest.fixture
def mute_model(tiny_model: Path, tmp_path: Path) -> Path:
    """A model whose tokenizer has no chat template."""
    folder = tmp_path / "mute"
    shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").unlink()
    return folder


def refused(manifest: Path, root: Path) -> str:
    """Run into bad input and return its one line; no engine was started."""
    done = emovec("generate", manifest, "--root", root, check=2)
    (line,) = done.stderr.strip().splitlines()
    layout = Layout(root, "study")
    assert not layout.journal("own").exists()
    assert "EngineCore" not in (layout.logs / "write-tiny.log").read_text()
    return line


def test_a_model_without_a_chat_template_is_told_how_to_get_one(
    mute_model: Path, tmp_path: Path
) -> None:
    manifest = write_study(tmp_path, mute_model, emotions=4)
    line = refused(manifest, tmp_path / "runs")
    assert "m.yaml:" in line
    assert "models.tiny: model 'tiny' has no chat template" in line
    assert "give it one with chat_template: path/to/template.jinja" in line


def test_a_given_chat_template_is_used_and_is_part_of_the_corpus(
    mute_model: Path, tmp_path: Path
) -> None:
    manifest = write_study(tmp_path, mute_model, emotions=4)
    keys = set()
    for number, prefix in enumerate(("Q: ", "Ask: ")):
        (tmp_path / "t.jinja").write_text(
            prefix + "{% for m in messages %}{{ m['content'] }}{% endfor %}"
        )
        study = yaml.safe_load(manifest.read_text())
        study["models"]["tiny"]["chat_template"] = "t.jinja"
        manifest.write_text(yaml.safe_dump(study))
        plan = Plan(load_study(manifest))
        keys.add(plan.journal_key("own"))
        template = plan.study.writing["own"].chat_template
        encoder = PromptEncoder(
            {
                "folder": str(mute_model),
                "trust_remote_code": False,
                "chat_template": template,
                "chat_template_kwargs": {},
            }
        )
        tokenizer = AutoTokenizer.from_pretrained(mute_model)
        assert encoder.encode("walk") == tokenizer(f"{prefix}walk")["input_ids"]
        assert len(keys) == number + 1


def test_a_prompt_longer_than_the_context_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    manifest = write_study(tmp_path, tiny_model, emotions=4)
    study = yaml.safe_load(manifest.read_text())
    study["corpora"]["own"]["generate"]["max_new_tokens"] = 1000
    manifest.write_text(yaml.safe_dump(study))
    line = refused(manifest, tmp_path / "runs")
    assert "corpora.own.generate.max_new_tokens: the longest prompt (" in line
    assert "are more than the context of 'tiny' (1024); lower max_new_tokens" in line
