"""Texts of a sealed corpus that break a check without being refused: counted and listed."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import get_args

from engine.generation.checks import Source, find_flaws, instruction_runs
from engine.generation.duplicates import near_duplicates
from manifests.schema import Checks, TextCheck
from store.atomic import written_whole
from store.corpus import iter_texts

TEXT_CHECKS: tuple[TextCheck, ...] = get_args(TextCheck)

Flag = tuple[str, TextCheck, str]
"""A text's id, the check that it breaks, and what was found."""

FINGERPRINT_DIGITS = 16
"""Of the stage that made a row, in tables and lists."""


def flag_texts(
    stories: Path,
    target: Path,
    checks: Checks,
    fingerprint: str,
    names: Collection[TextCheck] = TEXT_CHECKS,
    templates: Collection[str] = (),
) -> dict[str, int]:
    """Write a table of (text_id, check, found, fingerprint); return how many texts break each.

    Args:
        stories: a sealed corpus.
        target: the CSV to write; of a corpus without flaws it holds the header only.
        checks: thresholds.
        fingerprint: of the stage that describes the corpus; its first digits go into each row.
        names: checks to look at, none of which refuses a text of this corpus.
        templates: prompts that its texts may echo.
    """
    counts: Counter[str] = Counter(dict.fromkeys(names, 0))
    with written_whole(target) as partial, partial.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("text_id", "check", "found", "fingerprint"))
        for flag in _flags(stories, checks, names, templates):
            writer.writerow((*flag, fingerprint[:FINGERPRINT_DIGITS]))
            counts[flag[1]] += 1
    return dict(counts)


def _flags(
    stories: Path, checks: Checks, names: Collection[TextCheck], templates: Collection[str]
) -> Iterator[Flag]:
    if not names:
        return
    instructions = instruction_runs(templates)
    for text in iter_texts(stories):
        for name, found in find_flaws(text.text, Source(checks, text.emotion, instructions)):
            if name in names:
                yield text.text_id, name, found
    if "duplicate" in names:
        ids, bodies = zip(*((text.text_id, text.text) for text in iter_texts(stories)), strict=True)
        for duplicate in near_duplicates(bodies, checks.max_overlap):
            found = f"{duplicate.overlap:.2f} of {ids[duplicate.earlier]}"
            yield ids[duplicate.position], "duplicate", found
