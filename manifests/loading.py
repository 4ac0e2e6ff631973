"""From a manifest file to a checked `Manifest`: schema errors as lines that a person can act on."""

from __future__ import annotations

import difflib
import typing
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from manifests.document import Document, KeyPath
from manifests.errors import MAX_PROBLEMS, InputError, Problem, shorten
from manifests.expanding import read_expanded
from manifests.schema import Manifest

Checked = TypeVar("Checked", bound=BaseModel)


def read_manifest(file: Path) -> tuple[Manifest, Document]:
    """Read and check a manifest's shape.

    Raises:
        InputError: one problem for each mistake, with its line and key.
    """
    document = read_expanded(file)
    kind = "a manifest: expected keys such as version, name, models and corpora"
    return validate(document, Manifest, kind), document


def validate(document: Document, schema: type[Checked], kind: str) -> Checked:
    """Check a document against a schema.

    Args:
        document: as read.
        schema: what it should be.
        kind: what to say it is not, when it holds no keys at all.

    Raises:
        InputError: one problem for each mistake, with its line and key.
    """
    if not isinstance(document.data, dict):
        raise InputError(Problem(document.file, 1, "", f"not {kind}"))
    try:
        return schema.model_validate(document.data)
    except ValidationError as error:
        found = error.errors(include_url=False)
        problems = [
            document.problem(_written(e["loc"], document), _say(dict(e), schema))
            for e in found[:MAX_PROBLEMS]
        ]
        if len(found) > MAX_PROBLEMS:
            rest = f"and {len(found) - MAX_PROBLEMS:,} more problems"
            problems[-1:] = [Problem(document.file, None, "", rest)]
        raise InputError(problems) from None


def _written(loc: KeyPath, document: Document) -> KeyPath:
    """Keep of pydantic's location what the author wrote (it adds union and validator names)."""
    path: KeyPath = ()
    data: Any = document.data
    for part in loc:
        if part == "[key]":
            break
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            if part is not loc[-1] or not isinstance(data, dict):
                continue
        path = (*path, part)
    return path


def _say(error: dict[str, Any], schema: type[BaseModel]) -> str:
    kind, loc, given = error["type"], error["loc"], error["input"]
    if kind == "extra_forbidden":
        known = _keys_at(loc[:-1], schema)
        close = difflib.get_close_matches(str(loc[-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
        return f"unknown key; {hint}"
    if kind == "missing":
        return "this key is missing and has no default"
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind == "too_short":
        return "empty; give at least one"
    if kind == "literal_error" and loc[-1] == "version":
        return f"version {shorten(given)} is not known; this program reads version 1"
    message = str(error["msg"]).removeprefix("Input should be ")
    if kind in {"model_type", "dict_type"}:
        message = "keys and values"
    return f"expected {message}, got {shorten(given)}"


def _keys_at(loc: KeyPath, schema: type[BaseModel]) -> list[str]:
    """Return the keys that the schema knows at a location."""
    model: Any = schema
    for part in loc:
        if isinstance(model, type) and issubclass(model, BaseModel):
            fields = {(f.alias or name): f for name, f in model.model_fields.items()}
            if part in fields:
                model = _inner_model(fields[str(part)].annotation) or model
    return [field.alias or name for name, field in model.model_fields.items()]


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in typing.get_args(annotation):
        if (found := _inner_model(argument)) is not None:
            return found
    return None
