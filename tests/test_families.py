"""Both readers on tiny random models of many families, against plain Hugging Face."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.device import child_environment
from engine.reading.bridge import BridgeReader
from engine.reading.reader import Reader
from engine.reading.shards import read_shard
from engine.reading.windows import Span
from manifests import families
from manifests.schema import Extraction
from store.corpus import Text, seal_corpus
from store.residuals import create_residuals
from store.shards import missing_shards
from tests.families import FAMILIES, VOCABULARY, make_family, n_layers, plain_means
from tests.test_reading import means, relative_error, settings
from tests.tiny import sentence

WINDOWS = [Span(0, None), Span(1, None), Span(20, None)]
LENGTHS = (5, 21, 22, 40, 64, 33)
TOLERANCE = {"gemma4_text": 5e-5}


def token_ids() -> list[list[int]]:
    rng = random.Random(3)
    return [[1, *(rng.randrange(3, VOCABULARY) for _ in range(n - 1))] for n in LENGTHS]


def check(reader: Reader, folder: Path, family: str) -> None:
    ids = token_ids()
    want = plain_means(folder, ids, WINDOWS)
    got = means(reader, ids, WINDOWS)
    assert got.shape == want.shape
    assert relative_error(got, want) < TOLERANCE.get(family, 1e-5)
    assert relative_error(got, want, leave_out=3) < TOLERANCE.get(family, 1e-5)


def test_every_family_that_is_listed_is_proved_here() -> None:
    assert set(families.FAMILIES) == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_transformer_lens_reads(family: str, tmp_path: Path) -> None:
    folder = make_family(tmp_path / family, family)
    check(BridgeReader(settings(folder, range(-1, n_layers(family)))), folder, family)


@pytest.fixture(scope="module")
def vllm_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in child_environment().items():
            patch.setenv(name, value)
        for name in ("ENABLE_V1_MULTIPROCESSING", "USE_V2_MODEL_RUNNER"):
            patch.setenv(f"VLLM_{name}", "0")  # as the reader sets them; not for later tests
        patch.setenv("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1")
        yield


QUICK = ("apertus", "gemma4_text", "gpt2")
"""Read by vLLM in the default run; an engine for each of the others takes its time."""


@pytest.mark.parametrize(
    "family",
    [
        f if f in QUICK else pytest.param(f, marks=pytest.mark.slow)
        for f in sorted(families.READ_BY_VLLM)
    ],
)
def test_vllm_reads(family: str, tmp_path: Path, vllm_environment: None) -> None:
    from engine.reading.vllm_reader import VllmReader

    folder = make_family(tmp_path / family, family)
    reader = VllmReader(settings(folder, range(-1, n_layers(family)), batch_tokens=48))
    try:
        check(reader, folder, family)
    finally:
        reader.close()


def with_tokenizer(folder: Path, *, bos: bool, padding_side: str, pad: bool) -> Path:
    """Give a model's folder a tokenizer of another kind."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if bos:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    tokenizer.padding_side = padding_side
    tokenizer.pad_token = "</s>" if pad else None
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("bos", [True, False])
def test_no_kind_of_tokenizer_moves_a_mean(
    padding_side: str, pad: bool, bos: bool, tiny_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    with_tokenizer(folder, bos=bos, padding_side=padding_side, pad=pad)
    rng = random.Random(9)
    texts = [sentence(rng, n) for n in (4, 30, 31, 60)]
    plain = AutoTokenizer.from_pretrained(folder)
    ids = [plain(text)["input_ids"] for text in texts]  # one at a time: nothing is padded
    reader = BridgeReader(settings(folder))
    assert reader.tokenize(texts) == ids
    assert all((i[0] == 1) == bos for i in ids)
    got = means(reader, reader.tokenize(texts), WINDOWS)
    assert relative_error(got, plain_means(folder, ids, WINDOWS)) < 1e-5


def test_a_text_without_tokens_is_refused_by_name(tiny_model: Path, tmp_path: Path) -> None:
    from tokenizers.normalizers import Replace
    from transformers import AutoTokenizer

    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.normalizer = Replace("z", "")
    tokenizer.save_pretrained(folder)
    texts = [
        Text(f"sad/{i}/0", "emotion", "sad", "t", 0, body) for i, body in enumerate(["a", "zz"])
    ]
    seal_corpus(tmp_path / "stories.parquet", texts)
    create_residuals(tmp_path / "residuals.zarr", texts, ["all"], [-1, 0], 128, {})
    model = {"folder": str(folder), "trust_remote_code": False, "tensor_parallel_size": 1}
    job = {
        "model": {**model, "gpu_memory_utilization": 0.9},
        "extraction": {**Extraction(windows=["all"]).model_dump(mode="json"), "layers": [-1, 0]},
        "corpus": str(tmp_path / "stories.parquet"),
        "residuals": str(tmp_path / "residuals.zarr"),
        "shard": 0,
    }
    with pytest.raises(ValueError, match="text sad/1/0 has no tokens under this model's tokenizer"):
        read_shard(job, lambda event: None)
    assert missing_shards(tmp_path / "residuals.zarr") == [0]
