"""Models brought here from a hub, pinned, and read afterwards without a network."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.hub import COMMIT, hub
from tests.test_run import EMOVEC, ROOT
from tests.tiny import write_corpus_files, write_manifest

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
    cached = run(tmp_path, NOWHERE, "fetch", manifest)
    assert cached.returncode == 0, "a hub that cannot be asked is no reason to refuse what is here"
    assert f"some: {{revision: {COMMIT}}}" in cached.stdout
    read = run(tmp_path, NOWHERE, "extract", manifest, "--root", tmp_path / "runs")
    assert read.returncode == 0, read.stdout + read.stderr
    assert "downloading" not in read.stdout


def test_what_cannot_be_had_is_named_first_and_the_rest_is_brought(
    tiny_model: Path, tmp_path: Path
) -> None:
    models = {
        "some": {"hf": "lab/tiny"},
        "gone": {"hf": "lab/gone"},
        "closed": {"hf": "lab/closed"},
        "old": {"hf": "lab/tiny", "revision": "v9"},
    }
    corpora = {"texts": {"import": {"hf": "lab/secret", "neutral": "neutral.txt"}}}
    manifest = write_manifest(tmp_path, tiny_model, models=models, corpora=corpora)
    closed = {"lab/tiny": tiny_model, "lab/closed": tiny_model}
    with hub(closed, {"lab/closed", "lab/secret"}, {"lab/secret": tmp_path}) as (endpoint, asked):
        done = run(tmp_path, endpoint, "fetch", manifest)
        questions = [path for path in asked if path.startswith("/api/")]
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    gated = "is gated: accept its terms on the hub and log in with `hf auth login`"
    lines = done.stdout.splitlines()
    assert lines[:4] == [
        "FAILED  gone: model lab/gone does not exist on the hub, or is private",
        f"FAILED  closed: model lab/closed {gated}",
        "FAILED  old: model lab/tiny has no revision 'v9'",
        f"FAILED  texts: data set lab/secret {gated}",
    ]
    assert lines[4].startswith("here    some")
    assert COMMIT in lines[4]
    assert "4 could not be had; the others are here" in lines
    for path in ("models/lab/gone", "models/lab/closed", "datasets/lab/secret"):
        assert questions.count(f"/api/{path}") == 1
    assert not any("/resolve/" in path and "tiny" not in path for path in asked)


def test_the_commits_of_data_sets_are_told_to_pin(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    write_corpus_files(folder)
    (folder / "neutral.txt").rename(tmp_path / "neutral.txt")
    spec = {"hf": "lab/texts", "neutral": "neutral.txt"}
    corpora = {
        "open": {"import": spec},
        "pinned": {"import": {**spec, "revision": COMMIT}},
    }
    manifest = write_manifest(tmp_path, tiny_model, corpora=corpora)
    with hub({}, set(), {"lab/texts": folder}) as (endpoint, _):
        done = run(tmp_path, endpoint, "fetch", manifest)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "to pin what is here, put under corpora:" in done.stdout
    assert f"  open: {{import: {{revision: {COMMIT}}}}}\n" in done.stdout
    assert "pinned: {" not in done.stdout
    assert "put under models:" not in done.stdout


def test_a_gated_model_stops_a_run_before_others_are_downloaded(
    tiny_model: Path, tmp_path: Path
) -> None:
    models = {"some": {"hf": "lab/tiny"}, "closed": {"hf": "lab/closed"}, "gone": {"hf": "a/gone"}}
    manifest = write_manifest(tmp_path, tiny_model, models=models)
    both = {"lab/tiny": tiny_model, "lab/closed": tiny_model}
    with hub(both, {"lab/closed"}) as (endpoint, asked):
        done = run(tmp_path, endpoint, "run", manifest, "--root", tmp_path / "runs")
    assert done.returncode == 1
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == [
        "model lab/closed is gated",
        "model a/gone does not exist on the hub, or is private",
    ]
    assert not any(path.endswith(".safetensors") for path in asked)
    assert not (tmp_path / "runs").exists()
