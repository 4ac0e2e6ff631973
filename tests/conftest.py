"""What tests of several files share: tiny models, finished runs, a SLURM."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from threadpoolctl import threadpool_limits

from tests.tiny import make_tiny_model

if TYPE_CHECKING:
    from tests.slurm import Slurm
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


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "other", seed=1, layers=2)


@pytest.fixture(scope="session")
def at_home(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, other_model: Path
) -> tuple[Path, Path]:
    """A study of two models and its run on this machine, undisturbed."""
    from tests.elsewhere import two_models
    from tests.test_run import emovec

    folder = tmp_path_factory.mktemp("home")
    manifest = two_models(folder, tiny_model, other_model)
    emovec("analyze", manifest, "--root", folder / "runs")
    return manifest, folder / "runs"


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    """A controller and two nodes."""
    from tests.slurm import missing, slurm_cluster

    if lacking := missing():
        assert not os.environ.get("EMOVEC_TEST_SLURM"), f"install slurm-wlm and munge: {lacking}"
        pytest.skip(f"{lacking[0]} is not installed (Debian: slurm-wlm and munge)")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        with slurm_cluster(folder) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)
