"""Verification of real runs: flipped bits, lost, empty, swapped and strange files, and repair."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zarr

from engine.reading.rereading import relative_deviation
from engine.verification.findings import Kind
from store.digests import DamagedList, parse_digests, write_digests
from store.journal import read_journal
from store.journal_shapes import odd_reply
from store.lock import run_lock
from tests.test_run import emovec, interrupt, many_shards
from tests.verified import (
    OWN,
    STEERING,
    WRITTEN,
    Run,
    flip,
    make_run,
    opened,
    residual,
    write_journal,
)

KINDS: dict[str, Callable[[str], bool]] = {
    "journal": lambda key: key.endswith("journal.jsonl"),
    "sealed corpus": lambda key: key.endswith("stories.parquet"),
    "flagged texts": lambda key: key.endswith("flagged.csv"),
    "shard": lambda key: "residuals.zarr/residual_mean/c/" in key,
    "counts and norms": lambda key: "residuals.zarr" in key and "/c/0/" in key,
    "coordinate": lambda key: "residuals.zarr" in key and key.endswith("/c/0"),
    "metadata of vectors": lambda key: "residuals.zarr" in key and key.endswith("zarr.json"),
    "results": lambda key: "analysis.zarr" in key and "/c" in key,
    "metadata of results": lambda key: "analysis.zarr" in key and key.endswith("zarr.json"),
    "words": lambda key: "words.zarr" in key,
    "steering": lambda key: "/steering." in key,
    "table": lambda key: key.endswith((".csv", ".md")),
    "figure": lambda key: key.startswith("figures/"),
    "page": lambda key: key.startswith("report/"),
    "record": lambda key: key.startswith("records/"),
    "list of digests": lambda key: key.startswith("digests/"),
    "manifest": lambda key: key == "manifest.yaml",
}


def flips(run: Run, number: int, seed: int) -> Iterator[tuple[str, Path, int]]:
    """Yield (key, file, bit) at random, every kind of file in turn."""
    rng, files = random.Random(seed), run.files()
    kinds = [matches for matches in KINDS.values() if any(map(matches, files))]
    for n in range(number):
        matches = kinds[n % len(kinds)]
        key = rng.choice(sorted(key for key in files if matches(key)))
        yield key, files[key], rng.randrange(8 * files[key].stat().st_size)


def find_every_flip(run: Run, number: int, seed: int) -> None:
    for key, file, bit in flips(run, number, seed):
        flip(file, bit)
        report = run.look()
        found = {f.key: f for f in report.damage}
        assert key in found, (key, bit)
        assert found[key].what
        others = {f.kind for f in report.damage if f.key != key}
        if key.startswith("digests/"):  # of a damaged list, one line at most speaks of nothing
            assert others <= {Kind.SUSPECT}
            assert len(found) <= 3, found
        else:
            assert not others, (key, bit, report.findings)
        flip(file, bit)
    assert not run.look().damage


def test_every_kind_of_file_has_its_flipped_bit_found_and_named(run: Run) -> None:
    find_every_flip(run, 3 * len(KINDS), seed=1)


@pytest.mark.slow
def test_two_hundred_flipped_bits_are_found_and_named(tiny_model: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, tiny_model, steering=STEERING)
    assert all(any(map(matches, run.files())) for matches in KINDS.values())
    find_every_flip(run, 200, seed=2)


def test_a_run_as_it_was_left_is_clean_and_every_file_is_accounted_for(finished: Run) -> None:
    before = finished.contents()
    found = finished.verify()
    assert found["clean"]
    assert not found["findings"]
    assert found["checked"]["digests"] == len(before) - len(list_keys(before))
    assert set(found["not_covered"]) == {"the run's lock", "logs, which nothing is made from"}
    assert found["checked"]["texts"] == 60
    assert found["checked"]["tokens counted"] > 5000
    assert finished.contents() == before
    words = emovec("verify", finished.manifest, "--root", finished.layout.root).stdout
    assert words.splitlines()[-1] == "nothing is damaged"
    missing = emovec("verify", finished.manifest, "--root", "/nowhere/at/all", check=2)
    assert "there is no run of" in missing.stderr


def test_a_flipped_count_accuses_no_other_file(run: Run) -> None:
    key = f"cells/{WRITTEN}/residuals.zarr/text_tokens/c/0"
    flip(run.files()[key], 108)  # positions of peaks no longer fit to it
    assert [finding.key for finding in run.look().damage] == [key]


def list_keys(keys: Any) -> list[str]:
    return [key for key in keys if key.startswith("digests/")]


SHARD = "residual_mean/c/0/0/0/0"


def test_lost_empty_cut_swapped_and_strange_files_are_named(run: Run) -> None:
    layout = run.layout
    one, other = residual(run, OWN, SHARD), residual(run, WRITTEN, SHARD)
    content, table = one.read_bytes(), layout.tables / "geometry.csv"

    def damage() -> dict[str, Kind]:
        return {f.key.removeprefix("cells/"): f.kind for f in run.look().damage}

    one.unlink()
    assert damage() == {f"{OWN}/residuals.zarr/{SHARD}": Kind.MISSING}
    one.write_bytes(b"")
    assert damage() == {f"{OWN}/residuals.zarr/{SHARD}": Kind.DAMAGED}
    one.write_bytes(content[: len(content) // 2])
    assert damage() == {f"{OWN}/residuals.zarr/{SHARD}": Kind.DAMAGED}
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    both = {f"{cell}/residuals.zarr/{SHARD}": Kind.DAMAGED for cell in (OWN, WRITTEN)}
    assert damage() == both
    other.write_bytes(one.read_bytes())
    one.write_bytes(content)
    table.write_bytes(table.read_bytes()[:-1])
    assert damage() == {"tables/geometry.csv": Kind.DAMAGED}
    table.write_bytes(table.read_bytes() + b"\n")
    stray = residual(run, OWN, "residual_mean/c/7/0/0/0")
    stray.parent.mkdir(parents=True)
    stray.write_bytes(content)
    (layout.run / "notes.txt").write_text("mine")
    (layout.tables / "old.csv").write_text("a,b\n1,2\n")
    report = run.look()
    assert {f.key: f.kind for f in report.findings} == {
        f"cells/{OWN}/residuals.zarr/residual_mean/c/7/0/0/0": Kind.STRAY,
        "notes.txt": Kind.UNKNOWN,
        "tables/old.csv": Kind.UNKNOWN,
    }
    shutil.rmtree(residual(run, OWN, "residual_mean/c/7"))
    found = run.verify()  # what is not known harms nothing
    assert found["clean"]
    assert {f["kind"] for f in found["findings"]} == {"unknown"}
    layout.digests("words", "own").unlink()
    kinds = {f.kind for f in run.look().damage if f.stage == "words:own"}
    assert kinds == {Kind.MISSING, Kind.SUSPECT}


def relisted(run: Run, stage: str) -> None:
    """Have the list of a stage say what is there, so that only the numbers can tell."""
    from store.digests import digests_of

    kind, _, name = stage.partition(":")
    file = run.layout.digests(kind, name)
    write_digests(file, stage, digests_of(run.layout, parse_digests(file.read_bytes())))


def write_array(run: Run, cell: str, name: str, change: Callable[[Any], None]) -> None:
    group = zarr.open_group(run.layout.residuals(cell), mode="r+")
    with zarr.config.set({"array.write_empty_chunks": True}):
        array: Any = group[name]
        values = array[:]
        change(values)
        array[:] = values
    relisted(run, f"extract:{cell}")


def test_numbers_that_cannot_be_right_are_named_though_every_digest_fits(run: Run) -> None:
    def change(name: str, index: tuple[int, ...], value: float) -> dict[str, str]:
        def put(values: Any) -> None:
            values[index] = value

        before = residual(run, OWN, name)
        shutil.copytree(before, run.layout.root / "before")
        write_array(run, OWN, name, put)
        found = {f.key.rpartition("residuals.zarr/")[2]: f.what for f in run.look().damage}
        shutil.rmtree(before)
        (run.layout.root / "before").rename(before)
        relisted(run, f"extract:{OWN}")
        return found

    (what,) = change("residual_mean", (3, 0, 2, 5), np.nan).values()
    assert "happy/000/3 is not finite in window all, layer 1 (shard 0, texts 0 to 29)" in what
    counts = zarr.open_group(run.layout.residuals(OWN), mode="r")["token_count"]
    assert isinstance(counts, zarr.Array)
    row = int(np.flatnonzero(np.asarray(counts[:, 2]) == 0)[0])
    (what,) = change("residual_mean", (row, 2, 0, 0), 1.0).values()
    assert "has a mean although it has no token in window late, layer -1" in what
    found = change("token_count", (4, 1), 9)
    assert list(found) == ["token_count/c/0/0"]
    assert "sad" not in found["token_count/c/0/0"]
    assert list(change("peak_position", (4, 1), 300)) == ["peak_position/c/0/0"]
    assert list(change("mean_square", (0, 1, 1), -1.0)) == ["mean_square/c/0/0/0"]
    assert list(change("peak_norm", (2, 1), np.inf)) == ["peak_norm/c/0/0"]
    found = change("text_tokens", (2,), 81)
    assert any("has 81 tokens, not" in what for what in found.values()), found
    assert not run.look().damage
    record = run.layout.record("extract", OWN)
    said = json.loads(record.read_text())
    said["figures"]["tokens"] += 1
    record.write_text(json.dumps(said))
    relisted(run, f"extract:{OWN}")
    (wrong,) = run.look().damage
    assert wrong.key == "records/extract/tiny@own.json"
    assert "tokens, there are" in wrong.what


def same_but_for_records(run: Run, before: dict[str, bytes]) -> None:
    """Hold a run against what it was; records say when they were written, and lists hold them."""
    after = run.contents()
    assert set(after) == set(before)
    for key, content in before.items():
        if not key.startswith(("records/", "digests/")):
            assert after[key] == content, key


def test_what_is_repaired_and_run_again_is_what_it_was(run: Run) -> None:
    """Damage of many kinds at once, each in a stage of its own."""
    layout, before = run.layout, run.contents()
    shard = residual(run, WRITTEN, SHARD)
    read = shard.stat().st_mtime_ns
    frame = residual(run, WRITTEN, "residual_mean/zarr.json")
    spoilt = [
        residual(run, OWN, "peak_norm/c/0/0"),
        frame,
        layout.stories("own"),
        layout.flagged("written"),
        layout.tables / "geometry.csv",
        layout.figures / "cka.png",
        layout.manifest,
        layout.record("words", "own"),
        layout.journal("written"),
    ]
    for file in spoilt:
        flip(file, 8 * (file.stat().st_size // 3) + 1)
    (layout.run / "mine.txt").write_text("left alone")
    found = run.verify("--repair", check=1)
    keys = {file.relative_to(layout.run).as_posix() for file in spoilt}
    assert {f["key"] for f in found["findings"] if f["damage"]} == keys
    aside = Path(found["repair"]["aside"])
    assert aside.parent == layout.run / ".damaged"
    along = set(found["repair"]["moved"]) - keys
    assert along == {
        f"cells/{OWN}/residuals.zarr/{SHARD}",
        f"cells/{WRITTEN}/residuals.zarr/zarr.json",
        "records/describe/all.json",
    }
    for file in spoilt:
        assert (aside / file.relative_to(layout.run)).read_bytes() != before[
            file.relative_to(layout.run).as_posix()
        ]
    assert layout.journal("written").read_bytes() == before["corpora/written/journal.jsonl"]
    (mended,) = found["repair"]["done"]
    assert "is again what was written" in mended
    printed = emovec("run", run.manifest, "--root", layout.root).stdout
    assert "analyze:tiny@own" not in printed
    assert shard.stat().st_mtime_ns == read
    (layout.run / "mine.txt").unlink()
    same_but_for_records(run, before)
    assert run.verify()["clean"]
    assert "nothing to do" in emovec("run", run.manifest, "--root", layout.root).stdout


def test_a_damaged_list_is_written_anew_and_what_it_no_longer_speaks_of_made_again(
    run: Run,
) -> None:
    layout, before = run.layout, run.contents()
    lists = [layout.digests("extract", OWN), layout.digests("tables", "all")]
    for file in lists:
        flip(file, 8 * file.read_bytes().index(b"zarr.json" if "tiny" in file.name else b"cka.csv"))
    flip(layout.digests("page", "all"), 3)
    found = run.verify("--repair", check=1)
    suspects = {f["key"] for f in found["findings"] if f["kind"] == "suspect"}
    assert suspects == {"tables/cka.csv", f"cells/{OWN}/residuals.zarr/emotion/zarr.json"}
    assert any("digests/page/all.sha256: written anew" in line for line in found["repair"]["done"])
    emovec("run", run.manifest, "--root", layout.root)
    same_but_for_records(run, before)
    assert run.verify()["clean"]


def test_rows_that_cannot_be_mended_are_blanked_and_the_sealed_corpus_stands(run: Run) -> None:
    journal, stories = run.layout.journal("written"), run.layout.stories("written")
    content, sealed = journal.read_bytes(), stories.read_bytes()
    rows = len(list(read_journal(journal, odd_reply)))
    lines = content.splitlines(keepends=True)
    lines[5] = lines[5].replace(b"a", b"e")
    journal.write_bytes(b"".join(lines))
    found = run.verify("--repair", check=1)
    assert "the row in line 6 is not as it was written" in found["findings"][0]["what"]
    assert "mended, but for 1 rows, which are lost" in found["repair"]["done"][0]
    assert len(journal.read_bytes()) == len(content)
    assert len(list(read_journal(journal, odd_reply))) == rows - 1
    again = run.verify()
    assert again["clean"]
    assert any("no reply for 2 of its texts" in note for note in again["notes"])
    assert "nothing to do" in emovec("run", run.manifest, "--root", run.layout.root).stdout
    assert stories.read_bytes() == sealed


def with_another_temperature(run: Run) -> Run:
    """Ask for the written corpus at another temperature, and have the model's replies there."""
    manifest = yaml.safe_load(run.manifest.read_text())
    manifest["corpora"]["written"]["generate"]["temperature"] = 0.5
    warmer = run.manifest.with_name("warmer.yaml")
    warmer.write_text(yaml.safe_dump(manifest))
    other = opened(warmer)
    key = other.plan.journal_key("written")
    write_journal(other, other.layout.superseded("written", key) / "journal.jsonl")
    return other


def test_a_corpus_of_other_settings_keeps_its_digests_and_is_held_against_them(run: Run) -> None:
    layout, other = run.layout, with_another_temperature(run)
    sealed = layout.stories("written").read_bytes()
    flagged = layout.flagged("written").read_bytes()
    flip(layout.flagged("written"), 3)  # damaged before it goes aside, and found all the same
    emovec("run", other.manifest, "--root", layout.root)
    aside = layout.superseded("written", run.plan.journal_key("written"))
    names = {"digests.sha256", "flagged.csv", "journal.jsonl", "stories.parquet", "words.zarr"}
    assert {file.name for file in aside.iterdir()} == names
    root = aside.relative_to(layout.run).as_posix()
    assert {f.key for f in other.look().findings} == {f"{root}/flagged.csv"}
    flip(aside / "flagged.csv", 3)
    assert (aside / "flagged.csv").read_bytes() == flagged
    report = other.look()
    assert not report.findings
    assert set(report.not_covered) == {"the run's lock", "logs, which nothing is made from"}
    rng = random.Random(5)
    files = [file.relative_to(aside).as_posix() for file in aside.rglob("*") if file.is_file()]
    assert len(files) > 10
    for name in [*sorted(files), "digests.sha256", "stories.parquet"]:
        bit = rng.randrange(8 * (aside / name).stat().st_size)
        flip(aside / name, bit)
        found = {f.key: f.kind for f in other.look().damage}
        assert found == {f"{root}/{name}": Kind.DAMAGED}, (name, bit)
        flip(aside / name, bit)
    (aside / "stories.parquet").unlink()
    assert [(f.key, f.kind) for f in other.look().damage] == [
        (f"{root}/stories.parquet", Kind.MISSING)
    ]
    content = (aside / "journal.jsonl").read_bytes()
    (aside / "journal.jsonl").write_bytes(content[: content[:-1].rfind(b"\n") + 1])
    found = other.verify("--repair", check=1)  # the row that is gone cannot be made again
    assert any("bring it back" in line for line in found["repair"]["left"])
    assert [f.key for f in other.look().damage] == [f"{root}/journal.jsonl"]
    (aside / "journal.jsonl").write_bytes(content)
    assert other.verify()["clean"]
    emovec("run", run.manifest, "--root", layout.root)  # it comes back, and the other one goes
    assert layout.stories("written").read_bytes() == sealed
    assert layout.flagged("written").read_bytes() == flagged
    assert not (layout.corpus("written") / "digests.sha256").exists()
    gone = layout.superseded("written", other.plan.journal_key("written"))
    assert {file.name for file in gone.iterdir()} == names
    assert not run.look().findings


def test_damage_of_a_corpus_of_other_settings_goes_aside(run: Run) -> None:
    layout, other = run.layout, with_another_temperature(run)
    emovec("run", other.manifest, "--root", layout.root)
    aside = layout.superseded("written", run.plan.journal_key("written"))
    content = (aside / "journal.jsonl").read_bytes()
    flip(aside / "stories.parquet", 99)
    lines = content.splitlines(keepends=True)
    lines[5] = lines[5].replace(b"a", b"e")
    (aside / "journal.jsonl").write_bytes(b"".join(lines))
    found = other.verify("--repair", check=1)
    root = aside.relative_to(layout.run).as_posix()
    assert set(found["repair"]["moved"]) == {f"{root}/stories.parquet", f"{root}/journal.jsonl"}
    assert any("but for 1 rows, which are lost" in line for line in found["repair"]["done"])
    assert other.verify()["clean"]
    flip(aside / "digests.sha256", 99)
    found = other.verify("--repair", check=1)
    assert found["repair"]["moved"] == [f"{root}/digests.sha256"]
    found = other.verify()
    assert found["clean"]
    assert any("no digest was kept of" in reason for reason in found["not_covered"])


def test_texts_are_read_again_and_one_that_deviates_is_named(run: Run) -> None:
    found = run.verify("--recompute", "6")
    assert set(found["recomputed"]) == {OWN, WRITTEN}
    assert all(cell["texts"] == 6 and cell["worst"] < 1e-5 for cell in found["recomputed"].values())

    def turn(values: Any) -> None:
        values[:, 1, 2] *= 1.001

    write_array(run, OWN, "residual_mean", turn)
    found = run.verify("--recompute", "2", "--repair", check=1)
    deviating = [f for f in found["findings"] if f["kind"] == "deviates"]
    assert len(deviating) == 2
    assert all("in window no-first at layer 1" in f["what"] for f in deviating)
    assert found["repair"]["moved"] == []
    assert found["recomputed"][OWN]["worst"] == pytest.approx(1e-3, rel=0.01)
    assert found["recomputed"][WRITTEN]["worst"] < 1e-5


def test_deviation_is_relative_to_what_is_stored_and_sees_numbers_come_and_go() -> None:
    stored = np.array([3.0, 4.0, np.nan, np.nan, 0.0, 0.0], dtype=np.float32).reshape(3, 1, 1, 2)
    again = stored.copy()
    again[0, 0, 0] = [3.0, 4.5]
    assert relative_deviation(again, stored).ravel().tolist() == pytest.approx([0.1, 0.0, 0.0])
    again[1] = 1.0
    again[0] = np.nan
    assert relative_deviation(again, stored).ravel().tolist() == [np.inf, np.inf, 0.0]


def test_a_run_without_digests_is_checked_as_far_as_can_be(run: Run) -> None:
    shutil.rmtree(run.layout.run / "digests")
    for file in (run.layout.run / "records").rglob("*.json"):
        record = json.loads(file.read_text())
        del record["listed"]
        file.write_text(json.dumps(record))
    found = run.verify()
    assert found["clean"]
    (note,) = [note for note in found["notes"] if "no digests of" in note]
    assert "extract:tiny@own" in note
    rng = random.Random(3)
    for key in (SHARD, "text_tokens/c/0", "text_id/c/0", "mean_square/c/0/0/0"):
        file = residual(run, OWN, key)
        bit = rng.randrange(8 * file.stat().st_size)
        flip(file, bit)
        keys = {f.key for f in run.look().damage}
        assert f"cells/{OWN}/residuals.zarr/{key}" in keys
        flip(file, bit)


def test_the_tools_own_sums_say_the_same(finished: Run) -> None:
    """The lists are what `sha256sum --check` reads in the run's folder."""
    import subprocess

    program = shutil.which("sha256sum")
    if program is None:
        pytest.skip("sha256sum is not installed")
    lists = [str(file) for file in sorted((finished.layout.run / "digests").rglob("*.sha256"))]
    subprocess.run([program, "--check", "--quiet", *lists], cwd=finished.layout.run, check=True)


def test_a_stage_that_was_ended_before_its_record_is_not_damaged(run: Run) -> None:
    """The list of digests comes before the record; a kill may fall between the two."""
    layout = run.layout
    layout.record("page", "all").unlink()
    report = run.look()
    assert not report.findings
    assert report.notes == ["page:all: its record is not there; the next run makes it again"]
    layout.page.unlink()
    assert {f.key for f in run.look().damage} == {"records/page/all.json", "report/index.html"}
    layout.record("words", "own").unlink()  # others have read what it says is there
    assert "records/words/own.json" in {f.key for f in run.look().damage}


def test_a_list_knows_its_own_damage(tmp_path: Path) -> None:
    file = tmp_path / "list.sha256"
    digests = {f"a/{n}": f"{n:064x}" for n in range(3)}
    write_digests(file, "tables:all", digests)
    content = file.read_bytes()
    assert parse_digests(content) == digests
    for bit in range(8 * len(content)):
        spoilt = bytearray(content)
        spoilt[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedList):
            parse_digests(bytes(spoilt))


def test_a_run_that_is_at_work_is_left_alone(run: Run) -> None:
    with run_lock(run.layout.lock):
        done = emovec("verify", run.manifest, "--root", run.layout.root, check=1)
    assert f"is in use by process {os.getpid()}" in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
def test_of_a_damaged_shard_that_shard_alone_is_read_again(
    tiny_model: Path, tmp_path: Path
) -> None:
    run = opened(many_shards(tmp_path, tiny_model))
    emovec("run", run.manifest, "--root", run.layout.root)
    before = run.contents()
    files = {n: residual(run, OWN, f"residual_mean/c/{n}/0/0/0") for n in range(3)}
    read = {n: file.stat().st_mtime_ns for n, file in files.items()}
    flip(files[1], 12345)
    assert run.verify("--repair", check=1)["repair"]["moved"] == [
        f"cells/{OWN}/residuals.zarr/residual_mean/c/1/0/0/0"
    ]
    printed = emovec("run", run.manifest, "--root", run.layout.root).stdout
    assert "2108 texts, 1084 of them done before" in printed
    assert "analyze" not in printed
    assert {n for n, file in files.items() if file.stat().st_mtime_ns != read[n]} == {1}
    same_but_for_records(run, before)
    assert run.verify()["clean"]


def test_an_interrupted_look_leaves_nothing_behind_and_changes_nothing(run: Run) -> None:
    before, log = run.contents(), run.layout.logs / "verify-tiny.log"
    where = (run.manifest, run.layout.root)
    end = interrupt(*where, signal.SIGINT, log.exists, "verify", "--recompute", "9")
    assert end.returncode == 130
    assert "Traceback" not in end.error
    assert not end.left
    assert run.contents() == before
    assert run.verify()["clean"]
