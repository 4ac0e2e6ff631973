"""The lists of digests of a run against its files, and the files that no list names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import PurePosixPath

from engine.outputs import folder_key, output_keys
from engine.plan import FOLDERS, Plan
from engine.verification.findings import Kind, Report
from store.atomic import PARTIAL
from store.digests import DamagedList, digest_of, parse_digests
from store.layout import Layout
from store.places import read_object, sizes
from store.records import read_record
from store.superseded import KEPT, SUPERSEDED

Check = Callable[[bytes], list[str]]
"""Looks into an object's bytes and says what is wrong with them."""
Tell = Callable[[int, int], None]
"""Told of bytes read so far, and of bytes in all."""

READERS = 8
"""Files read at once at most: each may be a shard of 256 MB, held as it is and in part unpacked."""


@dataclass
class Lists:
    """What a run's lists of digests say.

    Attributes:
        stages: sha256 by key, by the stage that wrote the list; of a damaged one, what is left.
        owner: the stage of each key.
        damaged: stages whose list is damaged or gone.
    """

    stages: dict[str, dict[str, str]] = field(default_factory=dict)
    owner: dict[str, str] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)

    def digest(self, key: str) -> str | None:
        """Return the sha256 that a list has for a key, None where there is none."""
        return self.stages.get(self.owner.get(key, ""), {}).get(key)


def read_lists(plan: Plan, layout: Layout, report: Report) -> Lists:
    """Read every list of a run, and find those that are damaged or gone."""
    lists = Lists()
    for key in sorted(sizes(layout.run, "digests")):
        path = PurePosixPath(key)
        if path.suffix != ".sha256" or len(path.parts) != 3:
            continue
        stage = f"{path.parts[1]}:{path.stem}"
        try:
            lists.stages[stage] = parse_digests(read_object(layout.run, key))
        except DamagedList as error:
            report.add(Kind.DAMAGED, key, stage, f"the list of digests: {error}")
            lists.stages[stage] = error.left
            lists.damaged.add(stage)
    for planned in plan.stages.values():
        record = read_record(layout.record(planned.kind, planned.name))
        if record is not None and record.listed and planned.id not in lists.stages:
            key = layout.digests(planned.kind, planned.name).relative_to(layout.run).as_posix()
            report.add(Kind.MISSING, key, planned.id, "the list of digests is gone")
            lists.stages[planned.id] = {}
            lists.damaged.add(planned.id)
    _require_manifests(layout, lists, report)
    for stage_id, digests in lists.stages.items():
        lists.owner.update(dict.fromkeys(digests, stage_id))
    for stage_id in lists.damaged:  # what it does not name any more is its stage's all the same
        lists.owner.update(dict.fromkeys(_owned(plan, layout, stage_id), stage_id))
    return lists


def _require_manifests(layout: Layout, lists: Lists, report: Report) -> None:
    """Find that the list of `manifest.yaml` is gone: a run that has lists has had that one first.

    It is written at the beginning of each run that has something to do. One that was ended then
    leaves a note of it.
    """
    file, stage = layout.digests("manifest", "all"), "manifest:all"
    if not lists.stages or stage in lists.stages:
        return
    if layout.manifest_pending.is_file():
        report.notes.append(
            f"no digest of {layout.manifest.name}: a run was ended while it was written; the next "
            "one that has something to do writes both"
        )
        return
    key = file.relative_to(layout.run).as_posix()
    report.add(Kind.MISSING, key, stage, "the list of digests is gone")
    lists.stages[stage] = {}
    lists.damaged.add(stage)


def _owned(plan: Plan, layout: Layout, stage_id: str) -> list[str]:
    kind, _, name = stage_id.partition(":")
    if kind == "manifest":
        return [layout.manifest.name]
    if stage_id not in plan.stages:
        return []
    record = layout.record(kind, name).relative_to(layout.run).as_posix()
    return [*output_keys(layout, plan.stages[stage_id]), record]


def compare(
    layout: Layout,
    lists: Lists,
    keys: Iterable[str],
    checks: Mapping[str, Check],
    report: Report,
    tell: Callable[[int], None],
) -> None:
    """Hold files against their digests, read by a thread for each CPU.

    Args:
        layout: of the run.
        lists: what its lists say.
        keys: of files that are there.
        checks: looks into the bytes of some of them, by key.
        report: takes what is found.
        tell: told of the bytes of each file that was read.
    """

    def look(key: str) -> tuple[str, int, list[str]]:
        if key not in checks:
            digest = digest_of(layout.home(key), key)
            return digest.sha256, digest.size, []
        content = read_object(layout.home(key), key)
        return sha256(content).hexdigest(), len(content), checks[key](content)

    with ThreadPoolExecutor(min(READERS, len(os.sched_getaffinity(0)))) as threads:
        running = {threads.submit(look, key): key for key in sorted(keys)}
        try:
            for future in as_completed(running):
                key = running[future]
                try:
                    _judge(lists, key, *future.result(), report)
                    tell(future.result()[1])
                except OSError as error:  # a bad block answers so
                    report.add(Kind.DAMAGED, key, lists.owner.get(key, ""), f"not read: {error}")
        finally:
            threads.shutdown(cancel_futures=True)


def _judge(
    lists: Lists, key: str, found: str, size: int, problems: list[str], report: Report
) -> None:
    """Say what the bytes of a file come to."""
    stage, wanted = lists.owner.get(key, ""), lists.digest(key)
    report.files += 1
    report.size += size
    if wanted is not None:
        report.figures["digests"] += 1
    if problems:
        report.add(Kind.DAMAGED, key, stage, "; ".join(problems))
    elif found != wanted and stage in lists.damaged:
        if not vouches_for_itself(key):
            what = "nothing vouches for it: the list of digests is damaged or gone"
            report.add(Kind.SUSPECT, key, stage, what)
    elif wanted is not None and found != wanted:
        empty = "it is empty" if not size else "its bytes are not those that were written"
        report.add(Kind.DAMAGED, key, stage, empty)


def vouches_for_itself(key: str) -> bool:
    """Tell whether a file carries checksums of its own, which are looked at too."""
    if key.startswith("corpora/"):
        return key.endswith(("/journal.jsonl", "/stories.parquet"))
    return "/residuals.zarr/" in key and "/c/" in key


def find_missing(
    plan: Plan, layout: Layout, lists: Lists, there: Mapping[str, int], report: Report
) -> None:
    """Find files that an intact list names and that are not there.

    A list without its record is what a run leaves that was ended between writing the two: a stage
    that is not finished, unless a record says that it was read.
    """
    records = (read_record(layout.record(s.kind, s.name)) for s in plan.stages.values())
    read = {stage for record in records if record is not None for stage in record.inputs}
    for stage, digests in lists.stages.items():
        missing = [key for key in digests if stage not in lists.damaged and key not in there]
        record_file = layout.record(*stage.split(":", 1)).relative_to(layout.run).as_posix()
        if stage not in read and missing == [record_file]:
            report.notes.append(f"{stage}: its record is not there; the next run makes it again")
            continue
        for key in missing:
            report.add(Kind.MISSING, key, stage, "not there")


def find_unlisted(
    plan: Plan, layout: Layout, lists: Lists, there: Mapping[str, int], report: Report
) -> None:
    """Say of every file that no list names why that is so, or that it is not known."""
    owners = {
        key: stage.id
        for stage in plan.stages.values()
        if stage.id not in lists.stages
        for key in [*output_keys(layout, stage), *_record_key(layout, stage.id)]
    }
    listed = {
        folder_key(*stage.split(":", 1)): stage
        for stage in lists.stages
        if stage.split(":", 1)[0] in FOLDERS
    }
    unfinished: set[str] = set()
    old: set[str] = set()
    for key in sorted(there):
        if key in lists.owner or key.startswith("digests/"):
            continue
        folder = next((f for f in listed if key.startswith(f"{f}/")), None)
        if (reason := _reason(key)) is not None:
            report.not_covered[reason].append(key)
        elif folder is not None:
            report.add(Kind.STRAY, key, listed[folder], "no stage wrote it into this folder")
        elif key in owners:
            kind, _, name = owners[key].partition(":")
            finished = layout.record(kind, name).is_file()
            (old if finished else unfinished).add(owners[key])
            report.not_covered[OLD if finished else UNFINISHED].append(key)
        elif key == layout.manifest.name:
            report.not_covered[UNFINISHED if lists.stages else OLD].append(key)
        elif key.startswith("corpora/") and key.endswith("/given_up.csv"):
            report.not_covered[UNFINISHED].append(key)
        else:
            report.add(Kind.UNKNOWN, key, "", "nothing of the run names it")
    _note_stages(report, old, unfinished)


OLD = "stages finished before digests were kept"
UNFINISHED = "stages that are not finished"


def _note_stages(report: Report, old: set[str], unfinished: set[str]) -> None:
    if old:
        report.notes.append(
            f"no digests of {', '.join(sorted(old))}: finished before they were kept; what can be "
            "checked without them was"
        )
    if unfinished:
        report.notes.append(f"not finished, checked as far as it is: {', '.join(unfinished)}")


def _record_key(layout: Layout, stage: str) -> list[str]:
    kind, _, name = stage.partition(":")
    file = layout.record(kind, name)
    return [file.relative_to(layout.run).as_posix()] if file.is_file() else []


REASONS: tuple[tuple[Callable[[str], bool], str], ...] = (
    (lambda key: key.split("/")[0] in (".lock", ".lock-holder.json"), "the run's lock"),
    (lambda key: key.startswith("logs/"), "logs, which nothing is made from"),
    (lambda key: key.startswith(".damaged/"), "moved aside by an earlier repair"),
    (
        lambda key: (
            any(part.endswith(PARTIAL) for part in key.split("/"))
            or (fnmatch(key, f"corpora/*/{KEPT}") and not key.startswith(f"{SUPERSEDED}/"))
        ),
        "left by an interrupted writer; the next run sweeps it",
    ),
    (
        lambda key: key.startswith(f"{SUPERSEDED}/"),
        "corpora of other settings that no digest was kept of; of their journals each row was "
        "checked",
    ),
    (
        lambda key: key.startswith("cells/") and "/.superseded/" in key,
        "steering of other settings; each row was checked",
    ),
)
"""Files that no digest speaks of, and why."""


def _reason(key: str) -> str | None:
    return next((reason for applies, reason in REASONS if applies(key)), None)
