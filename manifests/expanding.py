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

SECTIONS = ("models", "corpora")
"""Where entries may have a matrix."""

EVERY_MODEL = "models"
"""In place of a list: every model of the manifest that has trained weights."""

MAX_ENTRIES = 1000
"""That one matrix may stand for."""

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
    if base_file.resolve() in {path.resolve() for path in known}:
        what = f"{given} extends this manifest in turn"
        raise InputError(document.problem(("extends",), what))
    if not base_file.is_file():
        raise InputError(document.problem(("extends",), f"no such file: {given}"))
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
    for section in SECTIONS:
        entries = data.get(section)
        if not isinstance(entries, dict):
            continue
        made: dict[Any, Any] = {}
        for name, entry in entries.items():
            if not (isinstance(entry, dict) and "matrix" in entry):
                _add(made, name, entry, document, (section, name))
                continue
            template = {key: value for key, value in entry.items() if key != "matrix"}
            for values in _combinations(document, data, section, str(name), entry["matrix"]):
                title = _filled(str(name), values, document, (section, name))
                body = _filled(template, values, document, (section, name))
                _add(made, title, body, document, (section, name))
                for path, line in document.lines.items():
                    if path[:2] == (section, name):
                        lines[(section, str(title), *path[2:])] = line
                        if path in document.files:
                            files[(section, str(title), *path[2:])] = document.files[path]
        data[section] = made
    return replace(document, data=data, lines=lines, files=files)


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


def _filled(value: Any, values: dict[str, Any], document: Document, path: KeyPath) -> Any:
    """Return a template with its places filled; a place by itself keeps the value's type.

    Raises:
        InputError: a place that the matrix does not have.
    """
    if isinstance(value, dict):
        return {
            _filled(key, values, document, path): _filled(item, values, document, (*path, key))
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_filled(v, values, document, (*path, i)) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value
    if (whole := PLACE.fullmatch(value)) and whole[1] in values:
        return values[whole[1]]
    unknown = [name for name in PLACE.findall(value) if name not in values]
    if unknown:
        what = f"{{{unknown[0]}}} is not in its matrix, which has {', '.join(values)}"
        raise InputError(document.problem(path, what))
    return PLACE.sub(lambda place: str(values[place[1]]), value)
