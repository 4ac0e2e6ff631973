"""Whole runs of the real program on a tiny random model and an imported corpus."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml

from analysis.claims import CLAIMS
from engine.plan import CORPUS_TABLES, FIGURES, STYLE, TABLES
from store import Layout, open_analysis, open_cell
from tests.tiny import EMOTIONS, write_corpus_files, write_manifest

EMOVEC = [sys.executable, "-m", "engine.cli"]
ROOT = Path(__file__).parents[1]


def emovec(*arguments: str | Path, check: int | None = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*EMOVEC, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT, timeout=600
    )
    if check is not None:
        assert done.returncode == check, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def states(manifest: Path, root: Path) -> dict[str, str]:
    answer = json.loads(emovec("status", manifest, "--root", root, "--json").stdout)
    return {row["stage"]: row["state"] for row in answer["stages"]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, Path, str]:
    """A finished run: (manifest, root, what it printed)."""
    folder = tmp_path_factory.mktemp("study")
    manifest = write_manifest(folder, tiny_model)
    done = emovec("run", manifest, "--root", folder / "runs")
    return manifest, folder / "runs", done.stdout


def test_a_run_leaves_what_others_rely_on(finished: tuple[Path, Path, str]) -> None:
    _, root, printed = finished
    layout = Layout(root, "study")
    for table in (*CORPUS_TABLES, *TABLES):
        assert (layout.tables / f"{table}.csv").stat().st_size > 0
    pictures = sorted(layout.figures.glob("*.png"))
    assert len(pictures) == len(FIGURES)
    assert str(layout.page) in printed
    assert "tiny reads own" in layout.page.read_text()
    assert all(picture.name in printed for picture in pictures)
    resolved = yaml.safe_load(layout.manifest.read_text())
    assert resolved["extraction"]["dtype"] == "float32"
    assert set(resolved["resolved"]["fingerprints"]) >= {"import:own", "extract:tiny@own"}
    assert "torch" in resolved["resolved"]["versions"]
    assert "tiny@own" in printed
    corpora = pd.read_csv(layout.tables / "corpora.csv")
    (row,) = corpora.to_dict("records")
    assert (row["stories"], row["neutral"], row["source"]) == (24, 6, "import")
    flagged = pd.read_csv(layout.flagged("own"))
    assert row["flagged_cut_off"] == (flagged["check"] == "cut_off").sum() == 30
    assert row["flagged_duplicate"] == 0
    assert np.isnan(row["refused_leak"])
    cell = open_cell(layout.run, "tiny@own")
    assert row["tokens"] == int(cell["text_tokens"].sum())
    assert "cut_off 30" in printed
    geometry = pd.read_csv(layout.tables / "geometry.csv")
    assert len(geometry) == 3 * 2 * 4
    assert (geometry["n_emotions"] == len(EMOTIONS)).all()


def test_every_row_of_every_table_says_what_made_it(tiny_model: Path, tmp_path: Path) -> None:
    """Two models, two corpora of different emotions and two norms, so that no table is empty."""
    write_corpus_files(tmp_path)
    texts = {"stories": "stories.jsonl", "neutral": "neutral.txt"}
    one = tmp_path / "stories.jsonl"
    told = [json.loads(line) for line in one.read_text().splitlines()]
    again = [{**row, "topic": "a letter", "stories": row["stories"][:2]} for row in told]
    for number, row in enumerate(again):
        row["stories"] = [f"{story} {number}" for story in row["stories"]]
    one.write_text("".join(json.dumps(row) + "\n" for row in [*told, *again]))
    (tmp_path / "other.jsonl").write_text(one.read_text().replace('"bored"', '"afraid"'))
    rows = [f"{emotion},{n},{-n}" for n, emotion in enumerate(EMOTIONS)]
    (tmp_path / "mine.csv").write_text("\n".join(["word,valence,arousal", *rows]))
    manifest = write_manifest(
        tmp_path,
        tiny_model,
        models={name: {"path": str(tiny_model)} for name in ("tiny", "again")},
        corpora={
            "own": {"import": texts},
            "other": {"import": {**texts, "stories": "other.jsonl"}},
        },
        extraction={"max_tokens": 256, "windows": ["no-first"], "layers": [0, 1]},
        analysis={"norms": ["glasgow", "mine.csv"], "bootstraps": 100, "permutations": 100},
    )
    emovec("analyze", manifest, "--root", tmp_path / "runs")
    layout = Layout(tmp_path / "runs", "study")
    prints = yaml.safe_load(layout.manifest.read_text())["resolved"]["fingerprints"]
    made = {key: value[:16] for key, value in prints.items()}
    analyses = {made[key] for key in made if key.startswith("analyze:")}
    assert len(analyses) == 4
    for table in (*CORPUS_TABLES, *TABLES):
        rows = pd.read_csv(layout.tables / f"{table}.csv", dtype=str, keep_default_na=False)
        assert len(rows), table
        known = {made["describe:all"]} if table in CORPUS_TABLES else analyses
        assert set(rows["fingerprint"]) <= known, table
        if "fingerprint_b" in rows:
            assert set(rows["fingerprint_b"]) <= known | {""}, table
            paired = [c for c in ("corpus_b", "model_b", "other") if c in rows]
            named = (rows[paired] != "").any(axis=1)
            assert (named == (rows["fingerprint_b"] != "")).all(), table


def test_studies_that_run_together_share_the_load_of_a_model(
    tiny_model: Path, tmp_path: Path
) -> None:
    write_corpus_files(tmp_path)
    models = {"mine": {"path": str(tiny_model)}}
    one = write_manifest(tmp_path, tiny_model, name="one")
    one = one.rename(tmp_path / "one.yaml")
    two = write_manifest(tmp_path, tiny_model, name="two", models=models)
    root = tmp_path / "runs"
    done = emovec("extract", one, two, "--root", root)
    assert "done    one/extract:tiny@own" in done.stdout
    assert "done    two/extract:mine@own" in done.stdout
    logs = [file.read_text() for file in root.rglob("read-*.log")]
    assert sum(log.count("Loading weights: 100%") for log in logs) == 1
    again = emovec("extract", one, two, "--root", root)
    assert "nothing to do: all 6 stages are up to date" in again.stdout
    refused = emovec("extract", one, one, "--root", root, check=2)
    assert "'one' is also the name of" in refused.stderr


def test_random_weights_words_and_a_second_corpus_are_what_claims_are_held_to(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Four cells: enough to analyse in processes of their own."""
    write_corpus_files(tmp_path)
    write_corpus_files(tmp_path / "more", seed=2)
    texts = {"stories": "stories.jsonl", "neutral": "neutral.txt"}
    other = {key: f"more/{file}" for key, file in texts.items()}
    manifest = write_manifest(
        tmp_path,
        tiny_model,
        models={
            "tiny": {"path": str(tiny_model)},
            "tiny-random": {"path": str(tiny_model), "weights": "random"},
        },
        corpora={"own": {"import": {**texts, "writer": "tiny"}}, "other": {"import": other}},
        analysis={"norms": ["glasgow"], "bootstraps": 100, "permutations": 100},
    )
    printed = emovec("run", manifest, "--root", tmp_path / "runs").stdout
    peaks = printed.partition("peaks of PC1 with valence")[2]
    assert all(head in peaks for head in ("95 %", "ding", "weights", "bag of", "tiny@other"))
    tables = Layout(tmp_path / "runs", "study").tables
    geometry = pd.read_csv(tables / "geometry.csv").set_index(["model", "corpus"])
    keys = ["window", "contrast", "norms", "layer"]
    for corpus in ("own", "other"):
        trained, random = (
            geometry.loc[(model, corpus)].set_index(keys) for model in ("tiny", "tiny-random")
        )
        np.testing.assert_allclose(trained["valence_random_r"], random["valence_r"])
        assert random["valence_random_r"].isna().all()
        assert trained["valence_bag_of_words_r"].notna().all()
        np.testing.assert_array_equal(
            trained["valence_bag_of_words_r"], random["valence_bag_of_words_r"]
        )
    claims = pd.read_csv(tables / "claims.csv")
    assert set(claims["claim"]) == {claim.name for claim in CLAIMS}
    own = claims[claims["claim"] == "own-corpus-better"]
    assert set(own["model"]) == {"tiny"}
    held = claims[(claims["claim"] == "valence-beyond-random") & (claims["model"] == "tiny")]
    assert held["figure"].notna().all()
    page = (tables / "claims.md").read_text()
    assert "| tiny | own, other |" in page
    wrong = tmp_path / "wrong"
    shutil.copytree(tmp_path / "more", wrong / "more")
    shutil.copy(tmp_path / "stories.jsonl", wrong)
    shutil.copy(tmp_path / "neutral.txt", wrong)
    corpora = {"own": {"import": {**texts, "writer": "nobody"}}}
    refused = emovec("run", write_manifest(wrong, tiny_model, corpora=corpora), check=2)
    assert "corpora.own.import.writer: unknown model 'nobody'" in refused.stderr


def test_tables_equal_an_independent_computation_from_the_stored_arrays(
    finished: tuple[Path, Path, str],
) -> None:
    from scipy import stats

    from manifests import load_study

    manifest, root, _ = finished
    cell = open_cell(root / "study", "tiny@own").load()
    ratings = load_study(manifest).norms[0].rate(EMOTIONS)
    labels = cell["emotion"].to_numpy()
    table = pd.read_csv(root / "study" / "tables" / "geometry.csv")
    for row in table.to_dict("records"):
        x = cell["residual_mean"].sel(window=row["window"], layer=row["layer"]).to_numpy()
        x = x.astype(np.float64)
        u = np.stack([x[labels == e].mean(0) for e in EMOTIONS])
        if row["contrast"] == "neutral-pca":
            neutral = x[labels == ""] - x[labels == ""].mean(0)
            _, s, vt = np.linalg.svd(neutral)
            k = int(np.argmax(np.cumsum(s**2) / np.sum(s**2) >= 0.5)) + 1
            assert k == row["n_neutral_components"]
            u = u - u @ vt[:k].T @ vt[:k]
        left, singular, _ = np.linalg.svd(u - u.mean(0), full_matrices=False)
        for axis, column in (("valence", 0), ("arousal", 1)):
            want = stats.pearsonr(left[:, column] * singular[column], ratings[:, column])
            assert row[f"{axis}_r"] == pytest.approx(abs(want.statistic), abs=1e-6)
            assert row[f"{axis}_p"] == pytest.approx(want.pvalue, abs=1e-6)


def test_residuals_equal_plain_hugging_face(
    finished: tuple[Path, Path, str], tiny_model: Path
) -> None:
    from transformers import AutoTokenizer

    from store.corpus import read_corpus
    from tests.test_reading import LAYERS, hugging_face_means, relative_error

    _, root, _ = finished
    layout = Layout(root, "study")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    texts = read_corpus(layout.stories("own")).texts
    ids = [tokenizer(text.text)["input_ids"][:256] for text in texts]
    cell = open_cell(layout.run, "tiny@own").load()
    assert cell["text_id"].to_numpy().tolist() == [text.text_id for text in texts]
    assert cell["token_count"].sel(window="all").to_numpy().tolist() == [len(i) for i in ids]
    want = hugging_face_means(tiny_model, ids, LAYERS)
    got = cell["residual_mean"].to_numpy()
    assert relative_error(got, want) < 1e-5
    assert relative_error(got, want, leave_out=3) < 1e-5


def test_a_second_run_does_nothing_and_says_so(finished: tuple[Path, Path, str]) -> None:
    manifest, root, _ = finished
    before = {f: f.stat().st_mtime_ns for f in (root / "study").rglob("*") if f.is_file()}
    done = emovec("run", manifest, "--root", root)
    assert "nothing to do: all 8 stages are up to date" in done.stdout
    told = emovec("status", manifest, "--root", root).stdout
    assert "tiny reads own\n  PC1 follows valence most closely at layer" in told
    assert "are undecided" in told
    after = {f: f.stat().st_mtime_ns for f in (root / "study").rglob("*") if f.is_file()}
    assert after == before


@pytest.mark.parametrize(
    ("change", "redone"),
    [
        ({"analysis": {"norms": ["glasgow"], "contrasts": ["mean-centered"]}},
         {"words", "analyze", "tables", "figures", "page"}),
        ({"analysis": {"norms": ["glasgow"], "neutral_variance": 0.7}},
         {"words", "analyze", "tables", "figures", "page"}),
        ({"analysis": {"norms": ["glasgow"], "bootstraps": 100, "permutations": 200}},
         {"analyze", "tables", "figures", "page"}),
        ({"extraction": {"max_tokens": 100}}, {"extract", "analyze", "tables", "figures", "page"}),
        ({"extraction": {"max_tokens": 256, "windows": ["all"]}},
         {"extract", "analyze", "tables", "figures", "page"}),
        ({"models": {"tiny": {"path": "MODEL", "dtype": "float16"}}}, {"page"}),
        ({"report": {"stories_per_emotion": 0}}, {"page"}),
        ({"extraction": {"max_tokens": 256, "workers": 1}}, set()),
    ],
)  # fmt: skip
def test_a_changed_setting_redoes_what_depends_on_it_and_nothing_else(
    finished: tuple[Path, Path, str],
    tiny_model: Path,
    tmp_path: Path,
    change: dict[str, Any],
    redone: set[str],
) -> None:
    manifest, root, _ = finished
    shutil.copytree(root, tmp_path / "runs")
    for name in ("stories.jsonl", "neutral.txt"):
        shutil.copy(manifest.parent / name, tmp_path / name)
    change = json.loads(json.dumps(change).replace("MODEL", str(tiny_model)))
    changed = write_manifest(tmp_path, tiny_model, **change)
    found = states(changed, tmp_path / "runs")
    assert {key.split(":")[0] for key, state in found.items() if state != "done"} == redone


def test_another_look_draws_again_and_reads_nothing(
    finished: tuple[Path, Path, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from engine import plan
    from manifests import load_study

    manifest, root, _ = finished
    style = tmp_path / STYLE.name
    style.write_text(STYLE.read_text() + "lines.linewidth: 2\n")
    monkeypatch.setattr(plan, "STYLE", style)
    found = plan.Plan(load_study(manifest)).inspect(Layout(root, "study"))
    assert {s.stage.kind for s in found.values() if s.state is not plan.State.DONE} == {"figures"}


def test_several_runs_stand_side_by_side_on_one_page(
    finished: tuple[Path, Path, str], tiny_model: Path, tmp_path: Path
) -> None:
    manifest, root, _ = finished
    shutil.copytree(root, tmp_path / "runs")
    write_corpus_files(tmp_path, seed=3)
    other = write_manifest(tmp_path, tiny_model, name="other")
    refused = emovec("report", manifest, other, "--root", tmp_path / "runs", check=2)
    assert (
        "import:own is to do (and 4 more), and a report runs no model; `emovec run"
        in refused.stderr
    )
    assert len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "runs" / "other").exists()
    emovec("analyze", other, "--root", tmp_path / "runs")
    done = emovec("report", manifest, other, "--root", tmp_path / "runs")
    page = tmp_path / "runs" / "side-by-side" / "study+other.html"
    assert str(page) in done.stdout
    text = page.read_text()
    assert "study: tiny reads own" in text
    assert "other: tiny reads own" in text
    refused = emovec("report", manifest, manifest, "--root", tmp_path / "runs", check=2)
    assert "'study' is also the name of" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_another_text_in_the_corpus_is_read_again(
    finished: tuple[Path, Path, str], tiny_model: Path, tmp_path: Path
) -> None:
    manifest, root, _ = finished
    shutil.copytree(root, tmp_path / "runs")
    shutil.copy(manifest.parent / "neutral.txt", tmp_path / "neutral.txt")
    text = (manifest.parent / "stories.jsonl").read_text()
    (tmp_path / "stories.jsonl").write_text(text.replace("walked", "ran", 1))
    changed = write_manifest(tmp_path, tiny_model)
    assert set(states(changed, tmp_path / "runs").values()) == {"stale"}


@pytest.mark.parametrize(
    "lost", ["residuals shard", "table", "table to read", "figure", "analysis"]
)
def test_a_lost_output_is_made_again_and_is_the_same(
    finished: tuple[Path, Path, str], tmp_path: Path, lost: str
) -> None:
    manifest, root, _ = finished
    shutil.copytree(manifest.parent, tmp_path / "copy", dirs_exist_ok=True)
    manifest, root = tmp_path / "copy" / manifest.name, tmp_path / "copy" / "runs"
    layout = Layout(root, "study")
    target = {
        "residuals shard": layout.residuals("tiny@own") / "residual_mean/c/0/0/0/0",
        "table": layout.tables / "geometry.csv",
        "table to read": layout.tables / "geometry.md",
        "figure": layout.figures / "cka.pdf",
        "analysis": layout.analysis("tiny@own") / "zarr.json",
    }[lost]
    before = target.read_bytes()
    target.unlink()
    emovec("run", manifest, "--root", root)
    assert target.read_bytes() == before
    assert set(states(manifest, root).values()) == {"done"}


BAD = [
    (lambda m: m.update(nmae="x"), "study.yaml:"),
    (lambda m: m["models"].update(other={"path": "missing"}), "models.other.path"),
    (lambda m: m["corpora"]["own"]["import"].update(stories="no.jsonl"), "no such file"),
    (lambda m: m.update(cells=["tiny@none"]), "cells.0"),
    (lambda m: m["extraction"].update(layers=[7]), "has layers 0 to 2, not 7"),
    (lambda m: m["extraction"].update(max_tokens=2048), "'tiny' was made for 1024 tokens"),
]


@pytest.mark.parametrize(("spoil", "expected"), BAD)
def test_bad_input_is_one_line_exit_2_and_nothing_written(
    tiny_model: Path, tmp_path: Path, spoil: Any, expected: str
) -> None:
    manifest = write_manifest(tmp_path, tiny_model)
    data = yaml.safe_load(manifest.read_text())
    spoil(data)
    manifest.write_text(yaml.safe_dump(data, sort_keys=False))
    done = emovec("run", manifest, "--root", tmp_path / "runs", check=2)
    assert expected in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
    assert not (tmp_path / "runs").exists()


def test_a_broken_corpus_is_refused_before_anything_is_written(
    tiny_model: Path, tmp_path: Path
) -> None:
    write_corpus_files(tmp_path)
    with (tmp_path / "stories.jsonl").open("a") as stream:
        stream.write('{"emotion": "sad", "topic": "t", "stories": ["fine", "  "]}\n{oops\n')
    manifest = write_manifest(tmp_path, tiny_model)
    done = emovec("run", manifest, "--root", tmp_path / "runs", check=2)
    first, second = done.stderr.strip().splitlines()
    assert "stories.jsonl:7: stories.1: an empty story" in first
    assert "stories.jsonl:8: not valid JSON" in second
    assert not (tmp_path / "runs").exists()


def test_a_corpus_that_no_norms_rate_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    write_corpus_files(tmp_path)
    text = (tmp_path / "stories.jsonl").read_text()
    for emotion in EMOTIONS:
        text = text.replace(f'"{emotion}"', f'"xx{emotion}"')
    (tmp_path / "stories.jsonl").write_text(text)
    manifest = write_manifest(tmp_path, tiny_model)
    done = emovec("run", manifest, "--root", tmp_path / "runs", check=2)
    assert "glasgow rates 0 of the 6 emotions" in done.stderr


def test_unrated_emotions_are_counted_and_named(tiny_model: Path, tmp_path: Path) -> None:
    write_corpus_files(tmp_path)
    text = (tmp_path / "stories.jsonl").read_text().replace('"bored"', '"xyzzy"')
    (tmp_path / "stories.jsonl").write_text(text)
    manifest = write_manifest(tmp_path, tiny_model)
    done = emovec("analyze", manifest, "--root", tmp_path / "runs")
    assert "glasgow does not rate 1 emotions (xyzzy)" in done.stdout
    table = pd.read_csv(tmp_path / "runs/study/tables/geometry.csv")
    assert set(table["n_emotions"]) == {5}
    assert set(table["n_corpus_emotions"]) == {6}


def test_cut_texts_and_empty_windows_are_told(tiny_model: Path, tmp_path: Path) -> None:
    extraction = {"max_tokens": 40, "windows": ["all", {"name": "late", "start": 39}]}
    manifest = write_manifest(tmp_path, tiny_model, extraction=extraction)
    done = emovec("analyze", manifest, "--root", tmp_path / "runs")
    assert "30 texts cut at max_tokens" in done.stdout
    cell = open_cell(tmp_path / "runs/study", "tiny@own")
    assert (cell["token_count"].sel(window="late") == 1).all()
    assert open_analysis(tmp_path / "runs/study", "tiny@own").sizes["layer"] == 4


def many_shards(folder: Path, model: Path) -> Path:
    """A study of three shards, large enough to be interrupted in the middle."""
    write_corpus_files(folder, per_emotion=350, neutral=8)
    return write_manifest(folder, model)


@dataclass(frozen=True)
class Interrupted:
    """How an interrupted run ended, and the processes it had started that still live."""

    returncode: int
    error: str
    left: list[psutil.Process]


def interrupt(
    manifest: Path,
    root: Path,
    how: signal.Signals,
    when: Callable[[], bool],
    command: str = "run",
    *options: str,
) -> Interrupted:
    """Start a run, send it a signal as soon as `when` holds, and wait for its end."""
    process = subprocess.Popen(
        [*EMOVEC, command, str(manifest), "--root", str(root), *options],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 400
    while not when():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    started = psutil.Process(process.pid).children(recursive=True)
    assert started
    process.send_signal(how)
    _, error = process.communicate(timeout=60)
    _, left = psutil.wait_procs(started, timeout=10)
    return Interrupted(process.returncode, error, left)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The root of an undisturbed run over three shards."""
    folder = tmp_path_factory.mktemp("undisturbed")
    emovec("run", many_shards(folder, tiny_model), "--root", folder / "runs")
    return folder / "runs"


@pytest.mark.parametrize(
    "how",
    [  # all three, on one run's way: tests/test_kill_anywhere.py
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_goes_on_and_gives_the_same_bits(
    tiny_model: Path, tmp_path: Path, undisturbed: Path, how: signal.Signals
) -> None:
    manifest, root = many_shards(tmp_path, tiny_model), tmp_path / "runs"
    first = Layout(root, "study").residuals("tiny@own") / "residual_mean/c/0/0/0/0"
    end = interrupt(manifest, root, how, first.exists)
    if how is signal.SIGKILL:
        assert end.returncode == -signal.SIGKILL
    else:
        assert end.returncode == 130
        assert "the same command goes on from here" in end.error
        assert "Traceback" not in end.error
    assert not end.left
    assert states(manifest, root)["extract:tiny@own"] == "partial"
    written = first.stat().st_mtime_ns
    emovec("run", manifest, "--root", root)
    assert first.stat().st_mtime_ns == written
    for name in ("cells/tiny@own/residuals.zarr", "cells/tiny@own/analysis.zarr", "tables"):
        assert_same_bytes(root / "study" / name, undisturbed / "study" / name)
    assert_same_bytes(root / "study" / "figures", undisturbed / "study" / "figures")


def assert_same_bytes(one: Path, other: Path) -> None:
    files = sorted(f.relative_to(one) for f in one.rglob("*") if f.is_file())
    assert files
    assert files == sorted(f.relative_to(other) for f in other.rglob("*") if f.is_file())
    for file in files:
        assert (one / file).read_bytes() == (other / file).read_bytes(), file


def test_a_record_does_not_vouch_for_output_of_other_settings(
    finished: tuple[Path, Path, str], tiny_model: Path, tmp_path: Path
) -> None:
    manifest, root, _ = finished
    shutil.copytree(manifest.parent, tmp_path / "copy", dirs_exist_ok=True)
    manifest, root = tmp_path / "copy" / manifest.name, tmp_path / "copy" / "runs"
    record = Layout(root, "study").record("extract", "tiny@own")
    first, text = record.read_bytes(), manifest.read_text()
    manifest.write_text(text.replace("max_tokens: 256", "max_tokens: 100"))
    emovec("extract", manifest, "--root", root)
    assert states(manifest, root)["extract:tiny@own"] == "done"
    manifest.write_text(text)
    record.write_bytes(first)
    assert states(manifest, root)["extract:tiny@own"] == "stale"


def test_a_failed_stage_shows_its_log_takes_its_dependents_and_can_be_mended(
    tiny_model: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "model"
    shutil.copytree(tiny_model, broken)
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    manifest = write_manifest(tmp_path, broken)
    done = emovec("run", manifest, "--root", tmp_path / "runs", check=1)
    assert "FAILED  extract:tiny@own" in done.stdout
    assert "log: " in done.stdout
    assert "        | " in done.stdout
    assert "FAILED  tables:all: needs analyze:tiny@own" in done.stdout
    assert states(manifest, tmp_path / "runs")["import:own"] == "done"
    (broken / "model.safetensors").write_bytes(weights)
    emovec("run", manifest, "--root", tmp_path / "runs")
    assert set(states(manifest, tmp_path / "runs").values()) == {"done"}


def test_an_unforeseen_error_leaves_its_traceback_in_the_log(
    finished: tuple[Path, Path, str], tmp_path: Path
) -> None:
    shutil.copytree(finished[0].parent, tmp_path / "copy", dirs_exist_ok=True)
    layout = Layout(tmp_path / "copy" / "runs", "study")
    (layout.tables / "geometry.csv").unlink()
    shutil.rmtree(layout.analysis("tiny@own") / "r")
    done = emovec("run", tmp_path / "copy" / "study.yaml", "--root", layout.root, check=1)
    assert "FAILED  tables:all: " in done.stdout
    assert "errors.log" in done.stdout
    assert "Traceback" in (layout.logs / "errors.log").read_text()


def test_norms_that_rate_nothing_are_refused_for_a_sealed_corpus_too(
    finished: tuple[Path, Path, str], tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished[0].parent, tmp_path / "copy", dirs_exist_ok=True)
    rows = ["word,valence,arousal", *(f"word{i},{i},{i}" for i in range(9))]
    (tmp_path / "copy" / "none.csv").write_text("\n".join(rows))
    changed = write_manifest(tmp_path / "copy", tiny_model, analysis={"norms": ["none.csv"]})
    done = emovec("run", changed, "--root", tmp_path / "copy" / "runs", check=2)
    assert "none rates 0 of the 6 emotions" in done.stderr


def test_a_hub_model_is_read_from_the_cache_and_pinned_to_its_commit(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "hub" / "models--someone--tiny"
    shutil.copytree(tiny_model, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    manifest = write_manifest(tmp_path, tiny_model, models={"tiny": {"hf": "someone/tiny"}})
    emovec("extract", manifest, "--root", tmp_path / "runs")
    cell = open_cell(tmp_path / "runs" / "study", "tiny@own")
    assert cell.attrs["model"] == {"hf": "someone/tiny", "revision": commit}
    missing = write_manifest(tmp_path, tiny_model, models={"tiny": {"hf": "someone/else"}})
    done = emovec("run", missing, "--root", tmp_path / "other", check=1)
    assert "someone/else is not in the cache and the hub cannot be reached" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_two_runs_at_once_the_second_says_who_holds_it(tiny_model: Path, tmp_path: Path) -> None:
    manifest = many_shards(tmp_path, tiny_model)
    first = subprocess.Popen(
        [*EMOVEC, "run", str(manifest), "--root", str(tmp_path / "runs")],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    holder = tmp_path / "runs/study/.lock-holder.json"
    deadline = time.monotonic() + 60
    while not holder.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    second = emovec("run", manifest, "--root", tmp_path / "runs", check=1)
    assert f"is in use by process {first.pid}" in second.stderr
    first.send_signal(signal.SIGINT)
    assert first.wait(timeout=60) == 130  # the second has not disturbed it


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, engine.cli, store, analysis, manifests;"
        "heavy = {'torch', 'vllm', 'transformer_lens', 'matplotlib'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert "run" in emovec("--help").stdout
    assert "smollm2-135m" in emovec("models").stdout
    assert emovec("run", check=2).stderr.count("\n") == 1
