"""Corpora from other people's files: stories in the published JSONL schema, neutral texts."""

from __future__ import annotations

import json
from pathlib import Path

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

    def wrong(key: str, what: str) -> None:
        problems.append(Problem(file, number, key, what))

    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return wrong("", f"not valid JSON: {getattr(error, 'msg', 'too deep')}")
    if not isinstance(row, dict):
        return wrong("", f"expected an object, got {shorten(row)}")
    for key in ("emotion", "topic"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            return wrong(key, f"expected text, got {shorten(row.get(key))}")
    bodies = row.get("stories")
    if not isinstance(bodies, list) or not bodies:
        return wrong("stories", f"expected a list of texts, got {shorten(bodies)}")
    for index, body in enumerate(bodies):
        if not isinstance(body, str):
            return wrong(f"stories.{index}", f"expected text, got {shorten(body)}")
        if not body.strip():
            return wrong(f"stories.{index}", "an empty story")
    return row["emotion"].strip(), row["topic"].strip(), bodies
