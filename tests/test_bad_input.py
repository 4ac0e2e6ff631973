"""Inputs spoilt at random: each is read, or refused in one line that says where; nothing else.

The kinds of input, and the functions that read them, are those of the program; what is refused is
refused before anything is written. `-m slow` reads until EMOVEC_INPUTS, twenty thousand unless told
otherwise, were refused. Some of what is refused goes through the command line, too.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from engine.cli import main
from engine.plan import Plan
from manifests.errors import MAX_KEY, MAX_WHAT, InputError
from manifests.profile import read_profile
from manifests.resolve import Importing, load_study
from manifests.schema import Columns, Import
from store.corpus import seal_corpus
from store.exchange import read_texts
from tests.corrupting import (
    spoilt_bytes,
    spoilt_csv,
    spoilt_jsonl,
    spoilt_parquet,
    spoilt_yaml,
)

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "manifests"
FEW = 40
MANY = int(os.environ.get("EMOVEC_INPUTS", "20000"))
"""Inputs that have to be refused."""
SPOKEN = 20
"""Of each kind, refused inputs that go through the command line when many are read."""

MANIFEST = """\
version: 1
name: good
models:
  writer: {builtin: smollm2-135m, chat_template: template.jinja}
  reader: {path: model, dtype: float32}
  untrained: {builtin: smollm2-135m, weights: random, weights_seed: 3}
corpora:
  own:
    generate: {model: writer, emotions: [happy, sad, calm], topics: words.txt, neutral: 4,
      prompts: prompts.yaml, checks: {skip: [leak], min_words: 5}, topics_per_emotion: all}
  taken:
    import: {stories: stories.jsonl, neutral: neutral.txt, columns: {text: text}, writer: writer}
cells: [writer@own, reader@own, reader@taken, untrained@taken]
extraction: {layers: 0-2, windows: [all, {name: late, start: 9, end: 20}], max_tokens: 256}
analysis: {norms: [norms.csv, {source: glasgow, guesses: true}], contrasts: [mean-centered],
  neutral_variance: 0.5, bootstraps: 100}
steering: {cells: [writer@own], directions: [valence, happy], strengths: [0.1], layers: [1],
  window: late, prompts: steering.yaml, transfer: {direction: arousal}, norms: norms}
report: {stories_per_emotion: 2}
"""
MATRICES = """\
extends: base.yaml
models:
  "m-{kind}-{n}":
    matrix: {kind: [trained, random], n: [1, 2, 3]}
    builtin: smollm2-135m
    weights: "{kind}"
  reader: null
corpora:
  "{writer}-t{temperature}":
    matrix: {writer: models, temperature: [0.7, 1]}
    generate: {model: "{writer}", temperature: "{temperature}", emotions: words.txt, neutral: 2}
cells: all
"""
PROFILE = """\
version: 1
dashboard: 127.0.0.1:0
slurm: {jobs: 2, partition: gpu, time: "1-02:00:00", cores: 8, memory: 100GB, gpus: 4, gpu: H100,
  workers_per_job: 4, directives: [--qos=long], setup: [module load cuda], interface: ib0}
"""
RATED = [
    {"word": word, "valence": str(i), "arousal": str(9 - i), "source": source}
    for i, (word, source) in enumerate(
        [("happy", "a"), ("sad", "b"), ("calm", "b"), ("proud", "estimate"), ("élan", "")]
    )
]
NORMS = "\n".join([",".join(RATED[0]), *(",".join(row.values()) for row in RATED)]) + "\n"
ROWS = [
    {"emotion": emotion, "topic": f"topic {i % 2}", "text": f"{emotion} went home, slowly. {i}"}
    for i, emotion in enumerate(["happy", "sad", "calm", "happy", "dull", "proud"])
]
FILES = {
    "words.txt": "happy\nsad\ncalm\nproud\n",
    "norms.csv": NORMS,
    "neutral.txt": "One plain text.\n\nAnother plain text.\n",
    "template.jinja": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
    "prompts.yaml": (SHIPPED / "prompts" / "default.yaml").read_text(),
    "steering.yaml": (SHIPPED / "prompts" / "steering" / "default.yaml").read_text(),
    "stories.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
    "base.yaml": MANIFEST,
    "m.yaml": MANIFEST,
    "model/config.json": '{"num_hidden_layers": 3, "hidden_size": 64}',
    "model/model.safetensors": "",
}


def lay_out(folder: Path, manifest: str = MANIFEST) -> None:
    """Write good inputs of every kind, a link to itself, and a pipe without a writer."""
    for name, text in {**FILES, "m.yaml": manifest}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    if not (folder / "pipe").exists():
        (folder / "link").symlink_to("link")
        os.mkfifo(folder / "pipe")


IMPORTING = """\
version: 1
name: taking
models: {reader: {path: model, dtype: float32}}
corpora: {taken: {import: {%s}}}
"""
TABLE = "stories: %s, columns: {text: text}, neutral_emotion: dull"
NEUTRAL = "stories: stories.jsonl, neutral: neutral.txt"


def command(file: Path) -> list[str]:
    """Return the command that reads an input of the kind that the file's name says."""
    folder, root = file.parent, str(file.parent / "runs")
    if file.name == "profile.yaml":
        return ["run", str(folder / "m.yaml"), "--profile", str(file), "--root", root]
    if file.stem == "table" or file.name == "neutral.txt":
        taken = TABLE % file.name if file.stem == "table" else NEUTRAL
        (folder / "taking.yaml").write_text(IMPORTING % taken)
        return ["run", str(folder / "taking.yaml"), "--root", root]
    return ["plan", str(folder / "m.yaml"), "--root", root]


def load_manifest(file: Path) -> None:
    Plan(load_study(file.with_name("m.yaml")))


def load_table(file: Path) -> None:
    spec = Import(stories=str(file), columns=Columns(text="text"), neutral_emotion="dull")
    seal(Importing(spec, file, None))


def load_neutral(file: Path) -> None:
    stories = file.with_name("stories.jsonl")
    seal(Importing(Import(stories=str(stories), neutral=str(file)), stories, file))


def seal(source: Importing) -> None:
    texts = read_texts(source)
    with tempfile.TemporaryDirectory() as elsewhere:
        seal_corpus(Path(elsewhere) / "stories.parquet", texts)


def load_profile(file: Path) -> None:
    read_profile(str(file))


OF_THE_FILE = (
    *("not valid YAML", "not UTF-8", "not a ", "aliases", "tags", "over ", "nested"),
    "give ",  # at least one of several keys, which it names
)
"""Beginnings of what is said of a YAML file as a whole, or of a line of it, and not of a key."""
OF_A_LINE = ("not UTF-8", "not valid CSV", "not valid JSON", "not as many fields", "expected an ob")
"""Of what is said of a line of a table, and not of a column; word lists have no columns."""
OF_A_TABLE = ("holds no ", "rates no word", "the list is empty", "not a Parquet file", "and ")
"""Of what is said of a table as a whole."""
OF_A_COLUMN = ("is there twice", "differ in case only; write them alike")
"""Endings of what is said of a column as a whole."""


@dataclass(frozen=True)
class Kind:
    """A kind of input: where it lies, how it is spoilt, who reads it, beside which manifest."""

    file: str
    inputs: st.SearchStrategy[bytes]
    load: Callable[[Path], None]
    manifest: str = MANIFEST


def yaml_kinds(
    file: str, text: str, load: Callable[[Path], None], manifest: str = MANIFEST
) -> list[Kind]:
    spoilt = (spoilt_yaml(text), spoilt_bytes(text.encode()))
    return [Kind(file, inputs, load, manifest) for inputs in spoilt]


KINDS = [
    *yaml_kinds("m.yaml", MANIFEST, load_manifest),
    *yaml_kinds("m.yaml", MATRICES, load_manifest),
    *yaml_kinds("base.yaml", MANIFEST, load_manifest, MATRICES),
    *yaml_kinds("prompts.yaml", FILES["prompts.yaml"], load_manifest),
    *yaml_kinds("steering.yaml", FILES["steering.yaml"], load_manifest),
    *yaml_kinds("profile.yaml", PROFILE, load_profile),
    Kind("norms.csv", spoilt_csv(RATED), load_manifest),
    Kind("norms.csv", spoilt_bytes(NORMS.encode()), load_manifest),
    Kind("words.txt", spoilt_bytes(FILES["words.txt"].encode()), load_manifest),
    Kind("neutral.txt", spoilt_bytes(FILES["neutral.txt"].encode()), load_neutral),
    Kind("table.jsonl", spoilt_jsonl(ROWS), load_table),
    Kind("table.jsonl", spoilt_bytes(FILES["stories.jsonl"].encode()), load_table),
    Kind("table.csv", spoilt_csv(ROWS), load_table),
    Kind("table.parquet", spoilt_parquet(ROWS), load_table),
]


def answers(kind: Kind, n: int, folder: Path, number: int) -> dict[bytes, str | None]:
    """Read some `n` spoilt inputs of a kind, always the same ones.

    Args:
        kind: of the inputs.
        n: how many are drawn; some are drawn twice.
        folder: where they lie.
        number: decides which ones are drawn.

    Returns:
        What was said of each, None where it was taken.
    """
    lay_out(folder, kind.manifest)
    target = folder / kind.file
    found: dict[bytes, str | None] = {}

    @seed(number)
    @settings(max_examples=n, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(kind.inputs)
    def read(raw: bytes) -> None:
        target.write_bytes(raw)
        before = listing(folder)
        try:
            kind.load(target)
        except InputError as error:
            check_lines(error, folder)
            found[raw] = str(error)
        else:
            found[raw] = None
        assert listing(folder) == before

    read()
    return found


def hold_command(kind: Kind, inputs: dict[bytes, str], folder: Path, own_process: bool) -> None:
    """Have the command line refuse inputs: the same lines, exit code 2, nothing begun."""
    lay_out(folder, kind.manifest)
    for raw, said in inputs.items():
        (folder / kind.file).write_bytes(raw)
        arguments = command(folder / kind.file)
        before = listing(folder)
        code, out, err = (as_process if own_process else in_process)(arguments)
        assert (code, out, err) == (2, "", f"{said}\n"), arguments
        assert listing(folder) == before


def in_process(arguments: list[str]) -> tuple[object, str, str]:
    """Do what the program does with these arguments; return its exit code and what it prints."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    given, sys.argv = sys.argv, ["emovec", *arguments]
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()) as out,
            contextlib.redirect_stderr(io.StringIO()) as err,
            pytest.raises(SystemExit) as end,
        ):
            main()
    finally:
        sys.argv = given
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return end.value.code, out.getvalue(), err.getvalue()


def as_process(arguments: list[str]) -> tuple[object, str, str]:
    """Start the program with these arguments; return its exit code and what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "engine.cli", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


def refused(found: dict[bytes, str | None]) -> dict[bytes, str]:
    return {raw: said for raw, said in found.items() if said is not None}


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything in a folder, with sizes and times of change."""
    stats = {str(f): f.lstat() for f in folder.rglob("*")}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


def check_lines(error: InputError, folder: Path) -> None:
    """Hold an error to one line a problem, each naming a file and, where it has one, a key."""
    lines = str(error).splitlines()
    assert len(lines) == len(error.problems) > 0
    for line, problem in zip(lines, error.problems, strict=True):
        assert line.startswith(f"{folder}/")
        assert line.isprintable()
        assert len(line) <= len(str(problem.file)) + MAX_KEY + MAX_WHAT + 20 * 6
        assert problem.what.strip()
        assert problem.file.is_relative_to(folder)
        if problem.file.suffix == ".yaml":
            assert problem.line is not None
            assert problem.key or problem.what.startswith(OF_THE_FILE) or "cannot be a key" in line
            continue
        whole = problem.what.startswith(OF_A_TABLE)
        of_a_column = problem.key and problem.what.endswith(OF_A_COLUMN)
        assert problem.line is not None or whole or of_a_column, line
        of_a_line = problem.file.suffix == ".txt" or problem.what.startswith(OF_A_LINE)
        assert problem.key or whole or of_a_line, line


def test_a_good_input_of_every_kind_is_taken(tmp_path: Path) -> None:
    lay_out(tmp_path)
    for manifest in (MANIFEST, MATRICES):
        (tmp_path / "m.yaml").write_text(manifest)
        load_manifest(tmp_path / "m.yaml")
    (tmp_path / "profile.yaml").write_text(PROFILE)
    load_profile(tmp_path / "profile.yaml")
    load_table(tmp_path / "stories.jsonl")
    load_neutral(tmp_path / "neutral.txt")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.file)
def test_spoilt_input_is_taken_or_refused_in_one_line(kind: Kind, tmp_path: Path) -> None:
    found = answers(kind, FEW, tmp_path, 0)
    assert len(found) > FEW / 2
    first = dict(list(refused(found).items())[:3])
    assert first
    hold_command(kind, first, tmp_path, own_process=False)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_thousand_spoilt_inputs_are_refused(tmp_path: Path) -> None:
    each, number, drawn = -(-MANY // len(KINDS) // 4), 0, 0
    found: list[dict[bytes, str]] = [{} for _ in KINDS]
    taken: list[set[bytes]] = [set() for _ in KINDS]
    while (n := sum(map(len, found))) < MANY:
        assert number < 20, f"{n} of {drawn} were refused"
        for at, kind in enumerate(KINDS):
            (tmp_path / str(at)).mkdir(exist_ok=True)
            said = answers(kind, each, tmp_path / str(at), number)
            drawn += len(said)
            found[at] |= refused(said)
            taken[at] |= {raw for raw, what in said.items() if what is None}
        number += 1
    for at, kind in enumerate(KINDS):
        first = list(found[at].items())
        hold_command(kind, dict(first[:SPOKEN]), tmp_path / str(at), own_process=False)
        hold_command(kind, dict(first[-1:]), tmp_path / str(at), own_process=True)
    print({"refused": n, "taken": sum(map(len, taken)), "drawn": drawn})
