"""Steering from a manifest to its tables: every number against a computation of its own."""

from __future__ import annotations

import base64
import dataclasses
import io
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
from matplotlib.colors import to_rgb
from numpy.testing import assert_allclose
from PIL import Image
from safetensors.numpy import load_file
from scipy.stats import linregress, page_trend_test, ttest_1samp

from analysis.contrasts import contrast
from analysis.effect_tests import (
    SIGNIFICANT,
    against_controls,
    effect_tables,
    holm,
    reached,
    transfers,
)
from analysis.effects import MEASURES, UNSTEERED, SteeredCell, _monotone, effects, trends
from analysis.figures.labels import decimal
from analysis.figures.palette import contrast as contrast_of
from analysis.figures.steering import SHOWN, dose_response, dose_rows, effect_figures, transfer
from analysis.paging import effect_pages
from analysis.report.content import RunContent, SteeringContent
from analysis.report.numbers import MISSING
from analysis.report.pictures import smaller
from analysis.report.steering import NO_CONTROLS, shown_steering
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
from store.journal_shapes import odd_measure
from tests.test_run import EMOVEC, ROOT, emovec
from tests.tiny import EMOTIONS, write_manifest

SPEC: dict[str, Any] = {
    "directions": ["happy", "sad"],
    "layers": [1, 2],
    "strengths": [0.5, 2.0],
    "random": 1,
    "controls": 6,
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
        if journal.is_file() and sum(1 for _ in read_journal(journal, odd_measure)) > 40:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = list(read_journal(journal, odd_measure))
    assert len(before) > 40
    emovec("steer", manifest, "--root", folder / "runs")
    assert list(read_journal(journal, odd_measure))[: len(before)] == before
    assert "nothing to do" in emovec("steer", manifest, "--root", folder / "runs").stdout
    return folder


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    found = Layout(folder / "runs", "study").tables
    names = ("steering", "steering_trends", "steering_tests", "steered_texts", "transfer")
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
    of_controls = 2 * 4  # which have no words of their own
    without = [f"{name}_other" for name in ("valence", "arousal", "log_odds")]
    unsteered = 1
    assert (measures.drop(without) == len(wanted)).all()
    assert (measures[without] == len(wanted) - of_controls - unsteered).all()
    tests = found["steering_tests"]
    assert len(tests) == 2 * 2 * 3  # directions, layers, measures
    assert (tests["strength"] == 2.0).all()
    assert (tests["random_n"] == 7).all()
    assert (tests["mixture_n"] == 6).all()
    assert tests["p_corrected"].between(0, 1).all()
    assert np.isfinite(tests["nll_change"]).all()
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
    assert "what was measured under other settings went to" in done.stdout
    slow = tables(steered)
    assert (fast["steered_texts"]["text"] == slow["steered_texts"]["text"]).all()
    assert len(set(fast["steered_texts"]["text"])) > 50
    measures = ["mean", "low", "high", "change"]
    assert_allclose(fast["steering"][measures], slow["steering"][measures], atol=1e-4)
    done = emovec("steer", manifest_of(steered, tiny_model), "--root", steered / "runs")
    assert "what was measured under these settings is back" in done.stdout
    assert (tables(steered)["steered_texts"]["text"] == fast["steered_texts"]["text"]).all()


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
    given = {"window": "all", "estimator": "component", "mixtures": 4}
    whole = steering_directions(cell, ["valence", "arousal"], ratings, [0, 1], **given)
    found = whole.rows
    for layer in (0, 1):
        x_ED = contrast(cell, "both", "all", [layer])[0].to_numpy()
        x_ED = x_ED - x_ED.mean(axis=0)
        _, _, v_KD = np.linalg.svd(x_ED, full_matrices=False)
        for axis, name in enumerate(("valence", "arousal")):
            along = found[name][layer] @ v_KD[axis]
            assert abs(along) == pytest.approx(1, abs=1e-5)
            assert np.corrcoef(x_ED @ found[name][layer], ratings[:, axis])[0, 1] > 0
        # Mixtures lie in the space of the emotions, are as long as any direction, and no two alike.
        mixture_MD = whole.mixtures[:, layer]
        inside = mixture_MD @ v_KD[:11].T @ v_KD[:11]
        assert_allclose(inside, mixture_MD, atol=1e-5)
        assert_allclose(np.linalg.norm(mixture_MD, axis=1), 1, rtol=1e-6)
        assert np.abs(mixture_MD @ mixture_MD.T - np.eye(4)).max() < 0.999
    by_ratings = steering_directions(cell, ["valence"], ratings, [0, 1], window="all").held_out
    assert list(by_ratings) == ["valence"]
    assert (by_ratings["valence"] > 0.9).all()
    shuffled = ratings[np.random.default_rng(1).permutation(12)]
    poor = steering_directions(cell, ["valence"], shuffled, [0], window="all").held_out
    assert poor["valence"][0] < 0.6


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
        rows.append(scored(given, base + slope * strength + rng.normal(scale=0.01, size=8)))
        for prompt in range(4):
            for sample in range(2):
                words = ["good"] * (2 + round(10 * strength)) + ["bad"] * 2 + ["zzz"] * prompt
                text = {"row": "written", "text": f"{given.key}|{prompt}|{sample}"}
                about = {"condition": given.json(), "prompt": f"p{prompt}", "sample": sample}
                reply = {"reply": " ".join(words), "finish_reason": "length"}
                rows.append({**text, **about, **reply})
                nll = 2 + 10 * abs(strength)
                rows.append({"row": "judged", "text": text["text"], "nll": nll})
    return rows


def scored(given: Condition, odds: np.ndarray, preference: list[float] | None = None) -> Any:
    """A scored row whose log-odds are these: the ends are ` glad` and ` fine` against ` bad`."""
    half = odds - np.log(2)
    log_p = np.stack([half, half, np.zeros_like(odds)], axis=1).tolist()
    about = {"row": "scored", "key": given.key, "condition": given.json()}
    return {**about, "log_p": log_p, "preference": preference}


NORMS = Norms("made", Path("made.csv"), {"good": (8.0, 5.0), "bad": (2.0, 6.0)}, 0)


def cell_of(rows: list[dict[str, Any]], **changes: Any) -> SteeredCell:
    given = {
        "model": "m",
        "corpus": "c",
        "n_layers": 8,
        "rows": rows,
        "norms": NORMS,
        "positive": [" glad", " fine"],
        "negative": [" bad"],
        "cosines": {},
        "held_out": {},
        "fingerprint": "f",
    }
    return SteeredCell(**{**given, **changes})


def test_a_single_strength_has_no_order_to_be_tested() -> None:
    rng = np.random.default_rng(0)
    rho, p = _monotone(rng.normal(size=(6, 2)), [0.0, 1.0])
    assert abs(rho) == pytest.approx(1)
    assert np.isnan(p)
    values = rng.normal(size=(6, 3)) + np.arange(3)
    expected = 2 * page_trend_test(values, method="asymptotic").pvalue
    assert _monotone(values, [-1.0, 0.0, 1.0])[1] == pytest.approx(expected)


def test_effects_and_trends_are_what_plain_arithmetic_gives() -> None:
    rows = rows_of(np.random.default_rng(0), slope=5.0)
    cell = cell_of(rows)
    assert len(cell.texts) == 40
    plain = cell.texts[(cell.texts["direction"] == "") & (cell.texts["prompt"] == "p1")].iloc[0]
    assert (plain["valence"], plain["rated_words"], plain["words"]) == (5.0, 4, 5)
    table = effects(cell.values).set_index(["direction", "strength", "measure"])
    odds_of = {
        row["condition"]["strength"]: [np.logaddexp(a, b) - c for a, b, c in row["log_p"]]
        for row in rows
        if row["row"] == "scored"
    }
    for strength in (-0.2, 0.1):
        row = table.loc["glad", strength, "log_odds"]
        change = np.array(odds_of[strength]) - np.array(odds_of[0.0])
        assert row["n"] == 8
        assert row["mean"] == pytest.approx(np.mean(odds_of[strength]))
        assert row["change"] == pytest.approx(change.mean())
        assert row["change_low"] < change.mean() < row["change_high"]
        assert row["change_high"] - row["change_low"] < 0.05 < row["high"] - row["low"]
    found = trends(cell.values).set_index("measure")
    strengths = sorted(odds_of)
    want = [linregress(strengths, [odds_of[s][k] for s in strengths]).slope for k in range(8)]
    assert found.loc["log_odds", "slope"] == pytest.approx(np.mean(want))
    interval = ttest_1samp(want, 0).confidence_interval(0.95)
    assert_allclose(found.loc["log_odds", ["low", "high"]].astype(float), interval)
    assert found.loc["log_odds", "rho"] == pytest.approx(1)
    assert found.loc["log_odds", "page_p"] < 1e-4
    assert np.isnan(found.loc["words", "page_p"]) == (cell.texts["words"].nunique() == 1)


def test_what_breaks_a_model_under_either_sign_is_seen() -> None:
    found = trends(cell_of(rows_of(np.random.default_rng(0), slope=0.0)).values)
    nll = found.set_index("measure").loc["nll"]
    assert nll["over"] == "size"
    assert nll["slope"] == pytest.approx(10)
    assert (nll["largest"], nll["largest_at"]) == (pytest.approx(2), 0.2)


def test_a_directions_own_words_are_left_out_of_what_it_is_measured_by() -> None:
    rows = rows_of(np.random.default_rng(0), slope=5.0)
    for row in rows:
        if row["row"] == "scored":  # only ` glad` is moved
            for ends in row["log_p"]:
                ends[1] = -3.0
        elif row["row"] == "written":
            row["reply"] += " gladly gladness gladder"
    own = {"gladly": (9.0, 5.0), "gladness": (9.0, 5.0)}
    cell = cell_of(rows, norms=dataclasses.replace(NORMS, ratings={**NORMS.ratings, **own}))
    found = trends(cell.values).set_index("measure")["slope"]
    assert found["log_odds"] > 1
    assert found["log_odds_other"] == pytest.approx(0, abs=1e-9)
    plain = cell_of(rows_of(np.random.default_rng(0), slope=5.0))
    want = effects(plain.values).set_index(["strength", "measure"])["change"]
    other = effects(cell.values).set_index(["strength", "measure"])["change"]
    assert other[0.1, "valence_other"] == pytest.approx(want[0.1, "valence"])
    assert other[0.1, "valence"] != pytest.approx(want[0.1, "valence"])
    alone = cell_of(rows, positive=[" glad"], negative=[" bad"])
    assert alone.log_odds(UNSTEERED, "glad") is None  # nothing positive would be left


def drawn_cell(rng: np.random.Generator, n_controls: int = 12) -> SteeredCell:
    """A cell whose six directions are as random as its controls; prompts agree with each other."""
    gradient_D = rng.normal(size=200)
    rows = [scored(conditions.UNSTEERED, np.zeros(8), [0.0] * 3)]
    names = [f"e{k}" for k in range(6)]
    names += [f"{kind}-{k}" for kind in ("random", "mixture") for k in range(n_controls)]
    for name in names:
        direction_D = rng.normal(size=200)
        direction_D /= np.linalg.norm(direction_D)
        along_P = (gradient_D + 0.3 * rng.normal(size=(8, 200))) @ direction_D
        for sign in (-1, 1):
            given = Condition(name, 3, 3, sign * 0.1)
            rows.append(scored(given, sign * along_P, (sign * along_P[:3]).tolist()))
    for name in ("", *names[:6]):
        for sign in (-1, 1) if name else (0,):
            given = Condition(name, 3, 3, sign * 0.1) if name else conditions.UNSTEERED
            text = {"row": "written", "text": f"{given.key}|0|0", "condition": given.json()}
            rows.append(
                {**text, "prompt": "p", "sample": 0, "reply": "good bad", "finish_reason": ""}
            )
    return cell_of(rows)


def test_a_direction_that_is_as_random_as_its_controls_is_seldom_told_from_them() -> None:
    """Although its effect is in order of strength and every prompt agrees on it."""
    p, corrected, sure = [], [], []
    for seed in range(150):
        found = against_controls(drawn_cell(np.random.default_rng(seed)))
        odds = found[found["measure"] == "log_odds"]
        assert len(odds) == 6
        p += odds["random_p"].tolist()
        corrected.append(bool((odds["p_corrected"] < 0.05).any()))
        sure += (odds["low"] * odds["high"] > 0).tolist()
    assert np.mean(sure) > 0.4  # an interval over prompts says nothing of this
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(p) < level) == pytest.approx(level, abs=0.05)
    assert np.mean(corrected) <= 0.08


def test_a_direction_along_the_gradient_is_told_from_controls() -> None:
    cell = drawn_cell(np.random.default_rng(0))
    rows = [
        scored(Condition("e0", 3, 3, row["condition"]["strength"]),
               np.full(8, 40 * row["condition"]["strength"]), [0.0] * 3)
        if row["row"] == "scored" and row["condition"]["direction"] == "e0" else row
        for row in cell.rows
    ]  # fmt: skip
    found = against_controls(cell_of(rows, held_out={"e0": {3: 0.5}}))
    odds = found[found["measure"] == "log_odds"].set_index("direction")
    assert odds.loc["e0", "effect"] == pytest.approx(4)
    assert odds.loc["e0", "p_corrected"] < 0.05
    assert odds.loc["e0", ["random_share", "mixture_share"]].tolist() == [0, 0]
    assert odds.loc["e0", "held_out_r"] == 0.5
    assert np.isnan(odds.loc["e1", "held_out_r"])
    controls = [
        np.mean([np.logaddexp(a, b) - c for a, b, c in row["log_p"]])
        for row in rows
        if row["row"] == "scored" and row["condition"]["direction"].startswith("random-")
        and row["condition"]["strength"] > 0
    ]  # fmt: skip
    assert odds.loc["e1", "random_rms"] == pytest.approx(np.sqrt(np.mean(np.square(controls))))


def test_p_is_corrected_as_holm_says() -> None:
    found = holm(np.array([0.01, np.nan, 0.04, 0.03, 0.005]))
    assert_allclose(found, [0.03, np.nan, 0.06, 0.06, 0.02])
    assert np.isnan(holm(np.array([np.nan]))).all()


def test_missing_words_are_nan_and_leave_a_prompt_out() -> None:
    rows = rows_of(np.random.default_rng(0), slope=1.0)
    for row in rows:
        if row["row"] == "written" and row["prompt"] == "p2":
            row["reply"] = "zzz zzz"
    table = effects(cell_of(rows).values)
    assert (table[table["measure"] == "valence"]["n"] == 3).all()
    assert (table[table["measure"] == "nll"]["n"] == 4).all()


def moved_cell() -> SteeredCell:
    """A cell whose direction is worth half at a distance of one block and nothing beyond."""
    rng = np.random.default_rng(3)
    layers, rows = list(range(5)), [scored(conditions.UNSTEERED, np.zeros(4))]
    cosine = np.array([[[1.0, 0.7, 0.1, 0.05, 0.0][abs(i - j)] for j in layers] for i in layers])
    for i in layers:
        for j in layers:
            for sign in (-1, 1):
                odds = sign * 3 * cosine[i, j] + np.full(4, 0.5)  # what both signs do alike
                rows.append(scored(Condition("glad", i, j, sign * 0.5), odds))
    for k in range(8):
        for j in layers:
            by_chance = rng.normal()
            for sign in (-1, 1):
                given = Condition(f"random-{k}", j, j, sign * 0.5)
                rows.append(scored(given, np.full(4, sign * by_chance * (9 if j == 4 else 0.5))))
    return cell_of(rows, cosines={"glad": (layers, cosine)})


def test_transfer_is_half_the_difference_of_both_signs() -> None:
    cell = moved_cell()
    whole = transfers(cell)
    found = whole[whole["measure"] == "log_odds"]
    assert len(found) == 25
    _, cosine = cell.cosines["glad"]
    for _, row in found.iterrows():
        worth = cosine[row["source_layer"], row["layer"]]
        assert row["cosine"] == worth
        assert row["effect"] == pytest.approx(3 * worth)
        assert row["relative"] == pytest.approx(worth)
        assert (row["random_p"] < 0.05) == (worth > 0.5 and row["layer"] != 4)
    by_layer = reached(whole).set_index(["measure", "layer"]).loc["log_odds"]
    assert (by_layer["sources"] == 4).all()
    assert_allclose(by_layer["rho"], 1)
    assert by_layer.loc[[0, 2], ["half_from", "half_to"]].to_numpy().tolist() == [[0, 1], [1, 3]]
    assert np.isnan(by_layer.loc[4, "half_from"])  # its own effect is no more than chance


def png_of(width: int, height: int) -> bytes:
    """Return a picture of many colours."""
    out = io.BytesIO()
    colours = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(colours).save(out, "png")
    return out.getvalue()


def test_the_page_says_what_moves_beyond_chance_and_how_far() -> None:
    tests = pd.DataFrame(
        {"direction": direction, "layer": 3, "strength": 0.1, "measure": measure,
         "effect": effect, "low": effect - 0.1, "high": effect + 0.1, "random_p": p / 3,
         "p_corrected": p, "held_out_r": np.nan, "nll_change": 0.25}
        for direction, measure, effect, p in (
            ("<b>glad</b>", "log_odds", 9.0, 1e-6),
            ("<b>glad</b>", "log_odds_other", 2.0, 1e-4),
            ("calm", "log_odds", 0.5, 0.1),
            ("sad", "log_odds", 0.4, 0.4),
            ("calm", "preference", 0.3, 0.5),
        )
    ).assign(model="m", corpus="c")  # fmt: skip
    moved = transfers(moved_cell())
    content = SteeringContent(
        trends=pd.DataFrame({"direction": ["calm"], "layer": [3], "measure": ["valence"],
                             "slope": [0.5], "low": [0.4], "high": [0.6]}),
        tests=tests,
        transfer=moved,
        reached=reached(moved),
        pictures={
            "dose_response": png_of(40, 30), "transfer": png_of(60, 20),
            "transfer-2": png_of(60, 20),
        },
    )  # fmt: skip
    named = {
        name: getattr(content, name).assign(model="m", corpus="c")
        for name in ("trends", "transfer", "reached")
    }
    run = RunContent("r", {}, {}, [], {}, {}, (), [], dataclasses.replace(content, **named))
    found = shown_steering(run, 10**6)
    assert found is not None
    said = found["cells"][0]["said"]
    assert said[0].startswith(
        "1 of the 3 combinations (3 directions \N{MULTIPLICATION SIGN} 1 layer) moves the log-odds "
        "of positive against negative self-reports (a direction's own word left out)"
    )
    assert said[0].endswith("2 by more than random directions alone, uncorrected.")
    assert said[1].startswith(
        "None of the 1 combination (1 direction \N{MULTIPLICATION SIGN} 1 layer) moves the log-odds"
    )
    by = f"{moved['strength'].iloc[0]:g} of a mean token norm"
    assert f"added at another, by {by}: " in said[2]
    assert "at 4 of 5 layers the layer's own direction does more than random ones" in said[2]
    for when, far in (("earlier", ".10"), ("later", ".08")):  # medians of .1, .05 and 0
        away = f".70 (a block away), {far} (2 to 4 blocks away)"
        assert f"directions found {when} do {away}" in said[2]
    assert "Spearman's rho, over the layers that they are taken from, of 1.00" in said[2]
    assert found["cells"][0]["rows"] == [
        ("<b>glad</b>", 3, ["0.1", "+2.00 [+1.90, +2.10]", "< .001", *3 * [MISSING], "+.25",
                            MISSING]),
        ("calm", 3, ["0.1", "+.50 [+.40, +.60]", ".100", "+.30 [+.20, +.40]", ".500",
                     "+.50 [+.40, +.60]", "+.25", MISSING]),
        ("sad", 3, ["0.1", "+.40 [+.30, +.50]", ".400", *3 * [MISSING], "+.25", MISSING]),
    ]  # fmt: skip
    shown = [base64.b64decode(picture) for _, picture in found["pictures"]]
    assert [Image.open(io.BytesIO(png)).size for png in shown] == [(40, 30), (60, 20), (60, 20)]
    assert [says.rpartition("; ")[2] for says, _ in found["pictures"]][1:] == [
        *("page 1 of 2", "page 2 of 2")
    ]
    assert found["left"] == []
    fewer = shown_steering(run, len(found["pictures"][0][1]) + 10)
    assert fewer is not None
    assert len(fewer["pictures"]) == 1
    assert fewer["left"] == ["transfer", "transfer-2"]
    assert shown_steering(dataclasses.replace(run, steering=None), 10**6) is None
    without = {
        "tests": tests.head(0),
        "transfer": named["transfer"].assign(random_p=np.nan),
        "reached": named["reached"].assign(random_p=np.nan),
    }
    steering = dataclasses.replace(content, **{**named, **without})
    found = shown_steering(dataclasses.replace(run, steering=steering), 0)
    assert found is not None
    assert found["cells"][0]["said"] == [NO_CONTROLS]
    assert found["cells"][0]["rows"] == []


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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hapy", "corpus 'own' has no emotion 'hapy'; did you mean 'happy'?"),
        (
            "valence",
            "a direction of ratings needs 10 rated emotions; of corpus 'own' glasgow rates 6",
        ),
    ],
)
def test_a_direction_that_an_imported_corpus_cannot_give_is_refused_before_it_is_read(
    name: str, message: str, tmp_path: Path, tiny_model: Path
) -> None:
    manifest = manifest_of(tmp_path, tiny_model, directions=[name])
    done = emovec("steer", manifest, "--root", tmp_path / "runs", check=2)
    assert f"steering.directions: {message}" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not Layout(tmp_path / "runs", "study").residuals(CELL).exists()


def test_a_text_that_the_model_has_no_room_for_is_refused_before_any_is_written(
    steered: Path, tiny_model: Path
) -> None:
    manifest = manifest_of(steered, tiny_model, max_new_tokens=2000)
    done = emovec("steer", manifest, "--root", steered / "runs", check=1)
    assert (
        "steering.max_new_tokens (2000) are more than the context of 'tiny' (1024)" in done.stdout
    )
    assert not list(read_journal(Layout(steered / "runs", "study").steering(CELL), odd_measure))


def test_tables_of_steering_without_controls_or_transfer_are_empty_and_whole() -> None:
    made = effect_tables([cell_of(rows_of(np.random.default_rng(0), slope=1.0))])
    assert len(made["steering"]) > 20
    for name in ("steering_tests", "transfer", "transfer_layers"):
        assert made[name].empty
        assert {"model", "corpus", "direction", "layer", "measure", "fingerprint"} <= {*made[name]}


STRENGTHS = (-0.4, -0.2, -0.1, 0.1, 0.2, 0.4)


def doses(cells: list[tuple[str, str]], directions: list[str]) -> pd.DataFrame:
    """Return a table of steering: two layers, every measure, one random direction."""
    added = [
        (d, layer, s) for d in [*directions, "random-0"] for layer in (3, 7) for s in STRENGTHS
    ]
    rows = [
        {"model": model, "corpus": corpus, "direction": direction, "source_layer": layer,
         "layer": layer, "strength": strength, "measure": measure,
         "change": (layer + at) * strength,
         "change_low": (layer + at) * strength - 1, "change_high": (layer + at) * strength + 1}
        for model, corpus in cells
        for direction, layer, strength in [("", -1, 0.0), *added]
        for at, measure in enumerate(SHOWN)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_doses_are_drawn_on_one_scale_a_measure_with_units_and_tested_strengths() -> None:
    table = doses([("m", "c"), ("m", "d")], ["valence", "sad"])
    figure = dose_response(table, dose_rows(table), "glasgow")
    grid = np.reshape(figure.axes, (4, len(SHOWN)))
    drawn = sorted([*STRENGTHS, 0.0])
    for row, (_, _, direction) in zip(grid, dose_rows(table), strict=True):
        assert direction in row[0].get_ylabel()
        for at, ax in enumerate(row):
            own = [line for line in ax.lines if line.get_marker() not in ("None", "")]
            for line, layer in zip(own, (3, 7), strict=True):
                assert_allclose(line.get_xdata(), drawn)
                assert_allclose(line.get_ydata(), (layer + at) * np.array(drawn))
            looks = {(line.get_marker(), line.get_linestyle()) for line in own}
            assert len(looks) == 2, "layers are told apart without colour"
            light = [contrast_of(to_rgb(line.get_color()), (0, 0, 0)) for line in own]
            assert light == sorted(light), "later layers are lighter"
            assert len({x.get_ylim() for x in grid[:, at]}) == 1
    assert_allclose(grid[-1, 0].get_xticks(), drawn)
    assert [t.get_text() for t in grid[-1, 0].get_xticklabels()] == [
        *("-.4", "-.2", "-.1", "0", ".1", ".2", ".4")
    ]
    titles = [ax.get_title(loc="left") for ax in grid[0]]
    assert "(glasgow points)" in titles[2]
    assert all("(" in title for title in titles), "every measure has its unit"
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == [
        *("layer 3", "layer 7", "95 % interval over prompts", "random directions, every layer")
    ]
    assert "mean norm of a token's residual" in figure.get_suptitle()


def test_what_an_emotion_does_is_drawn_without_its_own_words() -> None:
    table = doses([("m", "c")], ["valence", "sad"])
    with_own = (table["direction"] == "sad") & (table["measure"] == "log_odds")
    other = table[with_own].assign(measure="log_odds_other", change=table["strength"] / 2)
    figure = dose_response(pd.concat([table, other]), dose_rows(table), "n")
    valence, sad = np.reshape(figure.axes, (2, len(SHOWN)))
    for row, direction, factors in ((valence, "valence", (3, 7)), (sad, "sad", (0.5, 0.5))):
        own = [line for line in row[0].lines if line.get_marker() not in ("None", "")]
        for line, factor in zip(own, factors, strict=True):
            assert_allclose(line.get_ydata(), factor * line.get_xdata())
        without = "without its own words" in row[0].get_ylabel()
        assert without == (direction == "sad")


def test_strengths_that_would_touch_are_not_named() -> None:
    table = doses([("m", "c")], ["valence"])
    close = pd.concat([table, table[table["strength"] == 0.1].assign(strength=0.12)])
    ax = dose_response(close, dose_rows(table), "n").axes[0]
    assert len(ax.get_xticks()) == 8
    names = [t.get_text() for t in ax.get_xticklabels()]
    assert ".1" in names
    assert ".12" not in names


def test_pictures_of_steering_are_paged_as_the_plan_counts_them() -> None:
    cells = [(f"model-{n}", corpus) for n in range(5) for corpus in ("own", "other")]
    directions = ["valence", "arousal", "happy"]
    table = doses(cells, directions)
    moved = pd.concat(
        [transfers(moved_cell()).assign(model=model, corpus=corpus) for model, corpus in cells]
    )
    drawn = effect_figures({"steering": table, "transfer": moved}, "n")
    pages = {name: list(figures) for name, figures in drawn.items()}
    counted = effect_pages(cells, directions, transferred=True)
    assert {name: len(some) for name, some in pages.items()} == counted
    assert counted == {"dose_response": 5, "transfer": 3}
    assert pages["dose_response"][1].get_suptitle().endswith(", page 2 of 5")
    rows = [
        ax.get_ylabel()
        for figure in pages["dose_response"]
        for ax in figure.axes
        if ax.get_ylabel().startswith("along")
    ]
    assert sorted(rows) == sorted(f"along {d}\n{m}\n@{c}" for m, c in cells for d in directions)
    none = effect_figures({"steering": table.head(0), "transfer": moved.head(0)}, "n")
    assert [len(list(some)) for some in none.values()] == [1, 1]
    assert effect_pages([], [], transferred=False) == {"dose_response": 1, "transfer": 1}


def test_transfer_draws_the_table_and_names_what_it_is() -> None:
    moved = transfers(moved_cell()).assign(model="m", corpus="c")
    moved["random_p"] = np.where(moved["layer"] == moved["layer"].max(), 0.8, 0.01)
    figure = transfer(moved)
    effect, cosine = figure.axes[:2]
    table = moved[moved["measure"] == "log_odds"]
    for ax, name in ((effect, "effect"), (cosine, "cosine")):
        want = table.pivot(index="source_layer", columns="layer", values=name).to_numpy()
        assert_allclose(ax.get_images()[0].get_array(), want)
        assert (ax.get_xlabel(), ax.get_ylabel()) == (
            *("added at layer", "direction taken from layer"),
        )
    assert [ax.get_ylabel() for ax in figure.axes[2:]] == ["change of log-odds (nats)", "cosine"]
    said = cosine.get_title(loc="left")
    own = table[(table["source_layer"] == table["layer"]) & (table["random_p"] < SIGNIFICANT)]
    assert 0 < len(own) < table["layer"].nunique()
    rho = reached(table).set_index("layer")["rho"][own["layer"]].median()
    assert f"Spearman's rho with the effects in a layer: {decimal(rho)} (median" in said
    assert f"of {len(own)} of {table['layer'].nunique()} layers" in said


def test_a_picture_on_the_page_takes_less_room_and_shows_the_same() -> None:
    table = doses([("m", "c")], ["valence"])
    out = io.BytesIO()
    dose_response(table, dose_rows(table), "n").savefig(out, format="png", dpi=100)
    less = smaller(out.getvalue())
    assert less == smaller(out.getvalue())
    assert len(less) < 0.6 * len(out.getvalue())
    a, b = (
        np.asarray(Image.open(io.BytesIO(x)).convert("RGB"), int) for x in (out.getvalue(), less)
    )
    assert np.abs(a - b).mean() < 1
