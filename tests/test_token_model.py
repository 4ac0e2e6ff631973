"""Scores of tokens by the hooked model, held to plain Hugging Face for every family."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.detection.model import TokenModel, _blocks
from engine.detection.weights import Weights
from engine.reading.pooling import NotFinite
from engine.reading.reader import TooLarge
from engine.reading.windows import Span
from tests.families import FAMILIES, VOCABULARY, make_family, n_layers, plain_means
from tests.test_families import TOLERANCE
from tests.test_steering_models import quick_and_slow

PLACES = (0, 1, 4)
LENGTHS = (5, 21, 9, 40)


def sequences() -> list[list[int]]:
    rng = random.Random(3)
    return [[1, *(rng.randrange(3, VOCABULARY) for _ in range(n - 1))] for n in LENGTHS]


def random_weights(layers: list[int], n_emotions: int = 6) -> Weights:
    rng = np.random.default_rng(0)
    weight_LED = rng.normal(size=(len(layers), n_emotions, 128)).astype(np.float32)
    zero_LE = rng.normal(size=(len(layers), n_emotions)).astype(np.float32)
    return Weights(layers, [f"e{i}" for i in range(n_emotions)], weight_LED, zero_LE)


def no_note(event: dict[str, str]) -> None:
    raise AssertionError(event)


@pytest.mark.parametrize("family", quick_and_slow(FAMILIES, "apertus", "gemma2", "gpt2"))
def test_scores_are_projections_of_what_leaves_the_blocks(family: str, tmp_path: Path) -> None:
    folder, last = make_family(tmp_path / family, family), n_layers(family) - 1
    weights = random_weights([0, last])
    model = TokenModel(str(folder), "float32", False, weights, by_rms=False, batch_tokens=45)
    found = model.scores(sequences(), no_note)
    residual = plain_means(folder, sequences(), [Span(at, at + 1) for at in PLACES])
    for text, score_TLE in enumerate(found):
        assert score_TLE.shape == (LENGTHS[text], 2, 6)
        assert np.isfinite(score_TLE).all()
        for slot, layer in enumerate(weights.layers):
            x_PD = residual[text, :, layer + 1]
            want_PE = x_PD @ weights.weight_LED[slot].T.astype(np.float64) - weights.zero_LE[slot]
            scale = np.linalg.norm(x_PD, axis=1, keepdims=True) * 128**0.5
            error = np.abs(score_TLE[list(PLACES), slot] - want_PE) / scale
            assert error.max() < TOLERANCE.get(family, 1e-5)


def test_windows_by_rms_divide_each_token_first(tmp_path: Path) -> None:
    folder, weights = make_family(tmp_path / "llama", "llama"), random_weights([1])
    model = TokenModel(str(folder), "float32", False, weights, by_rms=True)
    found = model.scores(sequences(), no_note)
    residual = plain_means(folder, sequences(), [Span(at, at + 1) for at in PLACES])[:, :, 2]
    unit = residual / np.sqrt((residual**2).mean(axis=-1, keepdims=True))
    want = unit @ weights.weight_LED[0].T - weights.zero_LE[0]
    got = np.stack([score_TLE[list(PLACES), 0] for score_TLE in found])
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_memory_that_runs_out_halves_the_batches_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, weights = make_family(tmp_path / "llama", "llama"), random_weights([0, 2])
    model = TokenModel(str(folder), "float32", False, weights, by_rms=False)
    want = model.scores(sequences(), no_note)
    whole, notes = model._forward, []

    def short(batch: list[list[int]]) -> np.ndarray:
        if len(batch) * max(map(len, batch)) > 41:
            raise torch.OutOfMemoryError
        return whole(batch)

    monkeypatch.setattr(model, "_forward", short)
    found = model.scores(sequences(), notes.append)
    assert notes
    assert all("memory ran out" in event["note"] for event in notes)
    for a, b in zip(found, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    with pytest.raises(TooLarge, match="50 tokens"):
        model.scores([[3] * 50], notes.append)


def test_scores_that_are_not_finite_are_an_error_and_never_a_gap(tmp_path: Path) -> None:
    folder, weights = make_family(tmp_path / "llama", "llama"), random_weights([1, 2])
    model = TokenModel(str(folder), "float32", False, weights, by_rms=False)
    model._weight_LED[1] *= float("inf")
    with pytest.raises(NotFinite) as error:
        model.scores(sequences(), no_note)
    assert (error.value.text, error.value.layer) == (0, 2)


def test_the_blocks_are_those_of_the_text_even_where_pictures_have_as_many() -> None:
    from transformers import AutoConfig, AutoModelForImageTextToText

    small = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    vision = {**small, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    text = {**small, **heads, "vocab_size": 64}
    config = AutoConfig.for_model("gemma3", text_config=text, vision_config=vision)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    first = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 3)
    assert "Siglip" in type(first[0]).__name__  # where a search of the whole model would end
    assert "Gemma3Decoder" in type(_blocks(model)[0]).__name__
