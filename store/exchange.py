"""Corpora from other people's files: stories in the published JSONL schema, neutral texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manifests.document import read_text
from manifests.errors import InputError, Problem, shorten
from store.corpus import Text

MAX_BYTES = 1 << 32


def read_texts(stories: Path, neutral: Path | None) -> list[Text]:
    """Read an imported corpus in file order, neutral texts last.

    Args:
        stories: JSONL, each line with `emotion`, `topic` and `stories` (a list of texts).
        neutral: one text a line; blank lines are passed over.

    Raises:
        InputError: one problem for each broken line or empty story, named with its line.
    """
    texts: list[Text] = []
    problems: list[Problem] = []
    seen: dict[tuple[str, str], int] = {}
    topics: dict[str, int] = {}
    for number, line in enumerate(read_text(stories, MAX_BYTES).split("\n"), start=1):
        if not line.strip():
            continue
        row = _row(stories, number, line, problems)
        if row is None:
            continue
        emotion, topic, bodies = row
        topic_number = topics.setdefault(topic, len(topics))
        first = seen.get((emotion, topic), 0)
        seen[emotion, topic] = first + len(bodies)
        for story, body in enumerate(bodies, start=first):
            text_id = f"{emotion}/{topic_number:03d}/{story}"
            texts.append(Text(text_id, "emotion", emotion, topic, story, body))
    if not texts and not problems:
        problems.append(Problem(stories, None, "", "holds no stories"))
    if neutral is not None:
        bodies = [t.strip() for t in read_text(neutral, MAX_BYTES).split("\n") if t.strip()]
        if not bodies:
            problems.append(Problem(neutral, None, "", "holds no texts"))
        texts += [
            Text(f"neutral-{i:03d}", "neutral", None, None, 0, b) for i, b in enumerate(bodies)
        ]
    if problems:
        raise InputError(problems)
    return texts


def _row(
    file: Path, number: int, line: str, problems: list[Problem]
) -> tuple[str, str, list[str]] | None:
    """Return a line's emotion, topic and stories, or None after adding to `problems`."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        what = f"not valid JSON: {getattr(error, 'msg', 'nested too deep')}"
        problems.append(Problem(file, number, "", what))
        return None
    found = list(_wrong(row))
    problems += [Problem(file, number, key, what) for key, what in found]
    if found:
        return None
    return row["emotion"].strip(), row["topic"].strip(), row["stories"]


def _wrong(row: Any) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong) for everything wrong with a row."""
    if not isinstance(row, dict):
        yield "", f"expected an object, got {shorten(row)}"
        return
    for key in ("emotion", "topic"):
        if not _is_text(row.get(key)):
            yield key, f"expected text, got {shorten(row.get(key))}"
    stories = row.get("stories")
    if not isinstance(stories, list) or not stories:
        yield "stories", f"expected a list of texts, got {shorten(stories)}"
        return
    for index, story in enumerate(stories):
        if isinstance(story, str) and not story.strip():
            yield f"stories.{index}", "an empty story"
        elif not _is_text(story):
            yield f"stories.{index}", f"expected text, got {shorten(story)}"


def _is_text(value: object) -> bool:
    """Tell whether a value is text that can be written as UTF-8 (no half of a surrogate pair)."""
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
