"""One process writes to a run at a time, whoever is killed; where that cannot be, it is said."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from store.journal import Journal
from store.lock import NoLock, RunLocked, run_lock
from tests.killing import (
    PAUSE,
    copy_prepared,
    holds_lock,
    processes_of,
    require_none_left,
    require_same,
    resume,
    small_run,
    start,
)
from tests.test_run import EMOVEC, ROOT

CONTENDER = """
import os, random, sys, time
from pathlib import Path
from store.lock import RunLocked, run_lock

folder, rng = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
while True:
    try:
        with run_lock(folder / ".lock"):
            inside = folder / "inside"
            inside.write_text(str(os.getpid()))
            with (folder / "entered").open("a") as stream:
                stream.write("x")
            for _ in range(rng.randrange(8)):
                time.sleep(0.002)
                if inside.read_text() != str(os.getpid()):
                    (folder / "overlap").write_text(inside.read_text())
    except RunLocked as error:
        if "is in use by" not in str(error):
            (folder / "overlap").write_text(str(error))
        time.sleep(0.001)
"""


def test_holders_that_are_killed_let_go_and_two_are_never_inside(tmp_path: Path) -> None:
    rng = random.Random(3)

    def contend(number: int) -> subprocess.Popen[bytes]:
        code = [sys.executable, "-c", textwrap.dedent(CONTENDER), str(tmp_path), str(number)]
        return subprocess.Popen(code, cwd=ROOT)

    def entries() -> int:
        file = tmp_path / "entered"
        return file.stat().st_size if file.exists() else 0

    contenders = [contend(number) for number in range(4)]
    killed_inside = 0
    try:
        for number in range(20):
            before = entries()
            while entries() < before + rng.randrange(1, 12):
                assert all(process.poll() is None for process in contenders)
                time.sleep(0.001)
            inside = (tmp_path / "inside").read_text()
            victims = [n for n, process in enumerate(contenders) if str(process.pid) == inside]
            victim = victims[0] if victims else rng.randrange(4)
            contenders[victim].kill()
            contenders[victim].wait()
            killed_inside += (tmp_path / ".lock-holder.json").exists()
            contenders[victim] = contend(100 + number)
    finally:
        for process in contenders:
            process.kill()
            process.wait()
    assert not (tmp_path / "overlap").exists(), (tmp_path / "overlap").read_text()
    assert killed_inside
    with run_lock(tmp_path / ".lock"):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_where_a_file_system_has_no_locks_nothing_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_flock(stream: Any, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_flock)
    with pytest.raises(NoLock, match="has no flock") as caught, run_lock(tmp_path / "run/.lock"):
        raise AssertionError("it cannot be held")
    assert str(tmp_path / "run") in str(caught.value)
    assert not [file for file in (tmp_path / "run").iterdir() if file.name != ".lock"]
    with pytest.raises(NoLock):
        Journal(tmp_path / "journal.jsonl", "f")
    assert not (tmp_path / "journal.jsonl").read_bytes()


def test_of_runs_started_in_the_same_second_one_works(tiny_model: Path, tmp_path: Path) -> None:
    """Only corpora, so that it is over soon."""
    run = small_run(tmp_path, tiny_model)
    token = uuid.uuid4().hex
    command = [*EMOVEC, "generate", str(run.manifest), "--root", str(run.layout.root)]
    with run_lock(run.layout.lock):  # until all are there, so that they come at once
        early = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert early.returncode == 1
    assert early.stderr.startswith(f"{run.layout.run} is in use by process {os.getpid()} on ")
    assert len(early.stderr.splitlines()) == 1
    processes = [
        subprocess.Popen(
            command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "EMOVEC_TEST_TOKEN": token},
        )
        for _ in range(4)
    ]  # fmt: skip
    ends = [(*process.communicate(), process.returncode) for process in processes]
    require_none_left(token)
    worked = [out for out, _, _ in ends if "done    generate:written" in out]
    assert len(worked) == 1
    for out, error, code in ends:
        if code == 0:  # it was first, or came when all was done
            assert out in worked or "nothing to do" in out or "done" not in out
        else:
            assert code == 1
            assert len(error.splitlines()) == 1
            assert " is in use by " in error


@pytest.mark.slow
def test_a_run_goes_on_while_what_a_killed_one_had_started_still_ends(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Only the process that holds the lock is killed; the next one does not wait for the rest."""
    prepared = small_run(tmp_path / "prepared", tiny_model)
    model = copy_prepared(prepared, tmp_path / "undisturbed")
    resume(model)
    run = copy_prepared(prepared, tmp_path / "killed")
    for _ in range(3):
        token = uuid.uuid4().hex
        process = start(run, token)
        while len(processes_of(token)) < 3:  # itself, a model's guard and the model
            assert process.poll() is None
            time.sleep(PAUSE)
        assert holds_lock(run, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with run_lock(run.layout.lock):
            pass
    resume(run)
    require_same(run, model)
    require_none_left(token)


def test_a_holders_note_from_a_stranger_is_one_short_line(tmp_path: Path) -> None:
    with run_lock(tmp_path / ".lock"):
        note = tmp_path / ".lock-holder.json"
        for host in ("a\nb\u202ec" + "d" * 1000, "[" * 100_000):
            note.write_text(json.dumps({"process": 1, "host": host, "since": "now"}))
            with pytest.raises(RunLocked) as refused, run_lock(tmp_path / ".lock"):
                pass
            assert len(str(refused.value).splitlines()) == 1
            assert "\u202e" not in str(refused.value)
            assert len(str(refused.value)) < 300 + len(str(tmp_path))
        note.write_text("[" * 100_000)
        with pytest.raises(RunLocked, match="only just started"), run_lock(tmp_path / ".lock"):
            pass


def test_a_lock_is_not_taken_twice_in_one_process(tmp_path: Path) -> None:
    with (
        run_lock(tmp_path / ".lock"),
        pytest.raises(RunLocked, match=f"in use by process {os.getpid()}"),
        run_lock(tmp_path / ".lock"),
    ):
        raise AssertionError("it is held")
