"""What verification found, in lines for a person and as JSON for a program."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console

from engine.verification.findings import Finding, Kind, Report
from engine.verification.repair import Repair, is_journal
from manifests.errors import one_line

EXAMPLES = 12
"""Files of one stage and kind that are named before the rest is counted."""


def print_report(console: Console, report: Report, repaired: Repair | None) -> None:
    """Print findings, notes, what is not covered, and what a repair did."""
    groups: dict[tuple[Kind, str], list[Finding]] = {}
    for finding in report.findings:
        groups.setdefault((finding.kind, finding.stage), []).append(finding)
    for (kind, stage), found in groups.items():
        shown = found if kind is not Kind.SUSPECT else found[:EXAMPLES]
        for finding in shown:
            about = f" ({stage})" if stage else ""
            where = "copy of " if finding.copy else ""
            word = kind.upper() if finding.is_damage else kind
            _say(console, f"{word:<9}{where}{finding.key}{about}: {finding.what}")
        if len(found) > len(shown):
            _say(console, f"{kind.upper():<9}and {len(found) - len(shown)} more of {stage}")
    for note in report.notes:
        _say(console, f"note     {note}")
    for reason, keys in report.not_covered.items():
        _say(console, f"without a digest: {_files(len(keys))}: {reason}")
    for cell, found_again in report.recomputed.items():
        texts, worst, bound = (found_again[key] for key in ("texts", "worst", "bound"))
        _say(
            console,
            f"read again: {texts} texts of {cell}, at most {worst:.1e} from what is stored "
            f"(bound {bound:g})",
        )
    if repaired is not None:
        for line in repaired.done:
            _say(console, f"mended   {line}")
        for line in repaired.left:
            _say(console, f"left     {line}")


def closing_words(report: Report, repaired: Repair | None, manifest: Path, root: str) -> list[str]:
    """Return the last lines: how much was read, what it came to, and what to do next."""
    which = f"{manifest}" if root == "runs" else f"{manifest} --root {root}"
    rate = report.size / report.seconds / 1e6 if report.seconds else 0.0
    checked = ", ".join(f"{n:,} {what}" for what, n in sorted(report.figures.items()) if n)
    lines = [
        f"{_files(report.files)}, {report.size / 1e6:,.1f} MB in {report.seconds:.1f} s "
        f"({rate:,.0f} MB/s); checked: {checked}"
    ]
    n = len(report.damage)
    if not n:
        return [*lines, "nothing is damaged"]
    lines.append(f"{n} {'thing is' if n == 1 else 'things are'} damaged, missing or in doubt")
    if repaired is None:
        lines.append(f"`emovec verify {which} --repair` moves what is damaged aside")
    elif repaired.moved:
        lines.append(f"{_files(len(repaired.moved))} went to {repaired.aside}")
        if not all(map(is_journal, repaired.moved)):
            lines.append(f"`emovec run {which}` makes again what is missing")
    return lines


def report_json(report: Report, repaired: Repair | None) -> dict[str, Any]:
    """Return everything that was found, for a program."""
    return {
        "clean": not report.damage and not report.failed,
        "findings": [
            {**dataclasses.asdict(finding), "kind": str(finding.kind), "damage": finding.is_damage}
            for finding in report.findings
        ],
        "notes": report.notes,
        "not_covered": dict(report.not_covered),
        "checked": {"files": report.files, **report.figures},
        "bytes": report.size,
        "seconds": round(report.seconds, 3),
        "recomputed": report.recomputed,
        "repair": None
        if repaired is None
        else {
            "aside": str(repaired.aside),
            "moved": repaired.moved,
            "done": repaired.done,
            "left": repaired.left,
        },
    }


def _files(n: int) -> str:
    return f"{n:,} file{'' if n == 1 else 's'}"


def _say(console: Console, line: str) -> None:
    console.print(one_line(line), markup=False, highlight=False, soft_wrap=True)
