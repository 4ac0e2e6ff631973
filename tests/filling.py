"""Runs on a disk that fills up at drawn moments, or cannot be written to.

    unshare --mount --map-root-user python -m tests.filling FOLDER --model DIR [--times 10]

The disk is a small tmpfs in a mount namespace of its own, so that it is gone with this process.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
from collections import Counter
from contextlib import suppress
from pathlib import Path

from tests.killing import (
    Moment,
    Pace,
    Strike,
    copy_prepared,
    draw,
    finish_undisturbed,
    kinds_of,
    require_same,
    require_whole,
    resume,
    sending,
    small_run,
    strike,
)
from tests.test_run import emovec
from tests.verified import Run

SIZE = "64m"
FULL, READ_ONLY = "No space left on device", "Read-only file system"


def on_small_disk(prepared: Run, folder: Path) -> Run:
    """Return a copy of a prepared run whose root alone is a small disk."""
    run = copy_prepared(prepared, folder)
    _mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(run.layout.root))
    subprocess.run(["cp", "-r", f"{prepared.layout.root}/.", str(run.layout.root)], check=True)
    return run


def fill(ballast: Path, left: int) -> None:
    """Take what a disk has free, but for some bytes."""
    with suppress(OSError), ballast.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(1 << 16))
    with ballast.open("r+b") as stream:
        stream.truncate(max(0, ballast.stat().st_size - left))


def fill_at(run: Run, model: Run, pace: Pace, moments: list[Moment], rng: random.Random) -> Counter:
    """Fill the disk at every moment, make room each time, and hold all against an undisturbed run.

    Returns:
        How often which kind of stage met the full disk.
    """
    ballast, hits = run.layout.root / "ballast", Counter[str]()
    for moment in moments:
        left = rng.choice([0, 0, rng.randrange(200_000)])
        struck = strike(run, moment, pace, lambda process, n=left: fill(ballast, n))
        hits[_what_was_hit(struck)] += 1
        ballast.unlink(missing_ok=True)
        require_whole(run, model)
        print(f"aimed at {moment.kind}, hit {struck.hit}, exit {struck.code}", flush=True)
    resume(run)
    require_same(run, model)
    return hits


def _what_was_hit(struck: Strike) -> str:
    assert "Traceback" not in struck.error, struck.error
    if struck.code == 0:  # it needed no more room
        return "nothing"
    said = struck.printed + struck.error
    assert struck.code in (1, 2), said
    assert FULL in said or "bytes" in said or "GB" in said, said
    assert len(struck.error.splitlines()) <= 1, struck.error
    return str(struck.hit)


def read_only(run: Run, model: Run, pace: Pace) -> None:
    """Run where nothing can be written: never begun, half done, finished."""

    def refused() -> None:
        _mount("-o", "remount,ro", str(run.layout.root))
        before = run.contents()
        done = emovec("run", run.manifest, "--root", run.layout.root, check=1)
        assert READ_ONLY in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        emovec("status", run.manifest, "--root", run.layout.root)
        assert run.contents() == before
        _mount("-o", "remount,rw", str(run.layout.root))

    refused()
    struck = strike(run, Moment("analyze", 0.5, True), pace, sending(signal.SIGKILL))
    assert struck.hit is not None
    refused()
    resume(run)
    _mount("-o", "remount,ro", str(run.layout.root))
    done = emovec("run", run.manifest, "--root", run.layout.root)
    assert "nothing to do" in done.stdout
    assert run.verify()["clean"]
    require_same(run, model)


def main() -> None:
    """Fill a disk as often as asked for; then do without writing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder, rng = options.folder, random.Random(options.seed)
    prepared = small_run(folder / "prepared", options.model)
    model = copy_prepared(prepared, folder / "undisturbed")
    pace = finish_undisturbed(model)
    kinds = kinds_of(prepared)
    moments = draw(rng, kinds, options.times)
    moments.sort(key=lambda moment: ["", *kinds].index(moment.kind) if moment.kind in kinds else 0)
    if moments:
        full = on_small_disk(prepared, folder / "full")
        print(fill_at(full, model, pace, moments, rng), flush=True)
    read_only(on_small_disk(prepared, folder / "read-only"), model, pace)
    print("read-only", flush=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    main()
