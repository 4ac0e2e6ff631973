"""Small runs again and again with random faults, and what grows meanwhile.

    python -m tests.soak --minutes 60 [--seed 1]

One long-lived process does runs itself, as a notebook would, and starts others as processes of
their own. Faults: the model's process is killed, the run is interrupted or killed, an output is
lost. After each run, and after what a fault left was brought to its end, this process's memory,
threads, open files and children are counted, the processes that are left of others, and files in
the temporary folder, in the cache and half written ones in the run's folder. What grew beyond
LIMITS ends it with exit code 1.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from types import FrameType

import psutil

from engine.run import run_studies
from manifests import load_study
from tests.killing import (
    TOKEN,
    Pace,
    copy_prepared,
    draw,
    finish_undisturbed,
    kinds_of,
    partials,
    processes_of,
    require_same_bytes,
    require_whole,
    resume,
    sending,
    small_run,
    strike,
)
from tests.test_run import EMOVEC, ROOT
from tests.tiny import make_tiny_model
from tests.verified import Run

FAULTS = ("none", "model killed", "interrupted", "killed", "output lost")
WARM = 3
"""Runs after which growth is counted: by then everything is imported and every pool is there."""


@dataclass(frozen=True)
class Sample:
    """What is there after a run: megabytes of memory, and numbers of the rest.

    `rss_mb` is resident memory as it is; `held_mb` what no file is behind, once the C library has
    given back whole pages that are free; `heap_mb` what of it is in use, `blocks` pieces in use by
    Python, in thousands. A leak shows in the last two: what is held moves with the holes between.
    """

    rss_mb: float
    held_mb: float
    heap_mb: float
    blocks: float
    threads: int
    open_files: int
    children: int
    others: int
    temporary: int
    cache: int
    partial: int


LIMITS = {
    "held_mb": 1.05,
    "heap_mb": 1.02,
    "blocks": 1.02,
    "threads": 1.2,
    "temporary": 1,
    "cache": 1,
}
"""How many times the first third's median the last third's may be. A pool starts its threads when
it needs them."""

NONE_LEFT = ("children", "others", "partial")

FONTS = 64
"""Open files that matplotlib keeps: a font for each thread that drew, so many at most."""


class Heap(ctypes.Structure):
    """What glibc's `mallinfo2` returns: bytes in use are `uordblks`, and `hblkhd` mapped ones."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


LIBC = ctypes.CDLL(None)
LIBC.mallinfo2.restype = Heap


class Soak:
    """The driver and its measurements."""

    def __init__(self, folder: Path, seed: int):
        self._folder, self._rng, self._token = folder, random.Random(seed), uuid.uuid4().hex
        os.environ[TOKEN] = self._token
        for name in ("tmp", "cache"):
            (folder / name).mkdir()
        os.environ |= {"TMPDIR": str(folder / "tmp"), "XDG_CACHE_HOME": str(folder / "cache")}
        tempfile.tempdir = str(folder / "tmp")
        self._prepared = small_run(folder / "prepared", make_tiny_model(folder / "model"))
        self._model = copy_prepared(self._prepared, folder / "undisturbed")
        self._pace: Pace = finish_undisturbed(self._model)
        self.faults: Counter[str] = Counter()
        self.samples: list[Sample] = []

    def round(self) -> None:
        """Do one run with one fault, bring it to its end, hold it against the first, and count."""
        fault = FAULTS[len(self.samples) % len(FAULTS)]
        run = copy_prepared(self._prepared, self._folder / "run")
        if fault == "killed":
            (moment,) = draw(self._rng, [self._rng.choice(kinds_of(run))], 2)[1:]
            strike(run, moment, self._pace, sending(signal.SIGKILL))
            require_whole(run, self._model)
        delay = self._rng.uniform(0.2, sum(self._pace.seconds.values()))
        struck = fault if fault in ("model killed", "interrupted") else "none"
        with suppress(KeyboardInterrupt), _striking(struck, delay):
            _run_here(run)
        if fault == "output lost":
            file = self._rng.choice([f for k, f in run.files().items() if k.startswith("tables/")])
            file.unlink()
        _run_here(run)
        resume(run)  # by a process of its own: nothing is left to do
        require_same_bytes(run, self._model)
        _verify(run)
        self.faults[fault] += 1
        self.samples.append(self._sample(run))
        shutil.rmtree(run.manifest.parent)
        print(f"{fault:<14}{self.samples[-1]}", flush=True)

    def _sample(self, run: Run) -> Sample:
        gc.collect()
        me = psutil.Process()
        rss = me.memory_info().rss
        LIBC.malloc_trim(0)
        heap = LIBC.mallinfo2()
        others = [p for p in processes_of(self._token) if p.pid != me.pid]
        return Sample(
            rss_mb=rss / 1e6,
            held_mb=_anonymous() / 1e6,
            heap_mb=(heap.uordblks + heap.hblkhd) / 1e6,
            blocks=sys.getallocatedblocks() / 1e3,
            threads=me.num_threads(),
            open_files=me.num_fds(),
            children=len(me.children(recursive=True)),
            others=len(others),
            temporary=sum(1 for _ in (self._folder / "tmp").rglob("*")),
            cache=sum(1 for _ in (self._folder / "cache").rglob("*")),
            partial=len(partials(run)),
        )


def _anonymous() -> int:
    """Return resident bytes that no file is behind: pages of libraries are shared with others."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise LookupError("/proc/self/smaps_rollup has no line Anonymous")


def _run_here(run: Run) -> None:
    (outcome,) = run_studies([load_study(run.manifest)], run.layout.root, "run", lambda event: None)
    assert not outcome.failed, outcome.failed


def _verify(run: Run) -> None:
    """Verify a run in a process of its own: tokenizers keep a little of every one that was read."""
    command = [*EMOVEC, "verify", str(run.manifest), "--root", str(run.layout.root)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def _striking(fault: str, delay: float) -> Iterator[None]:
    """Do something to this process's run after some seconds, unless it is over by then."""
    over = threading.Event()

    def strike_later() -> None:
        if over.wait(delay):
            return
        if fault == "interrupted":
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        elif fault == "model killed":
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    if "engine.child_main" in child.cmdline() and "-S" not in child.cmdline():
                        child.kill()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not over.is_set():
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    thread = threading.Thread(target=strike_later, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGINT, before)


def grown(samples: list[Sample]) -> list[str]:
    """Return what of the warm runs was left over, or grew, in a sentence each."""
    warm = samples[WARM:]
    third = max(1, len(warm) // 3)
    found = [
        f"{name}: {max(getattr(s, name) for s in warm)} were left"
        for name in NONE_LEFT
        if any(getattr(s, name) for s in warm)
    ]
    for name, times in LIMITS.items():
        values = [getattr(s, name) for s in warm]
        first, last = statistics.median(values[:third]), statistics.median(values[-third:])
        if last > times * first:
            found.append(f"{name}: {first:.0f} in the first third of runs, {last:.0f} in the last")
    first_open, most = warm[0].open_files, max(s.open_files for s in warm)
    if most > first_open + FONTS:
        found.append(f"open_files: {first_open} after the first warm run, up to {most}")
    return found


def report(samples: list[Sample], faults: Counter[str], minutes: float) -> str:
    """Return what was there after the first runs and after the last, and how it grew."""
    warm = samples[WARM:]
    third = max(1, len(warm) // 3)
    lines = [
        f"{len(samples)} runs in {minutes:.0f} minutes; {dict(faults)}",
        f"{'':<12}{'first third':>12}{'last third':>12}{'largest':>12}",
    ]
    for at, name in enumerate(field.name for field in fields(Sample)):
        values = [astuple(sample)[at] for sample in warm]
        first, last = statistics.median(values[:third]), statistics.median(values[-third:])
        lines.append(f"{name:<12}{first:12.1f}{last:12.1f}{max(values):12.1f}")
    return "\n".join(lines)


def main() -> None:
    """Run for some minutes and print what grew."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        soak = Soak(Path(temporary), options.seed)
        while time.monotonic() - began < 60 * options.minutes or len(soak.samples) <= WARM:
            soak.round()
        print(report(soak.samples, soak.faults, (time.monotonic() - began) / 60))
        if found := grown(soak.samples):
            raise SystemExit("\n".join(found))
        print("nothing grew")


if __name__ == "__main__":
    main()
