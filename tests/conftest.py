"""Fixtures that several rooms' tests share: tiny models and a finished run, made once a session."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from threadpoolctl import threadpool_limits

from tests.tiny import make_tiny_model

if TYPE_CHECKING:
    from tests.verified import Run


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 3 layers, d_model 128, with a tokenizer and a chat template."""
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    """A finished run of two corpora and their cells, not to be changed."""
    from tests.verified import make_run

    return make_run(tmp_path_factory.mktemp("verified"), tiny_model)


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    """A copy of it, to be spoilt."""
    from tests.verified import opened

    shutil.copytree(finished.manifest.parent, tmp_path / "copy")
    return opened(tmp_path / "copy" / finished.manifest.name)


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread() -> Iterator[None]:
    """Keep small matrices off several threads, as the program's tasks do; models are left alone."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield
