"""Runs that are killed, stopped and interrupted at any moment go on and end with the same bytes.

Writing by vLLM is killed in test_faults.py, since each kill costs an engine's start; the written
corpus here has its journal already.
"""

from __future__ import annotations

import os
import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.killing import (
    BEGINNING,
    Moment,
    Pace,
    copy_prepared,
    draw,
    end_anywhere,
    finish_undisturbed,
    kinds_of,
    small_run,
)
from tests.soak import WARM, Sample, grown
from tests.verified import Run

KILLS = int(os.environ.get("EMOVEC_KILLS", "44"))
"""How many kills the long test draws."""

Undisturbed = tuple[Run, Run, Pace]


def undisturbed(folder: Path, model: Path, steering: bool) -> Undisturbed:
    prepared = small_run(folder / "prepared", model, steering)
    run = copy_prepared(prepared, folder / "undisturbed")
    return prepared, run, finish_undisturbed(run)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Undisturbed:
    return undisturbed(tmp_path_factory.mktemp("small"), tiny_model, steering=False)


def test_a_run_that_is_stopped_and_killed_on_its_way_ends_with_the_same_bytes(
    small: Undisturbed, tmp_path: Path
) -> None:
    moments = [
        Moment("extract", 0.8, by_files=False),
        Moment("analyze", 0.5, by_files=True),
        Moment("figures", 0.5, by_files=True),
    ]
    hows = [signal.SIGTERM, signal.SIGKILL, signal.SIGKILL]
    count = end_anywhere(*small, tmp_path, moments, hows)
    assert count.struck == len(moments)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_kills_at_random_moments_of_every_stage(tiny_model: Path, tmp_path: Path) -> None:
    runs = undisturbed(tmp_path, tiny_model, steering=True)
    kinds = kinds_of(runs[0])
    count = end_anywhere(*runs, tmp_path, draw(random.Random(1), kinds, KILLS))
    print(count)
    assert count.struck == KILLS
    if 3 * len(kinds) <= KILLS:
        lasting = {"extract", "words", "analyze", "steer", "tables", "figures"}
        assert {BEGINNING, *lasting} <= set(count.hits)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_stops_and_interruptions_at_random_moments_of_every_stage(
    small: Undisturbed, tmp_path: Path
) -> None:
    moments = draw(random.Random(2), kinds_of(small[0]), max(4, KILLS // 2))
    count = end_anywhere(*small, tmp_path, moments, [signal.SIGTERM, signal.SIGINT])
    print(count)
    assert count.struck == len(moments)


def test_a_soak_names_what_grew_and_what_was_left() -> None:
    still = Sample(900.0, 600.0, 200.0, 3000.0, 19, 15, 0, 0, 4, 2, 0)
    assert grown([still] * 12) == []
    warming = [replace(still, held_mb=100.0 * n) for n in range(1, WARM + 1)]
    assert grown([*warming, *[still] * 9]) == []
    leaking = [
        replace(still, held_mb=600.0 + 30 * n, heap_mb=200.0 + n, blocks=3000.0 + 20 * n)
        for n in range(12)
    ]
    assert [line.partition(":")[0] for line in grown(leaking)] == ["held_mb", "heap_mb", "blocks"]
    threads = [replace(still, threads=19 + n) for n in range(12)]
    assert [line.partition(":")[0] for line in grown(threads)] == ["threads"]
    assert grown([*[still] * 8, replace(still, others=1)]) == ["others: 1 were left"]
    fonts = [replace(still, open_files=15 + 2 * n) for n in range(40)]
    assert [line.partition(":")[0] for line in grown(fonts)] == ["open_files"]
