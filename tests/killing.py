"""Whole runs ended at drawn moments, and what they leave held against an undisturbed run.

    python -m tests.killing --kills 200 [--seed 1] [--steering] [--at steer,effects]

A life is a run from nothing to its end, interrupted at some moments of each kind of stage and
resumed each time. A moment is aimed at a kind of stage: at a share of the time that the undisturbed
run took for it, or (every other one) of the files that it wrote, rows of steering counted like
files. Nothing here asks a clock whether
something took too long: a machine may sleep.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from engine.outputs import output_keys
from engine.plan import State
from store.atomic import PARTIAL
from tests.test_run import EMOVEC, ROOT
from tests.tiny import make_tiny_model
from tests.verified import STEERING, Run, opened, prepare_run

KINDS = (
    *("import", "generate", "describe", "extract", "words", "analyze"),
    *("steer", "effects", "tables", "figures", "page"),
)
"""Kinds of stages in the order in which they are done."""
BEGINNING, END = "before the first stage", "after the last stage"
TOKEN = "EMOVEC_TEST_TOKEN"
"""Environment variable by which every process of a run is known, whoever its parent is."""
PAUSE = 0.02
End = Callable[[subprocess.Popen[bytes]], None]
"""What is done to a running process to end it."""
PER_KIND = 3
"""Moments aimed at each kind of stage in one life."""


@dataclass(frozen=True)
class Moment:
    """When a run is to be ended.

    Attributes:
        kind: of stage that it is aimed at, or BEGINNING.
        share: of what that takes, 0 to 1.
        by_files: files, and rows of steering, are counted instead of seconds.
    """

    kind: str
    share: float
    by_files: bool


@dataclass(frozen=True)
class Pace:
    """What an undisturbed run took.

    Attributes:
        seconds: by kind of stage.
        files: by kind of stage, and rows of steering.
    """

    seconds: dict[str, float]
    files: dict[str, int]


@dataclass(frozen=True)
class Strike:
    """How a run was ended.

    Attributes:
        hit: what it was doing, None where it had ended by itself.
        code: its exit code.
        printed: standard output.
        error: standard error.
    """

    hit: str | None
    code: int
    printed: str
    error: str


@dataclass
class Count:
    """What came of many strikes."""

    hits: Counter[str] = field(default_factory=Counter)
    partials: int = 0
    lives: int = 0
    late: int = 0

    @property
    def struck(self) -> int:
        """How many runs were ended before they ended by themselves."""
        return sum(self.hits.values())

    def __str__(self) -> str:
        lines = [f"{hit:<24}{self.hits[hit]:5d}" for hit in (BEGINNING, *KINDS, END)]
        lines.append(f"{self.struck} in {self.lives} lives; {self.late} came too late; ")
        lines.append(f"{self.partials} left something half written")
        return "\n".join(lines)


def small_run(folder: Path, model: Path, steering: bool = False) -> Run:
    """Prepare a run that has every kind of stage and takes seconds."""
    return prepare_run(folder, model, **({"steering": STEERING} if steering else {}))


def kinds_of(run: Run) -> list[str]:
    """Return the kinds of stages of a run, in the order in which they are done."""
    there = {stage.kind for stage in run.plan.stages.values()}
    return [kind for kind in KINDS if kind in there]


def start(run: Run, token: str, command: str = "run") -> subprocess.Popen[bytes]:
    """Start a run in a session of its own; what it prints goes to files beside the manifest."""
    out, error = (run.manifest.with_name(name) for name in ("printed.txt", "error.txt"))
    with out.open("wb") as stdout, error.open("wb") as stderr:
        return subprocess.Popen(
            [*EMOVEC, command, str(run.manifest), "--root", str(run.layout.root)],
            cwd=ROOT, stdout=stdout, stderr=stderr, start_new_session=True,
            env={**os.environ, TOKEN: token},
        )  # fmt: skip


def holds_lock(run: Run, process: subprocess.Popen[bytes]) -> bool:
    """Tell whether a process has said that it holds the run's lock."""
    note = run.layout.lock.with_name(".lock-holder.json")
    try:
        return f'"process": {process.pid},' in note.read_text()
    except OSError:
        return False


def finish_undisturbed(run: Run) -> Pace:
    """Do a run to its end and note what each kind of stage takes."""
    process = start(run, uuid.uuid4().hex)
    began, locked = time.time(), None
    while process.poll() is None:
        if locked is None and holds_lock(run, process):
            locked = time.time()
        time.sleep(PAUSE)
    assert process.returncode == 0, run.manifest.with_name("error.txt").read_text()
    assert locked is not None
    seconds, files, last = {BEGINNING: locked - began}, {BEGINNING: 1}, locked
    for kind in kinds_of(run):
        stages = [stage for stage in run.plan.stages.values() if stage.kind == kind]
        ended = max(run.layout.record(kind, s.name).stat().st_mtime for s in stages)
        seconds[kind], last = max(ended - last, PAUSE), max(ended, last)
        files[kind] = sum(len(output_keys(run.layout, s)) + 2 for s in stages)
    if "steer" in files:
        files["steer"] += _n_rows(run)
    return Pace(seconds, files)


def draw(rng: random.Random, kinds: Sequence[str], number: int) -> list[Moment]:
    """Draw moments, as many for each kind of stage and before the first."""
    aims = [BEGINNING, *kinds]
    return [
        Moment(aims[n % len(aims)], rng.random(), n // len(aims) % 2 == 1) for n in range(number)
    ]


def strike(run: Run, moment: Moment, pace: Pace, end: End) -> Strike:
    """Start a run, do something to it at a moment, and wait until no process of it is left."""
    token = uuid.uuid4().hex
    process = start(run, token)
    try:
        _wait(run, process, moment, pace)
        late = process.poll() is not None
        hit = None if late else doing(run, process)
        if not late:
            end(process)
        process.wait()
        require_none_left(token)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    out, error = (run.manifest.with_name(name) for name in ("printed.txt", "error.txt"))
    return Strike(hit, process.returncode, out.read_text(), error.read_text())


def _wait(run: Run, process: subprocess.Popen[bytes], moment: Moment, pace: Pace) -> None:
    aimed_at_stage = moment.kind != BEGINNING
    before = KINDS[: KINDS.index(moment.kind)] if aimed_at_stage else ()
    wanted = [
        run.layout.record(stage.kind, stage.name)
        for stage in run.plan.stages.values()
        if stage.kind in before
    ]
    while aimed_at_stage and process.poll() is None:
        if holds_lock(run, process) and all(file.exists() for file in wanted):
            break
        time.sleep(PAUSE)
    if moment.by_files and aimed_at_stage:
        enough = _n_files(run) + _n_rows(run) + moment.share * pace.files[moment.kind]
        while process.poll() is None and _n_files(run) + _n_rows(run) < enough:
            time.sleep(PAUSE)
        return
    for _ in range(int(moment.share * pace.seconds[moment.kind] / PAUSE)):
        if process.poll() is not None:
            return
        time.sleep(PAUSE)


def sending(how: signal.Signals) -> End:
    """Return what sends a signal as it comes: SIGTERM to one, others to the whole group."""

    def send(process: subprocess.Popen[bytes]) -> None:
        with suppress(ProcessLookupError):
            if how is signal.SIGTERM:
                process.send_signal(how)
            else:
                os.killpg(process.pid, how)

    return send


def _n_files(run: Run) -> int:
    return sum(len(files) for _, _, files in os.walk(run.layout.run))


def _n_rows(run: Run) -> int:
    """Return how many rows the journals of steering hold."""
    journals = run.layout.run.glob("cells/*/steering.jsonl")
    return sum(journal.read_bytes().count(b"\n") for journal in journals)


def doing(run: Run, process: subprocess.Popen[bytes]) -> str:
    """Return the kind of stage that a process is at, by the records that are there."""
    if not holds_lock(run, process):
        done = run.layout.record("page", "all").exists()
        return END if done else BEGINNING
    for kind in kinds_of(run):
        names = [stage.name for stage in run.plan.stages.values() if stage.kind == kind]
        if not all(run.layout.record(kind, name).exists() for name in names):
            return kind
    return END


def processes_of(token: str) -> list[psutil.Process]:
    """Return the living processes that were started with a token, from the process table."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(TOKEN) == token:
                found.append(process)
    return found


def require_none_left(token: str, looks: int = 600) -> None:
    """Wait until no process of a run is left.

    Raises:
        AssertionError: some are after so many looks.
    """
    for _ in range(looks):
        if not (left := processes_of(token)):
            return
        time.sleep(5 * PAUSE)
    raise AssertionError([process.cmdline() for process in left])


def partials(run: Run) -> list[Path]:
    """Return what is half written."""
    return list(run.layout.run.rglob(f"*{PARTIAL}"))


def require_whole(run: Run, model: Run) -> None:
    """Hold what is there against an undisturbed run: all that counts as done, and the journal.

    Raises:
        AssertionError: something counts as done and is not what it has to be, or a reply is lost.
    """
    journal = run.layout.journal("written")
    if journal.exists():
        assert journal.read_bytes() == model.layout.journal("written").read_bytes()
    if not run.layout.manifest.exists():
        return
    for status in run.plan.inspect(run.layout).values():
        if status.state is not State.DONE:
            continue
        keys, wanted = (set(output_keys(r.layout, status.stage)) for r in (run, model))
        assert keys == wanted, (status.stage.id, keys ^ wanted)
        for key in keys:
            one, other = (r.layout.run / key for r in (run, model))
            assert one.read_bytes() == other.read_bytes(), key
    damage = run.look().damage
    assert not damage, damage


def require_same(run: Run, model: Run) -> None:
    """Hold a finished run against an undisturbed one, and verify it.

    Raises:
        AssertionError: they differ, something is left over, or verification finds anything.
    """
    require_same_bytes(run, model)
    report = run.look()
    assert not report.findings, report.findings


def require_same_bytes(run: Run, model: Run) -> None:
    """Hold a finished run against an undisturbed one, byte for byte but for times.

    Raises:
        AssertionError: they differ, or something is left over.
    """
    ours, theirs = run.contents(), model.contents()
    assert set(ours) == set(theirs)
    for key, content in theirs.items():  # records say when, and lists hold records
        if not key.startswith(("records/", "digests/")):
            assert ours[key] == content, key
    assert not partials(run)


def copy_prepared(prepared: Run, folder: Path) -> Run:
    """Return a copy of a run that was prepared and not begun."""
    shutil.copytree(prepared.manifest.parent, folder)
    return opened(folder / prepared.manifest.name)


def resume(run: Run) -> None:
    """Do a run to its end.

    Raises:
        AssertionError: it fails, or leaves a process.
    """
    token = uuid.uuid4().hex
    code = start(run, token).wait()
    assert code == 0, run.manifest.with_name("error.txt").read_text()
    require_none_left(token)


def end_anywhere(
    prepared: Run,
    model: Run,
    pace: Pace,
    folder: Path,
    moments: Sequence[Moment],
    hows: Sequence[signal.Signals] = (signal.SIGKILL,),
    tell: bool = False,
) -> Count:
    """End a run at every moment, resume it each time, and hold all against an undisturbed one.

    A moment that a run did not live to see is tried again earlier, in another life.

    Args:
        prepared: a run that was not begun.
        model: the same, finished undisturbed.
        pace: of the undisturbed run.
        folder: for the lives.
        moments: when to end it.
        hows: signals, in turn.
        tell: print each hit.

    Raises:
        AssertionError: something is not as it has to be.
    """
    count, number, waiting = Count(), 0, list(moments)
    order = [BEGINNING, *kinds_of(prepared)]
    while waiting:
        run = copy_prepared(prepared, folder / f"life-{count.lives}")
        count.lives += 1
        size = PER_KIND * len({moment.kind for moment in waiting})
        life = sorted(waiting[:size], key=lambda moment: order.index(moment.kind))
        waiting = waiting[size:]
        while life:
            moment = life.pop(0)
            how, number = hows[number % len(hows)], number + 1
            struck = strike(run, moment, pace, sending(how))
            _require_clean(struck, how)
            if struck.hit is None:
                count.late += 1
                waiting += [dataclasses.replace(moment, share=moment.share / 2), *life]
                life = []
            else:
                count.hits[struck.hit] += 1
            count.partials += bool(partials(run))
            require_whole(run, model)
            if tell:
                print(
                    f"{number:4d} {how.name:<8} aimed at {moment.kind}, hit {struck.hit}",
                    flush=True,
                )
        resume(run)
        require_same(run, model)
        shutil.rmtree(run.manifest.parent)
    return count


def _require_clean(struck: Strike, how: signal.Signals) -> None:
    """Hold a run's last words against how it was ended."""
    assert "Traceback" not in struck.error, struck.error
    if struck.hit is None:
        assert struck.code == 0, struck.error
    elif how is signal.SIGKILL:
        by_itself = struck.hit == END and struck.code == 0
        assert struck.code == -signal.SIGKILL or by_itself, struck.error
    elif struck.code != 0 or struck.hit not in (END, BEGINNING):
        assert struck.code == 130, (struck.hit, struck.error)
        assert struck.error.splitlines() == ["interrupted; the same command goes on from here"]


def main() -> None:
    """Kill as often as asked for and print what was hit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steering", action="store_true", help="steer too")
    parser.add_argument("--at", help="kinds of stages to aim at, such as steer,effects")
    parser.add_argument("--signals", default="SIGKILL", help="such as SIGTERM,SIGINT, in turn")
    options = parser.parse_args()
    hows = [signal.Signals[name] for name in options.signals.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepared = small_run(
            folder / "prepared", make_tiny_model(folder / "model"), options.steering
        )
        model = copy_prepared(prepared, folder / "undisturbed")
        pace = finish_undisturbed(model)
        print(f"undisturbed: {pace}", flush=True)
        kinds = kinds_of(prepared) if options.at is None else options.at.split(",")
        moments = draw(random.Random(options.seed), kinds, options.kills)
        print(end_anywhere(prepared, model, pace, folder, moments, hows, tell=True))


if __name__ == "__main__":
    sys.exit(main())
