"""What untrusted models, stores and links cannot do, each shown by doing it."""

from __future__ import annotations

import ast
import inspect
import json
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.cli import app
from engine.job import open_layout
from manifests.errors import InputError
from manifests.profile import Profile
from manifests.resolve import load_study
from store.mirror import require_inside
from store.places import StoreRefused
from tests.hub import hub
from tests.test_bad_input import in_process
from tests.test_run import ROOT
from tests.test_watched_run import command
from tests.tiny import write_manifest
from tests.verified import command as on_run
from tests.verified import opened


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path):
        self._file = file

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (open, (str(self._file), "w"))


def trapped(tmp_path: Path) -> tuple[bytes, Path]:
    """A pickle that makes a file when it is read, and that file."""
    sprung = tmp_path / "sprung"
    raw = pickle.dumps(Trap(sprung))
    pickle.loads(raw).close()
    assert sprung.exists()  # the trap works
    sprung.unlink()
    return raw, sprung


def only_pickled(folder: Path, raw: bytes) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(raw)


def beside_others(folder: Path, raw: bytes) -> None:
    (folder / "model.safetensors").rename(folder / "adapter.safetensors")
    (folder / "pytorch_model.bin").write_bytes(raw)


def by_index(folder: Path, raw: bytes) -> None:
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    (folder / "evil.bin").write_bytes(raw)
    index = {"weight_map": {"a": "part.safetensors", "b": "evil.bin"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def index_elsewhere(folder: Path, raw: bytes) -> None:
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    index = {"weight_map": {"a": "../../part.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


PICKLED = {
    only_pickled: "no safetensors in",
    beside_others: "pytorch_model.bin, a pickle, is not read",
    by_index: "names 'evil.bin', which is no safetensors file beside it",
    index_elsewhere: "names '../../part.safetensors', which is no safetensors file beside it",
}


@pytest.mark.parametrize("spoil", PICKLED, ids=lambda spoil: spoil.__name__)
def test_pickled_weights_are_refused_and_not_read(
    spoil: Callable[[Path, bytes], None], tiny_model: Path, tmp_path: Path
) -> None:
    from engine.reading.bridge import load_bridge

    raw, sprung = trapped(tmp_path)
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    spoil(folder, raw)
    manifest = write_manifest(tmp_path / "study", folder)
    with pytest.raises(InputError, match=PICKLED[spoil]) as error:
        load_study(manifest)
    assert [problem.key for problem in error.value.problems] == ["models.tiny.path"]
    with pytest.raises(ValueError, match=PICKLED[spoil]):
        load_bridge(str(folder), "float32", trust_remote_code=False, devices=1)
    assert not sprung.exists()


def test_pickled_weights_are_not_even_fetched(tiny_model: Path, tmp_path: Path) -> None:
    raw, _ = trapped(tmp_path)
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    only_pickled(folder, raw)
    manifest = write_manifest(tmp_path / "s", tiny_model, models={"far": {"hf": "lab/pickled"}})
    with hub({"lab/pickled": folder}, set()) as (endpoint, asked):
        done = command(tmp_path, endpoint, "fetch", manifest)
    assert done.returncode == 1
    assert "lab/pickled holds no safetensors; other formats are not read" in done.stdout
    assert not any(path.endswith(".bin") for path in asked)


def test_libraries_that_read_weights_would_unpickle_tensors_only() -> None:
    from transformers import PreTrainedModel

    parameters = inspect.signature(PreTrainedModel.from_pretrained).parameters
    assert parameters["weights_only"].default is True


PICKLING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
BANNED = {
    *("torch.load", "pd.read_pickle", "pandas.read_pickle", "os.system", "os.popen"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "eval", "exec", "numcodecs.Pickle"),
}


def findings(source: str) -> list[str]:
    """What a source does that reads pickles or runs text, by line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [str(node.module).partition(".")[0]]
        found += [f"{node.lineno}: import {name}" for name in names if name in PICKLING]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            options = {k.arg: ast.unparse(k.value) for k in node.keywords}
            unsafe = called in BANNED or called.endswith(".read_pickle")
            unsafe |= called in ("np.load", "numpy.load") and options.get("allow_pickle") != "False"
            unsafe |= options.get("allow_pickle") == "True" or options.get("shell") == "True"
            if unsafe:
                found.append(f"{node.lineno}: {called}")
    return found


def test_nothing_of_ours_unpickles_or_runs_text() -> None:
    rooms = ("manifests", "store", "analysis", "engine", "benchmarks")
    files = [file for room in rooms for file in sorted((ROOT / room).rglob("*.py"))]
    assert len(files) > 100
    found = {str(file.relative_to(ROOT)): findings(file.read_text()) for file in files}
    assert {file: lines for file, lines in found.items() if lines} == {}
    assert len(findings("import pickle\nnp.load(a)\ntorch.load(b)\neval(c)\n")) == 4


def test_a_pickle_in_a_store_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numcodecs.pickles

    from store.residuals import open_residuals
    from store.results import open_analysis

    # As numcodecs was before it stopped to unpickle by itself.
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    raw, sprung = trapped(tmp_path)
    store = tmp_path / "x.zarr"
    (store / "residual_mean").mkdir(parents=True)
    (store / ".zgroup").write_text('{"zarr_format": 2}')
    array = {
        "zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "compressor": None,
        "fill_value": "", "order": "C", "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}],
    }  # fmt: skip
    (store / "residual_mean" / ".zarray").write_text(json.dumps(array))
    (store / "residual_mean" / ".zattrs").write_text('{"_ARRAY_DIMENSIONS": ["n"]}')
    (store / "residual_mean" / "0").write_bytes(raw)
    for mark in (None, "{}", '{"zarr_format": 3, "node_type": "group", "attributes": {}}'):
        if mark is not None:
            (store / "zarr.json").write_text(mark)
        for read in (open_analysis, open_residuals):
            try:
                found = read(store, as_dask=False)
            except (OSError, ValueError, KeyError, InputError):
                continue
            assert dict(found.variables) == {}
    assert not sprung.exists()


GGUF = """
import json, os, resource, sys
from pathlib import Path
import torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
import transformers.modeling_gguf_pytorch_utils, gguf
from engine.models import dequantise
for file in map(Path, sys.argv[1:]):
    if os.fork() == 0:
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        before = peak()
        try:
            dequantise({"source": str(file), "folder": str(file.with_suffix(""))}, print)
            said = None
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        print("FOUND" + json.dumps([said, peak() - before]), flush=True)
        os._exit(0)
    os.wait()
"""


def gguf_files(folder: Path) -> list[Path]:
    """GGUF files that are cut off, or that speak of more than there is."""

    def number(value: int, size: int = 8) -> bytes:
        return value.to_bytes(size, "little")

    key = number(20) + b"general.architecture"
    start = b"GGUF" + number(3, 4)
    contents = {
        "empty": b"",
        "other": b"PK\x03\x04" + bytes(100),
        "cut": start + number(1)[:5],
        "tensors": start + number(2**62) + number(0),
        "keys": start + number(0) + number(2**62),
        "name": start + number(0) + number(1) + number(2**62) + b"general",
        "text": start + number(0) + number(1) + key + number(8, 4) + number(2**62) + b"llama",
        "list": start + number(0) + number(1) + key + number(9, 4) + number(4, 4) + number(2**62),
        "sizes": start + number(1) + number(1) + key + number(8, 4) + number(5) + b"llama"
        + number(1) + b"w" + number(2, 4) + number(2**40) + number(2**40) + number(0, 4)
        + number(0),
    }  # fmt: skip
    files = []
    for name, content in contents.items():
        files.append(folder / f"{name}.gguf")
        files[-1].write_bytes(content)
    return files


def test_a_gguf_that_speaks_of_more_than_there_is_costs_little(tmp_path: Path) -> None:
    files = gguf_files(tmp_path)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", GGUF, *map(str, files)],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    answers = [json.loads(x[5:]) for x in done.stdout.splitlines() if x.startswith("FOUND")]
    assert len(answers) == len(files), done.stderr[-2000:]
    for file, (said, megabytes) in zip(files, answers, strict=True):
        assert said.startswith(f"ValueError: {file.name} "), said
        assert len(said.splitlines()) == 1
        assert megabytes < 100, file.name
    assert time.monotonic() - started < 120
    assert sorted(tmp_path.iterdir()) == sorted(files)


@pytest.mark.parametrize(
    "link",
    [".", "corpora", "corpora/own", "corpora/own/journal.jsonl", "cells", "cells/tiny@own",
     "cells/tiny@own/residuals.zarr", "records", "logs", "tables", "figures/a.png", "report"],
)  # fmt: skip
def test_links_out_of_a_runs_folder_are_refused(link: str, tmp_path: Path) -> None:
    outside, run = tmp_path / "outside", tmp_path / "runs" / "study"
    outside.mkdir()
    (run / link).parent.mkdir(parents=True, exist_ok=True)
    (run / link).symlink_to(outside)
    with pytest.raises(InputError, match="out of the run's folder") as error:
        open_layout(tmp_path / "runs", "study")
    assert error.value.problems[0].file == run / link
    assert list(outside.iterdir()) == []


def refused_read(cell: str, root: Path, *options: str) -> str:
    """What `emovec read` says of a cell or a run that it does not take, in its one line."""
    text = root.parent / "text.txt"
    text.write_text("She walked home.")
    with pytest.raises(InputError) as error:
        app(["read", cell, str(text), "--root", str(root), *options], standalone_mode=False)
    (line,) = str(error.value).splitlines()
    return line


def extracted_cell(run: Path) -> Path:
    """Leave as much of a cell as says that it was extracted."""
    cell = run / "cells" / "tiny@own"
    (cell / "residuals.zarr").mkdir(parents=True)
    (cell / "residuals.zarr" / "zarr.json").write_text('{"attributes": {}}')
    return cell


@pytest.mark.parametrize(
    "name", ["../../x", "..", ".", "", "/etc", "a/b", "study/../study", "con", "a\n", "x" * 65]
)
def test_a_runs_name_that_leaves_the_root_is_refused(name: str, tmp_path: Path) -> None:
    extracted_cell(tmp_path / "x")
    extracted_cell(tmp_path / "runs" / "study")
    line = refused_read("tiny@own", tmp_path / "runs", "--run", name)
    assert line.startswith("--run: ")
    assert "cannot be a name" in line


@pytest.mark.parametrize("cell", ["..@own", "tiny@..", ".@.", "a..b@own", "tiny@con", "+@own"])
def test_a_cells_parts_are_names(cell: str, tmp_path: Path) -> None:
    extracted_cell(tmp_path / "runs" / "study")
    line = refused_read(cell, tmp_path / "runs")
    assert line.startswith(f"read: '{cell}': ")
    assert "cannot be a name" in line


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("link", [".", "cells", "cells/tiny@own", "cells/tiny@own/residuals.zarr"])
def test_a_cell_behind_a_link_out_of_its_run_is_not_read(
    link: str, named: bool, tmp_path: Path
) -> None:
    run, outside = tmp_path / "runs" / "study", tmp_path / "outside"
    extracted_cell(run)
    (run / link).rename(outside)
    (run / link).symlink_to(outside)
    line = refused_read("tiny@own", tmp_path / "runs", *(["--run", "study"] if named else []))
    assert line.startswith(f"{run / link}: a link to {outside}, out of the run's folder")


@pytest.mark.parametrize(
    "command", ["plan", "status", "verify", "export", "vectors", "run", "report", "steer"]
)
def test_every_command_refuses_a_run_behind_a_link(
    command: str, tiny_model: Path, tmp_path: Path
) -> None:
    steering = {"steering": {}} if command == "steer" else {}
    manifest, outside = write_manifest(tmp_path, tiny_model, **steering), tmp_path / "outside"
    extracted_cell(outside)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "study").symlink_to(outside)
    before = sorted(outside.rglob("*"))
    to = ["--to", str(tmp_path / "to")] if command in ("export", "vectors") else []
    with pytest.raises(InputError, match="out of the run's folder") as error:
        app([command, str(manifest), "--root", str(tmp_path / "runs"), *to], standalone_mode=False)
    assert len(str(error.value).splitlines()) == 1
    assert sorted(outside.rglob("*")) == before
    assert not (tmp_path / "to").exists()


def test_links_within_a_run_and_of_the_root_are_followed(tmp_path: Path) -> None:
    (tmp_path / "disk" / "study" / "cells" / "a@b").mkdir(parents=True)
    (tmp_path / "runs").symlink_to("disk")
    (tmp_path / "disk" / "study" / "cells" / "c@d").symlink_to("a@b")
    assert open_layout(tmp_path / "runs", "study").run == tmp_path / "runs" / "study"
    (tmp_path / "disk" / "study" / "cells" / "e@f").symlink_to("../../../elsewhere")
    with pytest.raises(InputError, match="e@f: a link to"):
        open_layout(tmp_path / "runs", "study")


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/x", "records/../../x", "a//b", "a\0"])
def test_objects_that_would_leave_the_folder_are_refused(key: str) -> None:
    with pytest.raises(StoreRefused, match="would leave the run's folder"):
        require_inside(key)
    require_inside("records/generate/own.json")


def test_the_dashboard_is_for_this_machine_unless_a_profile_says_otherwise() -> None:
    assert Profile.model_validate({"version": 1, "scheduler": "a"}).dashboard == "127.0.0.1:0"


def test_a_models_own_code_is_announced(tiny_model: Path, tmp_path: Path) -> None:
    models = {
        "odd": {"path": str(tiny_model), "trust_remote_code": True},
        "plain": {"path": str(tiny_model)},
    }
    manifest = write_manifest(tmp_path, tiny_model, models=models)
    done = command(tmp_path, "", "plan", manifest, "--root", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    loud = [line for line in done.stdout.splitlines() if line.startswith("REMOTE CODE")]
    assert len(loud) == 1
    assert "trust_remote_code is on for model 'odd'" in loud[0]


def test_a_models_own_code_is_announced_before_texts_are_read_again(
    tiny_model: Path, tmp_path: Path
) -> None:
    models = {
        "odd": {"path": str(tiny_model), "trust_remote_code": True},
        "plain": {"path": str(tiny_model)},
    }
    run = opened(write_manifest(tmp_path, tiny_model, models=models))
    (run.layout.run / "records").mkdir(parents=True)
    sentence = "REMOTE CODE: trust_remote_code is on for model 'odd'"
    code, out, err = on_run(run, "verify", "--recompute", "1")
    assert code == 0
    assert [line.startswith(sentence) for line in out.splitlines()].count(True) == 1
    code, out, err = on_run(run, "verify", "--recompute", "1", "--json")
    assert json.loads(out)["clean"]
    assert err.startswith(sentence)
    assert "REMOTE CODE" not in on_run(run, "verify")[1]


MARKED = ("[/x]", "[bold]", ":heart:")


@pytest.mark.parametrize("name", MARKED)
def test_names_are_printed_as_they_are(name: str, tiny_model: Path, tmp_path: Path) -> None:
    """Square brackets are no markup, which could hide text or end in a traceback.

    What an `hf` may be, the manifest's schema says; a path may be anything.
    """
    home = tmp_path / f"of {name}"
    model = shutil.copytree(tiny_model, home / name)
    models = {"tiny": {"path": name}, "far": {"hf": "lab/of"}}
    run = opened(write_manifest(home, model, models=models))
    assert run.layout.root == home / "runs"
    code, out, _ = on_run(run, "plan")
    assert code == 0
    assert f"stages to do in {home}/runs/study" in out
    assert f"emovec fetch --plan-only {run.manifest}" in out
    (run.layout.run / "records").mkdir(parents=True)
    code, out, _ = on_run(run, "verify", "--recompute", "1")
    assert code == 0
    assert on_run(run, "status")[0] == 0
    code, out, _ = in_process(["models", str(run.manifest)])
    assert not code
    assert [line.split()[1] for line in out.splitlines()[1:3]] == [name, "lab/of"]


def test_a_path_commands_no_terminal(tiny_model: Path, tmp_path: Path) -> None:
    name = "a\x1b[2Jb"
    shutil.copytree(tiny_model, tmp_path / name)
    models = {"tiny": {"path": name, "trust_remote_code": True}}
    manifest = write_manifest(tmp_path, tiny_model, models=models)
    for words in (["models"], ["plan", "--root", str(tmp_path / "runs")]):
        code, out, _ = in_process([words[0], str(manifest), *words[1:]])
        assert not code
        assert "\x1b" not in out
        assert "a\\x1b[2Jb" in out


ABSURD = {
    "deep": "[" * 100_000,
    "list": "[]",
    "layers": '{"model_type": "llama", "num_hidden_layers": 1000000000, "hidden_size": 64}',
    "digits": '{"num_hidden_layers": ' + "9" * 5000 + ', "hidden_size": 64}',
    "negative": '{"num_hidden_layers": -3, "hidden_size": 64}',
}


@pytest.mark.parametrize("name", ABSURD)
def test_a_config_of_no_model_is_one_line_at_once(name: str, tmp_path: Path) -> None:
    from engine.costs.architecture import read_architecture
    from engine.models import ModelUnavailable, read_shape

    (tmp_path / "config.json").write_text(ABSURD[name])
    started = time.monotonic()
    for read in (read_shape, read_architecture):
        with pytest.raises(ModelUnavailable) as error:
            read(tmp_path / "config.json")
        assert str(error.value).startswith(str(tmp_path / "config.json"))
        assert len(str(error.value).splitlines()) == 1
    assert time.monotonic() - started < 5
