"""A sealed corpus: `stories.parquet`, one row for each text, in corpus order."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.errors import InputError, Problem
from store.atomic import written_whole

ROW_GROUP = 4096
"""Texts written, and read, at once."""

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
class Sealed:
    """What sealing gives: the sha256 over all rows, and their number."""

    identity: str
    n_texts: int


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


def seal_corpus(file: Path, texts: Iterable[Text]) -> Sealed:
    """Write a corpus whole, in the order given, with a bounded number of texts in memory.

    Raises:
        ValueError: no texts, an empty text, or a text_id that stands there twice.
    """
    digest = hashlib.sha256()
    ids: set[str] = set()
    n_texts = 0
    with (
        written_whole(file) as partial,
        pq.ParquetWriter(partial, SCHEMA, compression="zstd") as writer,
    ):
        for batch in _batched(texts, ROW_GROUP):
            for text in batch:
                if not text.text.strip():
                    raise ValueError(f"text {text.text_id} is empty")
                digest.update(_row_bytes(text))
                ids.add(text.text_id)
            n_texts += len(batch)
            columns = zip(*(astuple(text) for text in batch), strict=True)
            arrays = [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)]
            writer.write_table(pa.table(arrays, SCHEMA))
        if not n_texts or len(ids) < n_texts:
            what = f"{n_texts} texts with {len(ids)} distinct ids cannot be a corpus"
            raise ValueError(what)
        identity = digest.hexdigest()
        writer.add_key_value_metadata({"emovec": json.dumps({"identity": identity})})
    return Sealed(identity, n_texts)


def texts_identity(texts: Iterable[Text]) -> str:
    """Return the identity that a corpus of these texts, in this order, is sealed with."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(_row_bytes(text))
    return digest.hexdigest()


def _row_bytes(text: Text) -> bytes:
    return json.dumps(astuple(text)).encode() + b"\n"


def _batched(texts: Iterable[Text], size: int) -> Iterator[list[Text]]:
    source = iter(texts)
    while batch := list(islice(source, size)):
        yield batch


def read_corpus(file: Path) -> Corpus:
    """Read a sealed corpus.

    Raises:
        FileNotFoundError: it is not sealed yet.
        InputError: the file is damaged.
    """
    with _told(file):
        identity = _identity(pq.read_metadata(file))
    return Corpus(tuple(iter_texts(file)), identity)


def iter_texts(file: Path) -> Iterator[Text]:
    """Yield the texts of a sealed corpus in order, a row group at a time.

    Raises:
        FileNotFoundError: it is not sealed yet.
        InputError: the file is damaged.
    """
    with _told(file), pq.ParquetFile(file) as parquet:
        if not parquet.schema_arrow.equals(SCHEMA):
            raise ValueError("its columns are not those of a sealed corpus")
        for batch in parquet.iter_batches(batch_size=ROW_GROUP):
            columns = (batch.column(name).to_pylist() for name in SCHEMA.names)
            for row in zip(*columns, strict=True):
                yield Text(*row)


def sample_texts(file: IO[bytes], n: int) -> tuple[str, list[str]]:
    """Return a sealed corpus' identity and `n` of its texts, evenly over it, or all of fewer.

    Raises:
        pyarrow.ArrowException: the file is damaged.
    """
    with pq.ParquetFile(file) as parquet:
        identity, total = _identity(parquet.metadata), parquet.metadata.num_rows
        wanted = sorted({at * (total - 1) // max(1, n - 1) for at in range(min(n, total))})
        texts, begin = [], 0
        for group in range(parquet.num_row_groups):
            end = begin + parquet.metadata.row_group(group).num_rows
            rows = [row - begin for row in wanted if begin <= row < end]
            if rows:
                column = parquet.read_row_group(group, columns=["text"]).column("text")
                texts += column.take(rows).to_pylist()
            begin = end
    return identity, texts


def corpus_size(file: Path) -> int | None:
    """Return how many texts a sealed corpus has, or None where there is none.

    Raises:
        InputError: the file is damaged.
    """
    if not file.is_file():
        return None
    with _told(file):
        return int(pq.read_metadata(file).num_rows)


def corpus_identity(file: Path) -> str | None:
    """Return the identity of a sealed corpus, or None where there is none.

    Raises:
        InputError: the file is damaged.
    """
    if not file.is_file():
        return None
    with _told(file):
        return _identity(pq.read_metadata(file))


@contextmanager
def _told(file: Path) -> Iterator[None]:
    """Turn whatever Arrow says of a damaged file into one line that names it.

    Raises:
        OSError: it is not there, or the system does not give it.
        InputError: it is damaged.
    """
    try:
        yield
    except UNREADABLE as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not Arrow's
            raise OSError(error.errno, os.strerror(error.errno), str(file)) from None
        what = (
            "damaged; `emovec verify MANIFEST --repair` moves it aside, and the next run makes it "
            "again from the journal or the files"
        )
        raise InputError(Problem(file, None, "", what)) from None


UNREADABLE = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError)
"""What comes of bytes that are not what a sealed corpus has; OSError from Arrow, too."""


def _identity(metadata: pq.FileMetaData) -> str:
    return str(json.loads((metadata.metadata or {})[b"emovec"])["identity"])
