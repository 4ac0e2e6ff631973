"""A sealed corpus: `stories.parquet`, one row for each text, in corpus order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.errors import InputError, Problem
from store.atomic import written_whole

SCHEMA = pa.schema(
    [
        pa.field("text_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("emotion", pa.string()),
        pa.field("topic", pa.string()),
        pa.field("story", pa.int32(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Text:
    """One text of a corpus.

    Attributes:
        text_id: unique in the corpus: `emotion/topic number/story number` or `neutral-number`.
        kind: `emotion` for a story, `neutral` for a neutral text.
        emotion: the story's emotion; None for a neutral text.
        topic: what it is about, where that is known.
        story: its number among the texts of the same emotion and topic.
        text: the text itself.
    """

    text_id: str
    kind: Literal["emotion", "neutral"]
    emotion: str | None
    topic: str | None
    story: int
    text: str


@dataclass(frozen=True)
class Corpus:
    """A sealed corpus in memory."""

    texts: tuple[Text, ...]
    identity: str

    @property
    def emotions(self) -> tuple[str, ...]:
        """Its emotions, in order of first appearance."""
        return tuple(dict.fromkeys(t.emotion for t in self.texts if t.emotion is not None))

    @property
    def n_neutral(self) -> int:
        """Number of neutral texts."""
        return sum(text.kind == "neutral" for text in self.texts)


def seal_corpus(file: Path, texts: Sequence[Text]) -> str:
    """Write a corpus whole and return the identity of its content.

    Raises:
        ValueError: no texts, an empty text, or a text_id that stands there twice.
    """
    ids = {text.text_id for text in texts}
    if not texts or len(ids) < len(texts):
        raise ValueError(f"{len(texts)} texts with {len(ids)} distinct ids cannot be a corpus")
    if empty := next((text.text_id for text in texts if not text.text.strip()), None):
        raise ValueError(f"text {empty} is empty")
    identity = content_identity(texts)
    columns = list(zip(*(astuple(text) for text in texts), strict=True))
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], SCHEMA)
    table = table.replace_schema_metadata({b"emovec": json.dumps({"identity": identity})})
    with written_whole(file) as partial:
        pq.write_table(table, partial, compression="zstd")
    return identity


def read_corpus(file: Path) -> Corpus:
    """Read a sealed corpus.

    Raises:
        FileNotFoundError: it is not sealed yet.
        InputError: the file is damaged.
    """
    try:
        table = pq.read_table(file)
    except pa.ArrowInvalid:
        raise _damaged(file) from None
    rows = zip(*(table.column(name).to_pylist() for name in SCHEMA.names), strict=True)
    return Corpus(tuple(Text(*row) for row in rows), _identity(table.schema))


def corpus_size(file: Path) -> int | None:
    """Return how many texts a sealed corpus has, or None where there is none."""
    if not file.is_file():
        return None
    try:
        return int(pq.read_metadata(file).num_rows)
    except pa.ArrowInvalid:
        raise _damaged(file) from None


def corpus_identity(file: Path) -> str | None:
    """Return the identity of a sealed corpus, or None where there is none.

    Raises:
        InputError: the file is damaged.
    """
    if not file.is_file():
        return None
    try:
        return _identity(pq.read_schema(file))
    except pa.ArrowInvalid:
        raise _damaged(file) from None


def content_identity(texts: Iterable[Text]) -> str:
    """Return the sha256 over all rows."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(json.dumps(astuple(text)).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _damaged(file: Path) -> InputError:
    what = "damaged; delete it, and the next run makes it again from the journal or the files"
    return InputError(Problem(file, None, "", what))


def _identity(schema: pa.Schema) -> str:
    return str(json.loads((schema.metadata or {})[b"emovec"])["identity"])
