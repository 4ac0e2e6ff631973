"""The reader against plain Hugging Face: one text at a time, output hooks, no batching."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.reading import Reader, Span, batches, window_counts
from tests.tiny import make_tiny_model, sentence

WINDOWS = [Span(0, None), Span(1, None), Span(50, None)]
LAYERS = [-1, 0, 1, 2]


@pytest.fixture(scope="module")
def reader(tiny_model: Path) -> Reader:
    return Reader(str(tiny_model), "float32", LAYERS, trust_remote_code=False)


@pytest.fixture(scope="module")
def token_ids(reader: Reader) -> list[list[int]]:
    rng = random.Random(5)
    return reader.tokenize([sentence(rng, n) for n in (3, 20, 45, 60, 61, 90, 120)])


def hugging_face_means(
    folder: Path,
    token_ids: Sequence[Sequence[int]],
    layers: Sequence[int],
    windows: Sequence[Span] = WINDOWS,
) -> np.ndarray:
    """Window means in float64 of float32 block outputs, one text at a time."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    kept: dict[int, torch.Tensor] = {}

    def keep(layer: int):
        def hook(module, inputs, output):
            kept[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    model.model.embed_tokens.register_forward_hook(keep(-1))
    for index, block in enumerate(model.model.layers):
        block.register_forward_hook(keep(index))
    out = []
    for ids in token_ids:
        with torch.no_grad():
            model(torch.tensor([list(ids)]))
        rows = []
        for window in windows:
            tokens = torch.stack([kept[i][0] for i in layers])[:, window.start : window.end]
            rows.append(tokens.double().mean(dim=1).numpy())
        out.append(rows)
    return np.array(out)


def relative_error(got: np.ndarray, want: np.ndarray, leave_out: int = 0) -> float:
    """Return the worst relative L2 error of any vector, without its `leave_out` largest dims."""
    got, want = got.reshape(-1, got.shape[-1]), want.reshape(-1, want.shape[-1])
    there = np.isfinite(want).all(axis=1)
    assert (np.isfinite(got).all(axis=1) == there).all()
    got, want = got[there].astype(np.float64), want[there]
    if leave_out:
        order = np.argsort(-np.abs(want), axis=1)[:, leave_out:]
        got, want = (np.take_along_axis(x, order, axis=1) for x in (got, want))
    return float((np.linalg.norm(got - want, axis=1) / np.linalg.norm(want, axis=1)).max())


def test_means_equal_hugging_face_one_text_at_a_time(
    reader: Reader, token_ids: list[list[int]], tiny_model: Path
) -> None:
    want = hugging_face_means(tiny_model, token_ids, LAYERS)
    got = reader.window_means(token_ids, WINDOWS).numpy()
    assert relative_error(got, want) < 1e-5
    assert relative_error(got, want, leave_out=3) < 1e-5


def test_neither_batching_nor_padding_nor_order_moves_a_mean(
    reader: Reader, token_ids: list[list[int]], tiny_model: Path
) -> None:
    want = hugging_face_means(tiny_model, token_ids, LAYERS)
    alone = np.concatenate([reader.window_means([ids], WINDOWS).numpy() for ids in token_ids])
    order = [4, 0, 6, 2, 5, 1, 3]
    shuffled = np.empty_like(alone)
    shuffled[order] = reader.window_means([token_ids[i] for i in order], WINDOWS).numpy()
    for got in (alone, shuffled):
        assert relative_error(got, want) < 1e-5
        assert relative_error(got, want, leave_out=3) < 1e-5


def test_the_same_batch_gives_the_same_bits(reader: Reader, token_ids: list[list[int]]) -> None:
    first = reader.window_means(token_ids, WINDOWS).numpy()
    np.testing.assert_array_equal(first, reader.window_means(token_ids, WINDOWS).numpy())


def test_a_window_without_tokens_is_missing_not_zero(
    reader: Reader, token_ids: list[list[int]]
) -> None:
    short = [token_ids[0], [5]]
    means = reader.window_means(short, WINDOWS).numpy()
    assert np.isfinite(means[0, :2]).all()
    assert np.isnan(means[0, 2]).all()
    assert np.isnan(means[1, 1:]).all()
    assert window_counts([len(ids) for ids in short], WINDOWS).tolist()[1] == [1, 0, 0]


def test_stopping_early_gives_the_same_layers(
    reader: Reader, token_ids: list[list[int]], tiny_model: Path
) -> None:
    early = Reader(str(tiny_model), "float32", [-1, 1], trust_remote_code=False)
    all_layers = reader.window_means(token_ids, WINDOWS).numpy()
    some = early.window_means(token_ids, WINDOWS).numpy()
    np.testing.assert_array_equal(some, all_layers[:, :, [0, 2]])


def test_a_residual_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "broken")
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] = float("inf")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    broken = Reader(str(folder), "float32", [-1, 0, 1], trust_remote_code=False)
    with pytest.raises(FloatingPointError, match="not finite at layer 1"):
        broken.window_means([[5, 6, 7]], WINDOWS)


def test_batches_hold_every_text_once_within_the_budget() -> None:
    rng = random.Random(2)
    lengths = [rng.randint(1, 300) for _ in range(200)]
    found = list(batches(lengths, 1000))
    assert sorted(i for batch in found for i in batch) == list(range(200))
    assert all(len(b) * max(lengths[i] for i in b) <= 1000 for b in found)
    assert list(batches([5000], 1000)) == [[0]]
