"""Emotion words, topics and prompt templates: the shipped ones by name, a user's own by path."""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path

from manifests.document import Document, KeyPath, read_document
from manifests.errors import InputError, Problem
from manifests.files import read_text, refusal
from manifests.schema import MAX_WORDS, wrong_word

HERE = Path(__file__).parent

PLACEHOLDERS: dict[str, frozenset[str]] = {
    "stories": frozenset({"n_stories", "emotion", "topic"}),
    "story": frozenset({"emotion", "topic"}),
    "neutral_narrative": frozenset({"topic"}),
    "neutral_expository": frozenset({"topic"}),
}
"""The templates of a prompt file and the placeholders each must hold."""


@dataclass(frozen=True)
class Prompts:
    """Prompt templates, as `str.format` strings over the names in PLACEHOLDERS."""

    stories: str
    story: str
    neutral_narrative: str
    neutral_expository: str


def shipped(kind: str) -> dict[str, Path]:
    """Return the shipped lists of a kind (`emotions`, `topics`, `neutral-topics`) by name."""
    files = sorted((HERE / "lists").glob(f"{kind}-*.txt"))
    return {file.stem.removeprefix(f"{kind}-"): file for file in files}


def is_path(value: str) -> bool:
    """Tell a path from a shipped name: a path has a slash or an ending."""
    return "/" in value or Path(value).suffix != ""


def read_words(
    value: str | tuple[str, ...], kind: str, base: Path, document: Document, path: KeyPath
) -> tuple[str, ...]:
    """Return the entries of a word list.

    Args:
        value: a shipped name, a path relative to `base`, or the entries themselves.
        kind: `emotions`, `topics` or `neutral-topics`.
        base: folder that relative paths start from.
        document: the manifest, for errors.
        path: key in the manifest, for errors.

    Raises:
        InputError: an unknown name, a missing, empty or repetitive file.
    """
    if not isinstance(value, str):
        return value
    known = shipped(kind)
    if is_path(value):
        file = base / value
        if (why := refusal(file)) is not None:
            raise InputError(document.problem(path, f"{why}: {file}"))
    elif value in known:
        file = known[value]
    else:
        names = ", ".join(known)
        what = f"unknown list {value!r}; shipped: {names}; a path holds a slash or ends in .txt"
        raise InputError(document.problem(path, what))
    return _read_lines(file)


def _read_lines(file: Path) -> tuple[str, ...]:
    entries: dict[str, int] = {}
    for number, line in enumerate(read_text(file, 1 << 24).splitlines(), start=1):
        entry = line.strip()
        if not entry:
            continue
        if (why := wrong_word(entry)) is not None:
            raise InputError(Problem(file, number, "", why))
        if entry in entries:
            what = f"{entry!r} stands here twice, first on line {entries[entry]}"
            raise InputError(Problem(file, number, "", what))
        entries[entry] = number
        if len(entries) > MAX_WORDS:
            raise InputError(Problem(file, number, "", f"over {MAX_WORDS:,} entries"))
    if not entries:
        raise InputError(Problem(file, None, "", "the list is empty; give one entry a line"))
    return tuple(entries)


def read_prompts(value: str, base: Path, document: Document, path: KeyPath) -> Prompts:
    """Return a set of prompt templates, by shipped name or path.

    Raises:
        InputError: an unknown name, a missing template, or a template without its placeholders.
    """
    known = {file.stem: file for file in sorted((HERE / "prompts").glob("*.yaml"))}
    file = base / value if is_path(value) else known.get(value)
    if file is None or refusal(file) is not None:
        what = f"no such prompts: {value!r}; shipped: {', '.join(known)}"
        raise InputError(document.problem(path, what))
    prompts = read_document(file)
    data = prompts.data if isinstance(prompts.data, dict) else {}
    problems = []
    for key in sorted(set(data) - set(PLACEHOLDERS), key=str):
        known_keys = ", ".join(PLACEHOLDERS)
        problems.append(prompts.problem((key,), f"unknown template; known: {known_keys}"))
    for key, wanted in PLACEHOLDERS.items():
        template = data.get(key)
        if not isinstance(template, str):
            problems.append(prompts.problem((key,), "this template is missing or not text"))
        elif not _holds(template, wanted):
            need = ", ".join(f"{{{name}}}" for name in sorted(wanted))
            problems.append(prompts.problem((key,), f"must hold {need} and no other placeholder"))
    if problems:
        raise InputError(problems)
    return Prompts(**{key: data[key].strip() for key in PLACEHOLDERS})


def _holds(template: str, wanted: frozenset[str]) -> bool:
    try:
        return set(placeholders(template)) == wanted
    except ValueError:
        return False


def placeholders(template: str) -> list[str]:
    """Return the names of a template's places, in order.

    Raises:
        ValueError: it is no template, or a place is to be converted or padded (`{topic:>9}`):
            a few characters would ask for any number of them.
    """
    names = []
    for _, name, padding, conversion in string.Formatter().parse(template):
        if padding or conversion:
            raise ValueError("a place with a format")
        if name is not None:
            names.append(name)
    return names
