"""An interruption ends the command line, whoever swallows it, and is not told twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_run import ROOT

APP = """
import time
from engine import cli

def app(standalone_mode):
    try:
        print("ready", flush=True)
        {body}
    finally:
        time.sleep(1.5)  # longer than it takes to be interrupted again
        print("brought to its end", flush=True)

cli.app = app
cli.main()
"""
BODIES = {
    "at once": "time.sleep(60)",
    "swallowed": """try:
            time.sleep(60)
        except:
            pass
        time.sleep(60)""",
    "in a string that a library runs": """import ctypes
        run = ctypes.pythonapi.PyRun_String
        run.restype = ctypes.py_object
        names = ctypes.py_object(dict())
        run(b"import time\\ntime.sleep(60)", 257, names, names)""",
    "told as another error": """try:
            time.sleep(60)
        except KeyboardInterrupt:
            time.sleep(1)
            raise cli.typer.Abort from None""",
}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("body", BODIES)
def test_an_interruption_ends_the_command_once(
    body: str, how: signal.Signals, tmp_path: Path
) -> None:
    (tmp_path / "interrupted.py").write_text(APP.format(body=BODIES[body]))
    process = subprocess.Popen(
        [sys.executable, "-m", "interrupted"],  # as `python -m engine.cli`, which has its own exit
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(how)
    printed, said = process.communicate(timeout=30)
    assert printed == "brought to its end\n"
    if body != "told as another error":
        assert process.returncode == 130
        assert said == "interrupted; the same command goes on from here\n"
