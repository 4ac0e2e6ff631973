"""Goes over a run once: lists, records, corpora, cells, and what no list names."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable

from engine.models import tokenizer_at_hand
from engine.outputs import output_keys
from engine.plan import Plan, Stage, rows_of
from engine.verification.cells import CellLook, hold_tokens, open_cell_look
from engine.verification.corpora import (
    hold_journal,
    look_at_corpus,
    look_at_journal,
    look_at_superseded,
)
from engine.verification.findings import Kind, Report
from engine.verification.lists import (
    Check,
    Lists,
    compare,
    find_missing,
    find_unlisted,
    read_lists,
)
from engine.verification.records import hold_figures, look_at_records
from manifests.errors import InputError
from store.corpus import Corpus
from store.digests import digest_of
from store.layout import LARGE, Layout
from store.places import sizes, there
from store.records import Record
from store.shards import missing_shards

Tell = Callable[[int, int], None]
"""Told of bytes read so far, and of bytes to read in all."""


class Look:
    """One look at a run, which has to be left alone meanwhile.

    Attributes:
        report: what was found.
        lists: what the run's lists of digests say.
        corpora: texts of the corpora that are what they were, by name.
        cells: cells whose arrays could be opened, by name.
    """

    def __init__(self, plan: Plan, layout: Layout, tell: Tell):
        self._plan, self._layout, self._tell = plan, layout, tell
        self.report = Report()
        self.lists = Lists()
        self.corpora: dict[str, Corpus] = {}
        self.cells: dict[str, CellLook] = {}
        self._there: dict[str, int] = {}
        self._records: dict[str, Record] = {}
        self._superseded: set[str] = set()

    def take(self) -> None:
        """Look at everything."""
        started = time.monotonic()
        plan, layout, report = self._plan, self._layout, self.report
        self._there = _files(layout)
        self.lists = read_lists(plan, layout, report)
        wanted = self._listed_or_owned()
        shards = {key for key in wanted if "/residuals.zarr/residual_mean/c/" in key}
        total, read = sum(self._there[key] for key in wanted), 0

        def tell(size: int) -> None:
            nonlocal read
            read += size
            self._tell(read, total)

        whole = self._look_at_journals()
        compare(layout, self.lists, wanted - shards, {}, report, tell)
        find_missing(plan, layout, self.lists, self._there, report)
        self._records = look_at_records(plan, layout, report)
        self._look_at_corpora(whole)
        checks = self._open_cells()
        compare(layout, self.lists, shards, checks, report, tell)
        self._look_at_tables()
        unseen = {key: size for key, size in self._there.items() if key not in self._superseded}
        find_unlisted(plan, layout, self.lists, unseen, report)
        self._look_at_copies()
        report.seconds = time.monotonic() - started

    def _listed_or_owned(self) -> set[str]:
        """Return the keys of all files that a list names or a stage of the plan left."""
        owned = {key for s in self._plan.stages.values() for key in output_keys(self._layout, s)}
        return {key for key in {*self.lists.owner, *owned} if key in self._there}

    def _look_at_journals(self) -> set[str]:
        """Check every row of every journal; return the stages whose journal is whole."""
        layout, whole = self._layout, set()
        of = {"generate": layout.journal, "steer": layout.steering}
        stages = [stage for stage in self._plan.stages.values() if stage.kind in of]
        for stage in stages:
            file = of[stage.kind](stage.name)
            if not file.is_file():
                continue
            odd = rows_of(self._plan, stage, layout)
            if look_at_journal(layout, file, stage.id, self.report, odd):
                whole.add(stage.id)
        self._superseded = look_at_superseded(layout, self.report)
        return whole

    def _look_at_corpora(self, whole: set[str]) -> None:
        for stage in self._plan.stages.values():
            if stage.kind in ("generate", "import"):
                record = self._records.get(stage.id)
                corpus = look_at_corpus(self._layout, stage, record, self.report)
                if corpus is None:
                    continue
                self.corpora[stage.name] = corpus
                if record is not None and stage.id in whole:
                    hold_journal(self._plan, self._layout, stage, corpus, self.report)

    def _open_cells(self) -> dict[str, Check]:
        """Open what can be opened, and return what looks into the bytes of shards."""
        checks: dict[str, Check] = {}
        for stage in self._plan.stages.values():
            folder = self._layout.residuals(stage.name)
            if stage.kind != "extract" or not there(folder):
                continue
            root = f"cells/{stage.name}/{LARGE[0]}"
            if self.report.found_under(root):
                self.report.notes.append(
                    f"{stage.id}: its shards were held against digests only, since its metadata "
                    "is damaged"
                )
                continue
            cell = self._open(stage)
            if cell is not None and not self.report.found_under(root):
                self.cells[stage.name] = cell
                checks |= cell.checks()
        return checks

    def _open(self, stage: Stage) -> CellLook | None:
        plan, report, folder = self._plan, self.report, self._layout.residuals(stage.name)
        corpus = self.corpora.get(plan.cell(stage.name).corpus)
        record = self._records.get(stage.id)
        texts = corpus.texts if corpus is not None and record is not None else None
        cell = open_cell_look(stage.id, folder, texts, report)
        if cell is None or record is None:
            return cell
        for shard in missing_shards(folder):
            key = cell.key("residual_mean", shard)
            if key in self._there:
                report.add(Kind.DAMAGED, key, stage.id, "it is empty")
            else:
                report.add(Kind.MISSING, key, stage.id, "not there")
        if not any(f.key.startswith(f"{cell.root}/") for f in report.findings):
            hold_figures(self._layout, cell, record, report)
        tokenizer = tokenizer_at_hand(plan.study, plan.cell(stage.name).model)
        if tokenizer is None:
            report.notes.append(f"{stage.id}: tokens not counted, its tokenizer is not at hand")
        elif texts is not None and len(cell.text_id) == len(texts):
            try:
                hold_tokens(cell, texts, tokenizer, report)
            except InputError as error:
                report.notes.append(f"{stage.id}: tokens not counted: {error}")
        return cell

    def _look_at_tables(self) -> None:
        """Read tables that no digest speaks of: rows of one length."""
        for key in self._there:
            if not key.startswith("tables/") or not key.endswith(".csv") or key in self.lists.owner:
                continue
            try:
                with (self._layout.run / key).open(newline="", encoding="utf-8") as stream:
                    lengths = {len(row) for row in csv.reader(stream)}
            except (OSError, ValueError, csv.Error) as error:
                self.report.add(Kind.DAMAGED, key, "", f"cannot be read: {error}")
                continue
            if len(lengths) != 1:
                self.report.add(Kind.DAMAGED, key, "", "its rows are of several lengths")

    def _look_at_copies(self) -> None:
        """Hold the copies in an object store against the same digests."""
        layout, far = self._layout, self._layout.far_run
        if far is None:
            return
        copies = sizes(far)
        for stage, digests in self.lists.stages.items():
            kind, _, name = stage.partition(":")
            listed = layout.digests(kind, name).relative_to(layout.run).as_posix()
            mine = {key: sha for key, sha in digests.items() if layout.home(key) == layout.run}
            if (layout.run / listed).is_file():
                mine[listed] = digest_of(layout.run, listed).sha256
            for key, sha in mine.items():
                if key not in copies:
                    what = "its copy in the object store is not there"
                    self.report.add(Kind.MISSING, key, stage, what, copy=True)
                elif digest_of(far, key).sha256 != sha:
                    what = "its copy in the object store is not what was written"
                    self.report.add(Kind.DAMAGED, key, stage, what, copy=True)


def _files(layout: Layout) -> dict[str, int]:
    """Return the bytes of every file of a run by its key, of those in an object store too."""
    found = sizes(layout.run) if layout.run.is_dir() else {}
    if layout.far_run is not None:
        far = sizes(layout.far_run)
        found |= {key: size for key, size in far.items() if layout.home(key) != layout.run}
    return found


def was_begun(layout: Layout) -> bool:
    """Tell whether there is a run at all."""
    return layout.run.is_dir() and any(
        (layout.run / part).exists() for part in ("records", "corpora", "manifest.yaml")
    )
