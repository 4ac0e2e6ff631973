"""Manifests that extend others, and entries that stand for several."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests import load_study
from manifests.errors import InputError
from manifests.expanding import read_expanded

MATRIX = """\
version: 1
name: many
models:
  "smollm2-{kind}":
    matrix: {kind: [trained, random]}
    builtin: smollm2-135m
    weights: "{kind}"
  gemma: {builtin: gemma-3-270m}
corpora:
  "{writer}-t{temperature}":
    matrix: {writer: models, temperature: [0.7, 1]}
    generate: {model: "{writer}", emotions: [happy, sad, calm, angry], temperature: "{temperature}",
               topics: [rain, bread], topics_per_emotion: 2, neutral: 8}
analysis: {norms: [glasgow]}
"""


def test_a_matrix_stands_for_its_product(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(
        MATRIX.replace("temperature: [0.7, 1]", "temperature: [0.7, 1.0]")
    )
    study = load_study(tmp_path / "m.yaml")
    models = study.manifest.models
    assert {name: model.weights for name, model in models.items()} == {
        "smollm2-trained": "trained",
        "smollm2-random": "random",
        "gemma": "trained",
    }
    assert {name: (w.spec.model, w.spec.temperature) for name, w in study.writing.items()} == {
        "smollm2-trained-t0.7": ("smollm2-trained", 0.7),
        "smollm2-trained-t1.0": ("smollm2-trained", 1.0),
        "gemma-t0.7": ("gemma", 0.7),
        "gemma-t1.0": ("gemma", 1.0),
    }
    assert len(study.cells) == 3 * 4


def test_a_manifest_is_put_over_the_one_it_extends(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(MATRIX)
    (tmp_path / "more.yaml").write_text(
        "extends: base.yaml\nname: more\n"
        "models:\n  gemma: null\n  other: {builtin: gemma-3-270m, dtype: float16}\n"
        "analysis: {neutral_variance: 0.7}\n"
    )
    (tmp_path / "most.yaml").write_text("extends: more.yaml\nname: most\n")
    data = read_expanded(tmp_path / "most.yaml").data
    assert data["name"] == "most"
    assert data["analysis"] == {"norms": ["glasgow"], "neutral_variance": 0.7}
    assert list(data["models"]) == ["smollm2-trained", "smollm2-random", "other"]
    assert list(data["corpora"]) == [
        *("smollm2-trained-t0.7", "smollm2-trained-t1", "other-t0.7", "other-t1")
    ]
    assert "extends" not in data


def problem(tmp_path: Path, name: str = "m.yaml") -> str:
    with pytest.raises(InputError) as error:
        load_study(tmp_path / name)
    assert len(error.value.problems) == 1
    return str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("writer: models, ", "writer: [], ", "m.yaml:11: corpora.{writer}-t{temperature}.matrix."
         "writer: [] is not a list of values, nor 'models'"),
        ("{writer: models, temperature: [0.7, 1]}", "[a, b]", "m.yaml:11: "
         "corpora.{writer}-t{temperature}.matrix: expected names with lists of values"),
        ('"{writer}-t{temperature}":', '"{writer}-x":',
         "the name '{writer}-x' must hold {temperature}, to tell its entries apart"),
        ('model: "{writer}"', 'model: "{author}"',
         "{author} is not in its matrix, which has writer, temperature"),
        ("[trained, random]", "[trained, trained]",
         "there is an entry of the name 'smollm2-trained' already"),
        ("[0.7, 1]", f"{list(range(600))}", "stands for 1,200 entries, more than 1,000"),
        ('weights: "{kind}"', 'weights: "{kind}s"', "m.yaml:7: models.smollm2-trained.weights: "),
    ],
)  # fmt: skip
def test_a_matrix_that_is_none_gets_one_line(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert old in MATRIX
    (tmp_path / "m.yaml").write_text(MATRIX.replace(old, new))
    if "kind}s" in new:
        with pytest.raises(InputError) as error:
            load_study(tmp_path / "m.yaml")
        assert said in str(error.value)
        return
    assert said in problem(tmp_path)


def test_mistakes_are_told_where_they_stand(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(MATRIX.replace("[0.7, 1]", "[0.7, hot]"))
    (tmp_path / "m.yaml").write_text("extends: base.yaml\nname: m\ncells: [nobody@nothing]\n")
    with pytest.raises(InputError) as error:
        load_study(tmp_path / "m.yaml")
    assert "base.yaml:12: corpora.gemma-thot.generate.temperature" in str(error.value)
    (tmp_path / "base.yaml").write_text(MATRIX.replace("[0.7, 1]", "[0.7]"))
    assert "m.yaml:3: cells" in problem(tmp_path)


@pytest.mark.parametrize(
    ("extends", "said"),
    [
        ("extends: nowhere.yaml\n", "m.yaml:1: extends: no such file: nowhere.yaml"),
        ("extends: 3\n", "m.yaml:1: extends: 3 is not a manifest's path"),
        ("extends: m.yaml\n", "m.yaml:1: extends: m.yaml extends this manifest in turn"),
        ("extends: a.yaml\n", "a.yaml:1: extends: m.yaml extends this manifest in turn"),
    ],
)
def test_what_cannot_be_extended_gets_one_line(extends: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(extends)
    (tmp_path / "a.yaml").write_text("extends: m.yaml\n")
    assert said in problem(tmp_path)
