"""Inputs made to hurt: each answered in one line, in bounded time and memory, starting nothing.

Every case runs the command in a process of its own, which may take so much address space and no
more; what it took is what the kernel says.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from manifests.errors import InputError
from manifests.resolve import load_study
from tests.test_bad_input import MANIFEST, lay_out
from tests.test_run import EMOVEC, ROOT

SECONDS = 30
MEGABYTES = 450
"""Of resident memory: Python with numpy, pandas and pyarrow takes some 150 of them."""

READ = """
import resource, sys, time
from pathlib import Path
from manifests.errors import InputError
from manifests.resolve import Importing, load_study
from manifests.schema import Import
from store.exchange import read_texts
file = Path(sys.argv[1])
try:
    if file.suffix == ".yaml":
        load_study(file)
    else:
        stories = file if sys.argv[2] == "stories" else file.with_name("stories.jsonl")
        neutral = file if sys.argv[2] == "neutral" else None
        read_texts(Importing(Import(stories=str(stories)), stories, neutral))
except InputError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""

Make = Callable[[Path], None]


def whole(content: bytes) -> Make:
    return lambda file: file.write_bytes(content)


def manifest(old: str, new: str) -> Make:
    assert old in MANIFEST
    return lambda file: file.write_text(MANIFEST.replace(old, new, 1))


def repeated(before: bytes, piece: bytes, after: bytes = b"", megabytes: int = 100) -> Make:
    def make(file: Path) -> None:
        with file.open("wb") as stream:
            stream.write(before)
            for _ in range(megabytes):
                stream.write(piece * ((1 << 20) // len(piece)))
            stream.write(after)

    return make


def beside(name: str, make: Make, old: str, new: str) -> Make:
    """A file that a manifest names in place of another."""

    def write(file: Path) -> None:
        make(file.with_name(name))
        manifest(old, new)(file)

    return write


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
MATRIX = "  '{a}':\n    matrix: {a: [%s]}\n    generate: {model: writer, emotions: ['%s']}\n"
CHAIN = 300


def chain(file: Path) -> None:
    for i in range(CHAIN):
        file.with_name(f"c{i}.yaml").write_text(f"extends: c{i + 1}.yaml\n")
    file.write_text("extends: c0.yaml\n")


def link(to: str) -> Make:
    return lambda file: file.symlink_to(to)


def product(n: int) -> Make:
    """So many models times as many corpora."""
    models = "".join(f"  m{i}: {{builtin: a}}\n" for i in range(n))
    corpora = "".join(f"  c{i}: {{import: {{stories: stories.jsonl}}}}\n" for i in range(n))
    return lambda file: file.write_text(
        f"version: 1\nname: many\nmodels:\n{models}corpora:\n{corpora}"
    )


def unreadable(file: Path) -> None:
    file.write_text(MANIFEST)
    file.chmod(0)


STORY = b'{"emotion": "happy", "text": "'

HOSTILE: dict[str, tuple[str, Make, str]] = {
    "a billion laughs": ("m.yaml", whole(LAUGHS.encode()), ":2: aliases are not read"),
    "merged laughs": ("m.yaml", whole(b"a: {<<: {b: 1}}\n"), ":1: a: '<<' cannot be a key"),
    "flow nested 100,000 deep": ("m.yaml", whole(b"a: " + b"[" * 100_000), "over 32 levels deep"),
    "blocks nested 100,000 deep": ("m.yaml", whole(b"a:\n" + b"- " * 100_000), "levels deep"),
    "keys nested 100,000 deep": ("m.yaml", whole(b"? " * 100_000), "levels deep"),
    "450,000 scalars": ("m.yaml", whole(b"a: [" + b"a," * 450_000 + b"]"), "over 100,000 keys and"),
    "an integer of 100,000 digits": (
        "m.yaml", manifest("version: 1", "version: " + "9" * 100_000), ":1: version: '9"),
    "a hexadecimal one": (
        "m.yaml", manifest("neutral: 4", "neutral: 0x" + "f" * 100_000), "generate.neutral: '0xff"),
    "a sexagesimal one": (
        "m.yaml", manifest("neutral: 4", "neutral: 1" + ":59" * 300_000), "own.generate.neutral"),
    "a matrix that stands for 40 GB": (
        "m.yaml", manifest("  own:\n", MATRIX % ("z" * 200_000, "{a}" * 200_000) + "  own:\n"),
        "stand for over 16,777,216 characters"),
    "9,000,000 cells": ("m.yaml", product(3000), "cells: 9,000,000 cells; name those to read"),
    "manifests that extend each other": ("m.yaml", chain, "extends the next"),
    "a manifest of 100 MB in one line": ("m.yaml", repeated(b"name: ", b"x"), "larger than"),
    "norms of 100 MB in one line": (
        "m.yaml", beside("own.csv", repeated(b"word,", b"x"), "norms.csv", "own.csv"),
        "own.csv:1: a line of over 16,777,216 bytes"),
    "norms in one quoted field": (
        "m.yaml", beside("own.csv", repeated(b'word,"', b"x\n"), "norms.csv", "own.csv"),
        "not valid CSV: field larger than field limit"),
    "words of 100 MB": (
        "m.yaml", beside("own.txt", repeated(b"", b"x"), "words.txt", "own.txt"), "larger than"),
    "a story of 100 MB": ("s.jsonl", repeated(STORY, b"x", b'"}'), "s.jsonl:1: a line of over"),
    "neutral texts in one line": ("n.txt", repeated(b"", b"x"), "n.txt:1: a line of over"),
    "a table of 100 MB in one line": ("s.csv", repeated(b"emotion,text\n", b"x"), ":2: a line of"),
    "100 MB of broken rows": ("s.jsonl", repeated(b"", b"{\n"), "and 52,428,780 more such"),
    "JSON nested 100,000 deep": ("s.jsonl", whole(b'{"a":' + b"[" * 100_000), "nested too deep"),
    "JSON with 100,000 digits": (
        "s.jsonl", whole(b'{"emotion": ' + b"9" * 100_000 + b"}"), "a number of 100,000 digits"),
    "an endless device": ("s.jsonl", link("/dev/zero"), "s.jsonl: cannot be read: not a file"),
    "an endless device as norms": (
        "m.yaml", beside("own.csv", link("/dev/zero"), "norms.csv", "own.csv"), "not a file"),
    "an endless device as a manifest": ("x.yaml", link("/dev/zero"), "not a file"),
    "a pipe without a writer": ("x.yaml", link("pipe"), "x.yaml: cannot be read: not a file"),
    "a pipe as stories": ("s.jsonl", link("pipe"), "s.jsonl: cannot be read: not a file"),
    "a pipe as a Parquet file": ("s.parquet", link("pipe"), "cannot be read: not a file"),
    "a folder as a manifest": ("x.yaml", Path.mkdir, "cannot be read: a folder, not a file"),
    "a folder as norms": (
        "m.yaml", manifest("norms.csv", "model/../."), "unknown norms|a folder, not a file"),
    "a link to itself": ("x.yaml", link("x.yaml"), "cannot be read: Too many levels of symbolic"),
    "norms under a link to itself": (
        "m.yaml", manifest("norms.csv", "link/n.csv"), "Too many levels of symbolic links"),
    "stories under a link to itself": (
        "m.yaml", manifest("stories: stories.jsonl", "stories: link"), "import.stories: no file"),
    "a name of 300 letters": ("m.yaml", manifest("words.txt", "w" * 300 + ".txt"), "name too long"),
    "a NUL": ("m.yaml", whole(b"name: a\0b"), ":1: not valid YAML: the character U+0000"),
    "an escaped NUL": ("m.yaml", manifest("words.txt", '"w\\0.txt"'), "topics: 'w\\x00.txt' holds"),
    "half a surrogate pair": ("m.yaml", manifest("happy,", '"\\ud800",'), "emotions.0: '\\ud800'"),
    "one in UTF-8": ("m.yaml", whole(b"name: \xed\xa0\x80"), ":1: not UTF-8 text"),
    "one as a topic": (
        "s.jsonl", whole(b'{"emotion": "a", "topic": "\\ud800", "text": "b"}'), ":1: topic: '"),
    "UTF-16": ("m.yaml", whole(MANIFEST.encode("utf-16")), "not UTF-8 text; save it as UTF-8"),
    "text turned round": (
        "m.yaml", manifest("name: good", "name: \u202edoog"), ":2: name: '\\u202edoog' cannot be"),
    "a terminal's commands": (
        "s.jsonl", whole(b'{"emotion": "\\u001b[2J", "text": "b"}'), ":1: emotion: '\\x1b[2J'"),
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    lines: list[str]
    seconds: float
    megabytes: float


def ask(file: Path, part: str) -> Answer:
    """Read an input in a process that may have 3 GiB of address space."""

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))

    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", READ, file, part],
        cwd=ROOT, capture_output=True, text=True, timeout=4 * SECONDS, preexec_fn=bounded,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    *lines, kilobytes = done.stdout.splitlines()
    return Answer(lines, time.monotonic() - started, int(kilobytes) / 1024)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_input_is_one_line_in_little_time_and_memory(name: str, tmp_path: Path) -> None:
    lay_out(tmp_path)
    given, make, expected = HOSTILE[name]
    (tmp_path / given).unlink(missing_ok=True)
    make(tmp_path / given)
    before = sorted(tmp_path.rglob("*"))
    found = ask(tmp_path / given, "neutral" if given == "n.txt" else "stories")
    assert any(word in found.lines[-1] for word in expected.split("|")), found.lines[-1][:500]
    assert len(found.lines) == 1 + 20 * (name == "100 MB of broken rows")
    assert all(len(line) < 2000 and line.isprintable() for line in found.lines)
    assert found.seconds < SECONDS
    assert found.megabytes < MEGABYTES
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
    "..", ".", "../x", "a/../../x", "/etc/x", "a/b", "a\\b", "~", "-rf", ".hidden", "a..b", "x" * 65,
    "con", "NUL", "aux.txt", "com1", "LPT9.csv", "a.", "a b", "é", "a\u202eb", "a.partial", "a@b",
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
    "two manifests": (["{}/m.yaml", "{}/m.yaml"], "unexpected extra argument"),
    "a store of no kind": (["{}/m.yaml", "--root", "ftp://a/b"], "is not an address"),
    "a store outside": (["{}/m.yaml", "--root", "s3://bucket/../../x"], "is not an address"),
    "keys in an address": (["{}/m.yaml", "--root", "s3://key:secret@bucket/x"], "not an address"),
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
    unreadable(tmp_path / "m.yaml")
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
