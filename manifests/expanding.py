"""Manifests that repeat less: `extends` another one, and `matrix` entries that stand for several.

Both are written out before anything is checked, so that the rest of the program sees a plain
manifest; lines of mistakes are those of the file they stand in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from manifests.document import Document, KeyPath, read_document
from manifests.errors import InputError, Problem, shorten
from manifests.files import refusal

SECTIONS = ("models", "corpora")
"""Where entries may have a matrix."""

EVERY_MODEL = "models"
"""In place of a list: every model of the manifest that has trained weights."""

MAX_ENTRIES, MAX_ENTRIES_IN_ALL = 1000, 10_000
"""That one matrix, and those of one manifest, may stand for."""

MAX_LISTS = 20
"""In one matrix."""

MAX_CHAIN = 20
"""Manifests of which each extends the next."""

MAX_WRITTEN = 1 << 24
"""Characters of what the matrices of one manifest are written out to."""

PLACE = re.compile(r"\{([A-Za-z][A-Za-z0-9_]*)\}")


def read_expanded(file: Path) -> Document:
    """Read a manifest, put it over the one that it extends, and write out its matrices.

    Raises:
        InputError: a file that cannot be read, a circle, or a matrix that is none.
    """
    return _written_out(_extended(file, ()))


def _extended(file: Path, below: tuple[Path, ...]) -> Document:
    document = read_document(file)
    data = document.data
    if not isinstance(data, dict) or "extends" not in data:
        return document
    given = data["extends"]
    if not isinstance(given, str) or not given:
        what = f"{shorten(given)} is not a manifest's path"
        raise InputError(document.problem(("extends",), what))
    base_file = file.parent / given
    known = (*below, file)
    if (why := refusal(base_file)) is not None:
        raise InputError(document.problem(("extends",), f"{why}: {given}"))
    if base_file.resolve() in {path.resolve() for path in known}:
        what = f"{given} extends this manifest in turn"
        raise InputError(document.problem(("extends",), what))
    if len(known) == MAX_CHAIN:
        what = f"the {MAX_CHAIN}th manifest of which each extends the next, and still another"
        raise InputError(document.problem(("extends",), what))
    base = _extended(base_file, known)
    if not isinstance(base.data, dict):
        raise InputError(Problem(base_file, 1, "", "not a manifest"))
    own = {key: value for key, value in data.items() if key != "extends"}
    lines = {path: line for path, line in document.lines.items() if path != ("extends",)}
    files = {path: base.files.get(path, base.file) for path in base.lines}
    for path in lines:
        files.pop(path, None)
    return replace(
        document,
        data=_merged(base.data, own),
        lines={**base.lines, **lines},
        files={**files, **document.files},
    )


def _merged(base: Any, own: Any) -> Any:
    """Return `own` over `base`: keys are joined, anything else is replaced; null removes."""
    if not (isinstance(base, dict) and isinstance(own, dict)):
        return own
    found = dict(base)
    for key, value in own.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = _merged(base.get(key), value)
    return found


def _written_out(document: Document) -> Document:
    """Replace each entry with a matrix by the entries that it stands for."""
    if not isinstance(document.data, dict):
        return document
    data, lines, files = dict(document.data), dict(document.lines), dict(document.files)
    template = _Template(document)
    for section in SECTIONS:
        entries = data.get(section)
        if not isinstance(entries, dict):
            continue
        below = _by_entry(document, section)
        made: dict[Any, Any] = {}
        for name, entry in entries.items():
            where: KeyPath = (section, name)
            if not (isinstance(entry, dict) and "matrix" in entry):
                _add(made, name, entry, document, where)
                continue
            body = {key: value for key, value in entry.items() if key != "matrix"}
            for values in _combinations(document, data, section, str(name), entry["matrix"]):
                title = template.filled(str(name), values, where)
                _add(made, title, template.filled(body, values, where), document, where)
                if len(made) > MAX_ENTRIES_IN_ALL:
                    what = f"stands for over {MAX_ENTRIES_IN_ALL:,} {section}"
                    raise InputError(document.problem(where, what))
                for path in below.get(name, ()):
                    here = (section, str(title), *path[2:])
                    lines[here] = document.lines[path]
                    if path in document.files:
                        files[here] = document.files[path]
        data[section] = made
    return replace(document, data=data, lines=lines, files=files)


def _by_entry(document: Document, section: str) -> dict[Any, list[KeyPath]]:
    """Return the paths that stand below each entry of a section, its matrix left out."""
    found: dict[Any, list[KeyPath]] = {}
    for path in document.lines:
        if len(path) > 1 and path[0] == section and path[2:3] != ("matrix",):
            found.setdefault(path[1], []).append(path)
    return found


def _add(made: dict[Any, Any], name: Any, entry: Any, document: Document, path: KeyPath) -> None:
    if name in made:
        what = f"there is an entry of the name {shorten(name)} already"
        raise InputError(document.problem(path, what))
    made[name] = entry


def _combinations(
    document: Document, data: dict[str, Any], section: str, name: str, matrix: Any
) -> Iterator[dict[str, Any]]:
    """Yield every combination of a matrix' values.

    Raises:
        InputError: it is no table of lists, stands for too much, or the name does not tell its
            entries apart.
    """
    where: KeyPath = (section, name, "matrix")
    if not isinstance(matrix, dict) or not matrix:
        what = "expected names with lists of values, such as {writer: [a, b]}"
        raise InputError(document.problem(where, what))
    if len(matrix) > MAX_LISTS:
        raise InputError(document.problem(where, f"over {MAX_LISTS} lists of values"))
    lists: dict[str, list[Any]] = {}
    for key, values in matrix.items():
        if values == EVERY_MODEL and section != "models":
            values = _trained(data.get("models"))
        if not isinstance(values, list) or not values:
            what = f"{shorten(values)} is not a list of values" + (
                "" if section == "models" else f", nor {EVERY_MODEL!r}, which stands for all models"
            )
            raise InputError(document.problem((*where, str(key)), what))
        lists[str(key)] = values
    unnamed = [key for key, values in lists.items() if len(values) > 1 and f"{{{key}}}" not in name]
    if unnamed:
        what = f"the name {name!r} must hold {{{unnamed[0]}}}, to tell its entries apart"
        raise InputError(document.problem(where, what))
    number = 1
    for values in lists.values():
        number *= len(values)
    if number > MAX_ENTRIES:
        what = f"stands for {number:,} entries, more than {MAX_ENTRIES:,}"
        raise InputError(document.problem(where, what))
    for values in product(*lists.values()):
        yield dict(zip(lists, values, strict=True))


def _trained(models: Any) -> list[Any]:
    """Return the names of models with trained weights, those of matrices written out."""
    if not isinstance(models, dict):
        return []
    return [
        name
        for name, entry in models.items()
        if not (isinstance(entry, dict) and entry.get("weights") == "random")
    ]


class _Template:
    """Fills places, and keeps count of what is written out: a few bytes may stand for terabytes."""

    def __init__(self, document: Document):
        self._document, self._left = document, MAX_WRITTEN

    def filled(self, value: Any, values: dict[str, Any], path: KeyPath) -> Any:
        """Return a template with its places filled; a place by itself keeps the value's type.

        Raises:
            InputError: a place that the matrix does not have, or more than `MAX_WRITTEN` in all.
        """
        self._count(16, path)
        if isinstance(value, dict):
            return {
                self.filled(key, values, path): self.filled(item, values, (*path, key))
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [self.filled(v, values, (*path, i)) for i, v in enumerate(value)]
        if not isinstance(value, str):
            return value
        if (whole := PLACE.fullmatch(value)) and whole[1] in values:
            return values[whole[1]]
        return PLACE.sub(lambda place: self._text(place[1], values, path), value)

    def _text(self, name: str, values: dict[str, Any], path: KeyPath) -> str:
        if name not in values:
            what = f"{{{name}}} is not in its matrix, which has {', '.join(values)}"
            raise InputError(self._document.problem(path, what))
        text = str(values[name])
        self._count(len(text), path)
        return text

    def _count(self, characters: int, path: KeyPath) -> None:
        self._left -= characters
        if self._left < 0:
            what = f"the matrices of this manifest stand for over {MAX_WRITTEN:,} characters"
            raise InputError(self._document.problem(path, what))
