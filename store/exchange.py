"""Corpora from and for other people: tables of texts and emotions in, the published schema out.

Read are JSONL, CSV, Parquet, folders saved by `datasets` and data sets on the hub, in the schema
published with arXiv 2606.26987 (`emotion, topic, stories`) or with one text a row.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.document import read_text
from manifests.errors import InputError, Problem, shorten
from manifests.resolve import Importing
from manifests.schema import Columns
from store.atomic import folder_written_whole
from store.corpus import Text

MAX_BYTES = 1 << 32
MAX_PROBLEMS = 20
"""Broken rows that are named one by one; the rest is counted."""
TEXT_COLUMNS = ("story", "text")

Row = tuple[int, dict[str, Any]]
"""Line (or row, from 1, where a file has no lines) and its columns."""


def read_texts(source: Importing) -> list[Text]:
    """Read an imported corpus in file order, neutral texts last.

    Raises:
        InputError: one problem for each broken row, named with its line.
    """
    spec = source.spec
    origin = source.stories or Path(f"hf:{spec.hf}")
    problems: list[Problem] = []
    found: list[tuple[str, str | None, str]] = []  # emotion, topic, text
    for number, row in _rows(source, source.stories, problems):
        wrong = list(_wrong(row, spec.columns))
        problems += [Problem(origin, number, key, what) for key, what in wrong]
        if not wrong:
            emotion = _label(row[spec.columns.emotion]).strip()
            topic = _topic(row.get(spec.columns.topic))
            found += [(emotion, topic, body) for body in _bodies(row, spec.columns)]
    if not found and not problems:
        problems.append(Problem(origin, None, "", "holds no stories"))
    if spec.texts_per_emotion is not None:
        found = _chosen(found, spec.texts_per_emotion)
    problems += _same_but_for_case(origin, {emotion for emotion, _, _ in found})
    neutral = [(topic, text) for emotion, topic, text in found if emotion == spec.neutral_emotion]
    if spec.neutral_emotion is not None and not neutral and not problems:
        what = f"holds no text of the emotion {spec.neutral_emotion!r}"
        problems.append(Problem(origin, None, "neutral_emotion", what))
    if source.neutral is not None:
        neutral = list(_neutral(source, source.neutral, problems))
    if len(problems) > MAX_PROBLEMS:
        rest = f"and {len(problems) - MAX_PROBLEMS} more such problems"
        problems = [*problems[:MAX_PROBLEMS], Problem(origin, None, "", rest)]
    if problems:
        raise InputError(problems)
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


def _rows(source: Importing, table: Path | None, problems: list[Problem]) -> Iterator[Row]:
    """Yield the rows of a table, of a saved data set or, without a path, of one on the hub.

    Lines that are no rows are added to `problems`.

    Raises:
        InputError: the table cannot be read at all.
    """
    if table is None or table.is_dir():
        yield from _data_set_rows(source, table)
    elif table.suffix == ".parquet":
        try:
            with pq.ParquetFile(table) as parquet:
                batches = (batch.to_pylist() for batch in parquet.iter_batches(4096))
                yield from enumerate((row for batch in batches for row in batch), start=1)
        except pa.ArrowInvalid as error:
            what = f"not a Parquet file: {str(error).splitlines()[0]}"
            raise InputError(Problem(table, None, "", what)) from None
    elif table.suffix in (".csv", ".tsv"):
        yield from _csv_rows(table)
    elif table.suffix in (".jsonl", ".json", ".ndjson"):
        yield from _json_rows(table, problems)
    else:
        what = "unknown kind of table; known: .jsonl, .csv, .tsv, .parquet, a folder of `datasets`"
        raise InputError(Problem(table, None, "", what))


def _json_rows(file: Path, problems: list[Problem]) -> Iterator[Row]:
    for number, line in enumerate(read_text(file, MAX_BYTES).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            what = f"not valid JSON: {getattr(error, 'msg', 'nested too deep')}"
            problems.append(Problem(file, number, "", what))
            continue
        if not isinstance(row, dict):
            problems.append(Problem(file, number, "", f"expected an object, got {shorten(row)}"))
            continue
        yield number, row


def _csv_rows(file: Path) -> Iterator[Row]:
    delimiter = "\t" if file.suffix == ".tsv" else ","
    csv.field_size_limit(1 << 30)
    text = io.StringIO(read_text(file, MAX_BYTES), newline="")
    reader = csv.DictReader(text, delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                n = len(reader.fieldnames or ())
                what = f"not as many fields as the header has columns ({n})"
                raise InputError(Problem(file, reader.line_num, "", what))
            yield reader.line_num, dict(row)
    except csv.Error as error:
        raise InputError(Problem(file, reader.line_num, "", f"not valid CSV: {error}")) from None


def _data_set_rows(source: Importing, folder: Path | None) -> Iterator[Row]:
    import datasets

    spec = source.spec
    split = spec.split or "train"
    origin = folder or Path(f"hf:{spec.hf}")
    saved = folder is not None and any(
        (folder / name).is_file() for name in ("state.json", "dataset_dict.json")
    )
    try:
        if saved:
            found = datasets.load_from_disk(str(folder))
        else:
            where = spec.hf if folder is None else str(folder)
            found = datasets.load_dataset(where, spec.config, revision=spec.revision)
    except Exception as error:  # the library raises whatever its loaders raise
        what = f"cannot be loaded as a data set: {(str(error) or repr(error)).splitlines()[0]}"
        raise InputError(Problem(origin, None, "", what)) from None
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            what = f"has no split {split!r}; it has {', '.join(found)}"
            raise InputError(Problem(origin, None, "", what))
        found = found[split]
    labels = {
        name: feature for name, feature in found.features.items() if hasattr(feature, "int2str")
    }
    for number, row in enumerate(found, start=1):
        for name, feature in labels.items():
            if row[name] is not None and row[name] >= 0:
                row[name] = feature.int2str(row[name])
        yield number, row


def _neutral(
    source: Importing, file: Path, problems: list[Problem]
) -> Iterator[tuple[str | None, str]]:
    """Yield (topic, text) of neutral texts."""
    if file.suffix == ".txt":
        bodies = [t.strip() for t in read_text(file, MAX_BYTES).split("\n") if t.strip()]
        if not bodies:
            problems.append(Problem(file, None, "", "holds no texts"))
        yield from ((None, body) for body in bodies)
        return
    columns = source.spec.columns
    n = 0
    for number, row in _rows(source, file, problems):
        wrong = list(_wrong_bodies(row, columns))
        problems += [Problem(file, number, key, what) for key, what in wrong]
        if not wrong:
            n += 1
            topic = _topic(row.get(columns.topic))
            yield from ((topic, body) for body in _bodies(row, columns))
    if not n and not problems:
        problems.append(Problem(file, None, "", "holds no texts"))


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
    yield from _wrong_bodies(row, columns)


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


def _same_but_for_case(origin: Path, emotions: set[str]) -> Iterator[Problem]:
    """Yield a problem for emotions that would be counted apart for their letters' case only."""
    seen: dict[str, str] = {}
    for emotion in sorted(emotions):
        if (other := seen.setdefault(emotion.lower(), emotion)) != emotion:
            what = f"{other!r} and {emotion!r} differ in case only; write them alike"
            yield Problem(origin, None, "emotion", what)


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
