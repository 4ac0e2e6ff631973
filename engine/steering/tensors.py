"""What `steering.safetensors` of a cell holds, and how it is read for effects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from analysis.effects import UNSTEERED
from engine.steering.conditions import HELD_OUT, TENSOR
from manifests.errors import InputError, Problem, shorten
from store.journal_lines import Row
from store.journal_shapes import Odd, Oddity, odd_measure

LAYER = "layer"
MEND = (
    "remove it and the stage's record beside it under records/steer; `emovec steer` makes it again"
)


@dataclass(frozen=True)
class SteeredDirections:
    """Directions that a cell was steered with.

    Attributes:
        layers: blocks that have directions.
        rows: unit vectors [layer, d_model] by the direction's name.
        held_out: r with the ratings of emotions left out [layer], by the axis' name.
    """

    layers: list[int]
    rows: dict[str, Float64[ndarray, "layer d_model"]]
    held_out: dict[str, Float64[ndarray, " layer"]]


def read_directions(file: Path) -> SteeredDirections:
    """Read the directions of a cell.

    Raises:
        OSError: the file is not there.
        InputError: it is no such file, or holds other tensors than steering writes.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found = load_file(file)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:  # also of unknown types
        raise _odd(file, "", f"damaged ({shorten(str(error))})") from None
    layers = found.pop(LAYER, None)
    if layers is None or layers.ndim != 1 or layers.dtype.kind != "i" or not len(layers):
        raise _odd(file, LAYER, "expected the numbers of layers")
    for name, values in found.items():
        wanted = 2 if name.startswith(TENSOR) else 1 if name.startswith(HELD_OUT) else 0
        if not wanted:
            raise _odd(file, "", f"unknown tensor {shorten(name)}")
        if values.dtype.kind != "f" or values.ndim != wanted or len(values) != len(layers):
            shape = " by ".join(["layer", "d_model"][:wanted])
            what = f"{shorten(name)}: expected numbers by {shape}, got {_said(values)}"
            raise _odd(file, "", what)
    return SteeredDirections(
        [int(layer) for layer in layers],
        {
            name.removeprefix(TENSOR): rows.astype(np.float64)
            for name, rows in found.items()
            if name.startswith(TENSOR)
        },
        {
            name.removeprefix(HELD_OUT): r.astype(np.float64)
            for name, r in found.items()
            if name.startswith(HELD_OUT)
        },
    )


def fitting_measure(found: SteeredDirections, n_ends: int) -> Odd:
    """Return what tells which rows of a journal of steering do not fit its directions.

    Args:
        found: directions of the cell.
        n_ends: ends of self-reports that log-probabilities are of.
    """
    lengths: dict[str, int] = {}

    def odd(row: Row) -> Oddity | None:
        if (wrong := odd_measure(row)) is not None or row["row"] == "judged":
            return wrong
        given = row["condition"]
        if not given["direction"]:
            if (given["source"], given["target"], given["strength"]) != UNSTEERED[1:]:
                return "condition", "something is added, of no direction"
        else:
            if given["direction"] not in found.rows:
                return "condition", f"no direction {shorten(given['direction'])} was steered with"
            for at in ("source", "target"):
                if given[at] not in found.layers:
                    return "condition", f"{at}: layer {shorten(given[at])} has no direction"
        if row["row"] == "scored":
            if any(len(numbers) != n_ends for numbers in row["log_p"]):
                return "log_p", f"expected lists of {n_ends} numbers"
            for key in ("log_p", "preference"):
                n = None if row[key] is None else len(row[key])
                if n is not None and lengths.setdefault(key, n) != n:
                    return key, f"expected a list of {lengths[key]}, as in the rows before"
        return None

    return odd


def _said(values: ndarray) -> str:
    return f"{values.dtype} [{', '.join(map(str, values.shape))}]"


def _odd(file: Path, key: str, what: str) -> InputError:
    return InputError(Problem(file, None, key, f"{what}; {MEND}"))
