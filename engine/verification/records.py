"""Records: whether what they say of each other, and what outputs say of themselves, fits."""

from __future__ import annotations

import numpy as np

from engine.outputs import folder_key
from engine.plan import FOLDERS, Plan, Stage, made_from
from engine.verification.cells import CellLook
from engine.verification.findings import Kind, Report
from store.fingerprint import file_digest
from store.layout import Layout
from store.places import MARK, there
from store.records import Record, derived_identity, read_record
from store.shards import group_attributes

SELF_MADE = ("generate", "import", "steer")
"""Kinds of stages whose identity is that of their content."""


def look_at_records(plan: Plan, layout: Layout, report: Report) -> dict[str, Record]:
    """Check every record that is there; return those of stages that are finished as planned."""
    records: dict[str, Record] = {}
    stale = []
    for stage in plan.stages.values():
        file = layout.record(stage.kind, stage.name)
        if not file.is_file():
            continue
        key = file.relative_to(layout.run).as_posix()
        record = read_record(file)
        if record is None:
            report.add(Kind.DAMAGED, key, stage.id, "not a record")
        elif report.found(key):
            continue
        elif problem := _wrong(stage, record):
            report.add(Kind.DAMAGED, key, stage.id, problem)
        elif record.fingerprint == stage.fingerprint and _follows(stage, record, records):
            records[stage.id] = record
            _hold_output(layout, stage, record, report)
        else:
            stale.append(stage.id)
    if stale:
        report.notes.append(f"made with other settings or inputs: {', '.join(stale)}")
    report.figures["records"] += len(records) + len(stale)
    return records


def _wrong(stage: Stage, record: Record) -> str | None:
    """Return what a record contradicts itself in."""
    if record.stage != stage.id:
        return f"it is the record of {record.stage}"
    derived = derived_identity(record.fingerprint, record.inputs)
    if stage.kind not in SELF_MADE and record.identity != derived:
        return "its identity does not follow from its fingerprint and inputs"
    return None


def _follows(stage: Stage, record: Record, records: dict[str, Record]) -> bool:
    """Tell whether what a stage read is what is there now."""
    inputs = {key: records[key].identity for key in stage.after if key in records}
    return record.inputs == inputs


def hold_figures(layout: Layout, cell: CellLook, record: Record, report: Report) -> None:
    """Hold what a record counts of a complete cell against the cell."""
    limit, tokens_N = cell.attributes["extraction"]["max_tokens"], cell.values["text_tokens"]
    counted = {
        "texts": len(tokens_N),
        "tokens": int(np.minimum(tokens_N, limit).sum()),
        "cut_texts": int((tokens_N > limit).sum()),
    }
    for name, n in counted.items():
        if (said := record.figures.get(name, n)) != n:
            key = layout.record("extract", cell.stage.partition(":")[2])
            what = f"it counts {said:,} {name}, there are {n:,}"
            report.add(Kind.DAMAGED, key.relative_to(layout.run).as_posix(), cell.stage, what)


def _hold_output(layout: Layout, stage: Stage, record: Record, report: Report) -> None:
    """Hold what an output says it was made from against its record."""
    if stage.kind == "steer":
        file = layout.steering(stage.name)
        if file.is_file() and file_digest(file) != record.identity:
            key = file.relative_to(layout.run).as_posix()
            report.add(Kind.DAMAGED, key, stage.id, "it is another than its record speaks of")
    if stage.kind not in FOLDERS:
        return
    folder, root = FOLDERS[stage.kind](layout, stage.name), folder_key(stage.kind, stage.name)
    if not there(folder):
        report.add(Kind.MISSING, f"{root}/{MARK}", stage.id, "not there, although it is recorded")
        return
    attributes = group_attributes(folder) or {}
    if attributes.get("made_from") != made_from(stage, record.inputs):
        what = "it says that it was made from something else than its record says"
        report.add(Kind.DAMAGED, f"{root}/{MARK}", stage.id, what)
