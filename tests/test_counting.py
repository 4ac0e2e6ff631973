"""Counting tokens with tokenizers that models bring, broken ones included."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from engine import counting
from engine.counting import TokenCounter
from manifests.errors import InputError
from tests.tiny import sentence, write_manifest
from tests.verified import command, opened

BROKEN = {
    "object": "{}",
    "list": "[]",
    "empty": "",
    "deep": "[" * 100_000,
    "deep object": '{"model": ' * 100_000,
    "no model": '{"version": "1.0"}',
    "unknown word": '{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, '
    '"unk_token": "?"}}',
}


@pytest.mark.parametrize("name", [*BROKEN, "cut", "not UTF-8"])
def test_a_broken_tokenizer_is_one_line_that_names_it(
    name: str, tiny_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "tokenizer.json"
    good = (tiny_model / "tokenizer.json").read_bytes()
    contents = {"cut": good[: len(good) // 2], "not UTF-8": b'{"model": "\xff"}'}
    file.write_bytes(contents[name] if name in contents else BROKEN[name].encode())
    with pytest.raises(InputError) as error:
        TokenCounter(file).count(["a word"])
    assert str(error.value).startswith(f"{file}: no tokenizer that can be used (")
    assert len(str(error.value).splitlines()) == 1


def test_tokens_are_counted_in_batches_as_all_at_once(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, file = random.Random(3), tiny_model / "tokenizer.json"
    texts = [sentence(rng, 1 + n % 20) for n in range(50)]
    wanted = [len(one.ids) for one in Tokenizer.from_file(str(file)).encode_batch(texts)]
    sizes: list[int] = []
    monkeypatch.setattr(counting, "BATCH", 16)
    counter = TokenCounter(file, whole=True)
    encode = counter._tokenizer

    class Watched:
        def encode_batch(self, batch: list[str]) -> object:
            sizes.append(len(batch))
            return encode.encode_batch(batch)

    counter._tokenizer = Watched()
    assert counter.count(texts) == wanted
    assert sizes == [16, 16, 16, 2]


def test_a_plan_with_a_broken_tokenizer_is_one_line(tiny_model: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "tokenizer.json").write_text("{}")
    run = opened(write_manifest(tmp_path / "study", model))
    code, _, err = command(run, "plan")
    assert code == 2
    assert err.startswith(f"{model / 'tokenizer.json'}: no tokenizer that can be used (")
    assert len(err.splitlines()) == 1
