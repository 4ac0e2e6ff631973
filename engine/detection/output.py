"""Where scored tokens go: CSV, JSON or Parquet, a row for each token or each text.

Everything is written as it comes and the file appears when it is whole.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from engine.detection.reading import Piece
from store.atomic import written_whole

DIGITS = 4
"""Decimals of a score."""

GROUP_ROWS = 8192
"""Rows of a Parquet row group, times layers."""

UNIT = (
    "0: the mean neutral text, and the mean emotion; 1: the standard deviation of the corpus' "
    "stories; "
    "a text's score is the mean of its tokens'"
)


@dataclass(frozen=True)
class About:
    """What the scores are of.

    Attributes:
        cell: `model@corpus`.
        layers: blocks, in the order of the scores.
        best: the layer that is shown first.
        why: that layer.
        window: the token window that is scored.
        emotions: in the order of the scores.
        detection: in words, how far each layer's vectors tell stories apart; "" where not known.
        spread_LW: how far tokens vary at each layer, as they are and smoothed
            (`analysis.token_spread`); NaN where not known.
    """

    cell: str
    layers: list[int]
    best: int
    why: str
    window: str
    emotions: list[str]
    detection: dict[int, str]
    spread_LW: Float64[ndarray, "layer width"]

    @property
    def token_sd(self) -> list[float]:
        """The standard deviation of tokens' scores at each layer, to DIGITS decimals."""
        return [round(float(sd), DIGITS) for sd in self.spread_LW[:, 0]]


class Writer(Protocol):
    """What takes scored tokens, in order."""

    def take(self, piece: Piece) -> None:
        """Take the next tokens."""
        ...

    def end(self) -> None:
        """Take that there are no more."""
        ...


class TextMean:
    """The mean scores of one text, added piece by piece."""

    def __init__(self, n_layers: int, n_emotions: int):
        self.n = 0
        self._sum_LE = np.zeros((n_layers, n_emotions))

    def add(self, piece: Piece) -> None:
        """Add the tokens that count."""
        self._sum_LE += piece.score[piece.inside].sum(axis=0, dtype=np.float64)
        self.n += int(piece.inside.sum())

    def mean(self) -> Float64[ndarray, "layer emotion"]:
        """Return the means, NaN where no token counted."""
        with np.errstate(invalid="ignore"):
            return self._sum_LE / self.n if self.n else np.full_like(self._sum_LE, np.nan)


class TableWriter:
    """A row for each token and layer, or for each text and layer, a column for each emotion."""

    def __init__(self, sink: Sink, about: About, by_text: bool):
        self._sink, self._about, self._by_text = sink, about, by_text
        self._mean = _mean(about)

    def take(self, piece: Piece) -> None:
        """Write a row for each token, or one at the end of the text."""
        if not self._by_text:
            tokens = zip(piece.start, piece.end, piece.token, strict=True)
            heads = [(piece.name, piece.first + at, *token) for at, token in enumerate(tokens)]
            self._sink.write(heads, piece.score)
            return
        self._mean.add(piece)
        if piece.last:
            means = self._mean.mean().astype(np.float32)
            self._sink.write([(piece.name, self._mean.n)], means[None])
            self._mean = _mean(self._about)

    def end(self) -> None:
        """Write what is left."""
        self._sink.end()


class Sink(Protocol):
    """Where rows go."""

    def write(self, heads: Sequence[tuple[Any, ...]], score_XLE: ndarray) -> None:
        """Write rows: what they are of, and scores [row, layer, emotion]."""
        ...

    def end(self) -> None:
        """Write what is left."""
        ...


def head_names(by_text: bool) -> tuple[str, ...]:
    """Return the columns that say what a row is of."""
    return ("text", "scored") if by_text else ("text", "position", "start", "end", "token")


LAYER_NAMES = ("layer", "token_sd")
"""The columns of what is the same for all rows of a layer."""


class CsvSink:
    """Rows as CSV; what is missing is `nan`."""

    def __init__(self, stream: TextIO, about: About, by_text: bool):
        self._stream = stream
        layers = zip(about.layers, about.token_sd, strict=True)
        self._layers = [f"{layer},{sd:.{DIGITS}f}" for layer, sd in layers]
        self._line = io.StringIO()
        self._writer = csv.writer(self._line, lineterminator="\n")
        self._numbers = ",".join([f"%.{DIGITS}f"] * len(about.emotions))
        names = [*head_names(by_text), *LAYER_NAMES, *about.emotions]
        csv.writer(stream, lineterminator="\n").writerow(names)

    def write(self, heads: Sequence[tuple[Any, ...]], score_XLE: ndarray) -> None:
        """Write rows."""
        for head, score_LE in zip(heads, score_XLE.tolist(), strict=True):
            self._writer.writerow(head)
            begins = self._line.getvalue().rstrip("\n")
            self._line.seek(0)
            self._line.truncate()
            for layer, scores in zip(self._layers, score_LE, strict=True):
                self._stream.write(f"{begins},{layer},{self._numbers % tuple(scores)}\n")

    def end(self) -> None:
        """Nothing is left."""


class ParquetSink:
    """Rows as Parquet, numbers in float32, a missing one NaN."""

    def __init__(self, file: Path, about: About, by_text: bool):
        import pyarrow as pa
        from pyarrow import parquet

        self._layers, self._token_sd = about.layers, about.token_sd
        self._n_emotions = len(about.emotions)
        kinds = {"text": pa.string(), "token": pa.string()}
        heads = [(name, kinds.get(name, pa.int32())) for name in head_names(by_text)]
        scores = [(emotion, pa.float32()) for emotion in about.emotions]
        of_layer = zip(LAYER_NAMES, (pa.int16(), pa.float32()), strict=True)
        self._schema = pa.schema([*heads, *of_layer, *scores])
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._heads: list[tuple[Any, ...]] = []
        self._scores: list[ndarray] = []

    def write(self, heads: Sequence[tuple[Any, ...]], score_XLE: ndarray) -> None:
        """Keep rows, and write them once there are enough for a row group."""
        self._heads += heads
        self._scores.append(score_XLE)
        if len(self._heads) >= GROUP_ROWS:
            self._flush()

    def end(self) -> None:
        """Write what is left, and the file's end."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._heads:
            return
        columns = [
            [value for value in column for _ in self._layers]
            for column in zip(*self._heads, strict=True)
        ]
        score_RE = np.concatenate(self._scores).reshape(-1, self._n_emotions)
        n = len(self._heads)
        columns = [*columns, self._layers * n, self._token_sd * n, *score_RE.T]
        self._writer.write_table(pa.table(columns, schema=self._schema))
        self._heads, self._scores = [], []


class JsonWriter:
    """One document: what the scores are of, and each text with its means and its tokens."""

    def __init__(self, stream: TextIO, about: About, by_text: bool):
        self._stream, self._about, self._by_text = stream, about, by_text
        sd_L = np.array(about.token_sd)
        head = {
            "cell": about.cell,
            "layers": about.layers,
            "best_layer": about.best,
            "because": about.why,
            "window": about.window,
            "unit": UNIT,
            "token_sd": dict(zip(map(str, about.layers), _numbers(sd_L), strict=True)),
            "detection": {str(layer): said for layer, said in about.detection.items()},
            "emotions": about.emotions,
        }
        stream.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "texts": [')
        self._mean = _mean(about)
        self._n_texts = self._n_tokens = 0

    def take(self, piece: Piece) -> None:
        """Write tokens, and the means behind a text's last."""
        if piece.text != self._n_texts - 1:
            comma = "," if self._n_texts else ""
            name = json.dumps(piece.name, ensure_ascii=False)
            self._stream.write(f'{comma}\n {{"text": {name}')
            self._stream.write("" if self._by_text else ', "tokens": [')
            self._n_texts, self._n_tokens = piece.text + 1, 0
        if not self._by_text:
            self._tokens(piece)
        self._mean.add(piece)
        if piece.last:
            means = _numbers(self._mean.mean())
            closing = "" if self._by_text else "]"
            self._stream.write(
                f'{closing}, "scored": {self._mean.n}, "mean": {json.dumps(means)}}}'
            )
            self._mean = _mean(self._about)

    def _tokens(self, piece: Piece) -> None:
        scores = _numbers(piece.score)
        for at, (token, start, end) in enumerate(
            zip(piece.token, piece.start, piece.end, strict=True)
        ):
            row = {
                "position": piece.first + at,
                "start": start,
                "end": end,
                "token": token,
                "scores": scores[at],
            }
            comma = "," if self._n_tokens else ""
            self._stream.write(f"{comma}\n  {json.dumps(row, ensure_ascii=False)}")
            self._n_tokens += 1

    def end(self) -> None:
        """Close the document."""
        self._stream.write("\n]}\n")


@contextmanager
def table_file(file: Path, about: About, by_text: bool) -> Iterator[Writer]:
    """Give what writes a `.csv`, `.json` or `.parquet`, which appears whole at the end."""
    with written_whole(file) as partial:
        if file.suffix == ".parquet":
            writer: Writer = TableWriter(ParquetSink(partial, about, by_text), about, by_text)
            yield writer
            writer.end()
            return
        with partial.open("w", encoding="utf-8", newline="") as stream:
            writer = text_writer(stream, file.suffix[1:], about, by_text)
            yield writer
            writer.end()


def text_writer(stream: TextIO, form: str, about: About, by_text: bool) -> Writer:
    """Return what writes `csv` or `json` to a stream."""
    if form == "json":
        return JsonWriter(stream, about, by_text)
    return TableWriter(CsvSink(stream, about, by_text), about, by_text)


def _mean(about: About) -> TextMean:
    return TextMean(len(about.layers), len(about.emotions))


def _numbers(values: ndarray) -> Any:
    """Return nested lists of numbers that JSON holds: rounded, null where one is missing."""
    rounded = np.round(values.astype(np.float64), DIGITS)
    if np.isfinite(rounded).all():
        return rounded.tolist()
    return np.where(np.isfinite(rounded), rounded, None).tolist()
