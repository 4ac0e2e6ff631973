"""Rows of journals with right checksums and other contents than a run writes: named, not used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from store.journal import Journal, damaged_lines, read_journal
from store.journal_lines import MEND_BYTES, Row, encode_row
from store.journal_shapes import Odd, any_row, odd_measure, odd_reply
from tests.verified import Run, command, opened, prepare_run

REPLY: Row = {
    "request": "happy/000",
    "attempt": 0,
    "seed": 7,
    "outcome": "kept",
    "reason": "",
    "checks": "c",
    "stories": ["one “ü”", "two"],
    "reply": "STORY 1",
    "finish_reason": "stop",
    "prompt_tokens": 3,
    "output_tokens": 4,
}
WITHDRAWN: Row = {
    "text_id": "happy/000/0",
    "outcome": "withdrawn",
    "reason": "duplicate",
    "overlap": 0.5,
    "place": [61, 0],
}
CONDITION = {"direction": "happy", "source": -1, "target": 2, "strength": 0.1}
WRITTEN: Row = {
    "row": "written",
    "text": "t",
    "condition": CONDITION,
    "prompt": "p",
    "sample": 0,
    "seed": 2**62,
    "reply": "",
    "finish_reason": "length",
    "tokens": [3, 4],
}
SCORED: Row = {
    "row": "scored",
    "key": "k",
    "condition": CONDITION,
    "log_p": [[-1.5, float("-inf")], [-2, -3.0]],
    "preference": [0.5],
}
JUDGED: Row = {"row": "judged", "text": "t", "nll": None, "tokens": 2}
GOOD: list[tuple[Odd, Row]] = [
    (odd_reply, REPLY),
    (odd_reply, WITHDRAWN),
    (odd_measure, WRITTEN),
    (odd_measure, SCORED),
    (odd_measure, JUDGED),
]
OPTIONAL = ("seed", "prompt_tokens", "output_tokens")
ODD_VALUES: tuple[Any, ...] = (
    None, True, -2, 10**400, 0.5, "\ud800", "x", [], [[]], [None], [1, [2]], {}, {"a": 1},
)  # fmt: skip


@pytest.mark.parametrize(("odd", "row"), GOOD)
def test_a_row_that_lacks_or_adds_a_key_or_has_another_type_is_told(odd: Odd, row: Row) -> None:
    assert odd(row) is None
    assert odd(dict(reversed(row.items()))) is None
    assert odd({**row, "more": 1}) == ("more", f"unknown key; known: {', '.join(row)}")
    for key in row:
        lacking = odd({name: value for name, value in row.items() if name != key})
        assert (lacking is None) == (row is REPLY and key in OPTIONAL), key
        found = [odd({**row, key: value}) for value in ODD_VALUES]
        told = [wrong for wrong in found if wrong is not None]
        assert len(told) >= len(ODD_VALUES) - 3, key
        assert all(wrong[0] == key and len(wrong[1]) < 200 for wrong in told), key


def test_counts_text_and_conditions_have_bounds() -> None:
    for key in ("attempt", "seed", "prompt_tokens", "output_tokens"):
        assert odd_reply({**REPLY, key: -1}) is not None
        assert odd_reply({**REPLY, key: 2**63}) is not None
        assert odd_reply({**REPLY, key: True}) is not None
    for key in ("reply", "reason"):
        assert odd_reply({**REPLY, key: "\ud800"}) is not None
    assert odd_reply({**REPLY, "stories": ["a", "\udc00"]}) is not None
    assert odd_reply({**REPLY, "stories": ["a", 3]}) is not None
    assert odd_measure({**WRITTEN, "tokens": [1, 2**63]}) is not None
    assert odd_measure({**WRITTEN, "condition": {**CONDITION, "source": -2}}) is not None
    assert odd_measure({**WRITTEN, "condition": {**CONDITION, "more": 1}}) is not None
    assert odd_measure({**SCORED, "log_p": [[1.0], [1.0, 2.0]]}) is not None
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    assert odd_reply({**REPLY, "reply": deep}) == ("reply", "expected text, got another list")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    """A run with a whole journal of a corpus that is not sealed."""
    return prepare_run(tmp_path_factory.mktemp("odd"), tiny_model)


@pytest.fixture
def begun(prepared: Run) -> Iterator[Run]:
    run = opened(prepared.manifest)
    journal = run.layout.journal("written")
    whole = journal.read_bytes()
    yield run
    journal.write_bytes(whole)


SPOILT: dict[str, tuple[str, Any, str]] = {
    "a number": ("reply", 5, "expected text, got 5"),
    "no stories": ("stories", None, "expected a list of texts, got None"),
    "a huge number": ("attempt", 10**400, "expected a whole number from 0, got 1000000000"),
    "another request": ("request", "nobody/000", "nothing that is asked for written"),
    "too many stories": ("stories", ["a"] * 50, "50, where"),
    "an unknown key": ("more", 1, "unknown key; known: request, "),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_such_a_row_is_one_line_and_is_blanked_by_a_repair(spoilt: str, begun: Run) -> None:
    journal = begun.layout.journal("written")
    key, value, said = SPOILT[spoilt]
    lines = journal.read_bytes().splitlines(keepends=True)
    row = json.loads(lines[3])
    row.pop("crc32")
    lines[3] = encode_row({**row, key: value})
    journal.write_bytes(b"".join(lines))
    for name in ("status", "plan", "run", "generate"):
        code, _, err = command(begun, name)
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith(f"{journal}:4: {key}: {said}")
        assert "; `emovec verify MANIFEST --repair` mends it" in err
    code, out, _ = command(begun, "verify")
    assert code == 1
    assert "DAMAGED  corpora/written/journal.jsonl (generate:written): line 4 is no row" in out
    assert f"{key}: {said}" in out
    code, out, _ = command(begun, "verify", "--repair")
    assert "mended, but for 1 rows, which are lost" in out
    assert len(journal.read_bytes()) == len(b"".join(lines))
    assert len(list(read_journal(journal, odd_reply))) == len(lines) - 2
    assert command(begun, "verify")[0] == 0
    assert command(begun, "status")[0] == 0


def test_rows_of_other_settings_are_counted_and_not_asked(begun: Run) -> None:
    """Another version may have written other rows; nothing of them is used or thrown away."""
    journal = begun.layout.journal("written")
    journal.unlink()
    with Journal(journal, "0" * 64) as other:
        other.append({"request": 3})
    assert command(begun, "status")[0] == 0
    assert command(begun, "verify")[0] == 0


@pytest.mark.parametrize(
    "header",
    [{"journal": 2}, {"fingerprint": "f"}, {"journal": 2, "fingerprint": 4},
     {"journal": "2", "fingerprint": "f"}, {"journal": 2, "fingerprint": "/../../../x"}],
)  # fmt: skip
def test_a_header_that_is_none_is_one_line(header: Row, begun: Run) -> None:
    """Its fingerprint names the folder that the corpus goes to: it must not lead elsewhere."""
    journal = begun.layout.journal("written")
    journal.write_bytes(encode_row(header))
    for name in ("status", "plan", "run"):
        code, _, err = command(begun, name)
        assert code == 2
        assert err.startswith(f"{journal}:1: not a journal's header; `emovec verify MANIFEST")
        assert err.count("\n") == 1
    code, out, _ = command(begun, "verify")
    assert code == 1
    assert "DAMAGED  corpora/written/journal.jsonl" in out
    assert journal.is_file()


def test_a_flipped_bit_beside_such_a_row_is_turned_back_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    with Journal(file, "f1") as journal:
        for row in (REPLY, {**REPLY, "reply": 5}, REPLY):
            journal.append(row)
    whole = file.read_bytes().splitlines(keepends=True)
    flipped = bytes([whole[3][9] ^ 1])
    file.write_bytes(b"".join(whole[:3]) + whole[3][:9] + flipped + whole[3][10:])
    odd, damaged = damaged_lines(file, odd_reply)
    assert (odd.first, odd.content, odd.odd) == (3, whole[2], ("reply", "expected text, got 5"))
    assert (damaged.first, damaged.odd) == (4, None)
    assert len(damaged.content) < MEND_BYTES
    assert [d.first for d in damaged_lines(file, any_row)] == [4]


def test_the_rows_that_runs_write_are_taken(begun: Run) -> None:
    rows = list(read_journal(begun.layout.journal("written"), odd_reply))
    assert {row["outcome"] for row in rows} == {"kept", "refused"}
