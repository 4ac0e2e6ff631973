"""Files of a finished run put in the place of others: well formed, listed, and of other content.

Whoever hands a run on can also write lists of digests anew, so nothing here is found by those.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from store.digests import digests_of, parse_digests, write_digests
from tests.verified import OWN, Run, command

Spoil = Callable[[Path], Any]

OTHER_COLUMNS: Spoil = lambda file: file.write_text("a,b\n1,2\n")  # noqa: E731


def header_only(file: Path) -> None:
    file.write_text(f"{file.read_text().splitlines()[0]}\n")


def all_text(file: Path) -> None:
    names = file.read_text().splitlines()[0]
    file.write_text(f"{names}\n{','.join('x' for _ in names.split(','))}\n")


def other_choice(file: Path) -> None:
    file.write_text(file.read_text().replace("neutral-pca", "another"))


def other_claim(file: Path) -> None:
    file.write_text(file.read_text().replace("valence-peak", "another"))


def without(name: str) -> Spoil:
    return lambda folder: shutil.rmtree(folder / name)


def instead(name: str, values: Any, *dimensions: str) -> Spoil:
    def spoil(folder: Path) -> None:
        group = zarr.open_group(folder, mode="r+")
        shape = group[name].shape if not dimensions else (len(values),)
        names = dimensions or group[name].metadata.dimension_names
        del group[name]
        kind = "float32" if isinstance(values[0], float) else str
        array = group.create_array(name, shape=shape, dtype=kind, dimension_names=names)
        array[...] = np.full(shape, values[0], dtype=object if kind is str else kind)

    return spoil


TABLES = ("geometry", "activations", "claim_summary", "detection", "profiles")
SHOWN: list[tuple[str, Spoil, str]] = [
    *((name, OTHER_COLUMNS, ": there is no such column") for name in TABLES),
    *((name, header_only, ": no rows") for name in ("geometry", "claim_summary")),
    *((name, all_text, ": expected numbers or nan, got 'x'") for name in TABLES[:3]),
    ("geometry", other_choice, "contrast: no rows of neutral-pca with glasgow"),
    ("claim_summary", other_claim, "claim: there is no claim 'another'"),
]
ARRAYS: list[tuple[str, Spoil, str]] = [
    *(("residuals", without(name), f": {name}: there is no such array")
      for name in ("emotion", "text_tokens", "mean_square")),
    ("residuals", instead("emotion", [1.0]), ": emotion: values of an unexpected type"),
    ("residuals", instead("layer", ["x"]), ": layer: values of an unexpected type"),
    ("residuals", instead("window", [1.0], "other"), ": window: expected dimensions window, got"),
    ("residuals", instead("text_tokens", [1.0] * 3, "text"), ": its arrays cannot be opened"),
    *(("analysis", without(name), f": {name}: there is no such array")
      for name in ("axis", "direction", "held_out_r")),
    ("analysis", instead("contrast", [1.0]), ": contrast: values of an unexpected type"),
]  # fmt: skip


@contextmanager
def put_in_place(run: Run, key: str, spoil: Spoil) -> Iterator[Path]:
    """Spoil a file or a folder of a run and its list of digests, and put both back after."""
    place, kept = run.layout.run / key, run.layout.root / "kept"
    digests = run.layout.run / "digests"
    for source, name in ((place, "file"), (digests, "digests")):
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, kept / name)
    spoil(place)
    for file in digests.rglob("*.sha256"):
        listed = parse_digests(file.read_bytes())
        mine = {name for name in listed if name == key or name.startswith(f"{key}/")}
        if mine:
            there = [f for f in [place, *place.rglob("*")] if f.is_file()]
            keys = [f.relative_to(run.layout.run).as_posix() for f in there]
            others = {name: sha for name, sha in listed.items() if name not in mine}
            stage = f"{file.parent.name}:{file.stem}"
            write_digests(file, stage, {**others, **digests_of(run.layout, keys)})
    yield place
    for target, name in ((place, "file"), (digests, "digests")):
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        (kept / name).replace(target)


def test_a_table_of_other_content_is_one_line_of_status(run: Run) -> None:
    (run.layout.root / "kept").mkdir()
    for name, spoil, said in SHOWN:
        with put_in_place(run, f"tables/{name}.csv", spoil) as file:
            code, _, err = command(run, "status")
        assert code == 2, (name, said)
        assert err.startswith(f"{file}: ")
        assert said in err
        assert err.count("\n") == 1
    assert command(run, "status")[0] == 0


def test_arrays_of_another_kind_are_one_line_of_vectors(run: Run) -> None:
    (run.layout.root / "kept").mkdir()
    target = run.layout.root / "vectors"
    for name, spoil, said in ARRAYS:
        with put_in_place(run, f"cells/{OWN}/{name}.zarr", spoil) as folder:
            code, _, err = command(run, "vectors", "--cell", OWN, "--to", str(target))
        assert code == 2, (name, said)
        assert err.startswith(f"{folder}{said}"), err
        assert err.count("\n") == 1
    assert command(run, "vectors", "--cell", OWN, "--to", str(target))[0] == 0
