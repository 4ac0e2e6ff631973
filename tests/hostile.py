"""Inputs made to hurt, by name: which file they are, how it is made, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.test_bad_input import MANIFEST

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
    models = "".join(f"  m{i}: {{builtin: smollm2-135m}}\n" for i in range(n))
    corpora = "".join(f"  c{i}: {{import: {{stories: stories.jsonl}}}}\n" for i in range(n))
    return lambda file: file.write_text(
        f"version: 1\nname: many\nmodels:\n{models}corpora:\n{corpora}"
    )


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
    "2,250,000 cells": ("m.yaml", product(1500), "cells: 2,250,000 cells; name those to read"),
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
    "100 MB of broken rows": ("s.jsonl", repeated(b"", b"{\n"), "10,000 such problems so far"),
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
        "m.yaml", manifest("norms.csv", "model/"), "a folder, not a file"),
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
    "a line of 100 MB to be read": (
        "t.lines", repeated(b"one\n\n", b"x", b"\nfour\n"), "t.lines:3: a line of over 20 MB"),
    "NULs to be read": ("t.lines", repeated(b"one\n", b"\0"), "t.lines:2: a line of over 20 MB"),
    "100 MB of lines, the last one spoilt": (
        "t.lines", repeated(b"", b"a few words so " * 4 + b"on\r\n", b"\xff\n"),
        "t.lines:1638401: is not UTF-8 text: byte 0xff at 104857600"),
    "an endless device to be read": ("t.lines", link("/dev/zero"), "t.lines: is no file"),
    "a pipe to be read": ("t.lines", link("pipe"), "t.lines: is no file"),
}  # fmt: skip
