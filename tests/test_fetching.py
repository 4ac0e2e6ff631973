"""Models brought here from a hub, pinned, and read afterwards without a network."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.hub import COMMIT, hub
from tests.test_run import EMOVEC, ROOT
from tests.tiny import write_manifest

NOWHERE = "http://127.0.0.1:9"


def run(home: Path, endpoint: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home / "hf")}
    environment.pop("HF_HUB_OFFLINE", None)
    return subprocess.run(
        [*EMOVEC, *map(str, arguments)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_fetched_models_are_pinned_and_read_without_a_network(
    tiny_model: Path, tmp_path: Path
) -> None:
    models = {"some": {"hf": "lab/tiny"}, "again": {"hf": "lab/tiny", "revision": COMMIT}}
    manifest = write_manifest(tmp_path, tiny_model, models=models)
    with hub({"lab/tiny": tiny_model}, set()) as (endpoint, asked):
        described = run(tmp_path, endpoint, "fetch", manifest, "--plan-only")
        assert described.returncode == 0, described.stdout + described.stderr
        assert not any(path.endswith(".safetensors") for path in asked)
        planned = run(tmp_path, NOWHERE, "plan", manifest, "--json")
        needs = json.loads(planned.stdout)["models"]
        assert {row["model"] for row in needs} == {"some", "again"}
        fetched = run(tmp_path, endpoint, "fetch", manifest)
        assert fetched.returncode == 0, fetched.stdout + fetched.stderr
        assert any(path.endswith(".safetensors") for path in asked)
    assert f"some: {{revision: {COMMIT}}}" in fetched.stdout
    assert "again: {revision" not in fetched.stdout
    read = run(tmp_path, NOWHERE, "extract", manifest, "--root", tmp_path / "runs")
    assert read.returncode == 0, read.stdout + read.stderr
    assert "downloading" not in read.stdout


def test_what_cannot_be_had_is_named_and_the_rest_is_brought(
    tiny_model: Path, tmp_path: Path
) -> None:
    models = {
        "gone": {"hf": "lab/gone"},
        "closed": {"hf": "lab/closed"},
        "old": {"hf": "lab/tiny", "revision": "v9"},
        "some": {"hf": "lab/tiny"},
    }
    manifest = write_manifest(tmp_path, tiny_model, models=models)
    with hub({"lab/tiny": tiny_model, "lab/closed": tiny_model}, {"lab/closed"}) as (endpoint, _):
        done = run(tmp_path, endpoint, "fetch", manifest)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    assert "FAILED  gone: model lab/gone does not exist on the hub, or is private" in lines
    gated = "model lab/closed is gated: accept its terms on the hub and log in with `hf auth login`"
    assert f"FAILED  closed: {gated}" in lines
    assert "FAILED  old: model lab/tiny has no revision 'v9'" in lines
    assert any(line.startswith("here    some") and COMMIT in line for line in lines)
    assert "3 could not be had; the others are here" in lines
