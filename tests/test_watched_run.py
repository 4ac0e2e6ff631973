"""A run watched from outside: who listens meanwhile, and what is left in its files."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.hub import hub
from tests.test_run import EMOVEC, ROOT
from tests.tiny import write_manifest

SECRETS = {
    "HF_TOKEN": "hf_" + "Qm9vSecretTokenOfTheHub" * 2,
    "AWS_ACCESS_KEY_ID": "AKIAS3CR3TKEYIDENTIFIER",
    "AWS_SECRET_ACCESS_KEY": "s3cr3t/K3y+OfTheObjectStore0123456789",
    "WANDB_API_KEY": "0123secretofanothertool4567",
}


def command(
    folder: Path, endpoint: str, *arguments: str | Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*EMOVEC, *map(str, arguments)],
        cwd=ROOT, env=environment(folder, endpoint), capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def environment(folder: Path, endpoint: str) -> dict[str, str]:
    found = {**os.environ, **SECRETS, "HF_HOME": str(folder / "hf"), "HF_ENDPOINT": endpoint}
    found.pop("HF_HUB_OFFLINE", None)
    return found


@dataclass(frozen=True)
class Watched:
    """A finished run: its folder, what it printed, and who listened where meanwhile."""

    folder: Path
    printed: str
    sockets: set[tuple[str, str]]
    sprung: Path


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Watched:
    """A run of a model with code of its own, with secrets around, watched by its open sockets."""
    folder = tmp_path_factory.mktemp("watched")
    model = shutil.copytree(tiny_model, folder / "model")
    sprung = folder / "sprung"
    (model / "evil.py").write_text(f"open({str(sprung)!r}, 'w')\nclass Evil: pass\n")
    for name in ("config.json", "tokenizer_config.json"):
        config = json.loads((model / name).read_text())
        classes = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
        config["auto_map"] = {**classes, "AutoTokenizer": ["evil.Evil", "evil.Evil"]}
        (model / name).write_text(json.dumps(config))
    windows = [{"name": f"from-{n}", "start": n} for n in range(12)]  # enough for processes
    extraction = {"max_tokens": 256, "windows": windows}
    manifest = write_manifest(folder, model, extraction=extraction)
    arguments = ["analyze", str(manifest), "--root", str(folder / "runs")]
    sockets: set[tuple[str, str]] = set()
    with (folder / "printed").open("w") as stream:
        process = psutil.Popen(
            [*EMOVEC, *arguments],
            cwd=ROOT, env=environment(folder, "http://127.0.0.1:9"), stdout=stream, stderr=stream,
        )  # fmt: skip
        while process.poll() is None:
            sockets |= listening(process)
            time.sleep(0.2)
    printed = (folder / "printed").read_text()
    assert process.returncode == 0, printed
    return Watched(folder, printed, sockets, sprung)


def listening(process: psutil.Process) -> set[tuple[str, str]]:
    """Whoever of a process and its children listens, by program and address."""
    found = set()
    for one in [process, *process.children(recursive=True)]:
        try:
            connections = one.net_connections(kind="inet")
            name = " ".join(one.cmdline())[:80]
        except psutil.Error:
            continue
        found |= {(name, c.laddr.ip) for c in connections if c.status == psutil.CONN_LISTEN}
    return found


def test_nothing_listens_beyond_this_machine(watched: Watched) -> None:
    assert len(watched.sockets) > 2  # the command's own, and worker processes
    assert {ip for _, ip in watched.sockets} <= {"127.0.0.1", "::1"}, watched.sockets


def test_a_models_own_code_is_left_alone(watched: Watched) -> None:
    assert not watched.sprung.exists()
    assert "REMOTE CODE" not in watched.printed


def test_secrets_are_nowhere_in_a_run(watched: Watched) -> None:
    assert (watched.folder / "runs" / "study" / "tables" / "geometry.csv").is_file()
    assert holding_secrets(watched.folder) == []


def test_secrets_are_nowhere_where_a_model_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    models = {"far": {"hf": "lab/closed"}}
    manifest = write_manifest(tmp_path, tiny_model, models=models)
    with hub({"lab/closed": tiny_model}, {"lab/closed"}) as (endpoint, asked):
        done = command(tmp_path, endpoint, "run", manifest, "--root", tmp_path / "runs")
    assert done.returncode == 1
    assert "lab/closed is gated" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert asked
    assert not (tmp_path / "runs").exists()
    (tmp_path / "printed").write_text(done.stdout + done.stderr)
    assert holding_secrets(tmp_path) == []


def holding_secrets(folder: Path) -> list[str]:
    """Files with a secret in them, plain or as base64 has it."""
    words = [word for text in SECRETS.values() for word in (text.encode(), text.encode()[:16])]
    words += [base64.b64encode(text.encode())[:16] for text in SECRETS.values()]
    files = [f for f in folder.rglob("*") if f.is_file()]
    assert len(files) > 5
    return [f"{f}" for f in files if any(word in f.read_bytes() for word in words)]
