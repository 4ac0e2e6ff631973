"""`emovec verify`: looks at a run under its lock, repairs it where asked to, and says so."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from engine.job import open_layout
from engine.models import remote_code
from engine.plan import Plan
from engine.verification.look import Look, Tell, was_begun
from engine.verification.recompute import recompute
from engine.verification.repair import repair
from engine.verification.show import closing_words, print_report, report_json
from manifests.errors import InputError, Problem
from manifests.resolve import Study
from store.layout import Layout
from store.lock import run_lock

READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def verify_run(
    study: Study,
    manifest: Path,
    root: str,
    again: int,
    mend: bool,
    as_json: bool,
    console: Console,
) -> bool:
    """Verify a study's run and print what was found.

    Args:
        study: the study.
        manifest: its file, for telling what to do next.
        root: folder that holds runs, or an object store's address.
        again: texts of each cell that are read again.
        mend: move aside what is damaged.
        as_json: print JSON.
        console: where to.

    Returns:
        Whether everything is as it was, and all that was asked for could be done.

    Raises:
        InputError: there is no such run.
        RunLocked: another process writes to it.
    """
    layout, plan = open_layout(root, study.manifest.name), Plan(study)
    if not was_begun(layout):
        what = f"there is no run of {manifest} in {layout.run}; look at --root"
        raise InputError(Problem(Path("--root"), None, "", what))
    with _left_alone(layout, mend):
        with _bar(console, as_json) as tell:
            look = Look(plan, layout, tell)
            look.take()
        report = look.report
        if again:
            _announce_code(study, as_json)
            say = (lambda line: None) if as_json else console.print
            recompute(plan, layout, look.cells, again, report, say)
        repaired = repair(plan, layout, look.lists, report) if mend and report.damage else None
    if as_json:
        print(json.dumps(report_json(report, repaired), indent=1))
        return not report.damage and not report.failed
    print_report(console, report, repaired)
    for line in closing_words(report, repaired, manifest, root):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return not report.damage and not report.failed


def _announce_code(study: Study, as_json: bool) -> None:
    """Say which models bring code of their own that is run, as `plan` and every run do."""
    console = Console(stderr=as_json, highlight=False, markup=False, emoji=False)
    for sentence in remote_code(study):
        console.print(sentence, style="bold", soft_wrap=True)


@contextmanager
def _left_alone(layout: Layout, mend: bool) -> Iterator[None]:
    """Hold the run's lock; a folder that cannot be written to is looked at without it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(run_lock(layout.lock))
        except OSError as error:
            if mend or error.errno not in READ_ONLY:
                raise
        yield


@contextmanager
def _bar(console: Console, hidden: bool) -> Iterator[Tell]:
    """Give what shows how much of a run was read."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    shown = console.is_terminal and not hidden
    with Progress(*columns, console=console, transient=True, disable=not shown) as bars:
        task = bars.add_task("verifying", total=None)
        yield lambda read, total: bars.update(task, completed=read, total=total)
