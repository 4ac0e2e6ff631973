"""Emotion vectors for other programs: tensors against plain numpy, the card, its code, refusals."""

from __future__ import annotations

import csv
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
import zarr
from safetensors import safe_open
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from analysis.steering import steering_directions, token_norms
from analysis.vector_card import USES, usage
from engine.cli import app
from manifests.errors import InputError
from manifests.norms import shipped_norms
from store import Layout, open_cell
from store.vectors import foreign_file
from tests.tiny import sentence, write_manifest

ROOT = Path(__file__).parents[1]
EMOTIONS = (
    *("happy", "calm", "sad", "angry", "proud", "bored", "afraid", "lonely", "excited"),
    *("grateful", "jealous", "xyzzy", "hungry"),
)
SHORT, UNRATED = "hungry", "xyzzy"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, Path]:
    """An analysed run (manifest, root); one emotion is unrated, one has short stories only."""
    folder, rng = tmp_path_factory.mktemp("vectors"), random.Random(1)
    with (folder / "stories.jsonl").open("w") as stream:
        for emotion in EMOTIONS:
            words = (20, 30) if emotion == SHORT else (70, 100)
            stories = [sentence(rng, rng.randint(*words)) for _ in range(3)]
            stream.write(json.dumps({"emotion": emotion, "topic": "t", "stories": stories}) + "\n")
    (folder / "neutral.txt").write_text("".join(f"{sentence(rng, 80)}\n" for _ in range(6)))
    rows = [f"{e},{rng.random():.4f},{rng.random():.4f}" for e in EMOTIONS[:11]]
    (folder / "mine.csv").write_text("\n".join(["word,valence,arousal", *rows]) + "\n")
    analysis = {"norms": ["glasgow", "mine.csv"], "bootstraps": 100, "permutations": 1000}
    manifest = write_manifest(folder, tiny_model, analysis=analysis)
    emovec("analyze", manifest, "--root", folder / "runs")
    return manifest, folder / "runs"


@pytest.fixture(scope="module")
def exported(run: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(*run, tmp_path_factory.mktemp("exported"))


def emovec(*arguments: str | Path, check: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "engine.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == check, done.stdout + done.stderr
    return done


def export(manifest: Path, root: Path, to: Path, *options: str) -> Path:
    arguments = ["vectors", manifest, "--root", root, "--to", to, *options]
    app([str(argument) for argument in arguments], standalone_mode=False)
    return to / "tiny@own"


def facts_of(folder: Path) -> Any:
    return json.loads((folder / "vectors.json").read_text())


def plain_vectors(root: Path, window: str, layer: int) -> dict[str, np.ndarray]:
    """The contrast `both` without any of our arithmetic."""
    group = zarr.open_group(Layout(root, "study").residuals("tiny@own"), mode="r")
    at = list(group["window"][:]).index(window), list(group["layer"][:]).index(layer)
    x = np.asarray(group["residual_mean"][:, at[0], at[1]], dtype=np.float64)
    labels = np.array([str(label) for label in group["emotion"][:]])
    there = ~np.isnan(x[:, 0])
    means = {e: x[there & (labels == e)] for e in EMOTIONS}
    u = np.stack([rows.mean(axis=0) for rows in means.values() if len(rows)])
    neutral = x[there & (labels == "")]
    _, s, v = np.linalg.svd(neutral - neutral.mean(axis=0))
    k = next(k for k in range(1, 9) if (s[:k] ** 2).sum() >= 0.5 * (s**2).sum())
    u = u - u.mean(axis=0)
    for direction in v[:k]:
        u = u - np.outer(u @ direction, direction)
    return dict(zip([e for e, rows in means.items() if len(rows)], u, strict=True))


def glasgow(emotion: str) -> tuple[float, float] | None:
    with shipped_norms()["glasgow"].open() as stream:
        for row in csv.DictReader(stream):
            if row["word"].lower() == emotion:
                return float(row["valence"]), float(row["arousal"])
    return None


def test_emotion_vectors_equal_plain_numpy(run: tuple[Path, Path], exported: Path) -> None:
    tensors = load_file(exported / "vectors.safetensors")
    assert tensors["layer"].dtype == np.int64
    assert tensors["layer"].tolist() == [0, 1, 2]
    for at, layer in enumerate(tensors["layer"]):
        for emotion, expected in plain_vectors(run[1], "no-first", layer).items():
            found = tensors[f"emotion.{emotion}"]
            assert found.dtype == np.float32
            assert found.shape == (3, 128)
            np.testing.assert_allclose(found[at], expected, rtol=1e-4, atol=1e-7)


def test_a_layers_vectors_are_of_that_blocks_output(
    run: tuple[Path, Path], tiny_model: Path, tmp_path: Path
) -> None:
    folder = export(*run, tmp_path, "--contrast", "mean-centered", "--layers", "1")
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    outputs: list[torch.Tensor] = []
    hook = lambda block, inputs, out: outputs.append(out[0] if isinstance(out, tuple) else out)  # noqa: E731
    model.model.layers[1].register_forward_hook(hook)
    means, norms = {}, []
    lines = (run[0].parent / "stories.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    rows.append({"emotion": "", "stories": (run[0].parent / "neutral.txt").read_text().split("\n")})
    for row in rows:
        vectors = []
        for story in filter(None, row["stories"]):
            with torch.no_grad():
                model(
                    **{
                        k: v
                        for k, v in tokenizer(story, return_tensors="pt").items()
                        if k[0] != "t"
                    }
                )
            tokens = outputs.pop().squeeze(0).double().numpy()
            vectors.append(tokens[1:].mean(axis=0))
            norms.append(np.linalg.norm(tokens, axis=1))
        means[row["emotion"]] = np.mean(vectors, axis=0)
    del means[""]
    expected = means["sad"] - np.mean(list(means.values()), axis=0)
    found = load_file(folder / "vectors.safetensors")
    assert found["layer"].tolist() == [1]
    np.testing.assert_allclose(
        found["emotion.sad"][0], expected, atol=1e-5 * np.abs(expected).max()
    )
    (row,) = facts_of(folder)["figures"]
    token_norm = np.concatenate([n[1:] for n in norms]).mean()
    assert row["token_norm"] == pytest.approx(token_norm, rel=1e-5)
    assert found["token_norm"].dtype == np.float32
    assert found["token_norm"].tolist() == pytest.approx([token_norm], rel=1e-5)
    rest = np.concatenate([np.sort(n)[:-1] for n in norms]).mean()
    assert row["token_norm_without_longest"] == pytest.approx(rest, rel=1e-5)
    lengths = [np.linalg.norm(v - np.mean(list(means.values()), axis=0)) for v in means.values()]
    assert row["emotion_norm"] == pytest.approx(np.median(lengths), rel=1e-4)


def test_directions_and_figures_equal_plain_numpy(run: tuple[Path, Path], exported: Path) -> None:
    tensors, facts = load_file(exported / "vectors.safetensors"), facts_of(exported)
    x = plain_vectors(run[1], "no-first", 2)
    ratings = {e: glasgow(e) for e in x}
    rated = [e for e, rating in ratings.items() if rating is not None]
    assert facts["norms"] == {"glasgow": len(rated), "mine": 11}
    y = np.array([ratings[e] for e in rated])
    y -= y.mean(axis=0)
    covariance = y.T @ np.stack([x[e] for e in rated]) / len(rated)
    stacked = np.stack(list(x.values()))
    u, s, v = np.linalg.svd(stacked - stacked.mean(axis=0), full_matrices=False)
    is_rated = [e in rated for e in x]
    (row,) = [row for row in facts["figures"] if row["layer"] == 2]
    for axis, name in enumerate(("valence", "arousal")):
        found = tensors[f"direction.glasgow.{name}.covariance"][2]
        np.testing.assert_allclose(found, covariance[axis], atol=1e-5 * np.abs(found).max())
        r = np.corrcoef(u[is_rated, axis], y[:, axis])[0, 1]
        found = tensors[f"direction.glasgow.{name}.component"][2]
        np.testing.assert_allclose(found, np.sign(r) * v[axis], atol=1e-4)
        assert row["norms"]["glasgow"][name]["r"] == pytest.approx(abs(r), abs=1e-6)
        assert row[f"pc{axis + 1}_variance"] == pytest.approx(s[axis] ** 2 / (s**2).sum())


def test_ratings_can_be_solved_for_so_norms_of_ones_own_get_components_only(
    exported: Path,
) -> None:
    tensors, facts = load_file(exported / "vectors.safetensors"), facts_of(exported)
    rated = [e for e in facts["emotions"] if glasgow(e) is not None]
    x = np.stack([tensors[f"emotion.{e}"][2] for e in rated]).astype(np.float64)
    weights = np.linalg.lstsq(x.T, tensors["direction.glasgow.valence.covariance"][2], rcond=1e-6)[
        0
    ]
    assert np.corrcoef(weights, [glasgow(e)[0] for e in rated])[0, 1] > 0.999  # type: ignore[index]
    own = {name for name in facts["directions"] if name.startswith("direction.mine.")}
    assert own == {f"direction.mine.{axis}.component" for axis in ("valence", "arousal")}
    refused = facts["left_out"]["direction.mine.valence.ridge"]
    assert refused == "the ratings of mine could be solved for from it"
    assert refused in (exported / "README.md").read_text()


def test_the_card_says_what_the_vectors_are(
    run: tuple[Path, Path], exported: Path, tiny_model: Path
) -> None:
    facts, card = facts_of(exported), (exported / "README.md").read_text()
    assert facts["model"]["d_model"] == 128
    assert facts["model"]["n_layers"] == 3
    assert set(facts["model"]["identity"]["files"]) >= {"model.safetensors", "config.json"}
    assert facts["corpus"]["n_stories"] == 3 * len(EMOTIONS)
    assert facts["corpus"]["n_neutral"] == 6
    assert facts["window"] == {"name": "no-first", "start": 1, "end": None, "normalize": "none"}
    for kind in ("extract", "analyze"):
        record = json.loads(Layout(run[1], "study").record(kind, "tiny@own").read_text())
        assert facts["fingerprints"][kind] == record["fingerprint"]
        assert record["fingerprint"] in card
    for words in ("glasgow", "correlational until it is steered", "CC BY 4.0", "no-first"):
        assert words in card
    assert str(tiny_model) not in card + json.dumps(facts)
    with safe_open(exported / "vectors.safetensors", "np") as file:
        assert json.loads(file.metadata()["emovec"]) == facts
        assert set(file.keys()) == {
            "layer",
            "token_norm",
            *(f"emotion.{emotion}" for emotion in facts["emotions"]),
            *facts["directions"],
        }


def test_an_emotion_without_a_vector_is_left_out_and_named(
    run: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = export(*run, tmp_path, "--window", "after-50")
    tensors, facts = load_file(folder / "vectors.safetensors"), facts_of(folder)
    assert f"emotion.{SHORT}" not in tensors
    assert facts["left_out"][f"emotion.{SHORT}"] == "no story has a token in the window after-50"
    assert f"emotion.{SHORT}" in (folder / "README.md").read_text()
    expected = plain_vectors(run[1], "after-50", 0)
    assert set(facts["emotions"]) == set(expected) == set(EMOTIONS) - {SHORT}
    np.testing.assert_allclose(tensors["emotion.sad"][0], expected["sad"], rtol=1e-4, atol=1e-7)
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())


def test_a_run_that_was_only_extracted_gives_emotions_alone(
    run: tuple[Path, Path], exported: Path, tmp_path: Path
) -> None:
    shutil.copytree(run[1], tmp_path / "runs")
    layout = Layout(tmp_path / "runs", "study")
    shutil.rmtree(layout.analysis("tiny@own"))
    layout.record("analyze", "tiny@own").unlink()
    folder = export(run[0], tmp_path / "runs", tmp_path / "to")
    card, facts = (folder / "README.md").read_text(), facts_of(folder)
    assert "the cell was not analysed; `emovec analyze` does it" in card
    assert not facts["directions"]
    tensors, whole = (load_file(f / "vectors.safetensors") for f in (folder, exported))
    assert set(tensors) == {"layer", "token_norm", *(f"emotion.{emotion}" for emotion in EMOTIONS)}
    assert all((tensors[name] == whole[name]).all() for name in tensors)


@pytest.mark.parametrize("way", USES)
def test_the_cards_lines_add_what_steering_adds_to_that_blocks_output(
    way: str,
    run: tuple[Path, Path],
    exported: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if way != "PyTorch":
        try:
            __import__(way.replace("-", "_"))
        except (ImportError, AttributeError) as error:  # repeng uses names that numpy 2 lacks
            pytest.skip(f"{way} does not import here: {error}")
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    blocks, entering = list(model.model.layers), {}

    def note(block: Any, inputs: Any, named: Any) -> None:
        entering[block] = (inputs[0] if inputs else named["hidden_states"]).clone()

    for block in blocks:
        block.register_forward_pre_hook(note, with_kwargs=True)
    ids = torch.arange(3, 15)[None]
    with torch.no_grad():
        model(input_ids=ids)
    before = [entering[block] for block in blocks]
    code = usage(way, facts_of(exported))
    assert f"{code}```" in (exported / "README.md").read_text()
    assert len(code.split("\n\n")[1].strip().splitlines()) == (5 if way == "PyTorch" else 3)
    monkeypatch.chdir(exported)
    exec(code, {"model": model, "strength": 1.5})
    with torch.no_grad():
        model(input_ids=ids)
    cell = open_cell(Layout(run[1], "study").run, "tiny@own").load()
    direction = steering_directions(cell, ["happy"], np.empty((0, 2)), [0, 1, 2]).rows["happy"][1]
    added = torch.from_numpy(1.5 * token_norms(cell, [1])[0] * direction)
    assert torch.equal(entering[blocks[1]], before[1])
    torch.testing.assert_close(
        entering[blocks[2]] - before[2], added.float().expand_as(before[2]), rtol=1e-5, atol=1e-5
    )
    assert added.norm() > 0.1


def test_exporting_again_replaces_ours_bit_by_bit_and_nothing_else(
    run: tuple[Path, Path], exported: Path, tmp_path: Path
) -> None:
    folder = export(*run, tmp_path, "--layers", "0,2")
    assert facts_of(folder)["layers"] == [0, 2]
    done = emovec("vectors", run[0], "--root", run[1], "--to", tmp_path)
    assert "tiny@own   13 emotions, 12 directions, 3 layers" in done.stdout
    for name in ("vectors.safetensors", "vectors.json", "README.md"):
        assert (folder / name).read_bytes() == (exported / name).read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny@own"]
    (folder / "notes.txt").write_text("mine")
    done = emovec("vectors", run[0], "--root", run[1], "--to", tmp_path, check=2)
    assert "holds 'notes.txt', which is not of an earlier export" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert (folder / "notes.txt").read_text() == "mine"


def test_only_an_export_of_ours_is_replaced(tmp_path: Path) -> None:
    assert foreign_file(tmp_path / "nothing") is None
    assert foreign_file(tmp_path) is None
    (tmp_path / "README.md").write_text("theirs")
    assert foreign_file(tmp_path) == "README.md"
    (tmp_path / "vectors.json").write_text('{"format": "another"}')
    assert foreign_file(tmp_path) == "README.md"
    (tmp_path / "vectors.json").write_text('{"format": "emovec vectors"}')
    assert foreign_file(tmp_path) is None
    (tmp_path.parent / "link").symlink_to(tmp_path)
    assert foreign_file(tmp_path.parent / "link") == "link"


REFUSED = [
    (["--cell", "tiny@other"], "no cell 'tiny@other'; known: tiny@own"),
    (["--window", "late"], "no window 'late'; tiny@own has all, no-first, after-50"),
    (["--contrast", "neither"], "no contrast 'neither'; known: mean-centered, neutral-pca, both"),
    (["--layers", "1,7"], "tiny@own has no block 7; it has 0, 1, 2"),
    (["--layers=-1"], "'-1' names no block"),
    (["--layers", "2-1"], "'2-1' names no block"),
    (["--layers", ""], "'' names no block"),
]


@pytest.mark.parametrize(("options", "expected"), REFUSED)
def test_what_is_not_there_is_refused_and_nothing_written(
    run: tuple[Path, Path], tmp_path: Path, options: list[str], expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        export(*run, tmp_path / "to", *options)
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "to").exists()


def test_a_cell_that_is_not_extracted_is_refused(run: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tiny@own was never extracted; `emovec extract` does it"):
        export(run[0], tmp_path / "runs", tmp_path / "to")
    changed = yaml.safe_load(run[0].read_text())
    changed["extraction"]["max_tokens"] = 100
    other = run[0].with_name("other.yaml")
    other.write_text(yaml.safe_dump(changed))
    with pytest.raises(InputError, match="was extracted under other settings"):
        export(other, run[1], tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_names_are_shown_as_they_are_in_code_and_card(
    run: tuple[Path, Path], exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from analysis.vector_card import vector_card

    name = 'a"b\\c\n<b>|`x`\N{RIGHT-TO-LEFT OVERRIDE}'
    facts = {**facts_of(exported), "emotions": [name]}
    keys: list[str] = []

    class Vectors(dict[str, Any]):
        def __missing__(self, key: str) -> Any:
            keys.append(key)
            return torch.ones(3, 128)

    monkeypatch.setattr("safetensors.torch.load_file", lambda file: Vectors())
    monkeypatch.chdir(exported)
    model = torch.nn.Module()
    model.model, model.device, model.dtype = torch.nn.Module(), "cpu", torch.float32  # type: ignore[assignment]
    model.model.layers = torch.nn.ModuleList(torch.nn.Identity() for _ in range(3))
    exec(usage("PyTorch", facts), {"model": model, "strength": 1.0})
    assert keys == [f"emotion.{name}", "token_norm"]
    card = vector_card(facts)
    assert name not in card
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in card
    assert "\\<b\\>\\|\\`x\\`\\\\u202e" in card
