"""A cell's story vectors on disk: `residuals.zarr`, written by shards and read by layers.

A shard is a fixed run of consecutive texts. Its `residual_mean` file is written last and whole, so
that its presence, with a size, says that the shard is done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from manifests.errors import shorten
from store.cell_attributes import EXTRACTED, OPTIONAL
from store.corpus import Text
from store.labelled import (
    TEXT,
    Part,
    check_arrays,
    check_attributes,
    odd_array,
    open_labelled,
)
from store.places import MARK, Far, Place, replaced_folder, sizes, told, write_whole, zarr_store
from store.shards import (
    group_attributes,
    missing_shards,
    n_shards,
    shard_span,
    shard_texts,
)

RESIDUAL = "residual stream units"
ARRAYS = {
    "token_count": (("text", "window"), "tokens"),
    "text_tokens": (("text",), "tokens"),
    "peak_norm": (("text", "layer"), RESIDUAL),
    "peak_position": (("text", "layer"), "position"),
    "mean_norm": (("text", "layer"), RESIDUAL),
    "first_norm": (("text", "layer"), RESIDUAL),
    "mean_square": (("shard", "layer", "d_model"), f"{RESIDUAL}, squared"),
    "residual_mean": (("text", "window", "layer", "d_model"), RESIDUAL),
}
"""Dimensions and units of what a store holds, in the order in which a shard is written."""


@dataclass(frozen=True)
class ShardBlock:
    """What one shard of N texts holds.

    Attributes:
        residual_mean: float32 [text, window, layer, d_model]; NaN where a window has no token.
        token_count: int32 [text, window], tokens averaged over.
        text_tokens: int32 [text], tokens of the whole text before it was cut to `max_tokens`.
        peak_norm: float32 [text, layer], largest L2 norm of a token's residual.
        peak_position: int32 [text, layer], position of that token.
        mean_norm: float32 [text, layer], mean L2 norm over the tokens read.
        first_norm: float32 [text, layer], L2 norm of the first token's residual.
        mean_square: float32 [layer, d_model], mean square of each dimension over all tokens read.
    """

    residual_mean: NDArray[np.float32]
    token_count: NDArray[np.int32]
    text_tokens: NDArray[np.int32]
    peak_norm: NDArray[np.float32]
    peak_position: NDArray[np.int32]
    mean_norm: NDArray[np.float32]
    first_norm: NDArray[np.float32]
    mean_square: NDArray[np.float32]


def create_residuals(
    folder: Place,
    texts: Sequence[Text],
    windows: Sequence[str],
    layers: Sequence[int],
    d_model: int,
    attributes: dict[str, Any],
) -> None:
    """Make an empty store with all coordinates, replacing one that is there.

    Args:
        folder: the `residuals.zarr` to make.
        texts: the corpus, in order.
        windows: window names.
        layers: layer numbers, -1 for the embedding output.
        d_model: width of the residual stream.
        attributes: what made it; kept as attributes of the group.
    """
    with replaced_folder(folder) as partial:
        _write_frame(partial, texts, windows, layers, d_model, attributes)


def complete_residuals(
    folder: Place,
    texts: Sequence[Text],
    windows: Sequence[str],
    layers: Sequence[int],
    d_model: int,
    attributes: dict[str, Any],
) -> None:
    """Give a store back the metadata and coordinates that it has lost; its shards stay.

    What says that the store is there comes last. The arguments are those of `create_residuals`,
    which have to be the ones that the shards were made with.
    """
    held: dict[str, Any] = {}
    _write_frame(MemoryStore(held), texts, windows, layers, d_model, attributes)
    there = sizes(folder)
    for key in sorted(held, key=lambda key: key == MARK):
        if not there.get(key):
            write_whole(folder, key, held[key].to_bytes())


def _write_frame(
    target: Any,
    texts: Sequence[Text],
    windows: Sequence[str],
    layers: Sequence[int],
    d_model: int,
    attributes: dict[str, Any],
) -> None:
    """Write everything of a store but its shards."""
    n = len(texts)
    per_shard = min(n, shard_texts(len(windows), len(layers), d_model))
    group = zarr.open_group(target, mode="w", zarr_format=3, attributes=attributes)
    checked: list[Any] = [ZstdCodec(level=3), Crc32cCodec()]
    lengths = {
        "text": n,
        "shard": -(-n // per_shard),
        "window": len(windows),
        "layer": len(layers),
        "d_model": d_model,
    }
    for name, (dimensions, units) in ARRAYS.items():
        shape = tuple(lengths[dimension] for dimension in dimensions)
        first = per_shard if dimensions[0] == "text" else 1
        whole = name != "residual_mean"
        integer = units in ("tokens", "position")
        group.create_array(
            name,
            shape=shape,
            shards=None if whole else (first, *shape[1:]),
            chunks=(first, *shape[1:]) if whole else (first, 1, 1, d_model),
            dtype="int32" if integer else "float32",
            fill_value=-1 if integer else np.nan,
            compressors=checked,
            dimension_names=dimensions,
            attributes={
                "units": units,
                **({"coordinates": "emotion kind text_id"} if "text" in dimensions else {}),
            },
        )
    coordinates: dict[str, tuple[str, list[Any]]] = {
        "text_id": ("text", [t.text_id for t in texts]),
        "kind": ("text", [t.kind for t in texts]),
        "emotion": ("text", [t.emotion or "" for t in texts]),
        "window": ("window", list(windows)),
        "layer": ("layer", list(layers)),
    }
    for name, (dimension, values) in coordinates.items():
        dtype: Any = "int32" if name == "layer" else str
        coordinate = group.create_array(
            name,
            shape=(len(values),),
            chunks=(len(values),),
            dtype=dtype,
            compressors=checked,
            dimension_names=(dimension,),
        )
        coordinate[:] = np.asarray(values, dtype=None if dtype == "int32" else object)


def write_shard(folder: Place, shard: int, block: ShardBlock) -> None:
    """Write one shard's arrays, `residual_mean` last. Writing it twice gives the same shard."""
    span = shard_span(folder, shard)
    rows = slice(span.start, span.stop)
    if block.residual_mean.shape[0] != len(span):
        raise ValueError(f"shard {shard} holds {len(span)} texts, not {len(block.residual_mean)}")
    # A shard in which no window has a token is all NaN, and its file must be there all the same.
    writing = told(folder) if isinstance(folder, Far) else nullcontext()
    with zarr.config.set({"array.write_empty_chunks": True}), writing:
        group = zarr.open_group(zarr_store(folder), mode="r+", zarr_format=3)
        for name, (dimensions, _) in ARRAYS.items():
            mine = rows if dimensions[0] == "text" else slice(shard, shard + 1)
            values = getattr(block, name)
            _array(group, name)[mine] = values if dimensions[0] == "text" else values[None]


def open_residuals(
    folder: Place, as_dask: bool = True, needed: Mapping[str, Part] | None = None
) -> xr.Dataset:
    """Open a complete store lazily: one chunk for each shard, window and layer.

    Args:
        folder: the `residuals.zarr`.
        as_dask: give Dask arrays; otherwise arrays that are read when indexed, without Dask.
        needed: attributes that have to be there, of `store.cell_attributes`; others that are there
            have to be what a run writes, too.

    Returns:
        Data set with the arrays of `ShardBlock` (`mean_square` with a row for each shard), and the
        coordinates text_id, kind, emotion, window and layer.

    Raises:
        FileNotFoundError: there is no store, or shards of it are missing.
        InputError: it lacks arrays or attributes, or has others than a run writes.
    """
    if group_attributes(folder) is None:
        raise FileNotFoundError(f"{folder}: nothing was extracted here")
    if missing := missing_shards(folder):
        raise FileNotFoundError(
            f"{folder}: {len(missing)} of {n_shards(folder)} shards are missing"
        )
    store = zarr_store(folder, read_only=True)
    opened = open_labelled(folder, store, as_dask)
    expected = {name: (dims, _KINDS.get(unit, "f")) for name, (dims, unit) in ARRAYS.items()}
    check_arrays(folder, opened, {**expected, **COORDINATES})
    check_attributes(folder, opened.attrs, {**EXTRACTED, **OPTIONAL}, whole=False)
    if needed is not None:
        check_attributes(folder, opened.attrs, needed, whole=True)
        _check_names(folder, opened)
    return opened


def _check_names(folder: Place, opened: xr.Dataset) -> None:
    """Hold windows and layers against the attributes.

    Raises:
        InputError: they are others.
    """
    windows = opened.attrs["extraction"].get("windows")
    named = [window["name"] for window in windows or ()]
    layers = opened["layer"].to_numpy().tolist()
    fitting = [layer for layer in layers if -1 <= layer < opened.attrs["n_layers"]]
    wanted = {"layer": fitting} if windows is None else {"layer": fitting, "window": named}
    check_arrays(folder, opened, {}, wanted)
    _check_texts(folder, opened)


def _check_texts(folder: Place, opened: xr.Dataset) -> None:
    """Hold ids, kinds and emotions of texts against each other.

    Raises:
        InputError: a text is neither a story nor a neutral text.
    """
    named = (opened[name].to_numpy().tolist() for name in ("text_id", "kind", "emotion"))
    for text_id, kind, emotion in zip(*named, strict=True):
        if kind not in ("emotion", "neutral") or (emotion == "") != (kind == "neutral"):
            what = f"of {shorten(text_id)}: a text of kind {shorten(kind)} cannot have "
            raise odd_array(folder, "emotion", f"{what}the emotion {shorten(emotion)}")
        if emotion and "/" not in text_id:
            what = f"{shorten(text_id)} is no story's: expected emotion/topic/story"
            raise odd_array(folder, "text_id", what)


_KINDS = {"tokens": "i", "position": "i"}
COORDINATES = {
    "text_id": (("text",), TEXT),
    "kind": (("text",), TEXT),
    "emotion": (("text",), TEXT),
    "window": (("window",), TEXT),
    "layer": (("layer",), "i"),
}
"""Dimensions and kinds (numpy's) of the coordinates."""


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return array
