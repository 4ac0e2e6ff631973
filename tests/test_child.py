"""Children against real processes: what they leave behind must be nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from engine import child as child_module
from engine.child import Child, ChildFailed

SERVER = """
import json, os, socket, subprocess, sys, time
connection = socket.socket(fileno=int(sys.argv[1]))
for line in connection.makefile("rb"):
    question = json.loads(line)
    task, number = question["task"], question["number"]
    if task == "pids":
        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
        socket.socket(socket.AF_UNIX).bind(os.environ["VLLM_RPC_BASE_PATH"] + "/s")
        answer = {"result": [os.getpid(), helper.pid]}
    elif task == "events":
        event = {"number": number, "event": {"n": 1}}
        connection.sendall(json.dumps(event).encode() + b"\\n")
        answer = {"result": "ok"}
    elif task == "die":
        print("last words", flush=True)
        os._exit(3)
    elif task == "wait":
        time.sleep(300)
    else:
        answer = {"error": "ValueError: no", "crashed": task == "lost", "plain": task == "full"}
    connection.sendall(json.dumps({"number": number, **answer}).encode() + b"\\n")
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Child]]:
    """Start children that run SERVER in place of `engine.child_main`, and stop them after."""
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "__init__.py").write_text("")
    (tmp_path / "engine" / "child_main.py").write_text(SERVER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)  # so that it is looked up again
    started: list[Child] = []

    def begin() -> Child:
        started.append(Child(tmp_path / "log"))
        return started[-1]

    yield begin
    for child in started:
        child.stop()


def gone(pids: list[int], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(psutil.pid_exists(pid) and not zombie(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def left_behind(folder: Path, seconds: float = 10) -> list[Path]:
    """Return the sockets that are still there after so long at most."""
    deadline = time.monotonic() + seconds
    while (left := list((folder / "tmp").rglob("*"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_call_returns_its_result_after_its_events(start: Callable[[], Child]) -> None:
    seen: list[dict[str, object]] = []
    assert start().call("events", {}, seen.append) == "ok"
    assert seen == [{"n": 1}]


def test_an_error_there_is_an_error_here_and_the_child_lives(start: Callable[[], Child]) -> None:
    child = start()
    with pytest.raises(ChildFailed, match="ValueError: no") as caught:
        child.call("unknown", {}, lambda event: None)
    assert not caught.value.crashed
    assert child.call("events", {}, lambda event: None) == "ok"


def test_a_dead_child_is_told_from_a_failed_task(start: Callable[[], Child]) -> None:
    with pytest.raises(ChildFailed, match="died") as caught:
        start().call("die", {}, lambda event: None)
    assert caught.value.crashed
    assert caught.value.tail() == ["last words"]


def test_an_error_may_speak_of_a_lost_process_or_say_all(start: Callable[[], Child]) -> None:
    child = start()
    with pytest.raises(ChildFailed) as lost:
        child.call("lost", {}, lambda event: None)
    with pytest.raises(ChildFailed) as full:
        child.call("full", {}, lambda event: None)
    assert (lost.value.crashed, lost.value.plain) == (True, False)
    assert (full.value.crashed, full.value.plain) == (False, True)
    assert full.value.tail() == []


def test_stopping_ends_the_child_and_all_it_started(
    start: Callable[[], Child], tmp_path: Path
) -> None:
    child = start()
    pids = child.call("pids", {}, lambda event: None)
    assert list((tmp_path / "tmp").rglob("s"))
    child.stop()
    assert gone(pids)
    assert not list((tmp_path / "tmp").rglob("*"))
    assert not child.alive


@pytest.mark.parametrize("victim", ["child", "guard"])
def test_nothing_outlives_a_killed_part(
    start: Callable[[], Child], tmp_path: Path, victim: str
) -> None:
    child = start()
    pids = child.call("pids", {}, lambda event: None)
    guard = psutil.Process(pids[0]).parent()
    assert guard is not None
    os.kill(pids[0] if victim == "child" else guard.pid, signal.SIGKILL)
    assert gone(pids[:1])
    with pytest.raises(ChildFailed, match="died"):
        child.call("events", {}, lambda event: None)
    child.stop()
    assert gone([*pids, guard.pid])
    assert not list((tmp_path / "tmp").rglob("*"))


OWNER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from engine import child
child.GUARD = Path({guard!r})
held = child.Child(Path("log2"))
print(*held.call("pids", {{}}, lambda event: None), flush=True)
time.sleep(300)
"""


def test_nothing_outlives_a_killed_owner(tmp_path: Path, start: Callable[[], Child]) -> None:
    root = Path(child_module.__file__).parents[1]
    code = OWNER.format(root=str(root), guard=str(child_module.GUARD))
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    pids = [int(pid) for pid in owner.stdout.readline().split()]
    assert len(pids) == 2
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert gone(pids)
    assert not left_behind(tmp_path)
