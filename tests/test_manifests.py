from __future__ import annotations

import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.plan import Plan
from manifests import InputError, load_study
from manifests.errors import Problem
from manifests.resolve import assign_topics
from manifests.schema import Manifest, Strict
from tests.tiny import write_manifest

GOOD = """\
version: 1
name: good
models:
  writer: {builtin: smollm2-135m}
corpora:
  own:
    generate:
      model: writer
      emotions: [happy, sad, calm, angry]
      neutral: 4
extraction:
  windows: [all, no-first]
analysis:
  norms: [glasgow]
"""
SHIPPED = sorted((Path(__file__).parents[1] / "manifests").glob("*.yaml"))


def problems(folder: Path, text: str) -> list[str]:
    file = folder / "m.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        load_study(file)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.problems)
    return [line.removeprefix(f"{folder}/") for line in lines]


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_manifests_load(file: Path) -> None:
    study = load_study(file)
    assert study.cells


def test_the_good_manifest_is_good(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(GOOD)
    study = load_study(tmp_path / "m.yaml")
    assert [cell.name for cell in study.cells] == ["writer@own"]
    assert study.manifest.extraction.max_tokens == 512


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("neutral: 4", "netural: 4", "m.yaml:10: corpora.own.generate.netural: unknown key; "
         "did you mean 'neutral'?"),
        ("neutral: 4", "neutral: four", "m.yaml:10: corpora.own.generate.neutral: expected a valid "
         "integer, got 'four'"),
        ("neutral: 4", "neutral: 41", "m.yaml:10: corpora.own.generate.neutral: 41 texts asked "
         "for, 40 neutral topics in the list"),
        ("version: 1", "version: 2", "m.yaml:1: version: version 2 is not known; this program "
         "reads version 1"),
        ("builtin: smollm2-135m", "builtin: smollm3", "m.yaml:4: models.writer.builtin: unknown "
         "model 'smollm3'; known: smollm2-135m"),
        ("builtin: smollm2-135m", "path: nowhere", "m.yaml:4: models.writer.path: no model there:"),
        ("model: writer", "model: writter", "m.yaml:8: corpora.own.generate.model: unknown model "
         "'writter'; did you mean 'writer'?"),
        ("windows: [all, no-first]", "windows: [all, first]", "m.yaml:12: extraction.windows.1: "
         "unknown window 'first'; known: all, no-first, after-50"),
        ("norms: [glasgow]", "norms: [anew]", "m.yaml:14: analysis.norms.0: unknown norms 'anew'"),
        ("norms: [glasgow]", "norms: [no/such.csv]", "m.yaml:14: analysis.norms.0: no such file:"),
        ("[happy, sad, calm, angry]", "[]", "m.yaml:9: corpora.own.generate.emotions: the list is "
         "empty"),
        ("[happy, sad, calm, angry]", "[happy, happy]", "m.yaml:9: corpora.own.generate.emotions: "
         "'happy' stands in the list twice"),
        ("[happy, sad, calm, angry]", "[xyzzy, plugh]", "m.yaml:14: analysis.norms.0: glasgow "
         "rates 0 of the 2 emotions"),
        ("[happy, sad, calm, angry]", "nowhere-9", "m.yaml:9: corpora.own.generate.emotions: "
         "unknown list 'nowhere-9'; shipped: sofroniew-171"),
        ("[happy, sad, calm, angry]", "words/mine.txt", "m.yaml:9: corpora.own.generate.emotions: "
         "no such file:"),
        ("name: good", "name: a/b", "m.yaml:2: name: 'a/b' cannot be a name"),
        ("name: good", "name: '..'", "m.yaml:2: name: '..' cannot be a name"),
        ("name: good", "name: a..b", "m.yaml:2: name: 'a..b' cannot be a name"),
        ("  own:\n", "  o/wn:\n", "m.yaml:6: corpora.o/wn: 'o/wn' cannot be a name"),
        ("analysis:", "cells: [writer@other]\nanalysis:", "m.yaml:13: cells.0: 'writer@other' "
         "names an unknown corpus 'other'; known: own"),
        ("analysis:", "cells: [writer]\nanalysis:", "m.yaml:13: cells.0: 'writer' is not a cell"),
        ("analysis:", "corpora: {}\nanalysis:", "m.yaml:13: corpora: 'corpora' stands here twice, "
         "first on line 5"),
        ("      neutral: 4\n", "      neutral: 4\n  own:\n    import: {stories: x.jsonl}\n",
         "m.yaml:11: corpora.own: 'own' stands here twice, first on line 6"),
        ("neutral: 4", "neutral: 0", "m.yaml:6: corpora.own: has 0 neutral texts"),
        ("    generate:", "    import: {stories: x.jsonl}\n    generate:", "m.yaml:6: "
         "corpora.own: give exactly one of generate and import"),
        ("{builtin: smollm2-135m}", "smollm2", "m.yaml:4: models.writer: expected keys and values"),
        ("neutral: 4", "neutral: 1", "m.yaml:6: corpora.own: has 1 neutral texts"),
        ("builtin: smollm2-135m", "hf: https://a.b/c", "m.yaml:4: models.writer.hf: "
         "'https://a.b/c' is not a repository id"),
        ("builtin: smollm2-135m", "builtin: smollm2-135m, chat_template_kwargs: {d: 2024-01-01}",
         "m.yaml:4: models.writer.chat_template_kwargs: holds a value that JSON does not know"),
        ("builtin: smollm2-135m", "builtin: smollm2-135m, weights: random", "m.yaml:8: "
         "corpora.own.generate.model: model 'writer' has random weights and cannot write"),
        ("builtin: smollm2-135m", "builtin: smollm2-135m, weights_seed: 3", "m.yaml:4: "
         "models.writer: weights_seed goes with weights: random only"),
        ("name: good", "name: a.partial", "m.yaml:2: name: 'a.partial' cannot be a name"),
        ("name: good", "name: &a good", None),
        ("name: good", "name: *a", "m.yaml:2: aliases are not read"),
        ("name: good", "name: [", "m.yaml:"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_line(tmp_path: Path, old: str, new: str, expected: str | None) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    if expected is None:
        (tmp_path / "m.yaml").write_text(text)
        load_study(tmp_path / "m.yaml")
        return
    lines = problems(tmp_path, text)
    assert len(lines) == 1, lines
    assert lines[0].startswith(expected)


def test_several_mistakes_get_a_line_each(tmp_path: Path) -> None:
    lines = problems(tmp_path, GOOD.replace("version: 1", "version: 3").replace("glasgow", "x"))
    assert len(lines) == 1  # the shape is checked before names are looked up
    wrong = GOOD.replace("version: 1", "version: 3").replace("neutral: 4", "neutral: -1")
    assert len(problems(tmp_path, wrong)) == 2


@pytest.mark.parametrize("text", ["", "[]", "just words", "version: 1", "\ufeff"])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text)


def test_a_number_too_large_for_a_setting_is_told_as_no_manifest_where_it_stands_alone(
    tmp_path: Path,
) -> None:
    (told,) = problems(tmp_path, "9" * 40)
    assert told.startswith("m.yaml:1: not a mapping of keys, but one value: '9999")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    for raw in (b"name: \xff\xfe", b"name: a\x00b", b"a: " + b"[" * 5000):
        file.write_bytes(raw)
        with pytest.raises(InputError):
            load_study(file)


def test_a_prompt_file_without_its_placeholders_is_refused(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[1] / "manifests/prompts/default.yaml"
    text = shipped.read_text().replace("topic: {topic}.", "topic: it.", 1)
    (tmp_path / "p.yaml").write_text(text)
    lines = problems(tmp_path, GOOD.replace("neutral: 4", "neutral: 4\n      prompts: p.yaml"))
    assert re.match(r"p.yaml:\d+: stories: must hold {emotion}, {n_stories}, {topic}", lines[0])


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("word,valence\nhappy,1\n", "norms.csv:1: arousal: this column is missing"),
        (
            "word,valence,arousal,,\nhappy,1,1,,\n",
            "norms.csv:1: column 5: has no name, nor has column 4; name them, or take them out",
        ),
        ("word,valence,arousal\nhappy,1,x\n", "norms.csv:2: arousal: expected a number, got 'x'"),
        ("word,valence,arousal\nhappy,1,\n", "norms.csv:2: arousal: expected a number, got ''"),
        ("word,valence,arousal\nhappy,1,nan\n", "norms.csv:2: arousal: expected a number"),
        ("word,valence,arousal\na,1,1\na,2,2\n", "norms.csv:3: word: 'a' rated twice"),
        ("word,valence,arousal\n", "norms.csv: rates no word"),
    ],
)
def test_broken_norms_are_named_by_line(tmp_path: Path, rows: str, expected: str) -> None:
    (tmp_path / "norms.csv").write_text(rows)
    lines = problems(tmp_path, GOOD.replace("[glasgow]", "[norms.csv]"))
    assert lines[0].startswith(expected)


def test_guessed_ratings_stay_out_unless_asked_for(tmp_path: Path) -> None:
    rows = ["word,valence,arousal,source"]
    rows += [f"{word},{i},{i},nrc_vad" for i, word in enumerate(["happy", "sad", "calm"])]
    (tmp_path / "own.csv").write_text("\n".join([*rows, "angry,9,9,estimate_from_mad"]) + "\n")
    for entry, rated in (("own.csv", 3), ("{source: own.csv, guesses: true}", 4)):
        (tmp_path / "m.yaml").write_text(GOOD.replace("[glasgow]", f"[{entry}]"))
        study = load_study(tmp_path / "m.yaml")
        ratings = study.norms[0].rate(study.writing["own"].emotions)
        assert np.isfinite(ratings).all(axis=1).sum() == rated


def test_norms_take_the_emotional_sense_of_a_word(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(GOOD.replace("[happy, sad, calm, angry]", "sofroniew-171"))
    study = load_study(tmp_path / "m.yaml")
    norms, emotions = study.norms[0], study.writing["own"].emotions
    assert len(emotions) == 171
    assert np.isfinite(norms.rate(emotions)).all(axis=1).sum() == 82
    assert norms.rate(["patient"])[0].tolist() == list(norms.ratings["patient (tolerant)"])
    assert norms.rate(["patient"])[0].tolist() != list(norms.ratings["patient"])


def test_topics_depend_on_seed_and_emotion_only() -> None:
    topics = [f"topic {i}" for i in range(100)]
    assert assign_topics(42, "happy", topics, 3) == assign_topics(42, "happy", topics, 3)
    assert assign_topics(42, "happy", topics, 3) != assign_topics(43, "happy", topics, 3)
    assert assign_topics(42, "happy", topics, 3) != assign_topics(42, "sad", topics, 3)
    assert set(assign_topics(42, "sad", topics, 3)) < set(assign_topics(42, "sad", topics, 5))


def test_every_field_says_what_it_means() -> None:
    def walk(model: type[Strict]) -> None:
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"

    for model in [Manifest, *Strict.__subclasses__()]:
        walk(model)


def test_names_on_paper_do_not_change_with_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "words.txt").write_text("happy\nsad\ncalm\n")
    (tmp_path / "a" / "m.yaml").write_text(GOOD.replace("[happy, sad, calm, angry]", "words.txt"))
    before = load_study(tmp_path / "a" / "m.yaml").writing["own"].emotions
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert load_study(tmp_path / "b" / "m.yaml").writing["own"].emotions == before


def test_a_model_may_have_a_reader_of_its_own(tmp_path: Path, tiny_model: Path) -> None:
    def stages(**entry: str) -> dict[str, str]:
        models = {"one": {"path": str(tiny_model), **entry}, "two": {"path": str(tiny_model)}}
        plan = Plan(load_study(write_manifest(tmp_path, tiny_model, models=models)))
        return {key: stage.fingerprint for key, stage in plan.stages.items() if "@" in key}

    plain, same, other = (
        stages(), stages(backend="transformer_lens"), stages(backend="vllm"),
    )  # fmt: skip
    assert same == plain
    changed = {key for key, value in other.items() if value != plain[key]}
    assert changed == {"extract:one@own", "analyze:one@own"}
    halved = {key for key, v in stages(reading_dtype="bfloat16").items() if v != plain[key]}
    assert halved == changed
    assert stages(reading_dtype="float32") == plain
    with pytest.raises(InputError, match=r"models\.one\.backend"):
        stages(backend="hands")


def test_bad_input_that_a_worker_finds_arrives_as_it_was() -> None:
    there = InputError([Problem(Path("m.yaml"), n, "key", "what") for n in range(3)])
    here = pickle.loads(pickle.dumps(there))
    assert (here.problems, str(here)) == (there.problems, str(there))
