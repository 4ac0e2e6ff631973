"""The benchmarks' one command: what it refuses, and one quick part for real."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import verification
from benchmarks.suite import PARTS, commands
from tests.test_run import emovec


def test_bad_options_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for arguments, what in (
        (("sorting",), "bench: no part 'sorting'; known: generation, extraction"),
        (("storage", "--gpu"), "--gpu: there is no GPU here that may be used"),
        (("storage", "--weights", "heavy"), "--weights: 'heavy' is neither trained nor random"),
    ):
        refused = emovec("bench", *arguments, check=2)
        assert what in refused.stderr
        assert len(refused.stderr.splitlines()) == 1


def test_every_part_has_a_command_and_a_module(tmp_path: Path) -> None:
    found = commands(PARTS, "llama-3.1-8b", "random", 2, tmp_path, "s3://bucket/folder")
    assert [command[2] for command in found] == [f"benchmarks.{part}" for part in PARTS]
    told = " ".join(emovec("bench", "--help").stdout.split())
    assert f"{', '.join(PARTS)}, or all." in told
    for part, command in zip(PARTS, found, strict=True):
        assert (Path(__file__).parents[1] / "benchmarks" / f"{part}.py").is_file()
        of_model = part in ("generation", "extraction", "steering")
        assert ("--model llama-3.1-8b --weights random" in " ".join(command)) == of_model
        assert ("s3://bucket/folder" in command) == (part == "storage")


def test_storage_is_measured_and_reported(tmp_path: Path) -> None:
    emovec("bench", "storage", "--rounds", "1", "--out", tmp_path)
    (report,) = tmp_path.glob("*-storage.json")
    rates = json.loads(report.read_text())["rates"]
    assert set(rates) == {
        *("numpy.save, write", "numpy.load, a layer", "folder, write", "folder, a layer"),
    }
    assert all(len(values) == 1 and values[0] > 0 for values in rates.values())
    text = report.with_suffix(".md").read_text()
    assert "command: python -m benchmarks.storage" in text


def test_verification_is_measured_over_a_run_that_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--texts", "80", "--rounds", "1", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["verification", *options])
    verification.main()
    (report,) = tmp_path.glob("*-verification.json")
    rows = json.loads(report.read_text())["rows"]
    assert [row["way"] for row in rows] == ["read only", "sha256 only", "verify"]
    assert all(row["mb_s"] > 0 for row in rows)
