"""Well-formed files of a finished run that hold other things than a run writes.

Lists of digests are written anew beside them. No command ends in a traceback, and what is refused,
by a command or by a stage of it, names the file.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import xarray as xr
import zarr
from safetensors.numpy import save_file

from analysis.detection import TOP
from analysis.directions import ESTIMATORS
from analysis.layer import N_DROPPED
from analysis.settings import AXES, SPACES
from engine.analyses import analysed_cells
from engine.shown_tables import NUMBERS, TEXTS
from engine.steering.tensors import SteeredDirections, fitting_measure, read_directions
from engine.tasks.results import open_results
from manifests.errors import InputError
from store.cell_attributes import EXTRACTED
from store.result_shapes import ANALYSIS, NAMES, WORDS
from store.results import open_analysis, write_analysis
from tests.test_bad_input import in_process
from tests.test_odd_files import (
    OTHER_COLUMNS,
    Spoil,
    all_text,
    header_only,
    instead,
    put_in_place,
    without,
)
from tests.verified import OWN, Run, command

RESULTS, VECTORS = f"cells/{OWN}/analysis.zarr", f"cells/{OWN}/residuals.zarr"
WORDS_OF_OWN = "corpora/own/words.zarr"


@pytest.fixture
def kept(run: Run) -> Run:
    """A copy of a finished run with room for what `put_in_place` sets aside."""
    (run.layout.root / "kept").mkdir()
    return run


def test_shapes_of_results_are_those_that_a_run_writes(finished: Run) -> None:
    for key, shapes in ((RESULTS, ANALYSIS), (WORDS_OF_OWN, WORDS)):
        found = xr.open_zarr(finished.layout.run / key, consolidated=False)
        assert set(found.variables) == set(shapes)
    assert {
        "axis": AXES,
        "estimator": ESTIMATORS,
        "space": SPACES,
        "component": (1, 2),
        "top": TOP,
        "rank": tuple(range(1, N_DROPPED + 1)),
    } == NAMES


def test_shown_columns_are_those_that_a_run_writes(finished: Run) -> None:
    for name in sorted({*TEXTS} - {"steering_tests", "steering_trends", "transfer"}):
        file = finished.layout.tables / f"{name}.csv"
        if file.is_file():
            columns = file.read_text().splitlines()[0].split(",")
            assert {*TEXTS[name], *NUMBERS[name]} <= {*columns}, name


def renamed(name: str, *names: str) -> Spoil:
    def spoil(folder: Path) -> None:
        zarr.open_group(folder, mode="r+")[name][:] = np.array(names, dtype=object)

    return spoil


ARRAYS: list[tuple[str, Spoil, str]] = [
    (RESULTS, without("cka"), "cka: there is no such array"),
    (RESULTS, renamed("axis", "x", "y"), "axis: expected valence, arousal, got"),
    (RESULTS, instead("contrast", ["x"]), "contrast: a name stands there twice"),
    (RESULTS, renamed("norms", "x"), "norms: expected glasgow, got ['x']"),
    (RESULTS, instead("depth", ["x"]), "depth: values of an unexpected type"),
    (WORDS_OF_OWN, without("lexical_r"), "lexical_r: there is no such array"),
    (WORDS_OF_OWN, instead("lexical_r", ["x"]), "lexical_r: values of an unexpected type"),
]


def test_results_of_another_kind_are_named_where_they_are_opened(kept: Run) -> None:
    cells = analysed_cells(kept.plan, kept.layout)
    for key, spoil, said in ARRAYS:
        with put_in_place(kept, key, spoil) as folder, pytest.raises(InputError) as refused:
            open_results(cells)
        assert str(refused.value).startswith(f"{folder}: {said}"), said
    assert open_results(cells)


def test_norms_in_another_order_are_taken_in_the_manifests(tmp_path: Path) -> None:
    norms = xr.Dataset(
        {"lexical_r": (("norms", "axis"), [[0.1, 0.2], [0.3, 0.4]])},
        coords={"norms": ["b", "a"], "axis": list(AXES)},
    )
    write_analysis(tmp_path / "words.zarr", norms)
    shapes = {name: WORDS[name] for name in ("norms", "axis", "lexical_r")}

    def opened(*names: str) -> xr.Dataset:
        return open_analysis(tmp_path / "words.zarr", False, shapes, {"norms": [*names]})

    assert opened("a", "b")["lexical_r"].to_numpy().tolist() == [[0.3, 0.4], [0.1, 0.2]]
    with pytest.raises(InputError, match="norms: expected a, c, got"):
        opened("a", "c")


def attribute(path: str, value: Any = None) -> Spoil:
    """Give a group another attribute; None takes it away."""

    def spoil(folder: Path) -> None:
        mark = json.loads((folder / "zarr.json").read_text())
        *outer, last = path.split(".")
        at = mark["attributes"]
        for key in outer:
            at = at[key]
        at.pop(last)
        if value is not None:
            at[last] = value
        (folder / "zarr.json").write_text(json.dumps(mark))

    return spoil


ATTRIBUTES: list[tuple[str, Spoil, str]] = [
    *(
        (VECTORS, attribute(path), f"{path}: there is no such attribute; ")
        for path in EXTRACTED
        if path != "versions"
    ),
    (VECTORS, attribute("n_layers", "x"), "n_layers: expected the number of the model's blocks"),
    (VECTORS, attribute("n_layers", 1), "layer: expected -1, 0, got"),
    (VECTORS, attribute("extraction.windows", [1]), "extraction.windows: expected windows of"),
    (VECTORS, attribute("extraction.max_tokens", -5), "extraction.max_tokens: expected a number"),
    (VECTORS, attribute("source.path", 3), "source.path: expected text or null"),
    (VECTORS, renamed("window", "a", "b", "c"), "window: expected all, no-first, late"),
    (VECTORS, instead("emotion", ["x"]), "emotion: of 'neutral-000': a text of kind 'neutral'"),
    (VECTORS, instead("kind", ["x"]), "emotion: of 'happy/000/0': a text of kind 'x' cannot"),
    (VECTORS, instead("text_id", ["x"]), "text_id: 'x' is no story's: expected emotion/topic"),
    (RESULTS, attribute("neutral_variance", "x"), "neutral_variance: expected a share"),
]
READ_ONLY: list[tuple[str, Spoil, str]] = [  # to other commands the stage is not done
    (VECTORS, attribute("made_from.inputs", [1]), "made_from.inputs: expected texts by stage"),
    (RESULTS, attribute("made_from", 3), "made_from: expected fingerprint and inputs"),
]


def test_attributes_of_another_kind_are_one_line_of_vectors_and_read(kept: Run) -> None:
    text = kept.layout.root / "text.txt"
    text.write_text("She was happy, and the day was long.\n")
    target = str(kept.layout.root / "vectors")
    for key, spoil, said in (*ATTRIBUTES, *READ_ONLY):
        with put_in_place(kept, key, spoil) as folder:
            if (key, spoil, said) in ATTRIBUTES:
                code, _, err = command(kept, "vectors", "--cell", OWN, "--to", target)
                assert (code, err.count("\n")) == (2, 1), said
                assert err.startswith(f"{folder}: {said}"), err
            code, _, err = in_process(["read", OWN, str(text), "--root", str(kept.layout.root)])
            assert (code, err.count("\n")) == (2, 1), said
            assert err.startswith(f"{folder}: {said}"), err


def test_story_vectors_without_numbers_are_damage_to_verify(kept: Run) -> None:
    with put_in_place(kept, VECTORS, instead("first_norm", ["x"])):
        code, out, _ = command(kept, "verify")
    assert code == 1
    assert "first_norm holds" in " ".join(out.split())


def test_a_corpus_of_another_identity_is_passed_over_by_read(kept: Run) -> None:
    text = kept.layout.root / "text.txt"
    text.write_text("She was happy, and the day was long.\n")

    def spoil(file: Path) -> None:
        pq.write_table(pq.read_table(file).replace_schema_metadata({b"emovec": b"[1]"}), file)

    with put_in_place(kept, "corpora/own/stories.parquet", spoil):
        code, _, err = in_process(["read", OWN, str(text), "--root", str(kept.layout.root)])
    assert code in (0, None), err


STAGES: list[Any] = [
    ("report", "page", "tables/activations.csv", OTHER_COLUMNS, "model: there is no such column"),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (
            ("report", "tables", RESULTS, without("cka"), "cka: there is no such array"),
            ("analyze", "analyze", VECTORS, attribute("n_layers"), "n_layers: there is no such"),
        )
    ),
]


@pytest.mark.parametrize(("asked", "stage", "key", "spoil", "said"), STAGES)
def test_a_stage_that_fails_over_a_file_names_it(
    kept: Run, asked: str, stage: str, key: str, spoil: Spoil, said: str
) -> None:
    with put_in_place(kept, key, spoil) as place:
        shutil.rmtree(kept.layout.run / "records" / stage)  # made again from what is there
        code, out, err = command(kept, asked)
    assert code == 1, (out, err)
    assert f"{place}: {said}" in out.replace("\n", ""), out


TABLES: list[tuple[str, Spoil]] = [
    *((name, OTHER_COLUMNS) for name in ("claims", "corpora", "norms")),
    ("corpora", header_only),
    *((name, all_text) for name in ("geometry", "claim_summary", "corpora")),
]


@pytest.mark.parametrize("content", ["- a\n", "a: b: c\n", "name: other\nversion: 1\n"])
def test_a_page_beside_others_names_a_manifest_of_other_content(kept: Run, content: str) -> None:
    kept.layout.manifest.write_text(content)
    code, _, err = command(kept, "report", "--to", str(kept.layout.root / "page.html"))
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"{kept.layout.manifest}: another manifest than a run writes")


@pytest.mark.slow
def test_a_page_beside_others_names_a_table_of_other_content(kept: Run) -> None:
    for name, spoil in TABLES:
        with put_in_place(kept, f"tables/{name}.csv", spoil) as file:
            code, _, err = command(kept, "report", "--to", str(kept.layout.root / "page.html"))
        assert code == 2, (name, spoil)
        assert err.startswith(f"{file}: "), err
        assert err.count("\n") == 1


LAYERS = np.array([0, 1])
ROWS = np.ones((2, 4), np.float32)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"x": ROWS}, "layer: expected the numbers of layers"),
        ({"layer": LAYERS * 0.5}, "layer: expected the numbers of layers"),
        ({"layer": LAYERS, "x": ROWS}, "unknown tensor 'x'"),
        ({"layer": LAYERS, "direction.a": ROWS[0]}, "'direction.a': expected numbers by layer by"),
        ({"layer": LAYERS, "direction.a": ROWS[:1]}, "'direction.a': expected numbers by layer by"),
        ({"layer": LAYERS, "held-out.valence": LAYERS}, "'held-out.valence': expected numbers by"),
    ],
)
def test_directions_of_another_kind_are_named(
    tmp_path: Path, tensors: dict[str, Any], said: str
) -> None:
    file = tmp_path / "steering.safetensors"
    save_file({name: np.ascontiguousarray(values) for name, values in tensors.items()}, file)
    with pytest.raises(InputError) as refused:
        read_directions(file)
    assert str(refused.value).startswith(f"{file}: {said}")


def scored(**changes: Any) -> dict[str, Any]:
    condition = {"direction": "happy", "source": 0, "target": 1, "strength": 1.0}
    row = {"row": "scored", "key": "k", "condition": condition}
    return {**row, "log_p": [[0.0, 1.0]], "preference": [0.5], **changes}


def added(**changes: Any) -> dict[str, Any]:
    return scored(condition={**scored()["condition"], **changes})


ODD_ROWS: list[tuple[dict[str, Any], tuple[str, str]]] = [
    (added(direction="sad"), ("condition", "no direction 'sad' was steered with")),
    (added(target=7), ("condition", "target: layer 7 has no direction")),
    (added(direction=""), ("condition", "something is added, of no direction")),
    (scored(log_p=[[0.0]]), ("log_p", "expected lists of 2 numbers")),
    (scored(log_p=[[0.0, 1.0]] * 2), ("log_p", "expected a list of 1, as in the rows before")),
    (scored(preference=[]), ("preference", "expected a list of 1, as in the rows before")),
]


@pytest.mark.parametrize(("row", "wrong"), ODD_ROWS)
def test_rows_that_do_not_fit_the_directions_are_named(
    row: dict[str, Any], wrong: tuple[str, str]
) -> None:
    found = SteeredDirections([0, 1], {"happy": ROWS.astype(float)}, {})
    odd: Callable[[dict[str, Any]], Any] = fitting_measure(found, 2)
    assert odd(scored()) is None
    assert odd(row) == wrong


def test_vectors_whose_figures_are_no_numbers_are_not_handed_on(kept: Run) -> None:
    with put_in_place(kept, VECTORS, instead("first_norm", [float("nan")])) as folder:
        target = kept.layout.root / "out"
        code, _, err = command(kept, "vectors", "--cell", OWN, "--to", str(target))
    assert code == 2, err
    (line,) = err.splitlines()
    assert line.startswith(f"{folder}: figures: 0.")
    assert "comes out as no number" in line
    assert not list(target.rglob("*.safetensors"))
