"""`emovec read`: its numbers against the stored vectors, its forms against each other, refusals."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
import yaml
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from analysis.contrasts import contrast, emotion_names, neutral_basis
from engine.cli import app
from engine.detection import texts as texts_module
from engine.detection.contexts import contexts
from engine.detection.output import DIGITS
from engine.detection.reading import read_texts
from engine.detection.spread import N_TEXTS, N_TOKENS
from engine.detection.terminal import printable
from engine.detection.texts import GivenText, GivenTexts
from engine.models import ModelUnavailable
from engine.reading.windows import Span
from manifests.errors import InputError
from store import open_analysis, open_cell
from store.corpus import Text, seal_corpus
from tests.test_reading import hugging_face_tokens
from tests.test_run import EMOVEC, ROOT, emovec
from tests.tiny import EMOTIONS, make_tiny_model, sentence, write_manifest

WINDOWS = ["all", "no-first", "after-50"]
NAME = "tiny@own"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """An analysed run's root: every emotion on two topics, texts of 60 to 90 words."""
    folder, rng = tmp_path_factory.mktemp("read"), random.Random(1)
    with (folder / "stories.jsonl").open("w") as stream:
        for emotion in EMOTIONS:
            for topic in ("a walk home", "bread"):
                stories = [sentence(rng, rng.randint(60, 90)) for _ in range(2)]
                row = {"emotion": emotion, "topic": topic, "stories": stories}
                stream.write(json.dumps(row) + "\n")
    lines = [sentence(rng, rng.randint(60, 90)) for _ in range(6)]
    (folder / "neutral.txt").write_text("\n".join(lines) + "\n")
    windows = [
        *WINDOWS,
        {"name": "by-rms", "start": 1, "normalize": "rms"},
        {"name": "early", "start": 2, "end": 12},
    ]
    extraction = {"max_tokens": 256, "windows": windows}
    manifest = write_manifest(folder, tiny_model, extraction=extraction)
    emovec("analyze", manifest, "--root", folder / "runs")
    return folder / "runs"


@pytest.fixture(scope="module")
def texts(run: Path) -> list[str]:
    """The stories and neutral texts as the cell has them, in its order."""
    table = pd.read_parquet(run / "study" / "corpora" / "own" / "stories.parquet")
    return [str(text) for text in table["text"]]


def read(root: Path, *arguments: str | Path) -> tuple[str, str]:
    """Run `emovec read` in this process and return what it prints, data and words apart."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        app(["read", *map(str, arguments), "--root", str(root)], standalone_mode=False)
    return out.getvalue(), err.getvalue()


def read_table(root: Path, *arguments: str | Path) -> pd.DataFrame:
    printed, _ = read(root, NAME, *arguments, "--csv")
    return pd.read_csv(io.StringIO(printed), keep_default_na=False, na_values="nan")


def unit_vectors(cell: xr.Dataset, window: str, layer: int) -> np.ndarray:
    """Unit vectors of a cell, freed of what its stories share."""
    x_ND = cell["residual_mean"].sel(window=window, layer=layer).to_numpy().astype(np.float64)
    labels = cell["emotion"].to_numpy()
    means = np.array([x_ND[labels == emotion].mean(axis=0) for emotion in emotion_names(cell)])
    vector_ED = contrast(cell, "both", window, [layer])[0].to_numpy()
    basis_KD, _ = neutral_basis(x_ND[labels == ""])
    shared_D = means.mean(axis=0) - x_ND[labels == ""].mean(axis=0)
    shared_D -= basis_KD.T @ (basis_KD @ shared_D)
    shared_D /= np.linalg.norm(shared_D)
    vector_ED -= np.outer(vector_ED @ shared_D, shared_D)
    return vector_ED / np.linalg.norm(vector_ED, axis=1, keepdims=True)


def expected_scores(root: Path, window: str, layer: int) -> np.ndarray:
    """Scores [text, emotion] of the stored story vectors, from their definition."""
    cell = open_cell(root / "study", NAME)
    x_ND = cell["residual_mean"].sel(window=window, layer=layer).to_numpy().astype(np.float64)
    labels = cell["emotion"].to_numpy()
    unit_ED = unit_vectors(cell, window, layer)
    zero_E = x_ND[labels == ""].mean(axis=0) @ unit_ED.T
    return (x_ND @ unit_ED.T - zero_E) / (x_ND[labels != ""] @ unit_ED.T).std(axis=0)


@pytest.mark.parametrize("window", [*WINDOWS, "by-rms", "early"])
def test_a_texts_scores_are_those_of_its_story_vector(
    run: Path, texts: list[str], tmp_path: Path, window: str
) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(texts))
    for layers in ("1", "0-2"):
        table = read_table(
            run, file, "--lines", "--per-text", "--window", window, "--layer", layers
        )
        for layer, rows in table.groupby("layer"):
            want = expected_scores(run, window, int(layer))
            np.testing.assert_allclose(rows[list(EMOTIONS)], want, atol=2e-3)
            np.testing.assert_allclose(rows[list(EMOTIONS)], want, rtol=1e-3, atol=1e-3)
    neutral = want[len(EMOTIONS) * 4 :]
    np.testing.assert_allclose(neutral.mean(axis=0), 0, atol=1e-9)


def test_tokens_are_where_they_say_and_average_to_their_text(
    run: Path, texts: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "story.txt"
    file.write_text(texts[0])
    tokens = read_table(run, file, "--layer", "1")
    whole = read_table(run, file, "--layer", "1", "--per-text")
    assert list(tokens["position"]) == list(range(len(tokens)))
    for row in tokens.to_dict("records"):
        assert texts[0][row["start"] : row["end"]] == row["token"]
    assert tokens.iloc[0][list(EMOTIONS)].isna().all()
    assert tokens.iloc[1:][list(EMOTIONS)].notna().all(axis=None)
    np.testing.assert_allclose(
        tokens[list(EMOTIONS)].mean(), whole[list(EMOTIONS)].iloc[0].astype(float), atol=2e-4
    )
    assert whole["scored"].iloc[0] == len(tokens) - 1
    early = read_table(run, file, "--layer", "1", "--window", "early")
    assert list(np.flatnonzero(early["sad"].notna())) == list(range(2, 12))


def test_tokens_equal_a_plain_pass_of_hugging_face(
    run: Path, texts: list[str], tiny_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = tmp_path / "story.txt"
    file.write_text(texts[3])
    table = read_table(run, file, "--layers", "2")
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    ids = AutoTokenizer.from_pretrained(tiny_model)(texts[3], return_tensors="pt").input_ids
    kept: list[Any] = []
    model.model.layers[2].register_forward_hook(lambda module, args, output: kept.append(output))
    with torch.no_grad():
        model(ids)
    residual = kept[0][0] if isinstance(kept[0], tuple) else kept[0]
    x_TD = residual.reshape(-1, residual.shape[-1]).double().numpy()
    cell = open_cell(run / "study", NAME)
    stored = cell["residual_mean"].sel(window="no-first", layer=2).to_numpy().astype(np.float64)
    labels = cell["emotion"].to_numpy()
    unit_ED = unit_vectors(cell, "no-first", 2)
    spread_E = (stored[labels != ""] @ unit_ED.T).std(axis=0)
    want = (x_TD - stored[labels == ""].mean(axis=0)) @ unit_ED.T / spread_E
    np.testing.assert_allclose(table[list(EMOTIONS)].iloc[1:], want[1:], atol=2e-3)


def test_the_token_sd_is_how_far_tokens_of_the_corpus_vary(
    run: Path, texts: list[str], tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("she walked home")
    n = len(texts)
    sample = [texts[at * (n - 1) // (N_TEXTS - 1)] for at in range(N_TEXTS)]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    cell = open_cell(run / "study", NAME)
    labels = cell["emotion"].to_numpy()
    for window, first, end in (("no-first", 1, 1 + N_TOKENS), ("early", 2, 12)):
        table = read_table(run, tmp_path / "a.txt", "--layer", "0,2", "--window", window)
        for layer in (0, 2):
            stored = cell["residual_mean"].sel(window=window, layer=layer).to_numpy()
            x_ND = stored.astype(np.float64)
            unit_ED = unit_vectors(cell, window, layer)
            spread_E = (x_ND[labels != ""] @ unit_ED.T).std(axis=0)
            ids = [tokenizer(text).input_ids for text in sample]
            tokens_XD = np.concatenate(
                [hugging_face_tokens(tiny_model, i, [layer])[0][first:end] for i in ids]
            )
            low_E, high_E = np.quantile(tokens_XD @ unit_ED.T / spread_E, (0.1587, 0.8413), axis=0)
            want = np.sqrt((((high_E - low_E) / 2) ** 2).mean())
            (found,) = set(table["token_sd"][table["layer"] == layer])
            assert found == pytest.approx(want, rel=2e-3)
    other = read_table(run, tmp_path / "a.txt", "--layer", "0", "--emotions", "happy")
    assert (
        other["token_sd"][0] != read_table(run, tmp_path / "a.txt", "--layer", "0")["token_sd"][0]
    )


def test_without_the_corpus_nothing_is_coloured_and_that_is_said(run: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(run / "study", root / "study")
    (tmp_path / "a.txt").write_text("she walked home and cried")
    stories = root / "study" / "corpora" / "own" / "stories.parquet"
    content = stories.read_bytes()
    other = [Text("a/000/0", "emotion", "a", None, 0, "She walked on.")]
    for spoil, why in (
        (stories.unlink, "is not there"),
        (lambda: stories.write_bytes(content[:99]), "cannot be read"),
        (lambda: seal_corpus(stories, other), "is another corpus than the cell was read from"),
    ):
        spoil()
        printed, said = read(root, NAME, tmp_path / "a.txt", "--csv")
        note = f"note: how far tokens vary is not known, so none is coloured: {stories} {why}"
        assert note in said
        assert pd.read_csv(io.StringIO(printed))["token_sd"].isna().all()
        document = json.loads(read(root, NAME, tmp_path / "a.txt", "--json")[0])
        assert list(document["token_sd"].values()) == [None]


def test_csv_json_and_parquet_say_the_same(run: Path, texts: list[str], tmp_path: Path) -> None:
    for number in (0, 1):
        (tmp_path / f"{number}.txt").write_text(texts[number])
    files = [tmp_path / "0.txt", tmp_path / "1.txt"]
    asked = (NAME, *files, "--layer", "0,2", "--emotions", "sad, happy")
    for ending in ("csv", "json", "parquet"):
        read(run, *asked, "--to", tmp_path / f"out.{ending}")
    table = pd.read_csv(tmp_path / "out.csv", keep_default_na=False, na_values="nan")
    stored = pd.read_parquet(tmp_path / "out.parquet")
    assert list(table) == list(stored)
    assert list(table)[-2:] == ["sad", "happy"]
    for column in table:
        if column in ("sad", "happy", "token_sd"):
            np.testing.assert_allclose(table[column], stored[column], atol=10.0**-DIGITS)
        else:
            assert list(table[column]) == list(stored[column])
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["emotions"] == ["sad", "happy"]
    assert document["layers"] == [0, 2]
    assert document["token_sd"] == dict(zip("02", table["token_sd"][:2], strict=True))
    assert [text["text"] for text in document["texts"]] == [str(file) for file in files]
    rows = iter(table.to_dict("records"))
    for text in document["texts"]:
        for token in text["tokens"]:
            for scores in token["scores"]:
                row = next(rows)
                assert (row["position"], row["token"]) == (token["position"], token["token"])
                for name, score in zip(("sad", "happy"), scores, strict=True):
                    assert (score is None and math.isnan(row[name])) or row[name] == score
        counted = [token["scores"] for token in text["tokens"] if token["scores"][0][0] is not None]
        assert text["scored"] == len(counted)
        np.testing.assert_allclose(text["mean"], np.mean(counted, axis=0), atol=2e-4)
    assert next(rows, None) is None
    for ending in ("csv", "json", "parquet"):
        read(run, *asked, "--per-text", "--to", tmp_path / f"means.{ending}")
    means = pd.read_csv(tmp_path / "means.csv")
    np.testing.assert_allclose(
        means[["sad", "happy"]],
        pd.read_parquet(tmp_path / "means.parquet")[["sad", "happy"]],
        atol=10.0**-DIGITS,
    )
    document = json.loads((tmp_path / "means.json").read_text())
    assert "tokens" not in document["texts"][0]
    np.testing.assert_allclose(
        means[["sad", "happy"]],
        np.concatenate([text["mean"] for text in document["texts"]]),
        atol=10.0**-DIGITS,
    )


@given(st.integers(1, 4000), st.integers(2, 300), st.integers(0, 120))
@settings(max_examples=300, deadline=None)
def test_contexts_score_every_token_once(n_tokens: int, room: int, at_least: int) -> None:
    if n_tokens > room and room - max(room // 4, at_least) < max(1, room // 4):
        with pytest.raises(ValueError, match="come before the first that is scored"):
            contexts(n_tokens, room, at_least)
        return
    scored: list[int] = []
    for context in contexts(n_tokens, room, at_least):
        assert 0 < context.n_tokens <= room
        assert context.n_known >= (at_least if context.first else 0)
        scored += range(context.first + context.n_known, context.first + context.n_tokens)
    assert scored == list(range(n_tokens))


def test_long_texts_are_read_in_contexts_each_token_in_the_first_that_holds_it(
    run: Path, texts: list[str], tmp_path: Path
) -> None:
    long = " ".join(texts[:20])
    (tmp_path / "long.txt").write_text(long)
    table = read_table(run, tmp_path / "long.txt", "--layer", "1")
    n, room = len(table), 256
    assert n > 4 * room
    assert list(table["position"]) == list(range(n))
    for row in table.to_dict("records"):
        assert long[row["start"] : row["end"]] == row["token"]
    assert table[list(EMOTIONS)].iloc[1:].notna().all(axis=None)
    second = contexts(n, room, 1)[1]
    begin, end = table["start"].iloc[second.first], table["end"].iloc[second.first + room - 1]
    (tmp_path / "second.txt").write_text(long[begin:end].lstrip())
    alone = read_table(run, tmp_path / "second.txt", "--layer", "1")
    assert len(alone) == room
    np.testing.assert_allclose(
        table[list(EMOTIONS)].iloc[second.first + second.n_known : second.first + room],
        alone[list(EMOTIONS)].iloc[second.n_known :],
        atol=2e-3,
    )


@pytest.mark.slow
def test_a_million_tokens_are_read_in_bounded_memory(run: Path, tmp_path: Path) -> None:
    rng = random.Random(2)
    (tmp_path / "long.txt").write_text("\n".join(sentence(rng, 100) for _ in range(10_000)))
    script = (
        "import resource, sys; from engine.cli import main\n"
        "try: main()\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    arguments = ["read", NAME, tmp_path / "long.txt", "--root", run, "--layer", "1"]
    started = time.monotonic()
    done = subprocess.run(
        [EMOVEC[0], "-c", script, *map(str, arguments), "--to", str(tmp_path / "out.parquet")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr
    seconds, kibibytes = time.monotonic() - started, int(done.stderr.splitlines()[-1])
    table = pd.read_parquet(tmp_path / "out.parquet")
    print(f"{len(table):,} tokens in {seconds:.0f} s and {kibibytes / 1e6:.2f} million KiB")
    assert len(table) > 1_000_000
    assert list(table["position"]) == list(range(len(table)))
    assert table[list(EMOTIONS)].iloc[1:].notna().all(axis=None)
    assert kibibytes < 3_000_000


def test_the_screen_says_what_leads_and_commands_no_terminal(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "odd.txt"
    file.write_text(
        "The rain \x1b[31mred \u202e walked home 🙂 café\r\nnobody spoke [bold]x[/bold]"
    )
    shown, said = read(run, NAME, file)
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "The rain \\x1b[31mred \\u202e walked home 🙂 café\nnobody spoke [bold]x" in shown
    most = next(line for line in shown.splitlines() if line.startswith("most"))
    means = read_table(run, file, "--per-text").iloc[0][list(EMOTIONS)].astype(float)
    highest = means.sort_values(ascending=False).index[0]
    assert most.split()[1] == highest
    best = open_analysis(run / "study", NAME)["detected_reciprocal_rank"].sel(window="no-first")
    layer = int(best.where(best["layer"] >= 0, drop=True).idxmax("layer"))
    assert f"layer {layer} (tells stories on other topics apart best)" in said
    assert "among the first 5 of 6" in said
    assert printable("a\tb\nc\x07") == "a\tb\nc\\x07"


def test_standard_input_and_lines(run: Path, tmp_path: Path) -> None:
    given = subprocess.run(
        [*EMOVEC, "read", NAME, "-", "--lines", "--per-text", "--csv", "--root", str(run)],
        input="she walked home\n\n  \nthe old street was cold\n",
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert given.returncode == 0, given.stderr
    rows = list(csv.DictReader(io.StringIO(given.stdout)))
    assert [row["text"] for row in rows] == ["-:1", "-:4"]


LINE = st.text(st.sampled_from("ab é\r\t\u2028\x85\ufeff🙂"), max_size=6)


@given(st.booleans(), st.lists(LINE), st.sampled_from(("\n", "\r\n")), st.booleans())
@settings(max_examples=200, deadline=None)
def test_lines_are_those_of_the_whole_file(
    marked: bool, lines: list[str], end: str, closed: bool
) -> None:
    content = ("\ufeff" * marked + end.join(lines) + end * closed).encode()
    text = content.decode("utf-8-sig").replace("\r\n", "\n")
    want = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "t.txt"
        file.write_bytes(content)
        if not want:
            with pytest.raises(InputError, match=r"t\.txt: is empty"):
                GivenTexts([file], by_line=True)
            return
        given = list(GivenTexts([file], by_line=True))
    assert [(text.name, text.text) for text in given] == [(f"{file}:{n}", t) for n, t in want]


def test_a_line_may_be_as_long_as_a_text_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts_module, "MAX_TEXT", 8)
    monkeypatch.setattr(texts_module, "MAX_BYTES", 40)
    monkeypatch.setattr("sys.stdin", None)

    def lines(content: bytes) -> list[str]:
        found = []
        for file in (tmp_path / "t.txt", Path("-")):
            (tmp_path / "t.txt").write_bytes(content)
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
            try:
                found.append([t.text for t in GivenTexts([file], by_line=True)])
            except InputError as error:
                found.append([str(error).partition(str(file))[2]])
        assert found[0] == found[1]
        return found[0]

    assert lines(b"12345678\n1\r\n12345678\r\n12345678") == ["12345678", "1", *["12345678"] * 2]
    for end in (b"", b"\n", b"\r\n", b"90" * 90):
        assert lines(b"1\n\n123456789" + end) == [":3: a line of over 0 MB; split it"]
    assert lines(b"1234\n" * 8) == ["1234"] * 8
    assert lines(b"1234\n" * 8 + b"\n") == [": is larger than 0 MB; split it"]
    assert lines(b"\xef\xbb\xbf1\n2\xe9\n") == [":2: is not UTF-8 text: byte 0xe9 at 6"]
    assert lines(b"\xef\xbb\xbf1\xe9\n") == [":1: is not UTF-8 text: byte 0xe9 at 4"]
    assert lines(b"1\n\n2\0\n") == [":3: is binary: a NUL byte"]


def test_a_text_without_a_token_in_the_window_has_no_scores_and_says_so(
    run: Path, tmp_path: Path
) -> None:
    (tmp_path / "short.txt").write_text("rain")
    shown, _ = read(run, NAME, tmp_path / "short.txt", "--window", "after-50")
    assert "no token lies in the window after-50" in shown
    table = read_table(run, tmp_path / "short.txt", "--per-text", "--window", "after-50")
    assert table["scored"].iloc[0] == 0
    assert table[list(EMOTIONS)].isna().all(axis=None)


def test_a_model_that_moved_is_found_and_another_one_is_refused(
    run: Path, tiny_model: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(tiny_model, moved)
    (tmp_path / "a.txt").write_text("she walked home")
    asked = (NAME, tmp_path / "a.txt", "--csv")
    here, _ = read(run, *asked)
    assert read(run, *asked, "--model", moved)[0] == here
    other = make_tiny_model(tmp_path / "other", seed=5)
    with pytest.raises(InputError, match="does not hold the model that the cell was read with"):
        read(run, *asked, "--model", other)


def test_a_cell_in_two_runs_asks_which(run: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    for name in ("one", "two"):
        shutil.copytree(run / "study", root / name)
    (tmp_path / "a.txt").write_text("she walked home")
    with pytest.raises(InputError, match="say which: --run one or --run two"):
        read(root, NAME, tmp_path / "a.txt")
    assert read(root, NAME, tmp_path / "a.txt", "--run", "two", "--csv")[0]


def test_bad_input_is_one_line_and_writes_nothing(run: Path, tmp_path: Path) -> None:
    good = tmp_path / "good.txt"
    good.write_text("she walked home")
    (tmp_path / "good.csv").symlink_to(good)
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "binary.txt").write_bytes(b"rain\nr\0in")
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    missing, out = tmp_path / "missing.txt", tmp_path / "out.csv"
    cases: list[tuple[tuple[str | Path, ...], str]] = [
        (("tiny@other", good), "no run under"),
        ((NAME, missing), "is not there"),
        ((NAME, tmp_path), "is no file"),
        (("../runs", good), "is no cell; write MODEL@CORPUS"),
        ((NAME, good, "--to", tmp_path / "good.csv"), "is what is to be read"),
        ((NAME, good, "--to", tmp_path / "folder.csv"), "is a folder"),
        ((NAME, tmp_path / "empty.txt"), "is empty"),
        ((NAME, tmp_path / "binary.txt"), "binary.txt:2: is binary: a NUL byte"),
        ((NAME, tmp_path / "latin.txt"), "is not UTF-8 text: byte 0xe9 at 3"),
        ((NAME, good, good), "is given twice"),
        ((NAME, good, "--layer", "7"), "has no block 7; it has 0, 1, 2"),
        ((NAME, good, "--layer", "-1"), "names no block"),
        ((NAME, good, "--layer", "soon"), "names no block"),
        ((NAME, good, "--emotions", "sad,glum"), "'glum' is none of its emotions"),
        ((NAME, good, "--emotions", ","), "--emotions: names none"),
        ((NAME, good, "--window", "late"), "no window 'late'"),
        ((NAME, good, "--layers", "0-2"), "the screen shows one"),
        ((NAME, good, "--per-text"), "needs --csv, --json or --to"),
        ((NAME, good, "--csv", "--json"), "one too many"),
        ((NAME, good, "--to", tmp_path / "out.txt"), "ends in none of"),
        ((NAME, good, "--to", tmp_path / "nowhere" / "out.csv"), "there is no folder"),
        ((NAME, good, "--run", "other"), "was never extracted"),
        ((NAME, good, "--model", tmp_path), "no config.json"),
    ]
    before = sorted(tmp_path.iterdir())
    for arguments, what in cases:
        with pytest.raises(InputError) as refused:
            read(run, *arguments)
        assert what in str(refused.value), arguments
        assert len(str(refused.value).splitlines()) == 1
    refused = emovec("read", NAME, missing, "--root", run, check=2)
    assert refused.stderr == f"{missing}: is not there\n"
    assert refused.stdout == ""
    assert sorted(tmp_path.iterdir()) == before
    assert not out.exists()


def test_a_cell_that_is_not_complete_is_refused(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "study", tmp_path / "runs" / "study")
    residuals = tmp_path / "runs" / "study" / "cells" / NAME / "residuals.zarr"
    shutil.rmtree(residuals / "residual_mean" / "c")
    (tmp_path / "a.txt").write_text("she walked home")
    with pytest.raises(InputError, match="is not extracted completely"):
        read(tmp_path / "runs", NAME, tmp_path / "a.txt")


def test_without_an_analysis_two_thirds_of_depth_are_taken(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "study", tmp_path / "runs" / "study")
    shutil.rmtree(tmp_path / "runs" / "study" / "cells" / NAME / "analysis.zarr")
    (tmp_path / "a.txt").write_text("she walked home")
    _, said = read(tmp_path / "runs", NAME, tmp_path / "a.txt")
    assert "layer 2 (nearest to two thirds of depth" in said


def test_the_store_says_where_its_model_comes_from(run: Path, tiny_model: Path) -> None:
    source = open_cell(run / "study", NAME).attrs["source"]
    assert source["path"] == str(tiny_model)
    assert source["trust_remote_code"] is False
    manifest = yaml.safe_load((run / "study" / "manifest.yaml").read_text())
    assert list(manifest["models"]) == [source["name"]]


def with_attributes(run: Path, root: Path, **changes: Any) -> Path:
    """Copy a run and change the attributes of its cell; None takes one away."""
    shutil.copytree(run / "study", root / "study")
    file = root / "study" / "cells" / NAME / "residuals.zarr" / "zarr.json"
    content = json.loads(file.read_text())
    content["attributes"] = {
        key: value
        for key, value in {**content["attributes"], **changes}.items()
        if value is not None
    }
    file.write_text(json.dumps(content))
    return root


@pytest.fixture
def sentence_file(tmp_path: Path) -> Path:
    file = tmp_path / "a.txt"
    file.write_text("she walked home")
    return file


def test_a_cell_from_elsewhere_runs_no_code_unasked(
    run: Path, tmp_path: Path, sentence_file: Path
) -> None:
    source = {**open_cell(run / "study", NAME).attrs["source"], "trust_remote_code": True}
    root = with_attributes(run, tmp_path / "runs", source=source)
    with pytest.raises(InputError, match="allow that with --trust-remote-code"):
        read(root, NAME, sentence_file)
    _, said = read(root, NAME, sentence_file, "--trust-remote-code")
    assert "REMOTE CODE: trust_remote_code is on for model 'tiny'" in said


def test_a_cell_that_does_not_say_where_its_model_is_takes_it_from_the_command(
    run: Path, tiny_model: Path, tmp_path: Path, sentence_file: Path
) -> None:
    root = with_attributes(run, tmp_path / "runs", source=None)
    with pytest.raises(InputError, match="does not say where its model is; say it with --model"):
        read(root, NAME, sentence_file)
    asked = (NAME, sentence_file, "--model", tiny_model, "--csv")
    assert read(root, *asked)[0] == read(run, NAME, sentence_file, "--csv")[0]


def test_another_model_is_never_read_as_the_cells(
    run: Path, tiny_model: Path, tmp_path: Path, sentence_file: Path
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(tiny_model, changed)
    source = open_cell(run / "study", NAME).attrs["source"]
    root = with_attributes(run, tmp_path / "one", source={**source, "path": str(changed)})
    read(root, NAME, sentence_file, "--csv")
    make_tiny_model(changed, seed=7)  # tuned further where it lies
    with pytest.raises(InputError, match="does not hold the model that the cell was read with"):
        read(root, NAME, sentence_file, "--csv")
    hub = {**source, "path": None, "hf": "house/tiny", "revision": "main"}
    root = with_attributes(run, tmp_path / "two", source=hub, model={"hf": "house/tiny"})
    wide = make_tiny_model(tmp_path / "wide", layers=5)
    with pytest.raises(InputError, match="has 5 blocks of 128 dimensions"):
        read(root, NAME, sentence_file, "--model", wide)
    _, said = read(root, NAME, sentence_file, "--model", tiny_model)
    assert "that it is the model itself cannot be told" in said
    packaged = {**hub, "hf": None, "builtin": "nothing-of-ours"}
    root = with_attributes(run, tmp_path / "three", source=packaged)
    with pytest.raises(InputError, match="does not say where its model is"):
        read(root, NAME, sentence_file)


def test_pickled_weights_and_broken_ones_are_one_line(
    run: Path, tiny_model: Path, tmp_path: Path, sentence_file: Path
) -> None:
    root = with_attributes(run, tmp_path / "runs", source=None, model={"hf": "house/tiny"})
    pickled, broken = tmp_path / "pickled", tmp_path / "broken"
    for folder in (pickled, broken):
        shutil.copytree(tiny_model, folder)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    (broken / "model.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(ModelUnavailable, match="other formats are not read"):
        read(root, NAME, sentence_file, "--model", pickled)
    with pytest.raises(ModelUnavailable, match="cannot be loaded") as error:
        read(root, NAME, sentence_file, "--model", broken)
    assert len(str(error.value).splitlines()) == 1


def test_an_analysis_of_other_vectors_is_not_believed(
    run: Path, tmp_path: Path, sentence_file: Path
) -> None:
    made = {**open_cell(run / "study", NAME).attrs["made_from"], "fingerprint": "0" * 64}
    root = with_attributes(run, tmp_path / "runs", made_from=made)
    _, said = read(root, NAME, sentence_file)
    assert "not known which tells stories apart best" in said


def test_names_are_shown_and_not_obeyed(run: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(run / "study", root / "study")
    group = zarr.open_group(root / "study" / "cells" / NAME / "residuals.zarr", mode="r+")
    labels = [str(label) for label in group["emotion"][:]]
    renamed = ["[/sad]\x1b[31m\u202e" if label == "sad" else label for label in labels]
    group["emotion"][:] = np.array(renamed, dtype=object)
    (tmp_path / "out[draft]").mkdir()
    file = tmp_path / "out[draft]" / "a.txt"
    file.write_text("she\u00a0walked\u3000home")
    shown, _ = read(root, NAME, file)
    assert "[/sad]\\x1b[31m\\u202e" in shown
    assert "\x1b" not in shown
    assert "she\u00a0walked\u3000home" in shown  # spaces of other scripts are no secret
    assert str(file) in shown
    _, said = read(root, NAME, file, "--to", tmp_path / "out[draft]" / "o.csv")
    assert f"{tmp_path}/out[draft]/o.csv" in said


def test_odd_file_names_and_odd_line_ends(run: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9.txt")
    odd.write_text("she walked\x0chome\u2028slowly\nthe rain")
    table = read_table(run, odd, "--lines", "--per-text")
    assert list(table["text"]) == [f"{tmp_path}/caf\\xe9.txt:{n}" for n in (1, 2)]


def test_what_lies_between_tokens_is_shown(run: Path, tmp_path: Path) -> None:
    """Some tokenizers leave spaces out of their tokens' places."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"she": 0, "walked": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?")
    text = " she  walked\n  far, she walked "

    def score(sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        return [np.zeros((len(ids), 1, 2), dtype=np.float32) for ids in sequences]

    for room in (3, 100):
        given = [GivenText("a", text)]
        pieces = list(read_texts(given, tokenizer, score, Span(0, None), room, 8, 2))
        assert "".join(part for piece in pieces for part in piece.shown) == text
        assert [t for piece in pieces for t in piece.token] == text.replace(",", " ,").split()
