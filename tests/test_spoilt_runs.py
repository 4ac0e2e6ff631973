"""Runs from a stranger, or with bits flipped: no command hangs, reaches out or ends in a traceback.

Where a run is there, `tests/test_verify.py` asks whether damage is found and made good again.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from engine.costs import plan_costs
from engine.costs.machines import Shares
from engine.costs.show import print_costs
from engine.ending import known_error
from engine.job import Job
from engine.summary import about_tables, print_results, print_status, print_summary
from engine.verification import repair as repairing
from engine.verification.findings import Kind
from engine.verification.look import Look
from engine.verification.repair import Repair, _move
from manifests.errors import InputError
from store.digests import write_digests
from store.journal import read_journal
from store.journal_shapes import odd_reply
from store.records import parse_record, record_text
from store.superseded import KEPT, SUPERSEDED
from tests.tiny import write_manifest
from tests.verified import OWN, Run, command, flip, opened, prepare_run

COMMANDS = ("status", "plan", "verify")


@pytest.fixture
def begun(tmp_path: Path, tiny_model: Path) -> Run:
    """A run in which nothing is done yet."""
    run = opened(write_manifest(tmp_path / "study", tiny_model))
    (run.layout.run / "records").mkdir(parents=True)
    return run


KEYS = [
    "../../secret.txt",
    "tables/../../../secret.txt",
    "{root}/secret.txt",
    "../" * 40 + "dev/zero",
    "./x",
    "a//b",
    "a\0b",
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("key", KEYS)
def test_a_list_that_names_what_is_outside_moves_and_reads_nothing_there(
    key: str, begun: Run
) -> None:
    layout = begun.layout
    secret, aside = layout.root.parent / "secret.txt", layout.superseded("own", "f" * 16)
    secret.write_text("mine")
    lists = {
        layout.digests("zzz", "evil"): key.format(root=secret.parent),
        aside / KEPT: key.replace("../../s", f"{'../' * 5}s").format(root=secret.parent),
    }
    aside.mkdir(parents=True)
    for file, named in lists.items():
        write_digests(file, "generate:own", {named: "0" * 64})
    for options in ([], ["--repair"]):
        code, out, _ = command(begun, "verify", *options)
        assert code == 1
        for file in lists:
            (line,) = [x for x in out.splitlines() if file.relative_to(layout.run).as_posix() in x]
            assert line.startswith("DAMAGED")
            assert "not inside the folder that it is of" in line
        assert secret.read_text() == "mine"
        assert "secret.txt" not in {file.name for file in layout.run.rglob("*")}
    assert not any(file.exists() for file in lists)
    assert command(begun, "verify")[0] == 0


def test_a_repair_moves_nothing_that_is_outside(begun: Run) -> None:
    (begun.layout.root / "secret.txt").write_text("mine")
    done = Repair(begun.layout.damaged("now"))
    begun.layout.lock.touch()
    _move(begun.layout, ["../secret.txt", str(begun.layout.root / "secret.txt"), ".lock"], done)
    assert done.moved == []
    assert len(done.left) == 3
    assert begun.layout.lock.exists()
    assert (begun.layout.root / "secret.txt").read_text() == "mine"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "place",
    ["records/import/own.json", "digests/import/own.sha256", "corpora/own/journal.jsonl",
     "cells/tiny@own/residuals.zarr/zarr.json", "corpora/.superseded/own-0/digests.sha256"],
)  # fmt: skip
def test_a_pipe_in_a_run_is_refused_and_not_waited_for(place: str, begun: Run) -> None:
    pipe = begun.layout.run / place
    pipe.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(pipe)
    for name in (*COMMANDS, "run"):
        code, _, err = command(begun, name)
        assert code == 2
        assert err == f"{pipe}: a pipe, where a run has files and folders only; remove it\n"


def look_at(run: Run) -> None:
    """Do what `status` and `plan` do with a run, once its manifest is read."""
    job = Job(run.plan.study, run.layout, run.plan, run.plan.inspect(run.layout))
    console = Console(file=io.StringIO(), width=120, markup=False)
    print_status(console, [("", status) for status in job.statuses.values()], every=True)
    print_costs(console, plan_costs([job]), Shares(), ["study.yaml"])


def test_a_flipped_bit_in_metadata_or_a_record_is_no_traceback(run: Run) -> None:
    """Of Zarr's metadata, in what is read without opening arrays."""
    rng, refused = random.Random(7), 0
    records = sorted((run.layout.run / "records").rglob("*.json"))
    metadata = [f for f in sorted(run.layout.run.rglob("zarr.json")) if read_first(f)]
    assert len(records) == 12
    assert len(metadata) == 8
    for file in [*records, *metadata]:
        for bit in rng.sample(range(8 * file.stat().st_size), 30):
            flip(file, bit)
            try:
                look_at(run)
            except Exception as error:
                said, code = known_error(error) or pytest.fail(f"{file}, bit {bit}: {error!r}")
                assert code == 2
                assert said.startswith(f"{file}: damaged or gone; after `emovec verify MANIFEST -")
                refused += 1
            flip(file, bit)
    assert refused
    look_at(run)


def test_a_flipped_bit_in_a_table_is_shown_or_named(run: Run) -> None:
    """Status shows tables; it finds no bit flipped in a number, but ends in no traceback."""
    rng, refused = random.Random(5), list[tuple[Path, str]]()
    console = Console(file=io.StringIO(), width=120, markup=False)
    for name in ("geometry", "activations", "claim_summary", "detection"):
        file = run.layout.tables / f"{name}.csv"
        header = 8 * file.read_bytes().index(b"\n")
        for bit in [*rng.sample(range(header + 8), 3), *rng.sample(range(header + 8000), 3)]:
            flip(file, bit)
            try:
                with about_tables(run.layout):
                    print_results(console, run.plan, run.layout)
                    print_summary(console, run.plan, run.layout)
            except InputError as error:
                refused.append((file, str(error)))
            flip(file, bit)
    assert refused
    for file, said in refused:
        assert said.startswith(f"{file}: damaged; after `emovec verify MANIFEST --repair`")
    with pytest.raises(KeyError), about_tables(run.layout):  # no table is damaged: ours
        raise KeyError


def read_first(file: Path) -> bool:
    return file.parent.suffix == ".zarr" or file.parent.name == "residual_mean"


ODD_METADATA = {
    "gone": "",
    "no JSON": "{",
    "deep": "[" * 100_000,
    "list": "[]",
    "no shape": '{"chunk_grid": {"configuration": {"chunk_shape": [4]}}}',
    "empty shape": '{"shape": [], "chunk_grid": {"configuration": {"chunk_shape": [4]}}}',
    "no rows": '{"shape": [4], "chunk_grid": {"configuration": {"chunk_shape": [0]}}}',
    "text": '{"shape": ["4"], "chunk_grid": {"configuration": {"chunk_shape": [4]}}}',
    "too many": '{"shape": [99999999999], "chunk_grid": {"configuration": {"chunk_shape": [1]}}}',
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("odd", ODD_METADATA)
def test_metadata_that_is_none_is_one_line_with_the_next_step(odd: str, begun: Run) -> None:
    folder = begun.layout.residuals(OWN)
    assert isinstance(folder, Path)
    (folder / "residual_mean").mkdir(parents=True)
    (folder / "zarr.json").write_text("[" * 100_000 if odd == "deep" else '{"attributes": {}}')
    if odd != "gone":
        (folder / "residual_mean" / "zarr.json").write_text(ODD_METADATA[odd])
    for name in ("status", "plan", "run"):
        code, _, err = command(begun, name)
        assert code == 2
        assert err.startswith(f"{folder / 'residual_mean' / 'zarr.json'}: damaged or gone; after `")
        assert len(err.splitlines()) == 1
    code, out, _ = command(begun, "verify")
    assert code == 1
    assert "DAMAGED" in out


GOOD: dict[str, Any] = {
    **dict.fromkeys(("stage", "fingerprint", "identity", "finished"), "x"),
    "inputs": {"a": "b"},
    "seconds": 1,
    "figures": {"texts": 3, "tokens_per_second": None},
    "versions": {"zarr": "3"},
    "listed": True,
}
ODD_RECORDS: list[dict[str, Any]] = [
    *({key: None} for key in GOOD),
    *({key: 4} for key in GOOD if key != "seconds"),
    {"inputs": {"a": 1}},
    {"versions": {"zarr": [3]}},
    {"figures": {"texts": "3"}},
    {"figures": {"tokens": None}},
    {"figures": {"tokens": 10**400}},
    {"figures": {"bytes": -1}},
    {"figures": {"tokens_per_second": float("nan")}},
    {"more": 1},
]


@pytest.mark.parametrize("odd", ODD_RECORDS, ids=str)
def test_a_record_of_another_shape_is_none(odd: dict[str, Any]) -> None:
    good = parse_record(json.dumps(GOOD).encode())
    assert good is not None
    assert parse_record(record_text(good).encode()) == good
    assert parse_record(json.dumps({**GOOD, **odd}).encode()) is None
    for content in (b"[" * 100_000, b"[]", b"null", b"\xff"):
        assert parse_record(content) is None


@pytest.mark.parametrize("content", ["[" * 100_000, json.dumps({**GOOD, "inputs": None})])
def test_a_record_of_another_shape_is_damaged_and_no_traceback(content: str, begun: Run) -> None:
    record = begun.layout.record("import", "own")
    record.parent.mkdir()
    record.write_text(content)
    assert command(begun, "status")[0] == 0
    code, out, _ = command(begun, "verify", "--repair")
    assert code == 1
    assert "DAMAGED  records/import/own.json (import:own): not a record" in out
    assert not record.exists()
    assert command(begun, "verify")[0] == 0


def test_a_flipped_last_newline_is_damage_and_is_mended(tmp_path: Path, tiny_model: Path) -> None:
    """In a journal that is not finished, in one of other settings, and in steering's."""
    run = prepare_run(tmp_path, tiny_model)
    layout = run.layout
    journal = layout.journal("written")
    others = [
        layout.superseded("written", "0" * 16) / "journal.jsonl",
        layout.superseded_steering(OWN, "0" * 16),
    ]
    for other in others:
        other.parent.mkdir(parents=True)
        shutil.copyfile(journal, other)
    whole = journal.read_bytes()
    for file in (journal, *others):
        key = file.relative_to(layout.run).as_posix()
        for bit in range(8 * len(whole) - 8, 8 * len(whole)):
            flip(file, bit)
            assert {f.key: f.kind for f in run.look().damage} == {key: Kind.DAMAGED}
            repaired(run)
            assert file.read_bytes() == whole
            assert not run.look().damage
        file.write_bytes(whole[:-1])  # as an interrupted write leaves it: the row is whole
        report = run.look()
        assert not report.damage
        assert any(note.startswith(key) for note in report.notes)
        file.write_bytes(whole)


def repaired(run: Run) -> Repair:
    look = Look(run.plan, run.layout, lambda read, total: None)
    look.take()
    return repairing.repair(run.plan, run.layout, look.lists, look.report)


@pytest.mark.parametrize("of", ["finished", "superseded"])
@pytest.mark.parametrize("moment", ["write_digests", "written_whole"])
def test_a_repair_that_is_ended_in_the_middle_is_finished_by_the_next(
    moment: str, of: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = run.layout
    journal = layout.journal("written")
    if of == "superseded":
        journal = layout.superseded("written", "0" * 16) / journal.name
        journal.parent.mkdir(parents=True)
        shutil.copyfile(layout.journal("written"), journal)
        key = journal.relative_to(layout.run).as_posix()
        sha = Look(run.plan, layout, lambda read, total: None)
        sha.take()
        listed = sha.lists.digest("corpora/written/journal.jsonl")
        assert listed is not None
        assert key.startswith(SUPERSEDED)
        write_digests(journal.parent / KEPT, "generate:written", {journal.name: listed})
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[5] = lines[5].replace(b"a", b"e")
    journal.write_bytes(b"".join(lines))

    def end(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(repairing, moment, end)
        with pytest.raises(KeyboardInterrupt):
            repaired(run)
    assert run.look().damage
    done = repaired(run)
    assert not done.left
    assert len(list(read_journal(journal, odd_reply))) == len(lines) - 2
    assert not run.look().damage


def test_the_manifests_list_has_to_be_there_where_others_are(run: Run) -> None:
    layout = run.layout
    layout.digests("manifest", "all").unlink()
    flip(layout.manifest, 41)
    found = {f.key: f.kind for f in run.look().damage}
    assert found == {
        "digests/manifest/all.sha256": Kind.MISSING,
        "manifest.yaml": Kind.SUSPECT,
    }
    repaired(run)
    assert not layout.manifest.exists()  # the next run writes both
    assert not layout.digests("manifest", "all").exists()


def test_a_run_that_is_ended_while_it_writes_its_manifest_is_not_damaged(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine import run as running

    def end(*_: Any) -> None:
        raise KeyboardInterrupt

    text = run.layout.manifest.read_text()
    for step in ("write_text", "digests_of", "write_digests"):
        with monkeypatch.context() as patched:
            patched.setattr(running, step, end)
            with pytest.raises(KeyboardInterrupt):
                running._write_manifest(run.layout, text)
        report = run.look()
        assert not report.damage, step
    assert any("a run was ended while it was written" in note for note in report.notes)
    running._write_manifest(run.layout, text)
    assert not run.look().notes
    assert not run.layout.manifest_pending.exists()
