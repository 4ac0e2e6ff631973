"""The page of a run, or of several beside each other: gathers what is shown and writes one file."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from analysis.paging import page_names
from analysis.report.content import CorpusContent, Refused, RunContent, SteeringContent, Story
from engine.generation.demand import Demand
from engine.generation.prompts import writing_from_json, writing_to_json
from engine.shown_tables import refuse_odd_tables
from manifests.errors import InputError, Problem, shorten
from store.atomic import write_text
from store.corpus import Text, iter_texts
from store.journal import read_journal
from store.records import read_record

if TYPE_CHECKING:
    import pandas as pd

    from engine.plan import Plan
    from store.layout import Layout

EXAMPLES = 3
"""Refused replies shown for each check."""

CARRIED_BYTES = 3_000_000
"""Gzipped tables that a page carries in all; of larger ones it says where they are."""

MADE = {
    "writing": ("generate",),
    "reading": ("extract",),
    "analysis": ("analyze", "tables"),
    "steering": ("steer", "effects"),
}
"""Kinds of stages whose programs the page names."""

PRIVATE = ("corpus_emotions.csv",)
"""Tables that repeat ratings, which may not be passed on, and stay in the run's folder."""

FIRST = (
    *("geometry.csv", "claims.csv", "claim_summary.csv", "profiles.csv", "norms.csv"),
    *("corpora.csv", "activations.csv", "geometry.md", "claims.md"),
)
"""Tables that are carried before others."""

SHOWN = (
    *("geometry", "claims", "claim_summary", "profiles"),
    *("activations", "detection", "corpora", "norms"),
)


def page_job(plan: Plan, layout: Layout) -> dict[str, Any]:
    """Return what `gather` takes."""
    from engine.analyses import analysed_cells

    stages = list(plan.stages.values())
    corpora = []
    for name in plan.study.manifest.corpora:
        writing = plan.study.writing.get(name)
        corpora.append(
            {
                "name": name,
                "writer": plan.writer(name),
                "writing": None if writing is None else writing_to_json(writing),
                "stories": str(layout.stories(name)),
                "journal": str(layout.journal(name)),
                "flagged": str(layout.flagged(name)),
            }
        )
    return {
        "name": plan.study.manifest.name,
        "manifest": str(layout.manifest),
        "records": {
            kind: [str(layout.record(s.kind, s.name)) for s in stages if s.kind in kinds]
            for kind, kinds in MADE.items()
        },
        "cells": analysed_cells(plan, layout),
        "tables": str(layout.tables),
        "stories_per_emotion": plan.study.manifest.report.stories_per_emotion,
        "corpora": corpora,
        "steering": None if plan.study.steered is None else steering_pictures(plan, layout),
    }


def steering_pictures(plan: Plan, layout: Layout) -> dict[str, str]:
    """Return the files of the pictures of steering by their names, in order."""
    pages = plan.stages["effects:all"].settings["pages"]
    names = [name for figure, n in pages.items() for name in page_names(figure, n)]
    return {name: str(layout.figures / f"{name}.png") for name in names}


def write_page(jobs: list[dict[str, Any]], target: Path) -> int:
    """Write the page of one run or several and return its bytes.

    Raises:
        InputError: tables or a manifest hold other things than a run writes.
    """
    from analysis.report.page import build_page

    try:
        page = build_page([gather(job, CARRIED_BYTES // len(jobs)) for job in jobs])
    except InputError:
        raise
    except Exception:
        for job in jobs:
            refuse_odd_tables(Path(job["tables"]))
            _refuse_odd_manifest(Path(job["manifest"]))
        raise
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, page)
    return target.stat().st_size


def _refuse_odd_manifest(file: Path) -> None:
    """Name a run's manifest that is none with all its defaults, to be asked when a page failed.

    Raises:
        InputError: naming the file.
    """
    from manifests.schema import Manifest

    try:
        given = yaml.safe_load(file.read_text(encoding="utf-8"))
        given.pop("resolved", None)
        whole = Manifest.model_validate(given)
        odd = whole.model_dump(mode="json", by_alias=True, exclude_none=True) != given
    except (ValueError, AttributeError, TypeError, yaml.YAMLError):
        odd = True
    if odd:
        what = "another manifest than a run writes; remove the file; the next run writes it again"
        raise InputError(Problem(file, None, "", what))


def gather(job: dict[str, Any], carried: int = CARRIED_BYTES) -> RunContent:
    """Return a run as its page shows it.

    Args:
        job: as `page_job` gives it.
        carried: bytes of gzipped tables that the page may carry.
    """
    from engine.tasks import open_results

    folder = Path(job["tables"])
    tables = {name: _read_table(folder / f"{name}.csv") for name in SHOWN}
    files, left = carried_tables(folder, carried)
    per_emotion = job["stories_per_emotion"]
    return RunContent(
        name=job["name"],
        manifest=yaml.safe_load(Path(job["manifest"]).read_text(encoding="utf-8")),
        versions=_versions(job["records"]),
        cells=open_results(job["cells"]),
        tables=tables,
        files=files,
        left=left,
        corpora=[
            corpus_content(corpus, per_emotion, tables["corpora"]) for corpus in job["corpora"]
        ],
        steering=None if job["steering"] is None else _steering(folder, job["steering"]),
    )


def _steering(tables: Path, files: dict[str, str]) -> SteeringContent:
    pictures = {name: Path(file).read_bytes() for name, file in files.items()}
    names = ("steering_trends", "steering_tests", "transfer", "transfer_layers")
    return SteeringContent(*(_read_table(tables / f"{name}.csv") for name in names), pictures)


def _versions(records: dict[str, list[str]]) -> dict[str, dict[str, str]]:
    """Return the programs' versions by kind of work; several where stages differ in them."""
    found: dict[str, dict[str, str]] = {}
    for kind, files in records.items():
        made = [r.versions for r in map(read_record, map(Path, files)) if r is not None]
        names = dict.fromkeys(name for versions in made for name in versions)
        listed = {
            name: " and ".join(dict.fromkeys(v[name] for v in made if name in v)) for name in names
        }
        if listed:
            found[kind] = listed
    return found


def _read_table(file: Path) -> pd.DataFrame:
    import pandas as pd

    return pd.read_csv(file, keep_default_na=False, na_values=["nan"])


def carried_tables(folder: Path, limit: int) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Return the tables that fit, those of FIRST before the smallest, and the others' names.

    A table of nothing but its header is neither.
    """
    there = sorted(f for kind in ("*.csv", "*.md") for f in folder.glob(kind))
    read = {f.name: f.read_bytes() for f in there}
    found = [f for f in there if f.suffix != ".csv" or b"\n" in read[f.name].rstrip()]
    contents = {f.name: read[f.name] for f in found if f.name not in PRIVATE}
    sizes = {name: len(gzip.compress(content, 6)) for name, content in contents.items()}
    taken: set[str] = set()
    for name in sorted(sizes, key=lambda name: (name not in FIRST, sizes[name])):
        if sizes[name] <= limit:
            taken.add(name)
            limit -= sizes[name]
    left = tuple(f.name for f in found if f.name not in taken)
    return {name: contents[name] for name in contents if name in taken}, left


def corpus_content(
    corpus: dict[str, Any], per_emotion: int, corpora: pd.DataFrame
) -> CorpusContent:
    """Return a corpus as the page shows it.

    Args:
        corpus: as `page_job` gives it.
        per_emotion: stories of each emotion to show; with 0 no refused replies are shown either.
        corpora: the corpora's table, which says how many replies each check refuses.
    """
    writing = None if corpus["writing"] is None else writing_from_json(corpus["writing"])
    shown: list[Story] = []
    seen: Counter[str] = Counter()
    for text in iter_texts(Path(corpus["stories"])):
        if text.emotion is None:
            continue
        seen[text.emotion] += 1
        if seen[text.emotion] <= per_emotion:
            shown.append(Story(text.emotion, text.topic or "", text.text))
    if per_emotion == 0:
        refused: list[Refused] = []
    elif writing is None:
        refused = list(_flagged(Path(corpus["flagged"]), Path(corpus["stories"])))
    else:
        row = corpora[corpora["corpus"] == corpus["name"]].iloc[0]
        counts = {
            str(key).removeprefix("refused_"): int(n)
            for key, n in row.items()
            if str(key).startswith("refused_") and n == n and n > 0
        }
        demand = Demand(corpus["name"], writing)
        refused = list(_refused(demand, Path(corpus["journal"]), counts))
    return CorpusContent(
        name=corpus["name"],
        writer=corpus["writer"],
        prompts={} if writing is None else dict(vars(writing.prompts)),
        stories=tuple(shown),
        n_stories=sum(seen.values()),
        refused=tuple(refused),
    )


def _refused(demand: Demand, journal: Path, counts: dict[str, int]) -> Iterator[Refused]:
    """Yield the first few replies that each check refuses, as it is set today.

    Args:
        demand: of the corpus.
        journal: of its replies.
        counts: how many each check refuses, so that the search may end early.
    """
    wanted = {check: min(EXAMPLES, n) for check, n in counts.items() if check != "duplicate"}
    for row in read_journal(journal, demand.oddity):
        if not wanted:
            return
        if row["outcome"] == "withdrawn":
            continue
        reason = demand.verdict(row).reason
        check = reason.partition(":")[0]
        if check in wanted:
            yield Refused(reason, demand.request(row["request"]).emotion, row["reply"])
            wanted[check] -= 1
            if wanted[check] == 0:
                del wanted[check]


MAKE_AGAIN = "remove the file; after `emovec verify MANIFEST --repair` the next run makes it again"


def _flagged(file: Path, stories: Path) -> Iterator[Refused]:
    """Yield the first few texts that break each check and stay in.

    Raises:
        InputError: it is another list than `describe` writes.
    """
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for number, row in enumerate(rows, start=1):
        for column in ("text_id", "check", "found"):
            if row.get(column) is None:
                what = f"row {number} has no such column; {MAKE_AGAIN}"
                raise InputError(Problem(file, None, column, what))
    chosen: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        some = chosen.setdefault(row["check"], [])
        if len(some) < EXAMPLES:
            some.append(row)
    wanted = {row["text_id"] for some in chosen.values() for row in some}
    texts: dict[str, Text] = {t.text_id: t for t in iter_texts(stories) if t.text_id in wanted}
    for some in chosen.values():
        for row in some:
            text = texts.get(row["text_id"])
            if text is None:
                what = f"no text {shorten(row['text_id'])} in {stories.name}; {MAKE_AGAIN}"
                raise InputError(Problem(file, None, "text_id", what))
            yield Refused(f"{row['check']}: {row['found']}", text.emotion or "", text.text)
