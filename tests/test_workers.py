"""Several processes that read give the bits of one, whoever reads which shard, even if one dies."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import dask
import psutil
import pytest
from distributed.core import Server

from engine.device import child_environment
from engine.machines.local import local_cluster, reading_workers
from engine.machines.workers import new_run
from store.shards import missing_shards
from tests.test_run import EMOVEC, ROOT, assert_same_bytes, emovec, many_shards
from tests.tiny import write_manifest

CELL = "cells/tiny@own/residuals.zarr"


@pytest.fixture(scope="module")
def by_one(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The store of an undisturbed run over three shards with one worker."""
    folder = tmp_path_factory.mktemp("one")
    emovec("extract", many_shards(folder, tiny_model), "--root", folder / "runs")
    return folder / "runs" / "study" / CELL


def with_three(folder: Path, model: Path) -> Path:
    many_shards(folder, model)
    return write_manifest(folder, model, extraction={"max_tokens": 256, "workers": 3})


@pytest.mark.slow
def test_three_workers_give_the_bits_of_one(tiny_model: Path, tmp_path: Path, by_one: Path) -> None:
    manifest = with_three(tmp_path, tiny_model)
    emovec("extract", manifest, "--root", tmp_path / "runs")
    assert_same_bytes(tmp_path / "runs" / "study" / CELL, by_one)


@pytest.mark.parametrize("victim", ["worker", pytest.param("model", marks=pytest.mark.slow)])
def test_a_dead_workers_shard_is_taken_over(
    tiny_model: Path, tmp_path: Path, by_one: Path, victim: str
) -> None:
    manifest, root = with_three(tmp_path, tiny_model), tmp_path / "runs"
    process = subprocess.Popen(
        [*EMOVEC, "extract", str(manifest), "--root", str(root)],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        mine = psutil.Process(process.pid)
        deadline = time.monotonic() + 200
        while len(reading := _models(mine)) < 2:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(2.0)
        assert missing_shards(root / "study" / CELL)
        model = reading[0]
        worker = model.parent().parent()  # type: ignore[union-attr]
        target = worker if victim == "worker" else model
        assert target is not None
        assert target.pid != process.pid
        target.send_signal(signal.SIGKILL)
        started = mine.children(recursive=True)
        printed, _ = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 0, printed
    assert_same_bytes(root / "study" / CELL, by_one)
    _, left = psutil.wait_procs(started, timeout=10)
    assert not left
    assert not model.is_running()


@pytest.mark.slow
def test_ctrl_c_ends_every_process_without_a_word_from_the_workers(
    tiny_model: Path, tmp_path: Path
) -> None:
    manifest, root = with_three(tmp_path, tiny_model), tmp_path / "runs"
    process = subprocess.Popen(
        [*EMOVEC, "extract", str(manifest), "--root", str(root)],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        mine = psutil.Process(process.pid)
        deadline = time.monotonic() + 200
        while len(_models(mine)) < 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(2.0)
        started = mine.children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "the same command goes on from here" in error
    assert "Traceback" not in error
    _, left = psutil.wait_procs(started, timeout=10)
    assert not left


def test_copies_of_a_model_keep_to_their_shares_of_the_cores() -> None:
    """Two readers with all threads each wait for each other most of the time."""
    alone = [{"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "3"}]
    with reading_workers(new_run(()), alone, lambda event: None) as readers:
        children = readers.client.run(child_environment).values()
        assert sorted(child["OMP_NUM_THREADS"] for child in children) == ["1", "3"]


def test_a_machine_that_slept_keeps_its_workers() -> None:
    """Dask takes a worker for dead that was not heard of for long, as after a night's sleep."""
    with (
        dask.config.set({"distributed.scheduler.worker-ttl": "200 ms"}),
        local_cluster(new_run(()), lambda event: None) as here,
        reading_workers(new_run(()), [{}], lambda event: None) as readers,
    ):
        for workers in (here, readers):
            cluster = workers.client.cluster
            before = set(workers.addresses())
            assert len(before) == 1
            for _ in range(20):
                for worker in cluster.scheduler.workers.values():
                    worker.last_seen -= 3600
                time.sleep(0.1)
            assert set(workers.addresses()) == before
            assert workers.do(abs, -3) == 3


def test_a_cluster_that_ended_is_no_longer_in_memory() -> None:
    """Dask keeps every server of a process for ever, its logs with it; a notebook does many."""

    def servers() -> int:
        gc.collect()
        return sum(isinstance(thing, Server) for thing in gc.get_objects())

    counts = []
    for _ in range(3):
        with local_cluster(new_run(()), lambda event: None) as workers:
            assert workers.do(abs, -3) == 3
        counts.append(servers())
    assert counts[1] == counts[2]


def _models(mine: psutil.Process) -> list[psutil.Process]:
    """Return the processes that hold a model, or are about to."""
    found = []
    for child in mine.children(recursive=True):
        with suppress(psutil.Error):
            command = child.cmdline()
            if "engine.child_main" in command and "guard.py" not in " ".join(command):
                found.append(child)
    return found
