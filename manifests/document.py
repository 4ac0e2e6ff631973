"""A YAML document with the line of every key, refused where it is ambiguous or hostile.

Duplicate keys, aliases, deep nesting and oversized files are errors here, so that what pydantic
sees is what the author wrote.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from manifests.errors import InputError, Problem, shorten

MAX_BYTES = 1 << 20
MAX_DEPTH = 32

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """A parsed YAML file.

    Attributes:
        file: where it came from.
        data: plain dicts, lists and scalars.
        lines: 1-based line of every key and list item, by path.
        files: files of the paths that stand in another one, which this one extends.
    """

    file: Path
    data: Any
    lines: dict[KeyPath, int]
    files: dict[KeyPath, Path] = field(default_factory=dict)

    def problem(self, path: KeyPath, what: str) -> Problem:
        """Return a Problem at `path`, with the line of its nearest written ancestor."""
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        file = self.files.get(known, self.file)
        return Problem(file, self.lines.get(known, 1), ".".join(map(str, path)), what)


def read_document(file: Path) -> Document:
    """Parse a YAML file.

    Raises:
        InputError: the file is missing, unreadable, not UTF-8, too large, not YAML, holds a key
            twice, or uses aliases.
    """
    text = read_text(file, MAX_BYTES)
    try:
        _check_events(file, text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[KeyPath, int] = {}
        if node is not None:
            _walk(file, node, (), lines)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else None
        raise InputError(
            Problem(file, line, "", f"not valid YAML: {error.problem or error.context}")
        ) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(
            Problem(file, line, "", f"not valid YAML: character {error.character!r}")
        ) from None
    except ValueError as error:
        raise InputError(Problem(file, None, "", f"not valid YAML: {error}")) from None
    return Document(file, data, lines)


def read_text(file: Path, max_bytes: int) -> str:
    """Return a file's text (UTF-8, a byte-order mark dropped).

    Raises:
        InputError: the file is missing, unreadable, over `max_bytes`, or not UTF-8.
    """
    try:
        with file.open("rb") as stream:
            raw = stream.read(max_bytes + 1)
    except OSError as error:
        what = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise InputError(Problem(file, None, "", f"cannot be read: {what}")) from None
    if len(raw) > max_bytes:
        raise InputError(Problem(file, None, "", f"larger than {max_bytes:,} bytes"))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(Problem(file, line, "", "not UTF-8 text; save it as UTF-8")) from None


def _check_events(file: Path, text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark is not None else None
        if isinstance(event, yaml.AliasEvent):
            raise InputError(Problem(file, line, "", "aliases are not read; write it out"))
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise InputError(Problem(file, line, "", f"nested over {MAX_DEPTH} levels deep"))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _walk(file: Path, node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int]) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            line = key.start_mark.line + 1
            if here in lines:
                what = f"{shorten(key.value)} stands here twice, first on line {lines[here]}"
                raise InputError(Problem(file, line, ".".join(map(str, here)), what))
            lines[here] = line
            _walk(file, value, here, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(file, value, (*path, index), lines)
