from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
import zarr
from safetensors.numpy import load_file

from manifests import InputError
from manifests.resolve import Importing
from manifests.schema import Columns, Import
from store import open_cell
from store.atomic import folder_written_whole, sweep_partials, written_whole
from store.corpus import (
    Text,
    corpus_identity,
    corpus_size,
    iter_texts,
    read_corpus,
    seal_corpus,
)
from store.exchange import read_texts, write_published
from store.fingerprint import fingerprint
from store.journal import Journal, damaged_lines, read_journal
from store.journal_lines import blanked, mended
from store.journal_shapes import any_row
from store.lock import RunLocked, run_lock
from store.residuals import ShardBlock, create_residuals, open_residuals, write_shard
from store.shards import missing_shards, n_shards, shard_span, shard_texts
from store.vectors import write_tensors


def texts(n: int) -> list[Text]:
    return [Text(f"happy/000/{i}", "emotion", "happy", "t", i, f"text {i}") for i in range(n)]


def test_fingerprints_are_what_they_were() -> None:
    golden = "d764fee2563da33e3d57334755404e635da33c995824b0adfabc4b6e1af4f608"
    assert fingerprint({"b": [1, 2.5, None], "a": "é"}) == golden
    assert fingerprint({"a": "é", "b": [1, 2.5, None]}) == golden
    with pytest.raises(ValueError, match="JSON"):
        fingerprint(float("nan"))


def test_a_journal_keeps_whole_rows_and_drops_a_torn_one(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    with Journal(file, "f1") as journal:
        journal.append({"request": "a", "text": "öß\u2028"})
        journal.append({"request": "b"})
    with file.open("ab") as stream:
        stream.write(b'{"request": "c", "te')
    assert [row["request"] for row in read_journal(file, any_row)] == ["a", "b"]
    with Journal(file, "f1") as journal:
        journal.append({"request": "d"})
    rows = list(read_journal(file, any_row))
    assert [row["request"] for row in rows] == ["a", "b", "d"]
    assert rows[0]["text"] == "öß\u2028"


def test_a_journal_syncs_rows_that_nothing_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with Journal(tmp_path / "journal.jsonl", "f1") as journal:
        at_first = len(synced)
        journal.append({"request": "a"})
        journal.sync_soon()
        assert len(synced) == at_first
        time.sleep(1.1)
        journal.sync_soon()
        journal.sync_soon()
        assert len(synced) == at_first + 1


def test_a_journal_of_other_settings_is_not_continued(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    Journal(file, "f1").__exit__(None, None, None)
    with pytest.raises(ValueError, match="other settings"):
        Journal(file, "f2")


def test_a_damaged_row_in_the_middle_is_named(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    with Journal(file, "f1") as journal:
        journal.append({"request": "a"})
    with file.open("ab") as stream:
        stream.write(b"\x00garbage\n{}\n")
    with pytest.raises(InputError, match=r"journal.jsonl:3: damaged"):
        list(read_journal(file, any_row))


def flipped(file: Path, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def test_every_flipped_bit_of_a_journal_is_told_and_can_be_mended(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    with Journal(file, "f1") as journal:
        for number in range(2):
            journal.append({"request": f"r{number}", "reply": "a J\n*word"})
    whole, rows = file.read_bytes(), list(read_journal(file, any_row))
    for bit in range(8 * len(whole)):
        flipped(file, bit)
        damage = list(damaged_lines(file, any_row))
        assert len(damage) == 1, bit
        start, content = damage[0].start, damage[0].content
        assert start <= bit // 8 < start + len(content)
        if bit // 8 == len(whole) - 1:  # the last newline: not an end that was torn off
            assert damage[0].torn
            assert damage[0].good == whole[start:]
        else:
            with pytest.raises(InputError, match="damaged line"):
                list(read_journal(file, any_row))
            if not bit % 5:
                assert mended(content) == whole[start : start + len(content)], bit
        flipped(file, bit)
    assert list(read_journal(file, any_row)) == rows


def test_a_whole_row_without_its_newline_is_not_cut_off(tmp_path: Path) -> None:
    """Whether that was flipped or not written any more; what is torn behind it is."""
    file = tmp_path / "journal.jsonl"
    with Journal(file, "f1") as journal:
        header = journal.append({"request": "a"})
        last = journal.append({"request": "b", "reply": 'J* "crc32": "00000000"}'})
    whole = file.read_bytes()
    spoilt = [whole[:-1], whole[:-1] + b"*" + whole[last:-9], whole[: last - 1] + b"J" + b'{"re']
    spoilt += [whole[:-1] + bytes([10 ^ 1 << bit]) for bit in range(8)]
    for content in spoilt:
        file.write_bytes(content)
        with Journal(file, "f1") as journal:
            journal.append({"request": "c"})
        kept = ["a"] if content[last:] == b'{"re' else ["a", "b"]
        assert [row["request"] for row in read_journal(file, any_row)] == [*kept, "c"]
        assert not list(damaged_lines(file, any_row))
    file.write_bytes(whole[: header - 1])  # the header alone
    with Journal(file, "f1") as journal:
        assert journal.append({"request": "a"}) == header
    for end in range(last + 1, len(whole) - 1):  # what is not whole is cut off
        file.write_bytes(whole[:end])
        with Journal(file, "f1"):
            assert file.read_bytes() == whole[:last]


def test_a_blanked_row_keeps_offsets_and_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    with Journal(file, "f1") as journal:
        offsets = [journal.append({"request": str(number)}) for number in range(40, 43)]
    content = file.read_bytes()
    line = content[offsets[1] : offsets[2]].replace(b"41", b"xx")
    assert mended(line) is None
    assert blanked(line[:20]) is None
    longer = line[:-1] + b" " * 60 + b"\n"
    blank = blanked(longer)
    assert blank is not None
    assert len(blank) == len(longer)
    file.write_bytes(content[: offsets[1]] + blank + content[offsets[2] :])
    assert [row["request"] for row in read_journal(file, any_row)] == ["40", "42"]
    assert not list(damaged_lines(file, any_row))


def test_a_journal_begun_before_rows_had_checksums_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    file.write_text('{"journal": 1, "fingerprint": "f1"}\n{"request": "a"}\n')
    with Journal(file, "f1") as journal:
        journal.append({"request": "b"})
    assert [row["request"] for row in read_journal(file, any_row)] == ["a", "b"]
    file.write_bytes(file.read_bytes().replace(b'"b"', b'"c"'))
    with pytest.raises(InputError, match=r"journal.jsonl:3: damaged"):
        list(read_journal(file, any_row))


def test_a_sealed_corpus_with_a_flipped_bit_is_read_or_is_one_line(tmp_path: Path) -> None:
    file, rng = tmp_path / "stories.parquet", random.Random(4)
    stories = [Text(f"a/{i}/0", "emotion", "a", None, i, f"hello {i} " * 9) for i in range(40)]
    identity = seal_corpus(file, stories).identity
    whole, refused = file.read_bytes(), list[str]()
    for bit in rng.sample(range(8 * len(whole)), 200):
        flipped(file, bit)
        for read in (read_corpus, corpus_identity, corpus_size, lambda f: list(iter_texts(f))):
            try:
                read(file)
            except InputError as error:
                refused.append(str(error))
        flipped(file, bit)
    assert len(refused) > 50
    (line,) = set(refused)
    assert line.startswith(f"{file}: damaged; `emovec verify MANIFEST --repair` moves it aside")
    assert len(line.splitlines()) == 1
    assert read_corpus(file).identity == identity
    pq.write_table(pa.table({"text": ["a"]}), file)
    with pytest.raises(InputError, match="damaged"):
        list(iter_texts(file))
    file.unlink()
    with pytest.raises(FileNotFoundError):
        read_corpus(file)


def test_a_corpus_comes_back_as_it_was_sealed(tmp_path: Path) -> None:
    rows = [*texts(3), Text("neutral-000", "neutral", None, None, 0, "Ω\n\nb")]
    identity = seal_corpus(tmp_path / "stories.parquet", rows)
    corpus = read_corpus(tmp_path / "stories.parquet")
    assert list(corpus.texts) == rows
    assert corpus.identity == identity.identity
    assert identity.n_texts == 4
    assert corpus.n_neutral == 1
    assert seal_corpus(tmp_path / "again.parquet", rows) == identity
    assert seal_corpus(tmp_path / "other.parquet", rows[:-1]) != identity


@pytest.mark.parametrize(
    "rows", [[], [*texts(1), *texts(1)], [Text("a", "emotion", "happy", "t", 0, "  ")]]
)
def test_what_is_no_corpus_cannot_be_sealed(tmp_path: Path, rows: list[Text]) -> None:
    with pytest.raises(ValueError, match=r"corpus|empty"):
        seal_corpus(tmp_path / "stories.parquet", rows)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"emotion": "sad"', "s.jsonl:2: not valid JSON"),
        (
            '{"emotion": "sad", "topic": "t", "stories": ["", "x"]}',
            "s.jsonl:2: stories.0: an empty",
        ),
        ('{"emotion": "sad", "topic": "t", "stories": []}', "s.jsonl:2: stories: expected a list"),
        (
            '{"topic": "t", "stories": ["x"]}',
            "s.jsonl:2: emotion: no such column",
        ),
        ('{"emotion": "sad", "topic": "t", "stories": [3]}', "s.jsonl:2: stories.0: expected text"),
        ('{"emotion": "sad", "topic": "t", "stories": ["\\ud800"]}', "s.jsonl:2: stories.0: exp"),
        ("[1]", "s.jsonl:2: expected an object"),
    ],
)
def test_a_broken_corpus_line_is_named(tmp_path: Path, line: str, expected: str) -> None:
    good = '{"emotion": "happy", "topic": "t", "stories": ["a b"]}'
    (tmp_path / "s.jsonl").write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(InputError) as caught:
        read_texts(importing(tmp_path / "s.jsonl"))
    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(expected)


def test_imported_texts_keep_file_order_and_distinct_ids(tmp_path: Path) -> None:
    row = {"emotion": "sad", "topic": "t", "stories": ["a", "b"]}
    lines = [json.dumps(row), json.dumps({**row, "stories": ["c"]})]
    (tmp_path / "s.jsonl").write_text("\r\n".join(lines) + "\r\n")
    (tmp_path / "n.txt").write_text("one\n\n two \n")
    found = read_texts(importing(tmp_path / "s.jsonl", tmp_path / "n.txt"))
    assert [t.text for t in found] == ["a", "b", "c", "one", "two"]
    assert [t.text_id for t in found[:3]] == ["sad/000/0", "sad/000/1", "sad/000/2"]


def importing(stories: Path, neutral: Path | None = None, **spec: Any) -> Importing:
    return Importing(Import(stories=str(stories), **spec), stories, neutral)


TABLE = [
    {"emotion": "joy", "topic": "t", "text": "a b"},
    {"emotion": "joy", "topic": "t", "text": 'c, "d"\ne'},
    {"emotion": "none", "topic": "u", "text": "f"},
]


def write_table(folder: Path, kind: str) -> Path:
    import datasets
    import pandas as pd

    file = folder / f"table.{kind}"
    frame = pd.DataFrame(TABLE)
    if kind == "csv":
        frame.to_csv(file, index=False)
    elif kind == "tsv":
        frame.to_csv(file, index=False, sep="\t")
    elif kind == "parquet":
        frame.to_parquet(file)
    elif kind == "jsonl":
        frame.to_json(file, orient="records", lines=True)
    else:
        labels = datasets.ClassLabel(names=["none", "joy"])
        table = datasets.Dataset.from_list(TABLE).cast_column("emotion", labels)
        if kind == "saved":
            table.save_to_disk(file)
        else:
            datasets.DatasetDict({"train": table}).save_to_disk(file)
    return file


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "jsonl", "saved", "saved-splits"])
def test_any_table_of_text_and_emotion_is_a_corpus(tmp_path: Path, kind: str) -> None:
    found = read_texts(importing(write_table(tmp_path, kind), neutral_emotion="none"))
    assert [(t.emotion, t.topic, t.text) for t in found] == [
        ("joy", "t", "a b"),
        ("joy", "t", 'c, "d"\ne'),
        (None, "u", "f"),
    ]
    assert [t.text_id for t in found] == ["joy/000/0", "joy/000/1", "neutral-000"]


def test_columns_are_named_and_emotions_thinned_by_a_hash(tmp_path: Path) -> None:
    rows = [{"label": "joy", "body": f"text {i}"} for i in range(20)]
    file = tmp_path / "t.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    columns = Columns(text="body", emotion="label")
    few = read_texts(importing(file, columns=columns, texts_per_emotion=5))
    file.write_text("\n".join(map(json.dumps, reversed(rows))))
    again = read_texts(importing(file, columns=columns, texts_per_emotion=5))
    assert len(few) == 5
    assert {t.text for t in few} == {t.text for t in again}
    assert few[0].topic is None


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"columns": Columns(text="body")}, "table.csv:2: body: no such column; the table has"),
        ({"neutral_emotion": "dull"}, "neutral_emotion: holds no text of the emotion 'dull'"),
        ({"split": "test"}, "has no split 'test'; it has train"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    tmp_path: Path, spec: dict[str, Any], expected: str
) -> None:
    kind = "saved-splits" if "split" in spec else "csv"
    with pytest.raises(InputError, match=re.escape(expected)):
        read_texts(importing(write_table(tmp_path, kind), **spec))


def test_lists_and_labels_of_odd_tables_are_taken_or_named(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    rows = [
        {"emotion": ["joy"], "topic": 7, "text": ["a b", "c d"]},
        {"emotion": "joy", "topic": float("nan"), "text": "e"},
        {"emotion": "joy", "topic": None, "text": "f"},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    found = read_texts(importing(file, texts_per_emotion=9))
    assert [(t.topic, t.text) for t in found] == [
        ("7", "a b"), ("7", "c d"), (None, "e"), (None, "f"),
    ]  # fmt: skip
    file.write_text('{"emotion": ["joy", "awe"], "text": "a"}\n{"emotion": "Joy", "text": "a"}\n')
    with pytest.raises(InputError, match=r"t.jsonl:1: emotion: several emotions"):
        read_texts(importing(file))
    file.write_text('{"emotion": "joy", "text": "a"}\n{"emotion": "Joy", "text": "a"}\n')
    with pytest.raises(InputError, match=r"'Joy' and 'joy' differ in case only"):
        read_texts(importing(file))


def test_many_broken_rows_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text('{"emotion": "joy", "text": ""}\n' * 500)
    with pytest.raises(InputError) as caught:
        read_texts(importing(file))
    assert len(caught.value.problems) == 21
    assert "and 480 more" in str(caught.value)


def test_a_published_corpus_is_read_by_datasets_and_by_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    rows = [*texts(3), Text("neutral-000", "neutral", None, "a walk", 0, "Ω\n\nb")]
    folder = tmp_path / "own"
    write_published(folder, "own", "About it.", rows)
    cache = str(tmp_path / "cache")
    stories = datasets.load_dataset(str(folder), split="train", cache_dir=cache)
    assert [story for row in stories for story in row["stories"]] == [t.text for t in rows[:3]]
    neutral = datasets.load_dataset(str(folder), "neutral", split="train", cache_dir=cache)
    assert neutral[0] == {"topic": "a walk", "text": "Ω\n\nb"}
    again = read_texts(importing(folder / "stories.jsonl", folder / "neutral.jsonl"))
    assert again == rows
    whole = read_texts(importing(folder, neutral_emotion=None))
    assert whole == rows[:3]
    with pytest.raises(FileExistsError, match="exists"):
        write_published(folder, "own", "", rows)


def test_a_sealed_corpus_streams(tmp_path: Path) -> None:
    n = 10_000
    many = (Text(f"e/000/{i}", "emotion", "e", "t", i, f"story {i}") for i in range(n))
    assert seal_corpus(tmp_path / "s.parquet", many).n_texts == n
    assert [t.story for t in iter_texts(tmp_path / "s.parquet")] == list(range(n))


def test_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(IsADirectoryError), written_whole(target) as partial:
        (partial.write_text("half"), tmp_path.read_text())
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    with folder_written_whole(tmp_path / "d") as partial:
        (partial / "x").write_text("1")
    with folder_written_whole(tmp_path / "d") as partial:
        (partial / "y").write_text("2")
    assert [f.name for f in (tmp_path / "d").iterdir()] == ["y"]


def test_leftovers_of_a_crash_are_swept(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.zarr.0123.partial").mkdir()
    (tmp_path / "a" / "y.csv.0123.partial").write_text("")
    (tmp_path / "a" / "keep").write_text("")
    sweep_partials(tmp_path)
    assert [f.name for f in (tmp_path / "a").iterdir()] == ["keep"]


HOLDER = """
import sys, time
from pathlib import Path
from typing import Any
from store.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_has_one_writer_and_a_crash_frees_it(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), str(lock)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(RunLocked, match=rf"process {holder.pid} on .* since 20"), run_lock(lock):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with run_lock(lock):
        assert json.loads((tmp_path / ".lock-holder.json").read_text())["process"] == os.getpid()


def test_shards_are_about_256_megabytes_within_bounds() -> None:
    assert shard_texts(3, 31, 576) == 1024
    assert shard_texts(3, 33, 4096) == 256_000_000 // (3 * 33 * 4096 * 4)
    assert shard_texts(3, 81, 8192) == 64


@pytest.fixture
def small_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, np.ndarray]:
    monkeypatch.setattr("store.shards.MAX_SHARD_TEXTS", 4)
    monkeypatch.setattr("store.shards.MIN_SHARD_TEXTS", 4)
    folder = tmp_path / "run" / "cells" / "m@c" / "residuals.zarr"
    folder.parent.mkdir(parents=True)
    create_residuals(folder, texts(10), ["all", "no-first"], [-1, 0, 2], 8, {"who": "test"})
    values = np.random.default_rng(0).normal(size=(10, 2, 3, 8)).astype(np.float32)
    return folder, values


def block_of(values: np.ndarray, span: range) -> ShardBlock:
    part = values[span.start : span.stop]
    counts = np.full((len(span), 2), 7, np.int32)
    by_layer = part[:, 0, :, 0]
    return ShardBlock(
        residual_mean=part,
        token_count=counts,
        text_tokens=np.full(len(span), 9, np.int32),
        peak_norm=by_layer,
        peak_position=np.zeros(by_layer.shape, np.int32),
        mean_norm=by_layer,
        first_norm=by_layer,
        mean_square=part[0, 0],
    )


def test_a_store_reads_back_what_was_written(small_store: tuple[Path, np.ndarray]) -> None:
    folder, values = small_store
    assert n_shards(folder) == 3
    assert missing_shards(folder) == [0, 1, 2]
    for shard in (2, 0, 1):
        write_shard(folder, shard, block_of(values, shard_span(folder, shard)))
    assert missing_shards(folder) == []
    cell = open_cell(folder.parents[2], "m@c")
    np.testing.assert_array_equal(cell["residual_mean"].to_numpy(), values)
    assert cell["residual_mean"].dims == ("text", "window", "layer", "d_model")
    assert cell["layer"].to_numpy().tolist() == [-1, 0, 2]
    assert list(cell["window"].to_numpy()) == ["all", "no-first"]
    assert list(cell["text_id"].to_numpy()[:2]) == ["happy/000/0", "happy/000/1"]
    assert (cell["token_count"].to_numpy() == 7).all()
    plain = xr.open_zarr(folder, consolidated=False)
    assert plain.attrs["who"] == "test"
    array = zarr.open_array(folder / "residual_mean", mode="r")
    assert array.chunks == (4, 1, 1, 8)
    assert array.shards == (4, 2, 3, 8)
    assert np.isnan(array.fill_value)


def test_a_missing_or_empty_shard_is_not_read_as_numbers(
    small_store: tuple[Path, np.ndarray],
) -> None:
    folder, values = small_store
    for shard in range(3):
        write_shard(folder, shard, block_of(values, shard_span(folder, shard)))
    file = folder / "residual_mean" / "c" / "1" / "0" / "0" / "0"
    file.write_bytes(b"")
    assert missing_shards(folder) == [1]
    with pytest.raises(FileNotFoundError, match="1 of 3 shards are missing"):
        open_residuals(folder)


def test_a_shard_without_a_single_token_is_there_all_the_same(
    small_store: tuple[Path, np.ndarray],
) -> None:
    folder, values = small_store
    for shard in range(3):
        empty = block_of(np.full_like(values, np.nan), shard_span(folder, shard))
        write_shard(folder, shard, empty)
    assert missing_shards(folder) == []
    assert open_residuals(folder)["residual_mean"].isnull().all()


def test_a_flipped_bit_raises(small_store: tuple[Path, np.ndarray]) -> None:
    folder, values = small_store
    for shard in range(3):
        write_shard(folder, shard, block_of(values, shard_span(folder, shard)))
    file = folder / "residual_mean" / "c" / "0" / "0" / "0" / "0"
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 3] ^= 1
    file.write_bytes(bytes(raw))
    with pytest.raises(Exception, match=r"(?i)checksum|corrupt|decompress|zstd"):
        open_residuals(folder)["residual_mean"].to_numpy()


def test_a_shard_written_twice_is_the_same_file(small_store: tuple[Path, np.ndarray]) -> None:
    folder, values = small_store
    file = folder / "residual_mean" / "c" / "0" / "0" / "0" / "0"
    write_shard(folder, 0, block_of(values, range(4)))
    first = file.read_bytes()
    write_shard(folder, 0, block_of(values, range(4)))
    assert file.read_bytes() == first
    with pytest.raises(ValueError, match="holds 2 texts, not 4"):
        write_shard(folder, 2, block_of(values, range(4)))


def test_tensors_that_are_views_are_written_as_they_read(tmp_path: Path) -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    views = {"column": x[0, :, 1], "turned": x.transpose(2, 0, 1), "whole": x}
    write_tensors(tmp_path / "x.safetensors", views)
    found = load_file(tmp_path / "x.safetensors")
    for name, values in views.items():
        assert (found[name] == values).all(), name
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]
