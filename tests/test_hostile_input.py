"""Inputs made to hurt: each answered in one line, in bounded time and memory, starting nothing.

Every case is read in a process of its own, which may take so much address space and no more; what
it took is what the kernel says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from manifests.errors import InputError
from manifests.resolve import load_study
from tests.hostile import HOSTILE, LAUGHS, manifest
from tests.test_bad_input import MANIFEST, lay_out
from tests.test_run import EMOVEC, ROOT

SECONDS = 30
MEGABYTES = 250
"""Of resident memory beyond what the program takes before it reads anything."""

FORKING = """
import json, os, resource, sys
from pathlib import Path
import store.exchange
from engine.detection.texts import GivenTexts
from manifests.errors import InputError
from manifests.resolve import Importing, load_study
from manifests.schema import Import

def read(file):
    if file.suffix == ".yaml":
        load_study(file)
        return
    if file.suffix == ".lines":
        GivenTexts([file], by_line=True)
        return
    stories = file.with_name("stories.jsonl") if file.name == "n.txt" else file
    neutral = file if file.name == "n.txt" else None
    store.exchange.read_texts(Importing(Import(stories=str(stories)), stories, neutral))

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

for line in sys.stdin:
    if os.fork() == 0:
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
        before, said = peak(), ""
        try:
            read(Path(line.rstrip()))
        except InputError as error:
            said = str(error)
        except BaseException as error:
            said = repr(error)
        print(json.dumps({"lines": said.splitlines(), "megabytes": peak() - before}), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def reader() -> Iterator[subprocess.Popen[str]]:
    """A process that reads each input in a fork of its own."""
    command = [sys.executable, "-c", FORKING]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=10) == 0


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_input_is_one_line_in_little_time_and_memory(
    name: str, reader: subprocess.Popen[str], tmp_path: Path
) -> None:
    lay_out(tmp_path)
    given, make, expected = HOSTILE[name]
    (tmp_path / given).unlink(missing_ok=True)
    make(tmp_path / given)
    before = sorted(tmp_path.rglob("*"))
    assert reader.stdin is not None
    assert reader.stdout is not None
    started = time.monotonic()
    print(tmp_path / given, file=reader.stdin, flush=True)
    answer = json.loads(reader.stdout.readline())
    seconds = time.monotonic() - started
    lines = answer["lines"]
    assert any(expected in line for line in lines[-1:]), lines
    assert len(lines) == 1 + 20 * (name == "100 MB of broken rows")
    assert all(line.startswith(f"{tmp_path}/") and line.isprintable() for line in lines)
    assert all(len(line) < 2000 for line in lines)
    assert seconds < SECONDS
    assert answer["megabytes"] < MEGABYTES
    assert sorted(tmp_path.rglob("*")) == before


def test_marks_and_ends_of_lines_of_other_systems_are_read(tmp_path: Path) -> None:
    lay_out(tmp_path)
    for name in ("m.yaml", "norms.csv", "words.txt", "stories.jsonl", "neutral.txt"):
        text = (tmp_path / name).read_text().replace("\n", "\r\n")
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    study = load_study(tmp_path / "m.yaml")
    assert study.writing["own"].topics == ("happy", "sad", "calm", "proud")
    assert study.norms[0].ratings["sad"] == (1.0, 8.0)
    for end in ("\r", "\r\n"):
        rows = end.join(["emotion,text", 'happy,"one', 'two"', "sad,three", ""])
        (tmp_path / "s.csv").write_bytes(b"\xef\xbb\xbf" + rows.encode())
        found = ask_texts(tmp_path / "s.csv")
        assert found == [("happy", f"one{end}two"), ("sad", "three")]


def ask_texts(file: Path) -> list[tuple[str | None, str]]:
    from manifests.resolve import Importing
    from manifests.schema import Import
    from store.exchange import read_texts

    texts = read_texts(Importing(Import(stories=str(file)), file, None))
    return [(text.emotion, text.text) for text in texts]


def test_text_from_right_to_left_is_text(tmp_path: Path) -> None:
    file = tmp_path / "s.jsonl"
    rows = [("שמחה", "הוא הלך הביתה."), ("فرح", "مشى\u200c إلى البيت.")]
    file.write_text("".join(json.dumps({"emotion": e, "text": t}) + "\n" for e, t in rows))
    assert ask_texts(file) == rows


NAMES = (
    "..", ".", "../x", "a/../../x", "/etc/x", "a/b", "a\\b", "~", "-rf", ".hidden", "a..b",
    "x" * 65, "con", "NUL", "aux.txt", "com1", "LPT9.csv", "a.", "a b", "é",
    "a\u202eb", "a.partial", "a@b",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", ["manifest", "model", "corpus", "window"])
def test_names_that_could_leave_the_root_are_refused(what: str, name: str, tmp_path: Path) -> None:
    lay_out(tmp_path)
    written = json.dumps(name)
    old, new, key = {
        "manifest": ("name: good", f"name: {written}", "name"),
        "model": ("  writer: {", f"  {written}: {{", f"models.{name}"),
        "corpus": ("  own:\n", f"  {written}:\n", f"corpora.{name}"),
        "window": ("name: late", f"name: {written}", "extraction.windows.1.name"),
    }[what]
    manifest(old, new)(tmp_path / "m.yaml")
    with pytest.raises(InputError, match="cannot be a name") as error:
        load_study(tmp_path / "m.yaml")
    assert key in [problem.key for problem in error.value.problems]


COMMANDS = {
    "not there": (["{}/none.yaml"], "none.yaml: cannot be read: no such file"),
    "a folder": (["{}"], "a folder, not a file"),
    "a device": (["/dev/zero"], "/dev/zero: cannot be read: not a file"),
    "a pipe": (["{}/pipe"], "pipe: cannot be read: not a file"),
    "a link to itself": (["{}/link"], "Too many levels of symbolic links"),
    "a name too long": (["{}/" + "x" * 300], "File name too long"),
    "laughs": (["{}/laughs.yaml"], "laughs.yaml:2: aliases are not read"),
    "an option": (["{}/m.yaml", "--nothing"], "No such option"),
    "a manifest twice": (["{}/m.yaml", "{}/m.yaml"], "runs need two names"),
    "a store of no kind": (["{}/m.yaml", "--root", "ftp://a/b"], "is not an address"),
    "a store outside": (["{}/m.yaml", "--root", "s3://bucket/../../x"], "is not an address"),
    "keys in an address": (
        ["{}/m.yaml", "--root", "s3://key:secret@bucket/x"],
        "keys do not belong in an",
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_line_says_one_line_and_starts_nothing(name: str, tmp_path: Path) -> None:
    lay_out(tmp_path)
    (tmp_path / "laughs.yaml").write_text(LAUGHS)
    arguments, expected = COMMANDS[name]
    done = plan(tmp_path, [argument.format(tmp_path) for argument in arguments])
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize("name", ["a billion laughs", "450,000 scalars", "an escaped NUL",
    "a matrix that stands for 40 GB", "an endless device as norms", "text turned round",
    "norms under a link to itself", "a hexadecimal one", "a name of 300 letters"])  # fmt: skip
def test_the_command_line_answers_hostile_manifests(name: str, tmp_path: Path) -> None:
    lay_out(tmp_path)
    given, make, expected = HOSTILE[name]
    make(tmp_path / given)
    done = plan(tmp_path, [str(tmp_path / given)])
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert not (tmp_path / "runs").exists()


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(MANIFEST)
    (tmp_path / "m.yaml").chmod(0)
    if os.access(tmp_path / "m.yaml", os.R_OK):
        pytest.skip("this user may read everything")
    done = plan(tmp_path, [str(tmp_path / "m.yaml")])
    assert done.returncode == 2
    assert done.stderr == f"{tmp_path}/m.yaml: cannot be read: Permission denied\n"


def plan(folder: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Ask for a plan in a folder of its own, so that what is written by mistake is seen."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(
        [*EMOVEC, "plan", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert not (folder / "runs").exists()
    return done
