"""A cell's arrays: whether they have the shape that they should, and numbers where there are any.

What the shards hold is looked at on the way through their bytes (`CellLook.checks`), everything
else, which is small, here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.buffer import cpu
from zarr.storage import MemoryStore

from engine.counting import TokenCounter
from engine.outputs import folder_key
from engine.reading.windows import spans_of, window_counts
from engine.verification.findings import Kind, Report
from manifests.errors import InputError
from store.corpus import Text
from store.places import MARK, Place, read_object, sizes, zarr_store
from store.residuals import ARRAYS
from store.shards import n_shards, shard_span

BROKEN = (
    *(ValueError, RuntimeError, KeyError, TypeError, IndexError, AttributeError, AssertionError),
    *(ArithmeticError, OSError, MemoryError, InputError),
)
"""What zarr and its codecs raise where bytes are not what they should be, and we of its grid."""
MAIN = "residual_mean"


@dataclass
class CellLook:
    """A cell whose arrays can be opened.

    Attributes:
        stage: `extract:name`.
        root: path of its folder in the run.
        folder: its folder.
        done: shards that are there.
        values: the small arrays by name, whole; -1 and NaN where a shard is not there.
        text_id: of each row.
        windows: by name.
        layers: numbers, -1 for the embedding output.
        attributes: of the store.
    """

    stage: str
    root: str
    folder: Place
    done: list[int]
    values: dict[str, NDArray[Any]]
    text_id: list[str]
    windows: list[str]
    layers: list[str]
    attributes: dict[str, Any]

    def checks(self) -> dict[str, Callable[[bytes], list[str]]]:
        """Return what looks into the bytes of each shard that is there, by key."""
        metadata = {
            name: cpu.Buffer.from_bytes(read_object(self.folder, name))
            for name in (MARK, f"{MAIN}/{MARK}")
        }
        return {
            self.key(MAIN, shard): partial(self._look_into, metadata, shard) for shard in self.done
        }

    def key(self, name: str, shard: int) -> str:
        """Return the path in the run of a shard's file of an array."""
        return f"{self.root}/{_object(name, shard)}"

    def _look_into(self, metadata: dict[str, Any], shard: int, content: bytes) -> list[str]:
        """Decode a shard, which checks its checksums, and hold its numbers against the counts."""
        held = {**metadata, _object(MAIN, shard): cpu.Buffer.from_bytes(content)}
        span = shard_span(self.folder, shard)
        about = f"shard {shard}, texts {span.start} to {span.stop - 1}"
        if not content:
            return [f"empty ({about})"]
        try:
            array = zarr.open_group(MemoryStore(held), mode="r")[MAIN]
            assert isinstance(array, zarr.Array)
            for number, layer in np.ndindex(*array.shape[1:3]):  # a chunk each
                block_ND = np.asarray(array[span.start : span.stop, number, layer])
                problem = self._not_finite(block_ND, span, number)
                if problem is not None:
                    where = f"window {self.windows[number]}, layer {self.layers[layer]}"
                    return [f"{problem} in {where} ({about})"]
        except BROKEN as error:
            return [f"cannot be read ({about}): {_first_line(error)}"]
        return []

    def _not_finite(self, block_ND: NDArray[Any], span: range, window: int) -> str | None:
        """Return which text has no numbers where it has a token, or numbers where it has none."""
        count_N = self.values["token_count"][span.start : span.stop, window]  # -1: not known
        finite_N = np.isfinite(block_ND).all(axis=1)
        for row in np.flatnonzero((count_N > 0) & ~finite_N)[:1]:
            return f"{self.text_id[span.start + row]} is not finite"
        empty = np.flatnonzero(count_N == 0)
        for row in empty[~np.isnan(block_ND[empty]).all(axis=1)][:1]:
            return f"{self.text_id[span.start + row]} has a mean although it has no token"
        return None


def open_cell_look(
    stage: str, folder: Place, expected: Sequence[Text] | None, report: Report
) -> CellLook | None:
    """Open a cell's store, read all that is small in it and look at its shape.

    Args:
        stage: `extract:name`.
        folder: its `residuals.zarr`.
        expected: texts of the corpus that it was read from, None where that is not known.
        report: takes what is found.

    Returns:
        None where it cannot be opened, which was then reported.
    """
    root = folder_key(*stage.split(":", 1))
    try:
        group = zarr.open_group(zarr_store(folder, read_only=True), mode="r")
        attributes = dict(group.attrs)
        arrays = {name: group[name] for name in (*ARRAYS, *COORDINATES)}
        names = {name: _names(root, name, arrays[name]) for name in COORDINATES}
        _require_frame(attributes, names)
        _require_shapes(arrays, {name: len(names[name]) for name in ("text_id", "window", "layer")})
        shards = range(n_shards(folder))
    except _Coordinate as error:
        report.add(Kind.DAMAGED, error.key, stage, str(error))
        return None
    except BROKEN as error:
        what = f"the store cannot be opened: {_first_line(error)}"
        report.add(Kind.DAMAGED, f"{root}/{MARK}", stage, what)
        return None
    there = sizes(folder)
    done = [shard for shard in shards if there.get(_object(MAIN, shard))]
    look = CellLook(
        stage, root, folder, done, {}, names["text_id"], names["window"], names["layer"], attributes
    )
    for name, array in arrays.items():
        if name in ARRAYS and name != MAIN:
            look.values[name] = _read_shards(look, name, array, there, report)
    if expected is not None:
        _hold_against(look, names, expected, report)
    _hold_counts(look, report)
    report.figures["shards"] += len(done)
    return look


COORDINATES = ("text_id", "kind", "emotion", "window", "layer")


class _Coordinate(Exception):
    """A coordinate cannot be read, or is not what it has to be; `key` is its file."""

    def __init__(self, key: str, what: str):
        super().__init__(what)
        self.key = key


def _names(root: str, name: str, array: Any) -> list[str]:
    try:
        return [str(value) for value in array[:]]
    except BROKEN as error:
        what = f"cannot be read: {_first_line(error)}"
        raise _Coordinate(f"{root}/{name}/c/0", what) from None


def _require_frame(attributes: dict[str, Any], names: dict[str, list[str]]) -> None:
    """Refuse windows and layers other than the store's own attributes say.

    Raises:
        ValueError: naming them.
    """
    extraction, n_layers = attributes["extraction"], attributes["n_layers"]
    layers = extraction["layers"]
    wanted = {
        "window": [window["name"] for window in extraction["windows"]],
        "layer": [str(i) for i in (-1, *(range(n_layers) if layers == "all" else layers))],
    }
    for name, values in wanted.items():
        if names[name] != values:
            raise ValueError(f"{name} is {names[name]}, not {values}")


def _require_shapes(arrays: dict[str, Any], lengths: dict[str, int]) -> None:
    """Refuse arrays whose dimensions do not fit each other, or that hold no numbers.

    Raises:
        ValueError: naming the array.
    """
    lengths = {"text": lengths.pop("text_id"), **lengths, "d_model": arrays[MAIN].shape[3]}
    lengths["shard"] = -(-lengths["text"] // arrays[MAIN].shards[0])
    for name, (dimensions, _) in ARRAYS.items():
        if tuple(lengths[d] for d in dimensions) != tuple(arrays[name].shape):
            raise ValueError(f"{name} has the shape {arrays[name].shape}, not {lengths}")
        if arrays[name].dtype.kind not in "if":
            raise ValueError(f"{name} holds {arrays[name].dtype}, not numbers")


def _read_shards(
    look: CellLook, name: str, array: Any, there: dict[str, int], report: Report
) -> NDArray[Any]:
    """Return a small array, read shard by shard, so that a damaged one is named."""
    values = np.full(array.shape, array.fill_value, array.dtype)
    for shard in look.done:
        span = shard_span(look.folder, shard)
        rows = slice(span.start, span.stop)
        mine = rows if ARRAYS[name][0][0] == "text" else slice(shard, shard + 1)
        if not there.get(_object(name, shard)):
            what = f"not there, or empty, although shard {shard} is done"
            report.add(Kind.MISSING, look.key(name, shard), look.stage, what)
            continue
        try:
            values[mine] = array[mine]
        except BROKEN as error:
            what = f"cannot be read (shard {shard}): {_first_line(error)}"
            report.add(Kind.DAMAGED, look.key(name, shard), look.stage, what)
    return values


def _hold_against(
    look: CellLook, names: dict[str, list[str]], expected: Sequence[Text], report: Report
) -> None:
    """Hold the rows of a store against the corpus that it was read from."""
    wanted: dict[str, list[str]] = {
        "text_id": [text.text_id for text in expected],
        "kind": [text.kind for text in expected],
        "emotion": [text.emotion or "" for text in expected],
    }
    for name, values in wanted.items():
        if names[name] != values:
            what = f"{len(names[name])} rows are not those of the corpus ({len(values)})"
            report.add(Kind.DAMAGED, f"{look.root}/{name}/c/0", look.stage, what)


def _hold_counts(look: CellLook, report: Report) -> None:
    """Hold token counts, norms and mean squares of the shards that are there against each other.

    Counts whose bytes are known to be wrong say nothing of the others.
    """
    extraction, values = look.attributes["extraction"], look.values
    read_N = np.minimum(values["text_tokens"], extraction["max_tokens"])
    wanted = window_counts(read_N.tolist(), spans_of(extraction["windows"]))
    bad = {
        "text_tokens": values["text_tokens"] < 1,
        "token_count": (values["token_count"] != wanted).any(axis=1),
        "peak_position": _outside(values["peak_position"], read_N),
        **{
            name: (~(values[name] >= 0) | ~np.isfinite(values[name])).any(axis=1)
            for name in ("peak_norm", "mean_norm", "first_norm")
        },
    }
    squares = values["mean_square"]
    no_square = (~(squares >= 0) | ~np.isfinite(squares)).any(axis=(1, 2))
    for shard in look.done:
        span = shard_span(look.folder, shard)
        known_wrong = report.is_damaged(look.key("text_tokens", shard))
        for name, bad_N in bad.items():
            if known_wrong and name in ("token_count", "peak_position"):
                continue
            for row in np.flatnonzero(bad_N[span.start : span.stop])[:1]:
                what = f"a count or norm of {look.text_id[span.start + row]} cannot be right"
                report.add(Kind.DAMAGED, look.key(name, shard), look.stage, what)
        if no_square[shard]:
            what = "a mean square is negative or not finite"
            report.add(Kind.DAMAGED, look.key("mean_square", shard), look.stage, what)


def _outside(position_NL: NDArray[Any], read_N: NDArray[Any]) -> NDArray[Any]:
    return np.any((position_NL < 0) | (position_NL >= read_N[:, None]), axis=1)


def hold_tokens(look: CellLook, texts: Sequence[Text], tokenizer: Path, report: Report) -> None:
    """Count every text's tokens with the model's tokenizer, and hold them against what is stored.

    transformers may put special tokens around a text that `tokenizer.json` does not know of: what
    all texts have in common is left out of the comparison.

    Raises:
        InputError: the tokenizer cannot be used.
    """
    counted = TokenCounter(tokenizer, whole=True).count([text.text for text in texts])
    rows = [row for shard in look.done for row in shard_span(look.folder, shard)]
    if not rows:
        return
    more_N = look.values["text_tokens"] - np.array(counted)
    usual = int(np.median(more_N[rows]))
    report.figures["tokens counted"] += sum(counted[row] for row in rows)
    for shard in look.done:
        span = shard_span(look.folder, shard)
        for row in np.flatnonzero(more_N[span.start : span.stop] != usual)[:1] + span.start:
            stored = int(look.values["text_tokens"][row])
            what = f"{look.text_id[row]} has {stored} tokens, not {counted[row] + usual}"
            report.add(Kind.DAMAGED, look.key("text_tokens", shard), look.stage, what)


def _object(name: str, shard: int) -> str:
    """Return the key, in a store, of a shard's file of an array."""
    return "/".join([name, "c", str(shard), *["0"] * (len(ARRAYS[name][0]) - 1)])


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
