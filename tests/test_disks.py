"""Disks that fill up at any moment, or that cannot be written to: one line, and nothing is lost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_run import ROOT

TIMES = int(os.environ.get("EMOVEC_KILLS", "44")) // 4
"""How often the disk fills up."""


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_full_and_read_only_disks_lose_nothing(tiny_model: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", sys.executable, "-m", "tests.filling",
         str(tmp_path), "--model", str(tiny_model), "--times", str(TIMES)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    assert done.stdout.endswith("read-only\n")
    codes = re.findall(r"exit (\d)", done.stdout)
    assert len(codes) == TIMES
    assert codes.count("1") >= TIMES // 3
