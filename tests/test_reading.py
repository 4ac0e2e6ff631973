"""The reader against plain Hugging Face: one text at a time, output hooks, no batching."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.reading.batching import batches
from engine.reading.bridge import BridgeReader
from engine.reading.pooling import Layout, NotFinite, Pool, Pooled
from engine.reading.reader import Reader, ReaderSettings
from engine.reading.windows import Span, window_counts
from engine.readings import workers_at_once
from tests.tiny import make_tiny_model, sentence

WINDOWS = [Span(0, None), Span(1, None), Span(50, None)]
LAYERS = [-1, 0, 1, 2]


def settings(folder: Path, layers: Sequence[int] = LAYERS, **changes: Any) -> ReaderSettings:
    return ReaderSettings(
        **{
            "folder": str(folder),
            "dtype": "float32",
            "layers": tuple(layers),
            "max_tokens": 512,
            "batch_tokens": None,
            "trust_remote_code": False,
            "devices": 1,
            **changes,
        }
    )


def pooled(reader: Reader, ids: Sequence[Sequence[int]], windows: Any = None) -> Pooled:
    return reader.read(ids, windows or WINDOWS, lambda event: None)


def means(reader: Reader, ids: Sequence[Sequence[int]], windows: Any = None) -> np.ndarray:
    return pooled(reader, ids, windows).residual_mean


@pytest.fixture(scope="module")
def reader(tiny_model: Path) -> Reader:
    return BridgeReader(settings(tiny_model))


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


def hugging_face_tokens(
    folder: Path, ids: Sequence[int], layers: Sequence[int] = LAYERS
) -> np.ndarray:
    """One text's residuals in float64, [layer, token, d_model], from `output_hidden_states`."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    kept: list[torch.Tensor] = []
    for block in model.model.layers:
        block.register_forward_hook(lambda m, i, o: kept.append(o[0] if type(o) is tuple else o))
    with torch.no_grad():
        first = model(torch.tensor([list(ids)]), output_hidden_states=True).hidden_states[0]
    return torch.stack([first[0], *(k[0] for k in kept)])[[i + 1 for i in layers]].double().numpy()


def check_against_tokens(reader: Reader, folder: Path, token_ids: list[list[int]]) -> None:
    """Norms, peaks, squares and rms windows against a computation token by token."""
    windows = [*WINDOWS, Span(0, None, rms=True), Span(3, 40, rms=True)]
    found = pooled(reader, token_ids, windows)
    tokens = [hugging_face_tokens(folder, ids) for ids in token_ids]
    norms = [np.linalg.norm(t, axis=2) for t in tokens]
    np.testing.assert_allclose(found.peak_norm, [n.max(axis=1) for n in norms], rtol=1e-5)
    np.testing.assert_allclose(found.mean_norm, [n.mean(axis=1) for n in norms], rtol=1e-5)
    np.testing.assert_allclose(found.first_norm, [n[:, 0] for n in norms], rtol=1e-5)
    assert (found.peak_position == [n.argmax(axis=1) for n in norms]).all()
    squares = np.concatenate(tokens, axis=1) ** 2
    np.testing.assert_allclose(found.mean_square, squares.mean(axis=1), rtol=1e-4)
    scaled = [t / np.sqrt((t**2).mean(axis=2, keepdims=True)) for t in tokens]
    want = np.array([[s.mean(axis=1), s[:, 3:40].mean(axis=1)] for s in scaled])
    assert relative_error(found.residual_mean[:, 3:], want) < 1e-5


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
    got = means(reader, token_ids)
    assert relative_error(got, want) < 1e-5
    assert relative_error(got, want, leave_out=3) < 1e-5


def test_norms_peaks_and_rms_windows_equal_a_computation_token_by_token(
    reader: Reader, token_ids: list[list[int]], tiny_model: Path
) -> None:
    check_against_tokens(reader, tiny_model, token_ids)


def test_memory_that_runs_out_halves_the_budget_and_loses_nothing(
    reader: Reader, token_ids: list[list[int]], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = BridgeReader(settings(tiny_model, batch_tokens=2000))
    add = Pool.add

    def cramped(pool: Pool, slot: int, residual: torch.Tensor, layout: Layout) -> None:
        add(pool, slot, residual, layout)
        if slot == 2 and residual.shape[0] * residual.shape[1] > 500:
            raise torch.OutOfMemoryError

    monkeypatch.setattr(Pool, "add", cramped)
    notes: list[str] = []
    found = small.read(
        token_ids, WINDOWS, lambda e: notes.extend(e[key] for key in e if key == "note")
    )
    monkeypatch.undo()
    assert notes == [
        f"memory ran out: reading goes on with {n:,} tokens a batch" for n in (1000, 500)
    ]
    want = pooled(reader, token_ids)
    assert relative_error(found.residual_mean, want.residual_mean) < 1e-5
    np.testing.assert_allclose(found.mean_norm, want.mean_norm, rtol=1e-5)
    np.testing.assert_allclose(found.first_norm, want.first_norm, rtol=1e-5)
    np.testing.assert_allclose(found.mean_square, want.mean_square, rtol=1e-4)
    assert (found.peak_position == want.peak_position).all()


def test_neither_batching_nor_padding_nor_order_moves_a_mean(
    reader: Reader, token_ids: list[list[int]], tiny_model: Path
) -> None:
    want = hugging_face_means(tiny_model, token_ids, LAYERS)
    alone = np.concatenate([means(reader, [ids]) for ids in token_ids])
    order = [4, 0, 6, 2, 5, 1, 3]
    shuffled = np.empty_like(alone)
    shuffled[order] = means(reader, [token_ids[i] for i in order])
    for got in (alone, shuffled):
        assert relative_error(got, want) < 1e-5
        assert relative_error(got, want, leave_out=3) < 1e-5


def test_the_same_batch_gives_the_same_bits(reader: Reader, token_ids: list[list[int]]) -> None:
    first = means(reader, token_ids)
    np.testing.assert_array_equal(first, means(reader, token_ids))


def test_a_window_without_tokens_is_missing_not_zero(
    reader: Reader, token_ids: list[list[int]]
) -> None:
    short = [token_ids[0], [5]]
    found = means(reader, short)
    assert np.isfinite(found[0, :2]).all()
    assert np.isnan(found[0, 2]).all()
    assert np.isnan(found[1, 1:]).all()
    assert window_counts([len(ids) for ids in short], WINDOWS).tolist()[1] == [1, 0, 0]


def test_stopping_early_gives_the_same_layers(
    reader: Reader, token_ids: list[list[int]], tiny_model: Path
) -> None:
    early = BridgeReader(settings(tiny_model, [-1, 1]))
    all_layers = means(reader, token_ids)
    some = means(early, token_ids)
    np.testing.assert_array_equal(some, all_layers[:, :, [0, 2]])


def test_a_residual_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "broken")
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] = float("inf")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    broken = BridgeReader(settings(folder, [-1, 0, 1]))
    with pytest.raises(NotFinite) as caught:
        means(broken, [[5, 6, 7]])
    assert caught.value.layer == 1


def test_batches_hold_every_text_once_within_the_budget() -> None:
    rng = random.Random(2)
    lengths = [rng.randint(1, 300) for _ in range(200)]
    found = list(batches(lengths, 1000))
    assert sorted(i for batch in found for i in batch) == list(range(200))
    assert all(len(b) * max(lengths[i] for i in b) <= 1000 for b in found)
    assert list(batches([5000], 1000)) == [[0]]


def test_workers_that_replace_others_do_not_make_reading_look_faster() -> None:
    assert workers_at_once(100.0, 100.0, 1) == 1
    assert workers_at_once(400.0, 101.0, 4) == 4
    assert workers_at_once(400.0, 205.0, 6) == 2  # two jobs at a time, replaced twice
    assert workers_at_once(90.0, 200.0, 3) == 1  # one after another, with pauses
    assert workers_at_once(0.0, 0.0, 1) == 1
