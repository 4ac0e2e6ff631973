"""Moves aside what is damaged, so that the next run makes it again and nothing else.

What goes along with a damaged file is the least that has the run see that something is missing: the
mark of a shard or of a folder, or the record of a stage that is not asked for that file. Nothing is
deleted. A journal is mended where it lies, since only it holds the replies.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from engine.outputs import folder_key, output_keys
from engine.plan import FOLDERS, Plan, rows_of
from engine.verification.findings import Finding, Kind, Report
from engine.verification.lists import Lists
from manifests.errors import shorten
from store.atomic import sync_folder, written_whole
from store.digests import DamagedList, digests_of, parse_digests, write_digests
from store.journal import Damage, damaged_lines
from store.journal_lines import blanked, mended
from store.journal_shapes import Odd, any_row
from store.layout import Layout
from store.mirror import push_file
from store.places import MARK, Far, delete_objects, read_object, stays_inside, write_object
from store.superseded import KEPT, SUPERSEDED


def is_journal(key: str) -> bool:
    """Tell whether a file is a journal, of other settings included."""
    superseded = key.startswith("cells/") and "/.superseded/" in key
    return key.endswith(("/journal.jsonl", ".jsonl" if superseded else "/steering.jsonl"))


@dataclass
class Repair:
    """What was done about damage.

    Attributes:
        aside: folder that damaged files went to.
        moved: keys of what went there, what had to go along included.
        done: what was mended at once, in words.
        left: what could not be, and why.
    """

    aside: Path
    moved: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def repair(plan: Plan, layout: Layout, lists: Lists, report: Report) -> Repair:
    """Move aside, or mend, what a look at a run has found. The caller holds the run's lock."""
    aside = layout.damaged(datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"))
    while aside.exists():
        aside = aside.with_name(f"{aside.name}+")
    done = Repair(aside)
    touched: set[str] = set()
    for finding in report.damage:
        if finding.kind is Kind.DEVIATES:
            done.left.append(f"{finding.key}: another device or version may read it otherwise")
        elif finding.copy:
            _copy_again(layout, finding, report, done)
        elif finding.key.endswith("/journal.jsonl") and finding.kind is Kind.MISSING:
            done.left.append(f"{finding.key}: {BRING_BACK}")
        elif is_journal(finding.key) and finding.kind is not Kind.MISSING:
            _mend_journal(plan, layout, lists, finding, done)
        elif not finding.key.startswith("digests/"):
            touched.add(finding.stage)
            _move(layout, _piece(layout, finding), done)
    for finding in report.damage:
        if finding.key.startswith("digests/") and not finding.copy:
            _renew_list(plan, layout, finding, finding.stage in touched, done)
    superseded = (f.key for f in report.damage if f.key.startswith(f"{SUPERSEDED}/"))
    for root in sorted({"/".join(key.split("/")[:3]) for key in superseded}):
        _renew_kept(layout, root, done)
    return done


def _piece(layout: Layout, finding: Finding) -> list[str]:
    """Return what has to go for a file to be made again, what says that it is there first."""
    kind, _, name = finding.stage.partition(":")
    key = finding.key
    if kind in FOLDERS and finding.kind is not Kind.STRAY:
        root = folder_key(kind, name)
        if not key.startswith(f"{root}/"):
            return [key]
        return [f"{root}/{_mark_of(kind, key.removeprefix(f'{root}/'))}", key]
    unasked = kind and key.endswith(("/flagged.csv", "/steering.safetensors"))
    if unasked:  # whether a stage is done is not asked of these files
        return [layout.record(kind, name).relative_to(layout.run).as_posix(), key]
    return [key]


def _mark_of(kind: str, key: str) -> str:
    """Return the object whose absence has the piece made again that an object belongs to."""
    name, _, rest = key.partition("/c/")
    by_shard = kind == "extract" and rest and name not in ("text_id", "kind", "emotion")
    if by_shard and name not in ("window", "layer"):
        return f"residual_mean/c/{rest.split('/')[0]}/0/0/0"
    return MARK


def _move(layout: Layout, keys: Iterable[str], done: Repair) -> None:
    """Move files aside, in this order; those that are not there are passed over.

    No key leads out of the run: lists are read so. Here it is asked again, since this moves files;
    nor is the lock moved, or what went aside before, which a list from a stranger may name.
    """
    for key in dict.fromkeys(keys):
        if not stays_inside(key) or key.startswith("."):
            done.left.append(f"{shorten(key)}: not a file that a stage leaves in the run's folder")
            continue
        home = layout.home(key)
        if isinstance(home, Far):
            try:
                content = read_object(home, key)
            except FileNotFoundError:
                continue
            write_object(home, f".damaged/{done.aside.name}/{key}", content)
            delete_objects(home, [key])
        elif (home / key).is_file():
            target = done.aside / key
            target.parent.mkdir(parents=True, exist_ok=True)
            (home / key).replace(target)
            sync_folder((home / key).parent)
        else:
            continue
        done.moved.append(key)


def _copy_again(layout: Layout, finding: Finding, report: Report, done: Repair) -> None:
    """Put a file's copy into the object store again, where the file itself is as it was."""
    if report.found(finding.key):
        done.left.append(f"{finding.key}: the next run makes it, and copies it")
        return
    push_file(layout, layout.run / finding.key)
    done.done.append(f"{finding.key}: copied to the object store again")


def _mend_journal(plan: Plan, layout: Layout, lists: Lists, finding: Finding, done: Repair) -> None:
    """Turn flipped bits of a journal back, blank rows that stay damaged, and cut a torn end off."""
    file, key = layout.run / finding.key, finding.key
    kind = finding.stage.partition(":")[0]
    stage = plan.stages.get(finding.stage)
    found = _mended(file, any_row if stage is None else rows_of(plan, stage, layout))
    if found is None:
        what = "the next run measures what it lacks" if kind == "steer" else BRING_BACK
        done.left.append(f"{key}: it cannot be mended; {what}")
        return
    content, lost = found
    (done.aside / key).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, done.aside / key)
    again = _list_journal(layout, lists, finding, hashlib.sha256(content).hexdigest())
    with written_whole(file) as partial:
        partial.write_bytes(content)
    done.moved.append(key)
    if again:
        done.done.append(f"{key}: mended, and is again what was written")
    else:
        rest = f", but for {lost} rows, which are lost" if lost else ""
        done.done.append(f"{key}: mended{rest}")


def _list_journal(layout: Layout, lists: Lists, finding: Finding, sha: str) -> bool:
    """Have a journal's list of digests speak of it as mended; tell whether it did so before.

    That comes before the journal itself: when a repair is ended between the two, the next one finds
    the same damaged rows and makes the same of them. The sealed corpus stands without lost rows.
    """
    key, name = finding.key, "journal.jsonl"
    if key.startswith(f"{SUPERSEDED}/") and key.endswith(f"/{name}"):
        kept = layout.run / Path(key).parent / KEPT
        digests = _readable(kept)
        if digests.get(name) not in (None, sha):
            corpus = kept.parent.name.rpartition("-")[0]
            write_digests(kept, f"generate:{corpus}", {**digests, name: sha})
            return False
        return digests.get(name) == sha
    wanted, (kind, _, corpus) = lists.digest(key), finding.stage.partition(":")
    listed = finding.stage not in lists.damaged  # which is written anew, or made again, later
    if wanted not in (None, sha) and kind == "generate" and listed:
        digests = {**lists.stages[finding.stage], key: sha}
        write_digests(layout.digests(kind, corpus), finding.stage, digests)
    return wanted == sha


def _readable(kept: Path) -> dict[str, str]:
    """Return what a list says, nothing where it is not there or is damaged itself."""
    try:
        return parse_digests(kept.read_bytes())
    except (FileNotFoundError, DamagedList):
        return {}


def _renew_kept(layout: Layout, root: str, done: Repair) -> None:
    """Have the list of a corpus of other settings speak of what is left of it.

    A journal that could not be mended stays in it as it was: bringing it back is what mends that. A
    list that was damaged has gone aside, and nothing but the journal's rows vouches for the files
    then.
    """
    file, journal = layout.run / root / KEPT, "journal.jsonl"
    digests = _readable(file)
    there = (name for name in digests if (layout.run / root / name).is_file() or name == journal)
    left = {name: digests[name] for name in there}
    if left != digests:
        corpus = root.rpartition("/")[2].rpartition("-")[0]
        write_digests(file, f"generate:{corpus}", left)
        done.done.append(f"{root}: its list of digests speaks of what is left of it")


BRING_BACK = "the sealed corpus stands without it, but bring it back from a copy: it holds replies"


def _mended(file: Path, odd: Odd) -> tuple[bytes, int] | None:
    """Return a journal without its damage, and how many rows were lost; None where it has none.

    A row that no run writes is lost as one that stays damaged. None, too, where a row cannot be
    blanked, or the header is lost.
    """
    content, lost = file.read_bytes(), 0
    damage = list(damaged_lines(file, odd))
    for part in reversed(damage):
        good = _made_good(part)
        if good is None:
            lost += 1
            good = b"" if part.torn else blanked(part.content)
            if good is None or part.start == 0:
                return None
        content = content[: part.start] + good + content[part.start + len(part.content) :]
    return (content, lost) if damage else None


def _made_good(part: Damage) -> bytes | None:
    if part.torn:
        return part.good
    return None if part.odd is not None else mended(part.content)


def _renew_list(plan: Plan, layout: Layout, finding: Finding, touched: bool, done: Repair) -> None:
    """Move a damaged list aside; write it anew unless its stage is to be done again anyway."""
    kind, _, name = finding.stage.partition(":")
    _move(layout, [finding.key], done)
    if touched or (not layout.record(kind, name).is_file() and kind != "manifest"):
        return
    if kind == "manifest":
        if not layout.manifest.is_file():  # the next run writes both
            return
        keys = [layout.manifest.name]
    elif finding.stage in plan.stages:
        keys = output_keys(layout, plan.stages[finding.stage])
        keys.append(layout.record(kind, name).relative_to(layout.run).as_posix())
    else:
        return
    file = layout.digests(kind, name)
    write_digests(file, finding.stage, digests_of(layout, keys))
    if layout.far_run is not None:
        push_file(layout, file)
    done.done.append(f"{finding.key}: written anew; all that it names is vouched for")
