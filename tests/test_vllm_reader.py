"""The fast reader through the whole program, against the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from engine.reading.families import UnknownFamily, stream_of
from store import Layout
from store.residuals import open_residuals
from tests.test_reading import relative_error
from tests.test_run import emovec
from tests.tiny import write_manifest


def test_both_readers_fill_the_same_arrays(tiny_model: Path, tmp_path: Path) -> None:
    found = []
    for backend in ("transformer_lens", "vllm"):
        extraction = {
            "backend": backend,
            "max_tokens": 80,
            "windows": ["all", "no-first", "after-50", "all-rms"],
            "batch_tokens": 300,  # small enough that vLLM has to cut texts into chunks
        }
        manifest = write_manifest(tmp_path / backend, tiny_model, extraction=extraction)
        emovec("extract", manifest, "--root", tmp_path / backend / "runs")
        residuals = Layout(tmp_path / backend / "runs", "study").residuals("tiny@own")
        found.append(open_residuals(residuals, as_dask=False).load())
    reference, fast = found
    want, got = (f["residual_mean"].to_numpy() for f in (reference, fast))
    assert relative_error(got, want.astype(np.float64)) < 1e-5
    assert relative_error(got, want.astype(np.float64), leave_out=3) < 1e-5
    for name in ("token_count", "text_tokens", "peak_position"):
        assert (reference[name] == fast[name]).all()
    for name in ("peak_norm", "mean_norm", "first_norm"):
        assert_allclose(fast[name], reference[name], rtol=1e-5)
    assert_allclose(fast["mean_square"], reference["mean_square"], rtol=1e-4)
    assert (reference["text_tokens"] > 80).any()


def test_an_unknown_architecture_is_refused_with_the_other_reader_named() -> None:
    with pytest.raises(UnknownFamily, match=r"OddForCausalLM.*backend transformer_lens"):
        stream_of("OddForCausalLM")
