"""Work done by the workers of a Dask scheduler that runs already."""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest

from engine.dealing import SHARDS_IN_HAND, Dealer
from engine.device import take_share
from engine.machines.local import local_cluster
from engine.machines.workers import Workers, new_run, quiet
from engine.tasks import WorkerUnfit
from tests.elsewhere import assert_same_results, done_shards
from tests.test_faults import assert_complete, kept, wait_for, write_study
from tests.test_run import EMOVEC, ROOT, emovec
from tests.tiny import write_manifest


@contextmanager
def dask_cluster(
    folder: Path, n_workers: int, *options: str
) -> Iterator[tuple[str, list[psutil.Process]]]:
    """Start a scheduler and workers with Dask's own commands; give its address and the nannies."""
    address = f"tcp://127.0.0.1:{_free_port()}"
    port = address.rpartition(":")[2]
    dask = [sys.executable, "-m", "dask"]
    commands = [
        [*dask, "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"],
        *([*dask, "worker", address, "--nthreads", "2", "--no-dashboard", *options],) * n_workers,
    ]
    processes = []
    try:
        with (folder / "dask.log").open("ab") as log:
            for command in commands:
                processes.append(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log))
        from distributed import Client

        with Client(address, timeout="60 s", set_as_default=False) as client:
            client.wait_for_workers(n_workers, timeout=60)
        yield address, [psutil.Process(nanny.pid) for nanny in processes[1:]]
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(timeout=30)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


SLOT = ("--resources", "model=1")


@pytest.mark.slow
def test_a_worker_killed_every_few_seconds_changes_no_bit(
    at_home: tuple[Path, Path], tmp_path: Path
) -> None:
    """Dask's own nannies start the killed again; each time the model has to be loaded anew."""
    manifest, home = at_home
    root, rng = tmp_path / "runs", random.Random(0)
    with dask_cluster(tmp_path, 2, *SLOT) as (address, nannies):
        command = [*EMOVEC, "analyze", str(manifest), "--root", str(root), "--scheduler", address]
        process = subprocess.Popen(
            command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        killed = 0
        try:
            deadline = time.monotonic() + 800
            while process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(rng.uniform(5, 12))
                workers = _workers_of(nannies)
                if workers and process.poll() is None:
                    rng.choice(workers).send_signal(signal.SIGKILL)
                    killed += 1
        finally:
            process.kill()
            printed = process.communicate()[0]
    assert process.returncode == 0, printed
    assert killed >= 3
    assert_same_results(root, home)


def _workers_of(nannies: list[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that nannies look after."""
    return [
        child
        for nanny in nannies
        for child in nanny.children()
        if "resource_tracker" not in " ".join(child.cmdline())
    ]


@pytest.mark.slow
def test_a_whole_run_on_a_scheduler_gives_the_same_bits(
    at_home: tuple[Path, Path], tmp_path: Path
) -> None:
    manifest, home = at_home
    root = tmp_path / "runs"
    with dask_cluster(tmp_path, 2, *SLOT) as (address, _):
        emovec("analyze", manifest, "--root", root, "--scheduler", address)
    assert_same_results(root, home)
    logs = {file.name for file in (root / "study" / "logs").glob("read-*")}
    assert len(logs) >= 2, "each worker has a log of its own"


def test_schedulers_that_cannot_serve_are_one_line_and_nothing_is_begun(
    tiny_model: Path, tmp_path: Path
) -> None:
    manifest, root = write_manifest(tmp_path, tiny_model), tmp_path / "runs"

    def refused(address: str) -> str:
        done = emovec("run", manifest, "--root", root, "--scheduler", address, check=2)
        assert len(done.stderr.splitlines()) == 1
        assert not list(root.rglob("*.parquet"))
        return done.stderr

    with dask_cluster(tmp_path, 1) as (address, _):
        assert "hold no models: start them with --resources model=1" in refused(address)
    assert f"--scheduler: no Dask scheduler answers at {address}" in refused(address)
    assert (
        "--scheduler: give --scheduler or --profile, not both"
        in emovec(
            "run", manifest, "--scheduler", address, "--profile", "slurm-a100", check=2
        ).stderr
    )
    assert "no profile 'nowhere'" in emovec("run", manifest, "--profile", "nowhere", check=2).stderr


def test_workers_with_other_libraries_are_told_of_and_recorded(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other" / "zarr-9.9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: zarr\nVersion: 9.9.9\n")
    manifest, root = write_manifest(tmp_path, tiny_model), tmp_path / "runs"
    monkeypatch.setenv("PYTHONPATH", str(other.parent))
    with dask_cluster(tmp_path, 1, *SLOT, "--preload", "engine.tasks") as (address, _):
        monkeypatch.delenv("PYTHONPATH")
        printed = emovec("extract", manifest, "--root", root, "--scheduler", address).stdout
    here = importlib.metadata.version("zarr")
    said = f"zarr 9.9.9 (here {here})"
    assert printed.count(f"a worker on {socket.gethostname()} has {said}") == 1
    record = json.loads((root / "study" / "records" / "extract" / "tiny@own.json").read_text())
    assert record["figures"]["other_versions"] == [said]


def test_a_worker_started_by_hand_uses_every_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dask's nannies leave numerical libraries one thread unless told otherwise."""
    from distributed import Client

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for preload, expected in (["--preload", "engine.tasks"], None), ([], "1"):
        with (
            dask_cluster(tmp_path, 1, *SLOT, *preload) as (address, _),
            Client(address, set_as_default=False) as client,
        ):
            assert set(client.run(os.getenv, "OMP_NUM_THREADS").values()) == {expected}


def test_workers_of_a_job_share_its_cpus_and_gpus() -> None:
    before = os.sched_getaffinity(0), os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        os.environ["CUDA_VISIBLE_DEVICES"] = "GPU-a,GPU-b,GPU-c,GPU-d"
        take_share(1, 2)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-c,GPU-d"
        cpus = sorted(before[0])
        if len(cpus) >= 2:
            half = len(cpus) // 2
            assert os.sched_getaffinity(0) == set(cpus[half : 2 * half])
    finally:
        os.sched_setaffinity(0, before[0])
        if before[1] is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before[1]


def test_a_wait_that_dask_left_behind_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    quiet()
    loop = asyncio.new_event_loop()
    ours = [TimeoutError("of ours"), TimeoutError(), ValueError("Timeout")]
    for error in (TimeoutError("Timeout"), *ours):
        loop.create_future().set_exception(error)
    gc.collect()
    loop.close()
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == ours


class Crashing:
    """A cell both of whose shards in hand fail at once, as when their model's process dies."""

    holds, size, ended = "nothing", 3, False

    def __init__(self) -> None:
        self.failures: list[Exception] = []

    def progress(self) -> int:
        return 0

    def begin(self) -> list[int]:
        return [0, 1, 2]

    def task(self, shard: int) -> tuple[Callable[..., Any], ...]:
        return (os.strerror, "no number")  # type: ignore[return-value]

    def take(self, figures: dict[str, Any]) -> None:
        raise AssertionError("there is nothing to take")

    def end(self) -> None:
        raise AssertionError("it cannot end well")

    def fail(self, error: Exception) -> None:
        self.failures.append(error)


def test_shards_that_fail_together_fail_their_cell_alone() -> None:
    with local_cluster(new_run(()), lambda event: None) as workers:
        cells = [Crashing(), Crashing()]
        Dealer(workers, cells, SHARDS_IN_HAND).deal(print)
    assert [len(cell.failures) for cell in cells] == [1, 1]
    assert all(isinstance(cell.failures[0], TypeError) for cell in cells)


class Slow:
    """A cell whose shards take some seconds each."""

    holds, size = "nothing", 3

    def __init__(self) -> None:
        self.taken, self.ended = 0, False

    def progress(self) -> int:
        return 0

    def begin(self) -> list[int]:
        return [0, 1, 2]

    def task(self, shard: int) -> tuple[Any, ...]:
        return time.sleep, 2.0

    def take(self, figures: object) -> None:
        self.taken += 1

    def end(self) -> None:
        self.ended = True

    def fail(self, error: Exception) -> None:
        raise error


@pytest.mark.parametrize("how", ["retired", "killed"])
def test_what_the_only_worker_had_in_hand_is_done_by_the_next(how: str) -> None:
    """A job that ends at its time limit hands its work back while nobody else is there."""
    from distributed import Client, LocalCluster

    settings = {"threads_per_worker": 2, "resources": {"model": 1}, "dashboard_address": None}
    with LocalCluster(n_workers=1, **settings) as cluster, Client(cluster) as client:
        cell, workers = Slow(), Workers(client, new_run(()), lambda event: None, lasting=True)
        dealing = threading.Thread(
            target=Dealer(workers, [cell], SHARDS_IN_HAND).deal, args=[print], daemon=True
        )
        dealing.start()
        (first,) = workers.addresses()
        while not any(client.processing().values()):
            time.sleep(0.1)
        if how == "killed":
            os.kill(client.run(os.getpid)[first], signal.SIGKILL)
        else:
            cluster.scale(0)
            while workers.addresses():
                time.sleep(0.1)
            cluster.scale(1)
        dealing.join(timeout=90)
        assert not dealing.is_alive()
    assert (cell.taken, cell.ended) == (3, True)


class Single(Slow):
    """Work of one piece that takes some seconds, such as corpora that one worker writes."""

    size = 1
    done_by: ClassVar[list[str]] = []

    def begin(self) -> list[int]:
        return [0]

    def task(self, shard: int) -> tuple[Any, ...]:
        return _where_after, 4.0

    def take(self, figures: object) -> None:
        super().take(figures)
        self.done_by.append(str(figures))


def test_work_that_waits_goes_to_workers_that_come_later() -> None:
    from distributed import Client, LocalCluster

    settings = {"threads_per_worker": 2, "resources": {"model": 1}, "dashboard_address": None}
    with LocalCluster(n_workers=1, **settings) as cluster, Client(cluster) as client:
        works = [Single() for _ in range(3)]
        workers = Workers(client, new_run(()), lambda event: None, lasting=True)
        dealing = threading.Thread(target=Dealer(workers, works).deal, args=[print], daemon=True)
        dealing.start()
        while not any(client.processing().values()):
            time.sleep(0.05)
        assert workers.wanted == 3
        cluster.scale(3)
        dealing.join(timeout=90)
        assert not dealing.is_alive()
    assert all(work.ended for work in works)
    assert len(set(Single.done_by)) > 1


def test_a_late_worker_takes_what_fit_ones_left_and_an_unfit_one_gets_nothing(
    tmp_path: Path,
) -> None:
    """Jobs end while a node that does not see the run's folder is still there."""
    from distributed import Client

    said: list[str] = []
    with dask_cluster(tmp_path, 2, *SLOT) as (address, nannies), Client(address) as client:
        workers = Workers(client, new_run(()), lambda event: said.append(str(event)), lasting=True)
        fit, unfit = workers.fit()
        workers.leave_out(WorkerUnfit("a worker on this host sees nothing", unfit))
        future = workers.submit(_where_after, 3.0, resources={"model": 1})
        while not client.processing()[fit]:
            time.sleep(0.1)
        nanny_of = client.run(os.getppid)
        (mine,) = [nanny for nanny in nannies if nanny.pid == nanny_of[fit]]
        mine.terminate()
        while fit in workers.addresses():
            time.sleep(0.1)
        assert not workers.ended([future])
        late = subprocess.Popen(
            [sys.executable, "-m", "dask", "worker", address, "--nthreads", "2", *SLOT], cwd=ROOT
        )
        try:
            deadline = time.monotonic() + 60
            while not workers.ended([future]):
                assert time.monotonic() < deadline, client.processing()
            assert future.result() not in (fit, unfit)
        finally:
            late.terminate()
            late.wait(timeout=30)
    assert len(said) == 1


def _where_after(seconds: float) -> str:
    from distributed import get_worker

    time.sleep(seconds)
    return str(get_worker().address)


@pytest.mark.slow
def test_a_scheduler_that_vanishes_is_one_line_and_the_run_goes_on_later(
    at_home: tuple[Path, Path], tmp_path: Path
) -> None:
    manifest, home = at_home
    root = tmp_path / "runs"
    with dask_cluster(tmp_path, 1, *SLOT) as (address, nannies):
        command = [*EMOVEC, "analyze", str(manifest), "--root", str(root), "--scheduler", address]
        process = subprocess.Popen(
            command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + 300
        while not done_shards(root):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        (scheduler,) = [
            p
            for p in psutil.process_iter(["cmdline"])
            if f"dask scheduler [{address}]" in " ".join(p.info["cmdline"] or [])
        ]
        scheduler.kill()
        for nanny in nannies:
            nanny.terminate()
        _, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert error.splitlines() == [
        "the Dask scheduler is gone; what is done is kept, and the same command goes on"
    ]
    emovec("analyze", manifest, "--root", root)
    assert_same_results(root, home)


@pytest.mark.slow
def test_a_corpus_written_elsewhere_survives_its_worker(tiny_model: Path, tmp_path: Path) -> None:
    manifest, root = write_study(tmp_path, tiny_model, emotions=60, stories=6), tmp_path / "runs"
    with dask_cluster(tmp_path, 1, *SLOT) as (address, nannies):
        process = subprocess.Popen(
            [*EMOVEC, "generate", str(manifest), "--root", str(root), "--scheduler", address],
            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            wait_for(lambda: len(kept(root)) > 20, process)
            before = kept(root)
            (worker,) = _workers_of(nannies)
            worker.send_signal(signal.SIGKILL)
            printed, _ = process.communicate(timeout=400)
        finally:
            process.kill()
    assert process.returncode == 0, printed
    assert_complete(root, 360, before)
