"""Faults while stories are written, each with real processes: a tiny random model, real vLLM."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from store import Layout
from store.corpus import Text, read_corpus
from store.journal import journal_rows, read_journal
from store.journal_lines import encode_row
from store.journal_shapes import odd_reply
from tests.test_run import EMOVEC, ROOT, emovec

SKIP = ["reasoning", "refusal", "debris", "cut_off", "repetition"]
"""A random model's words pass no check of sense; number, length and likeness still count."""


def write_study(
    folder: Path,
    model: Path,
    emotions: int,
    neutral: int = 2,
    stories: int = 3,
    corpora: Sequence[str] = ("own",),
) -> Path:
    """A study in which the tiny model writes some stories for each emotion, one a prompt."""
    words = (ROOT / "manifests/lists/emotions-sofroniew-171.txt").read_text().split("\n")
    generate = {
        "model": "tiny",
        "emotions": list(dict.fromkeys(["happy", "sad", "calm", *filter(None, words)]))[:emotions],
        "topics_per_emotion": 1,
        "stories_per_topic": stories,
        "stories_per_prompt": 1,
        "neutral": neutral,
        "max_new_tokens": 200,
        "temperature": 1.5,
        "top_p": 1.0,
        "attempts": 100,
        "checks": {"min_words": 5, "skip": SKIP},
    }
    manifest = {
        "version": 1,
        "name": "study",
        "models": {"tiny": {"path": str(model)}},
        "corpora": {
            name: {"generate": {**deepcopy(generate), "seed": seed}}
            for seed, name in enumerate(corpora, start=42)
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "m.yaml").write_text(yaml.safe_dump(manifest))
    return folder / "m.yaml"


@contextmanager
def started(manifest: Path, root: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*EMOVEC, "generate", str(manifest), "--root", str(root)],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        if process.stdout is not None and not process.stdout.closed:
            process.communicate()


def kept(root: Path, corpus: str = "own") -> dict[str, str]:
    """Return the accepted stories in the journal by text id (one story a prompt)."""
    journal = Layout(root, "study").journal(corpus)
    return {
        row["request"]: row["stories"][0]
        for row in read_journal(journal, odd_reply)
        if row["outcome"] == "kept"
    }


def sealed(root: Path, corpus: str = "own") -> tuple[Text, ...]:
    return read_corpus(Layout(root, "study").stories(corpus)).texts


def wait_for(condition: Any, process: subprocess.Popen[str], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def assert_complete(
    root: Path, n_stories: int, before: dict[str, str], corpus: str = "own"
) -> None:
    """Counts are exact, nothing stands there twice, and what was accepted is there verbatim."""
    texts = {text.text_id: text.text for text in sealed(root, corpus)}
    journal = Layout(root, "study").journal(corpus)
    withdrawn = {
        r["text_id"] for r in read_journal(journal, odd_reply) if r["outcome"] == "withdrawn"
    }
    assert len(texts) == len(sealed(root, corpus)) == n_stories + 2
    for key, story in before.items():
        if key not in withdrawn:
            assert texts[key] == story
    rows = [r for r in read_journal(journal, odd_reply) if "request" in r]
    assert len({(r["request"], r["attempt"]) for r in rows}) == len(rows)


def test_a_dead_engine_is_replaced_and_nothing_is_lost(tiny_model: Path, tmp_path: Path) -> None:
    manifest, root = write_study(tmp_path, tiny_model, emotions=60, stories=6), tmp_path / "runs"
    with started(manifest, root) as process:
        wait_for(lambda: len(kept(root)) >= 3, process)
        before = kept(root)
        engines = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if "EngineCore" in " ".join(child.cmdline())
        ]
        assert len(engines) == 1
        engines[0].kill()
        printed, _ = process.communicate(timeout=400)
        assert process.returncode == 0, printed
    assert "it is started once more" in printed
    assert_complete(root, 360, before)


FULL_DISK = """\
set -e
mount -t tmpfs -o size=2m tmpfs {disk}
head -c {ballast} /dev/zero > {disk}/ballast
set +e
{emovec} generate {manifest} --root {disk}/runs > {out}/first.txt 2>&1
echo $? > {out}/first.code
cp -r {disk}/runs {out}/full
rm {disk}/ballast
{emovec} generate {manifest} --root {disk}/runs > {out}/second.txt 2>&1
echo $? > {out}/second.code
cp -r {disk}/runs {out}/mended
"""


@pytest.mark.slow
def test_a_full_disk_is_a_clear_error_and_loses_nothing(tiny_model: Path, tmp_path: Path) -> None:
    manifest = write_study(tmp_path, tiny_model, emotions=60)
    disk = tmp_path / "disk"
    disk.mkdir()
    script = FULL_DISK.format(
        disk=disk,
        ballast=2_000_000 - 110_000,
        emovec=" ".join(EMOVEC),
        manifest=manifest,
        out=tmp_path,
    )
    # A mount namespace of its own: the small disk is gone with the script.
    subprocess.run(
        ["unshare", "--mount", "--map-root-user", "bash", "-c", script],
        check=True, cwd=ROOT, timeout=600,
    )  # fmt: skip
    first = (tmp_path / "first.txt").read_text()
    assert (tmp_path / "first.code").read_text().strip() == "1"
    assert "No space left on device" in first
    assert "Traceback" not in first
    full = tmp_path / "full"
    assert not Layout(full, "study").stories("own").exists()
    before = kept(full)
    assert before
    assert (tmp_path / "second.code").read_text().strip() == "0", (
        tmp_path / "second.txt"
    ).read_text()
    assert_complete(tmp_path / "mended", 180, before)


def test_what_is_refused_too_often_is_listed_and_can_be_mended(
    tiny_model: Path, tmp_path: Path
) -> None:
    """One attempt is not enough; a hundred are; then two stories of the journal are made alike."""
    manifest, root = write_study(tmp_path, tiny_model, emotions=4), tmp_path / "runs"
    layout = Layout(root, "study")
    study = yaml.safe_load(manifest.read_text())
    generate = study["corpora"]["own"]["generate"]
    generate |= {"attempts": 1, "stories_per_prompt": 3}
    manifest.write_text(yaml.safe_dump(study))

    done = emovec("generate", manifest, "--root", root, check=1)
    lines = layout.given_up("own").read_text().splitlines()
    rows = [r for r in read_journal(layout.journal("own"), odd_reply) if "request" in r]
    single = {r["request"] for r in rows if r["reason"] and r["request"].count("/") == 2}
    neutral = {r["request"] for r in rows if r["reason"] and r["request"].startswith("neutral")}
    assert lines[0] == "request,reason,fingerprint"
    assert {line.split(",")[0] for line in lines[1:]} == single | neutral
    assert single
    assert f"texts refused too often: {len(lines) - 1} (the last time for" in done.stdout
    assert not layout.stories("own").exists()

    generate["attempts"] = 100
    manifest.write_text(yaml.safe_dump(study))
    emovec("generate", manifest, "--root", root)
    before = {r["request"]: r["stories"][0] for r in rows if r["outcome"] == "kept"}
    assert_complete(root, 12, before)
    assert not layout.given_up("own").exists()

    rows = [json.loads(line) for line in layout.journal("own").read_text().splitlines()]
    order = [text.text_id for text in sealed(root)]
    stories = [row for row in rows if row.get("outcome") == "kept"]
    stories.sort(key=lambda row: order.index(row["request"]))
    first, last = stories[0], stories[9]
    last["stories"] = list(first["stories"])
    for row in rows:
        del row["crc32"]
    layout.journal("own").write_bytes(b"".join(map(encode_row, rows)))
    layout.stories("own").unlink()
    emovec("generate", manifest, "--root", root)
    texts = {text.text_id: text.text for text in sealed(root)}
    assert texts[first["request"]] == first["stories"][0]
    assert texts[last["request"]] != first["stories"][0]
    (withdrawn,) = [
        r for r in read_journal(layout.journal("own"), odd_reply) if r["outcome"] == "withdrawn"
    ]
    assert withdrawn["text_id"] == last["request"]
    assert withdrawn["reason"] == f"duplicate: 1.00 of {first['request']}"


@pytest.mark.slow
def test_two_replicas_share_the_work(tiny_model: Path, tmp_path: Path) -> None:
    manifest, root = write_study(tmp_path, tiny_model, emotions=60, stories=6), tmp_path / "runs"
    study = yaml.safe_load(manifest.read_text())
    study["models"]["tiny"]["replicas"] = 2
    manifest.write_text(yaml.safe_dump(study))
    emovec("generate", manifest, "--root", root)
    assert_complete(root, 360, {})
    log = (Layout(root, "study").logs / "write-tiny.log").read_text()
    assert len(set(re.findall(r"EngineCore pid=(\d+)", log))) == 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_kills_at_random_moments(tiny_model: Path, tmp_path: Path) -> None:
    n_emotions = 171
    manifest = write_study(tmp_path, tiny_model, n_emotions, stories=12)
    root = tmp_path / "runs"
    rng = random.Random(20)
    before: dict[str, str] = {}
    hit = 0
    for number in range(20):
        n_before = len(before)
        with started(manifest, root) as process:
            if number % 4 != 0:  # three of four in the middle of the writing, the others anywhere
                wait_for(lambda n=n_before: len(kept(root)) > n, process)
            time.sleep(rng.uniform(0, 3 if number % 4 else 30))
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
        _, left = psutil.wait_procs(children, timeout=20)
        assert not left
        now = kept(root)
        assert before.items() <= now.items()
        hit += len(now) > n_before
        before = now
        if number == 10:  # a torn last line, as a power cut leaves it
            with Layout(root, "study").journal("own").open("ab") as stream:
                stream.write(b'{"request": "brooding/0')
    assert hit >= 10
    emovec("generate", manifest, "--root", root)
    assert_complete(root, 12 * n_emotions, before)
    rows = read_journal(Layout(root, "study").journal("own"), odd_reply)
    often = Counter(row["request"] for row in rows if row["outcome"] == "kept")
    assert max(often.values()) == 1


COMPACT = """\
import resource, sys, time
from pathlib import Path
from engine.generation.demand import Demand
from manifests import load_study
from store.corpus import seal_corpus
from store.journal import journal_rows

demand = Demand("own", load_study(Path(sys.argv[1])).writing["own"])
journal = Path(sys.argv[2])
assert demand.replay(journal_rows(journal, demand.oddity)) == []
sealed = seal_corpus(journal.with_name("stories.parquet"), demand.texts(journal))
print(sealed.n_texts, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_the_largest_published_run_is_compacted_in_little_memory(
    tiny_model: Path, tmp_path: Path
) -> None:
    from benchmarks.compaction import N_STORIES, write_large_study

    manifest, journal = write_large_study(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(COMPACT), str(manifest), str(journal)],
        check=True, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    n_texts, peak = map(int, done.stdout.split())
    assert n_texts == N_STORIES == 205_200
    assert peak < 1e9
    assert sum(1 for _ in journal_rows(journal, odd_reply)) == N_STORIES
