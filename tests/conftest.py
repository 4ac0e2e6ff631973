"""Fixtures that several rooms' tests share: tiny models, written once a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

from tests.tiny import make_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 3 layers, d_model 128, with a tokenizer and a chat template."""
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread() -> Iterator[None]:
    """Keep small matrices off several threads, as the program's tasks do; models are left alone."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield
