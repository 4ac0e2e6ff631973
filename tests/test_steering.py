"""Steering from a manifest to its tables: every number against a computation of its own."""

from __future__ import annotations

import base64
import dataclasses
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from numpy.testing import assert_allclose
from safetensors.numpy import load_file
from scipy.stats import linregress, ttest_1samp

from analysis.contrasts import contrast
from analysis.effects import (
    MEASURES,
    UNSTEERED,
    effects,
    measured,
    transfers,
    trends,
    written_texts,
)
from analysis.report.content import RunContent, SteeringContent
from analysis.report.steering import shown_steering
from analysis.steering import (
    NoDirection,
    random_directions,
    steering_directions,
    token_norms,
)
from engine.steering import conditions
from engine.steering.conditions import Condition, written_conditions
from manifests.errors import InputError
from manifests.norms import Norms
from manifests.resolve import load_study
from manifests.schema import Steering
from store import Layout, open_cell
from store.journal import read_journal
from tests.test_run import EMOVEC, ROOT, emovec
from tests.tiny import EMOTIONS, make_tiny_model, write_manifest

SPEC: dict[str, Any] = {
    "directions": ["happy", "sad"],
    "layers": [1, 2],
    "strengths": [0.5, 2.0],
    "random": 1,
    "max_new_tokens": 10,
    "temperature": 0,
    "transfer": {"direction": "happy", "strength": 1.0},
}
CELL = "tiny@own"


def manifest_of(folder: Path, model: Path, **changes: Any) -> Path:
    models = {"tiny": {"path": str(model), "dtype": "float32"}}
    return write_manifest(folder, model, models=models, steering={**SPEC, **changes})


@pytest.fixture(scope="module")
def steered(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A run that was killed while it steered, and went on; vLLM writes, greedily."""
    folder = tmp_path_factory.mktemp("steered")
    manifest = manifest_of(folder, tiny_model)
    layout = Layout(folder / "runs", "study")
    process = subprocess.Popen(
        [*EMOVEC, "steer", str(manifest), "--root", str(folder / "runs")],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    journal, until = layout.steering(CELL), time.monotonic() + 300
    while time.monotonic() < until and process.poll() is None:
        if journal.is_file() and sum(1 for _ in read_journal(journal)) > 40:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = list(read_journal(journal))
    assert len(before) > 40
    emovec("steer", manifest, "--root", folder / "runs")
    assert list(read_journal(journal))[: len(before)] == before
    assert "nothing to do" in emovec("steer", manifest, "--root", folder / "runs").stdout
    return folder


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    found = Layout(folder / "runs", "study").tables
    names = ("steering", "steering_trends", "steered_texts", "transfer")
    return {
        n: pd.read_csv(found / f"{n}.csv", keep_default_na=False, na_values="nan") for n in names
    }


def test_every_condition_is_there_once(steered: Path) -> None:
    spec = Steering.model_validate_json(json.dumps(SPEC))
    wanted = written_conditions(spec, [1, 2])
    assert len(wanted) == 1 + 3 * 2 * 4 + 2 * 2 * 2
    found = tables(steered)
    texts = found["steered_texts"]
    assert len(texts) == 16 * len(wanted)
    assert not texts.duplicated(["direction", "source_layer", "layer", "strength", "prompt"]).any()
    assert set(found["steering"]["measure"]) == set(MEASURES)
    measures = found["steering"].groupby("measure").size()
    assert (measures == len(wanted)).all()
    whole = found["transfer"][found["transfer"]["strength"] == 1.0]
    assert len(whole[whole["measure"] == "log_odds"]) == 9
    figures = Layout(steered / "runs", "study").figures
    assert {f.name for f in figures.iterdir()} == {
        f"{name}.{kind}" for name in ("dose_response", "transfer") for kind in ("png", "pdf")
    }


def test_the_reference_writes_the_same_texts(steered: Path, tiny_model: Path) -> None:
    fast = tables(steered)
    manifest = manifest_of(steered, tiny_model, backend="transformer_lens")
    done = emovec("steer", manifest, "--root", steered / "runs")
    assert "what was measured under other settings is replaced" in done.stdout
    slow = tables(steered)
    assert (fast["steered_texts"]["text"] == slow["steered_texts"]["text"]).all()
    assert len(set(fast["steered_texts"]["text"])) > 50
    measures = ["mean", "low", "high", "change"]
    assert_allclose(fast["steering"][measures], slow["steering"][measures], atol=1e-4)


def test_what_is_added_follows_from_the_cell(steered: Path) -> None:
    layout = Layout(steered / "runs", "study")
    cell = open_cell(layout.run, CELL).load()
    found = load_file(layout.steering_directions(CELL))
    assert found["layer"].tolist() == [0, 1, 2]
    vectors = contrast(cell, "both", "no-first")
    for emotion in ("happy", "sad"):
        want = vectors.sel(emotion=emotion, layer=[0, 1, 2]).to_numpy()
        want /= np.linalg.norm(want, axis=1, keepdims=True)
        assert_allclose(found[f"direction.{emotion}"], want, atol=1e-6)
    lengths = np.linalg.norm(found["direction.random-0"], axis=1)
    assert_allclose(lengths, 1, rtol=1e-6)


def test_lengths_are_of_tokens_without_the_first(steered: Path, tiny_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from store.corpus import read_corpus

    layout = Layout(steered / "runs", "study")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    kept: list[torch.Tensor] = []
    model.model.layers[1].register_forward_hook(
        lambda m, i, o: kept.append(o[0] if isinstance(o, tuple) else o)
    )
    for text in read_corpus(layout.stories("own")).texts:
        with torch.no_grad():
            model(torch.tensor([tokenizer(text.text)["input_ids"][:256]]))
    norms = torch.cat([stream.reshape(-1, 128)[1:].norm(dim=1) for stream in kept])
    found = token_norms(open_cell(layout.run, CELL).load(), [1])
    assert_allclose(found, [float(norms.double().mean())], rtol=1e-5)


def made_cell() -> tuple[xr.Dataset, np.ndarray]:
    """Twelve emotions whose vectors follow their ratings along two axes of twenty."""
    rng = np.random.default_rng(5)
    ratings = rng.normal(size=(12, 2))
    emotions = [f"e{k}" for k in range(12) for _ in range(3)] + [""] * 6
    x = rng.normal(scale=0.1, size=(42, 1, 2, 20))
    for text, emotion in enumerate(emotions):
        if emotion:
            x[text, :, :, :2] += ratings[int(emotion[1:])] * [4, 2]
    coordinates = {"emotion": ("text", emotions), "window": ["all"], "layer": [0, 1]}
    found = {"residual_mean": (("text", "window", "layer", "d_model"), x)}
    return xr.Dataset(found, coords=coordinates), ratings


def test_directions_of_ratings_are_those_of_the_analysis() -> None:
    cell, ratings = made_cell()
    found = steering_directions(cell, ["valence", "arousal"], ratings, [0, 1], window="all")
    for layer in (0, 1):
        x_ED = contrast(cell, "both", "all", [layer])[0].to_numpy()
        x_ED = x_ED - x_ED.mean(axis=0)
        _, _, v_KD = np.linalg.svd(x_ED, full_matrices=False)
        for axis, name in enumerate(("valence", "arousal")):
            along = found[name][layer] @ v_KD[axis]
            assert abs(along) == pytest.approx(1, abs=1e-5)
            assert np.corrcoef(x_ED @ found[name][layer], ratings[:, axis])[0, 1] > 0


@pytest.mark.parametrize(
    ("names", "message"),
    [(["merry"], "no emotion 'merry'"), (["valence"], "needs 10 rated emotions, 6 are rated")],
)
def test_a_direction_that_cannot_be_had_is_named(
    names: list[str], message: str, steered: Path
) -> None:
    cell = open_cell(Layout(steered / "runs", "study").run, CELL)
    with pytest.raises(NoDirection, match=message):
        steering_directions(cell, names, np.ones((len(EMOTIONS), 2)), [1])


def test_random_directions_are_fixed_by_their_seed_and_unrelated() -> None:
    drawn = random_directions(5, 4, 400, seed=1)
    assert (drawn == random_directions(5, 4, 400, seed=1)).all()
    assert (drawn != random_directions(5, 4, 400, seed=2)).any()
    rows = drawn.reshape(20, 400)
    assert np.abs(rows @ rows.T - np.eye(20)).max() < 0.25


def rows_of(rng: np.random.Generator, slope: float) -> list[dict[str, Any]]:
    """A journal in which `glad` moves everything in proportion to its strength."""
    rows: list[dict[str, Any]] = []
    base = rng.normal(size=8)
    for strength in (-0.2, -0.1, 0.0, 0.1, 0.2):
        given = Condition("glad", 3, 3, strength) if strength else conditions.UNSTEERED
        noise = rng.normal(scale=0.01, size=8)
        rows.append(
            {
                "row": "scored",
                "key": given.key,
                "condition": given.json(),
                "log_odds": (base + slope * strength + noise).tolist(),
                "preference": None,
            }
        )
        for prompt in range(4):
            for sample in range(2):
                words = ["good"] * (2 + round(10 * strength)) + ["bad"] * 2 + ["zzz"] * prompt
                text = {"row": "written", "text": f"{given.key}|{prompt}|{sample}"}
                about = {"condition": given.json(), "prompt": f"p{prompt}", "sample": sample}
                reply = {"reply": " ".join(words), "finish_reason": "length"}
                rows.append({**text, **about, **reply})
                rows.append({"row": "judged", "text": text["text"], "nll": 2 + strength})
    return rows


NORMS = Norms("made", Path("made.csv"), {"good": (8.0, 5.0), "bad": (2.0, 6.0)}, 0)


def test_effects_and_trends_are_what_plain_arithmetic_gives() -> None:
    rows = rows_of(np.random.default_rng(0), slope=5.0)
    texts = written_texts(rows, NORMS)
    assert len(texts) == 40
    plain = texts[(texts["direction"] == "") & (texts["prompt"] == "p1")].iloc[0]
    assert (plain["valence"], plain["rated_words"], plain["words"]) == (5.0, 4, 5)
    values = measured(rows, texts)
    table = effects(values).set_index(["direction", "strength", "measure"])
    scored = {row["condition"]["strength"]: row["log_odds"] for row in rows if "log_odds" in row}
    for strength in (-0.2, 0.1):
        row = table.loc["glad", strength, "log_odds"]
        change = np.array(scored[strength]) - np.array(scored[0.0])
        assert row["n"] == 8
        assert row["mean"] == pytest.approx(np.mean(scored[strength]))
        assert row["change"] == pytest.approx(change.mean())
        assert row["change_low"] < change.mean() < row["change_high"]
        assert row["change_high"] - row["change_low"] < 0.05 < row["high"] - row["low"]
    assert table.loc["glad", 0.2, "nll"]["change"] == pytest.approx(0.2)
    found = trends(values).set_index("measure")
    strengths = sorted(scored)
    want = [linregress(strengths, [scored[s][k] for s in strengths]).slope for k in range(8)]
    assert found.loc["log_odds", "slope"] == pytest.approx(np.mean(want))
    interval = ttest_1samp(want, 0).confidence_interval(0.95)
    assert_allclose(found.loc["log_odds", ["low", "high"]].astype(float), interval)
    assert found.loc["log_odds", "rho"] == pytest.approx(1)
    assert found.loc["log_odds", "page_p"] < 1e-4
    assert np.isnan(found.loc["log_odds", "beyond_random"])
    assert np.isnan(found.loc["words", "page_p"]) == (texts["words"].nunique() == 1)


def test_a_direction_that_does_nothing_shows_no_trend() -> None:
    p, covered = [], []
    for seed in range(60):
        rows = rows_of(np.random.default_rng(seed), slope=0.0)
        found = trends(measured(rows, written_texts(rows, NORMS))).set_index("measure")
        p.append(found.loc["log_odds", "page_p"])
        covered.append(found.loc["log_odds", "low"] < 0 < found.loc["log_odds", "high"])
    assert np.mean(np.array(p) < 0.05) <= 0.12
    assert np.mean(covered) >= 0.88


def test_missing_words_are_nan_and_leave_a_prompt_out() -> None:
    rows = rows_of(np.random.default_rng(0), slope=1.0)
    for row in rows:
        if row["row"] == "written" and row["prompt"] == "p2":
            row["reply"] = "zzz zzz"
    table = effects(measured(rows, written_texts(rows, NORMS)))
    assert (table[table["measure"] == "valence"]["n"] == 3).all()
    assert (table[table["measure"] == "nll"]["n"] == 4).all()


def test_the_page_counts_what_moves_beyond_chance() -> None:
    rows = [
        {"direction": direction, "layer": 3, "measure": "log_odds", "slope": slope,
         "low": slope - 0.1, "high": slope + 0.1, "page_p": p, "beyond_random": beyond}
        for direction, slope, p, beyond in (
            ("<b>glad</b>", 2.0, 1e-4, 3.0),
            ("calm", 0.5, 0.01, 0.7),
            ("sad", -0.05, 0.01, 2.0),
            ("dull", 1.0, 0.2, 2.0),
            ("random-0", 0.6, 1e-3, np.nan),
        )
    ]  # fmt: skip
    trends_of = pd.DataFrame(rows).assign(model="m", corpus="c")
    pictures = {"dose_response": b"png", "transfer": b"png"}
    content = RunContent("r", {}, {}, [], {}, {}, (), [], SteeringContent(trends_of, pictures))
    found = shown_steering(content)
    assert found is not None
    assert found["cells"][0]["said"].startswith(
        "Of 4 directions and layers, 2 move the log-odds of positive against negative self-reports "
        "in order of strength (interval off 0, Page's p < 0.05), 1 of them by more"
    )
    assert found["cells"][0]["rows"][0] == (
        "<b>glad</b>", 3, ["+2.00 [+1.90, +2.10]", "-", "-", "-"]
    )  # fmt: skip
    assert [base64.b64decode(picture) for _, picture in found["pictures"]] == [b"png", b"png"]
    assert shown_steering(dataclasses.replace(content, steering=None)) is None


def test_transfer_is_half_the_difference_of_both_signs() -> None:
    rng = np.random.default_rng(3)
    values = {
        "log_odds": {
            UNSTEERED: rng.normal(size=4),
            **{
                ("glad", i, j, s): rng.normal(size=4) for i in (0, 1) for j in (0, 1)
                for s in (-0.5, 0.5)
            },
        }
    }  # fmt: skip
    cosine = np.array([[1.0, 0.3], [0.3, 1.0]])
    found = transfers(values, {"glad": ([0, 1], cosine)})
    assert len(found) == 4
    for _, row in found.iterrows():
        where = ("glad", row["source_layer"], row["layer"])
        at = values["log_odds"]
        assert row["effect"] == pytest.approx((at[*where, 0.5] - at[*where, -0.5]).mean() / 2)
        assert row["cosine"] == cosine[row["source_layer"], row["layer"]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strengths": ["much"]}, r"steering\.strengths: 'much' is not a strength"),
        ({"strengths": [float("nan")]}, "nan is not a strength"),
        ({"strengths": [0]}, "0 is not a strength; give numbers above 0"),
        ({"strengths": [0.1, 0.1]}, "stands in the list twice"),
        ({"window": "after-70"}, "no window 'after-70' is extracted"),
        ({"layers": [1, 7]}, "layer 7 of tiny is not extracted"),
        ({"cells": ["tiny@others"]}, "unknown corpus 'others'"),
        ({"norms": "other"}, "no norms 'other' under analysis"),
        ({"prompts": "nothing"}, "no such prompts: 'nothing'; shipped: default"),
        ({"estimator": "best"}, r"steering\.estimator"),
    ],
)
def test_bad_sections_are_one_line(
    changes: dict[str, Any], message: str, tmp_path: Path, tiny_model: Path
) -> None:
    from engine.plan import Plan

    manifest = manifest_of(tmp_path, tiny_model, **changes)
    with pytest.raises(InputError, match=message) as caught:
        Plan(load_study(manifest))
    assert len(str(caught.value).splitlines()) == 1


def test_a_manifest_without_steering_says_how_to_ask_for_it(
    tmp_path: Path, tiny_model: Path
) -> None:
    manifest = write_manifest(tmp_path, tiny_model)
    done = emovec("steer", manifest, "--root", tmp_path / "runs", check=2)
    assert "add `steering: {}` for the defaults" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"questions": [], "continuations": []}, "give continuations or questions"),
        ({"more": 1}, "unknown key"),
        ({"self_report": {"prompts": ["I"], "positive": [" a"], "negative": [" a"]}}, "both"),
        ({"preferences": {"prompt": "{first}", "pairs": [["a", "b"]]}}, "{second}"),
        ({"preferences": {"prompt": "{first} {second}", "pairs": [["a"]]}}, "pleasant"),
        ({"questions": ["a", "a"]}, "twice"),
    ],
)
def test_bad_prompts_are_named(
    changes: dict[str, Any], message: str, tmp_path: Path, tiny_model: Path
) -> None:
    shipped = ROOT / "manifests" / "prompts" / "steering" / "default.yaml"
    prompts = {**yaml.safe_load(shipped.read_text()), **changes}
    (tmp_path / "prompts.yaml").write_text(yaml.safe_dump(prompts))
    manifest = manifest_of(tmp_path, tiny_model, prompts="prompts.yaml")
    with pytest.raises(InputError, match=message):
        load_study(manifest)


def test_an_emotion_that_the_corpus_lacks_fails_its_stage_alone(
    tmp_path: Path, tiny_model: Path
) -> None:
    manifest = manifest_of(tmp_path, make_tiny_model(tmp_path / "m"), directions=["merry"])
    done = emovec("steer", manifest, "--root", tmp_path / "runs", check=1)
    assert "the cell has no emotion 'merry'" in done.stdout
    assert Layout(tmp_path / "runs", "study").record("extract", CELL).is_file()
