"""A YAML document with the line of every key, refused where it is ambiguous or hostile.

Duplicate keys, aliases, tags, deep nesting, endless numbers and oversized files are errors here, so
that what pydantic sees is what the author wrote, and reading it costs a few seconds at most.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from manifests.errors import InputError, Problem, shorten
from manifests.files import read_text

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 100_000
"""Keys and values of one file."""

MAX_NUMBER = 64
"""Characters of a number or a date."""

TEXT = "tag:yaml.org,2002:str"

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
        return Problem(file, self.lines.get(known, 1), dotted(path), what)


def read_document(file: Path) -> Document:
    """Parse a YAML file.

    Raises:
        InputError: the file is missing, unreadable, not UTF-8, too large, not YAML, holds a key
            twice or one that is no text, uses aliases or tags, or a scalar that cannot be meant.
    """
    text = read_text(file, MAX_BYTES)
    lines: dict[KeyPath, int] = {}
    try:
        loader = _Loader(file, text)
        node = loader.get_single_node()
        if node is None:
            return Document(file, None, lines)
        _walk(file, loader, node, (), lines)
        return Document(file, loader.construct_document(node), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else None
        raise InputError(
            Problem(file, line, "", f"not valid YAML: {error.problem or error.context}")
        ) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        what = f"not valid YAML: the character U+{code:04X} cannot stand in it"
        raise InputError(Problem(file, line, "", what)) from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, refusing on its way what costs more than its bytes."""

    def __init__(self, file: Path, text: str):
        super().__init__(text)
        self._file, self._depth, self._nodes = file, 0, 0

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise self._refusal(line, "aliases are not read; write it out")
        if event.tag is not None:
            raise self._refusal(line, f"tags are not read ({event.tag}); leave it out")
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._refusal(line, f"over {MAX_NODES:,} keys and values")
        self._depth += 1
        if self._depth > MAX_DEPTH + isinstance(event, yaml.ScalarEvent):
            raise self._refusal(line, f"nested over {MAX_DEPTH} levels deep")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def _refusal(self, line: int, what: str) -> InputError:
        return InputError(Problem(self._file, line, "", what))


def _walk(
    file: Path, loader: _Loader, node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int]
) -> None:
    """Note the line of every key, and refuse keys and scalars that cannot be meant."""
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag != TEXT or not key.value.strip():
                given = shorten(key.value) if isinstance(key, yaml.ScalarNode) else "this"
                why = f"{given} cannot be a key; a key is text, one such as 'yes' or '1' in quotes"
                raise InputError(Problem(file, line, dotted(path), why))
            here = (*path, key.value)
            what = _wrong(loader, key)
            if here in lines:
                what = f"{shorten(key.value)} stands here twice, first on line {lines[here]}"
            if what is not None:
                raise InputError(Problem(file, line, dotted(here), what))
            lines[here] = line
            _walk(file, loader, value, here, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(file, loader, value, (*path, index), lines)
    elif (wrong := _wrong(loader, node)) is not None:
        what = wrong if path else f"not a mapping of keys, but one value: {wrong}"
        raise InputError(Problem(file, node.start_mark.line + 1, dotted(path), what))


def _wrong(loader: _Loader, node: yaml.Node) -> str | None:
    """Return what is wrong with a scalar that no setting can have, None where nothing is."""
    given = shorten(node.value)
    if node.tag == TEXT:
        odd = any(c == "\0" or "\ud800" <= c <= "\udfff" for c in node.value)
        return f"{given} holds a NUL or half of a surrogate pair" if odd else None
    if len(node.value) > MAX_NUMBER:
        return f"{given} has {len(node.value):,} characters, more than any number needs"
    try:
        value = loader.construct_object(node)
    except (ValueError, OverflowError) as error:  # a date of no calendar, digits that are none
        return f"{given} is no number and no date ({error}); write text in quotes"
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return f"{given} is too large a number"
    return None


def dotted(path: KeyPath) -> str:
    """Return a path as people write it."""
    return ".".join(map(str, path))
