"""Corpora: whether the sealed texts are those that their identity and their journal speak of."""

from __future__ import annotations

from pathlib import Path

from engine.generation.demand import Demand
from engine.plan import Plan, Stage
from engine.verification.findings import Kind, Report
from manifests.errors import InputError
from store.corpus import Corpus, read_corpus, texts_identity
from store.digests import DamagedList, digest_of, parse_digests
from store.journal import damaged_lines, journal_rows
from store.journal_shapes import Odd, any_row
from store.layout import Layout
from store.records import Record
from store.superseded import KEPT, SUPERSEDED


def look_at_corpus(
    layout: Layout, stage: Stage, record: Record | None, report: Report
) -> Corpus | None:
    """Check a sealed corpus, and return it if its texts are what they were.

    Args:
        layout: of the run.
        stage: that made the corpus.
        record: of that stage, None where it is not finished, or was with other settings.
        report: takes what is found.
    """
    file = layout.stories(stage.name)
    key = file.relative_to(layout.run).as_posix()
    if not file.is_file() or report.found(key):
        return None
    try:
        corpus = read_corpus(file)
    except (InputError, OSError, ValueError, KeyError, TypeError):
        report.add(Kind.DAMAGED, key, stage.id, "the sealed corpus cannot be read")
        return None
    found = texts_identity(corpus.texts)
    if found != corpus.identity or len({t.text_id for t in corpus.texts}) < len(corpus.texts):
        report.add(Kind.DAMAGED, key, stage.id, "its texts are not those that were sealed")
        return None
    report.figures["texts"] += len(corpus.texts)
    if record is None:
        return corpus
    if record.identity != found or record.figures.get("texts", len(corpus.texts)) != len(
        corpus.texts
    ):
        report.add(Kind.DAMAGED, key, stage.id, "it is another corpus than its record speaks of")
        return None
    return corpus


def look_at_journal(
    layout: Layout, journal: Path, stage: str, report: Report, odd: Odd = any_row
) -> bool:
    """Check every row of a journal; tell whether all are as they were written.

    Args:
        layout: of the run.
        journal: its file.
        stage: that wrote it, "" for other settings.
        report: takes what is found.
        odd: what its rows are held against.
    """
    key = journal.relative_to(layout.run).as_posix()
    rows = 0
    for damage in damaged_lines(journal, odd):
        if damage.torn and damage.good in (None, damage.content + b"\n"):
            report.notes.append(
                f"{key} ends in the middle of a row, as an interrupted write leaves it"
            )
        else:
            what = f"the row in line {damage.first} is not as it was written"
            if damage.odd is not None:
                what = f"line {damage.first} is no row of a run: {': '.join(damage.odd)}"
            report.add(Kind.DAMAGED, key, stage, what)
            return False
    for _ in journal_rows(journal, odd):
        rows += 1
    report.figures["journal rows"] += rows
    return True


def hold_journal(plan: Plan, layout: Layout, stage: Stage, corpus: Corpus, report: Report) -> None:
    """Hold sealed texts against a whole journal: the replies that they were taken from."""
    journal = layout.journal(stage.name)
    key = layout.stories(stage.name).relative_to(layout.run).as_posix()
    demand = Demand(stage.name, plan.study.writing[stage.name])
    demand.replay(journal_rows(journal, demand.oddity))
    sealed = {text.text_id: text for text in corpus.texts}
    said = 0
    for text in demand.texts(journal):
        said += 1
        if sealed.get(text.text_id) != text:
            what = f"{text.text_id} is another text than its journal has"
            report.add(Kind.DAMAGED, key, stage.id, what)
            return
    if said < len(sealed):
        report.notes.append(
            f"{stage.id}: its journal has no reply for {len(sealed) - said} of its texts, "
            "which are in the sealed corpus"
        )


def look_at_superseded(layout: Layout, report: Report) -> set[str]:
    """Check what other settings left: journals row by row, corpora by the digests kept of them.

    Returns:
        The keys that a digest speaks of, and those of the lists.
    """
    for journal in sorted((layout.run / "cells").glob("*/.superseded/*.jsonl")):
        look_at_journal(layout, journal, "", report)
    covered: set[str] = set()
    for folder in sorted((layout.run / SUPERSEDED).glob("*/")):
        root = folder.relative_to(layout.run).as_posix()
        if (folder / "journal.jsonl").is_file():
            look_at_journal(layout, folder / "journal.jsonl", "", report)
        if not (folder / KEPT).is_file():
            continue
        covered.add(f"{root}/{KEPT}")
        try:
            digests = parse_digests((folder / KEPT).read_bytes())
        except DamagedList as error:
            report.add(Kind.DAMAGED, f"{root}/{KEPT}", "", f"the list of digests: {error}")
            continue
        covered |= {f"{root}/{name}" for name in digests}
        _hold_superseded(layout, root, digests, report)
    return covered


def _hold_superseded(layout: Layout, root: str, digests: dict[str, str], report: Report) -> None:
    """Hold the files of a corpus of other settings against what its stages left."""
    for name, wanted in digests.items():
        key = f"{root}/{name}"
        try:
            found = digest_of(layout.run, key)
        except FileNotFoundError:
            report.add(Kind.MISSING, key, "", "not there")
            continue
        except OSError as error:  # a bad block answers so
            report.add(Kind.DAMAGED, key, "", f"not read: {error}")
            continue
        report.files += 1
        report.size += found.size
        report.figures["digests"] += 1
        if found.sha256 != wanted:
            what = "its bytes are not those that were written" if found.size else "it is empty"
            report.add(Kind.DAMAGED, key, "", what)
