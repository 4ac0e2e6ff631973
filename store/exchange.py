"""Corpora from and for other people: tables of texts and emotions in, the published schema out.

Read are JSONL, CSV, Parquet, folders saved by `datasets` and data sets on the hub, in the schema
published with arXiv 2606.26987 (`emotion, topic, stories`) or with one text a row.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from manifests.errors import shorten
from manifests.files import read_lines
from manifests.resolve import Importing
from manifests.schema import Columns, wrong_word
from store.atomic import folder_written_whole
from store.corpus import Text
from store.rows import MAX_BYTES, Problems, rows_of

TEXT_COLUMNS = ("story", "text")


def read_texts(source: Importing) -> list[Text]:
    """Read an imported corpus in file order, neutral texts last.

    Raises:
        InputError: one problem for each broken row, named with its line.
    """
    spec = source.spec
    origin = source.stories or Path(f"hf:{spec.hf}")
    problems = Problems(origin)
    found: list[tuple[str, str | None, str]] = []  # emotion, topic, text
    for number, row in rows_of(source, source.stories, problems):
        wrong = list(_wrong(row, spec.columns))
        for key, what in wrong:
            problems.add(origin, number, key, what)
        if not wrong:
            emotion = _label(row[spec.columns.emotion]).strip()
            topic = _topic(row.get(spec.columns.topic))
            found += [(emotion, topic, body) for body in _bodies(row, spec.columns)]
    if not found and not problems:
        problems.add(origin, None, "", "holds no stories")
    if spec.texts_per_emotion is not None:
        found = _chosen(found, spec.texts_per_emotion)
    for what in _same_but_for_case({emotion for emotion, _, _ in found}):
        problems.add(origin, None, spec.columns.emotion, what)
    neutral = [(topic, text) for emotion, topic, text in found if emotion == spec.neutral_emotion]
    if spec.neutral_emotion is not None and not neutral and not problems:
        what = f"holds no text of the emotion {spec.neutral_emotion!r}"
        problems.add(origin, None, "neutral_emotion", what)
    if source.neutral is not None:
        neutral = list(_neutral(source, source.neutral, problems))
    problems.refuse()
    stories = (item for item in found if item[0] != spec.neutral_emotion)
    return [*_numbered(stories), *_numbered_neutral(neutral)]


def write_published(folder: Path, name: str, about: str, texts: Iterable[Text]) -> None:
    """Write a corpus so that `datasets.load_dataset(folder)` reads it, whole.

    Args:
        folder: made here: `stories.jsonl` (emotion, topic, stories), `neutral.jsonl` (topic, text)
            where there are neutral texts, and `README.md`.
        name: the corpus.
        about: where it comes from, for the README.
        texts: its texts.

    Raises:
        FileExistsError: the folder exists.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists; give another folder")
    by_kind: dict[str, list[Text]] = {"emotion": [], "neutral": []}
    for text in texts:
        by_kind[text.kind].append(text)
    lines = {"stories": io.StringIO(), "neutral": io.StringIO()}
    stories: dict[tuple[str | None, str | None], list[str]] = {}
    for text in by_kind["emotion"]:
        stories.setdefault((text.emotion, text.topic), []).append(text.text)
    for (emotion, topic), group in stories.items():
        row = {"emotion": emotion, "topic": topic, "stories": group}
        lines["stories"].write(json.dumps(row, ensure_ascii=False) + "\n")
    for text in by_kind["neutral"]:
        row = {"topic": text.topic, "text": text.text}
        lines["neutral"].write(json.dumps(row, ensure_ascii=False) + "\n")
    parts = {part: text.getvalue() for part, text in lines.items() if text.getvalue()}
    configs = "".join(
        f"- config_name: {part}\n  data_files: {part}.jsonl\n" + "  default: true\n" * (i == 0)
        for i, part in enumerate(parts)
    )
    card = (
        f"---\nconfigs:\n{configs}---\n# {name}\n\n{about}\n\n"
        f"{len(by_kind['emotion']):,} stories and {len(by_kind['neutral']):,} neutral texts.\n"
    )
    with folder_written_whole(folder) as partial:
        for part, content in parts.items():
            (partial / f"{part}.jsonl").write_text(content, encoding="utf-8")
        (partial / "README.md").write_text(card, encoding="utf-8")


def _neutral(source: Importing, file: Path, problems: Problems) -> Iterator[tuple[str | None, str]]:
    """Yield (topic, text) of neutral texts."""
    n = 0
    if file.suffix == ".txt":
        for _, line in read_lines(file, MAX_BYTES):
            if body := line.strip():
                n += 1
                yield None, body
        if not n:
            problems.add(file, None, "", "holds no texts")
        return
    columns = source.spec.columns
    for number, row in rows_of(source, file, problems):
        wrong = [*_wrong_bodies(row, columns), *_wrong_topic(row, columns)]
        for key, what in wrong:
            problems.add(file, number, key, what)
        if not wrong:
            n += 1
            topic = _topic(row.get(columns.topic))
            yield from ((topic, body) for body in _bodies(row, columns))
    if not n and not problems:
        problems.add(file, None, "", "holds no texts")


def _bodies(row: dict[str, Any], columns: Columns) -> list[str]:
    value = row[str(_text_column(row, columns))]
    return list(value) if isinstance(value, list) else [value]


def _text_column(row: dict[str, Any], columns: Columns) -> str | None:
    """Return the column that holds a row's texts, None where there is none."""
    if columns.text is not None:
        return columns.text if columns.text in row else None
    return next((name for name in ("stories", *TEXT_COLUMNS) if name in row), None)


def _wrong(row: dict[str, Any], columns: Columns) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong) for everything wrong with a row."""
    if columns.emotion not in row:
        yield columns.emotion, f"no such column; the table has {', '.join(map(str, row))}"
    elif not _is_text(_label(row[columns.emotion])):
        value = row[columns.emotion]
        several = isinstance(value, list) and len(value) > 1
        what = "several emotions; keep texts with one, got" if several else "expected text, got"
        yield columns.emotion, f"{what} {shorten(value)}"
    elif (why := wrong_word(_label(row[columns.emotion]).strip())) is not None:
        yield columns.emotion, why
    yield from _wrong_bodies(row, columns)
    yield from _wrong_topic(row, columns)


def _wrong_topic(row: dict[str, Any], columns: Columns) -> Iterator[tuple[str, str]]:
    topic = _topic(row.get(columns.topic))
    if topic is not None and (why := wrong_word(topic)) is not None:
        yield columns.topic, why


def _wrong_bodies(row: dict[str, Any], columns: Columns) -> Iterator[tuple[str, str]]:
    key = _text_column(row, columns)
    if key is None:
        wanted = columns.text or "stories, story or text"
        yield wanted, f"no such column; the table has {', '.join(map(str, row))}"
        return
    value = row[key]
    if value == [] or (key == "stories" and not isinstance(value, list)):
        yield key, f"expected a list of texts, got {shorten(value)}"
        return
    for index, body in enumerate(value if isinstance(value, list) else [value]):
        where = f"{key}.{index}" if isinstance(value, list) else key
        if isinstance(body, str) and not body.strip():
            yield where, "an empty story"
        elif not _is_text(body):
            yield where, f"expected text, got {shorten(body)}"


def _label(value: Any) -> Any:
    """Return an emotion, taken out of the list that some data sets put it in."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _topic(value: Any) -> str | None:
    """Return a topic as text, None where a row has none."""
    if value is None or value != value or not str(value).strip():  # NaN differs from itself
        return None
    return str(value).strip()


def _same_but_for_case(emotions: set[str]) -> Iterator[str]:
    """Yield what is wrong with emotions that only their letters' case would tell apart."""
    seen: dict[str, str] = {}
    for emotion in sorted(emotions):
        if (other := seen.setdefault(emotion.lower(), emotion)) != emotion:
            yield f"{other!r} and {emotion!r} differ in case only; write them alike"


def _is_text(value: object) -> bool:
    """Tell whether a value is text that can be written as UTF-8 (no half of a surrogate pair)."""
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _chosen(
    found: list[tuple[str, str | None, str]], per_emotion: int
) -> list[tuple[str, str | None, str]]:
    """Return at most so many texts of each emotion, by the sha256 of the text, in file order."""
    ranked: dict[str, list[tuple[bytes, int]]] = {}
    for at, (emotion, _, text) in enumerate(found):
        ranked.setdefault(emotion, []).append((hashlib.sha256(text.encode()).digest(), at))
    kept = {at for items in ranked.values() for _, at in sorted(items)[:per_emotion]}
    return [item for at, item in enumerate(found) if at in kept]


def _numbered(found: Iterable[tuple[str, str | None, str]]) -> Iterator[Text]:
    """Yield texts with ids: emotion, number of the topic, number of the story under both."""
    seen: dict[tuple[str, str | None], int] = {}
    topics: dict[str | None, int] = {}
    for emotion, topic, body in found:
        topic_number = topics.setdefault(topic, len(topics))
        story = seen.get((emotion, topic), 0)
        seen[emotion, topic] = story + 1
        text_id = f"{emotion}/{topic_number:03d}/{story}"
        yield Text(text_id, "emotion", emotion, topic, story, body)


def _numbered_neutral(found: Iterable[tuple[str | None, str]]) -> Iterator[Text]:
    for i, (topic, body) in enumerate(found):
        yield Text(f"neutral-{i:03d}", "neutral", None, topic, 0, body)
