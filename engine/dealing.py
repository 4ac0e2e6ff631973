"""Deals work to workers, each of which holds one model at a time.

Work comes in pieces that belong together: the shards of a cell that is read, or a single piece, as
corpora that one worker writes. A worker gets pieces for the model that it holds while there are
any, then those for a model that nobody holds, then those for the model with most left. No more are
handed out than a worker has in hand at once, so that one that dies takes only its own along, and
one that comes late finds work: Dask would divide all of it among those that are there. The pieces
of a worker that is gone are dealt again from here, as is what a worker that is about to die gives
back as failed: Dask, told that others may do it too, leaves a task where its worker was if nobody
else was there at that moment.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from engine.machines.workers import (
    LOOK_SECONDS,
    REST_SECONDS,
    TRIES,
    WAIT_SECONDS,
    ClusterGone,
    Workers,
)

if TYPE_CHECKING:
    from distributed import Future

SHARDS_IN_HAND = 2
"""Shards that a worker has at once, so that it reads one while it writes another."""

PATIENCE_SECONDS = 300.0
"""How long workers of this machine may all be gone: those that died are started again."""

DEATHS = {True: 1000, False: 3}
"""Workers that may be gone with a piece in hand, on a cluster (jobs end for reasons of their own)
and on this machine."""


class NoWorkers(Exception):
    """Nobody is there to read, and nobody will come."""


class WorkersGone(Exception):
    """Too many workers were gone, one after another, that had the same piece in hand."""


class Work(Protocol):
    """Pieces of work that belong together, such as the shards of a cell.

    Attributes:
        holds: what a worker has to hold for it: a model, and what runs that.
        size: how many pieces there are at most; None where that is not known before it is begun.
        ended: it is done, or has failed.
    """

    holds: str
    size: int | None
    ended: bool

    def begin(self) -> list[int]:
        """Prepare what has to be, and return the numbers of the pieces that are to be done."""

    def task(self, piece: int) -> tuple[Any, ...]:
        """Return the function and arguments that do a piece."""

    def take(self, figures: dict[str, Any]) -> None:
        """Take the figures of a piece that is done."""

    def progress(self) -> int:
        """Return how far a piece in the middle is, in any unit; 0 where that cannot be told."""

    def end(self) -> None:
        """Every piece is done."""

    def fail(self, error: Exception) -> None:
        """It cannot be begun, a piece of it cannot be done, or it cannot be ended."""


class OnePiece:
    """Work that is a single piece: its ends, and what it has not to say.

    Attributes:
        size: 1.
        ended: it is done, or has failed.
    """

    size: int | None = 1
    ended = False

    def begin(self) -> list[int]:
        """Return the only piece."""
        return [0]

    def progress(self) -> int:
        """Return 0: it is done or not."""
        return 0

    def end(self) -> None:
        """Take note that it has ended."""
        self.ended = True


@contextmanager
def failing(works: Sequence[Work]) -> Iterator[None]:
    """Turn an error into the failure of all work that has not ended, but for a cluster's end."""
    try:
        yield
    except ClusterGone:
        raise
    except Exception as error:
        for work in works:
            if not work.ended:
                work.fail(error)


class Dealer:
    """Deals until all work is done or has failed."""

    def __init__(self, workers: Workers, works: Sequence[Work], in_hand: int = 1):
        """Deal work to workers.

        Args:
            workers: who does it.
            works: what there is to do.
            in_hand: pieces that a worker has at once.
        """
        self._workers, self._in_hand = workers, in_hand
        self._waiting = list(works)
        self._pieces: dict[Work, list[int]] = {}
        self._running: dict[Future, tuple[Work, int, str]] = {}
        self._holds: dict[str, str] = {}
        self._rests: dict[str, float] = {}
        self._crashes: Counter[tuple[Work, int]] = Counter()
        self._deaths: Counter[tuple[Work, int]] = Counter()
        self._reached: Counter[tuple[Work, int]] = Counter()

    def deal(self, tell: Callable[[str], None]) -> None:
        """Have everything done.

        Args:
            tell: called with what a person should know of the workers.

        Raises:
            NoWorkers: all processes of this machine are gone and none comes back.
            ClusterGone: a cluster's workers will do nothing more.
        """
        alone_since, told = time.monotonic(), False
        try:
            while self._waiting or self._pieces or self._running:
                self._workers.require_there()
                there, now = self._workers.fit(), time.monotonic()
                self._take_back(set(self._workers.addresses()))
                self._hand_out([w for w in there if self._rests.get(w, 0.0) <= now], set(there))
                self._workers.wanted = self._wanted()
                if there:
                    alone_since, told = now, False
                elif not self._workers.lasting and now - alone_since > PATIENCE_SECONDS:
                    raise NoWorkers("every process that works has died, and none came back")
                elif not told and now - alone_since > WAIT_SECONDS:
                    told = True
                    tell("no worker is there; waiting for one")
                if self._running:
                    for future in self._workers.ended(self._running):
                        self._settle(future)
                elif self._waiting or self._pieces:
                    time.sleep(LOOK_SECONDS)
        finally:
            with suppress(Exception):  # of a cluster that is gone there is nothing to cancel
                self._workers.client.cancel(list(self._running))

    def _wanted(self) -> int | None:
        """Return for how many workers there are pieces, None while that is not known."""
        left = len(self._running) + sum(len(pieces) for pieces in self._pieces.values())
        return together([left, *(work.size for work in self._waiting)])

    def _hand_out(self, ready: list[str], there: set[str]) -> None:
        in_hand = Counter(worker for _, _, worker in self._running.values())
        for _ in range(self._in_hand):  # one each, then the second: who is idle comes first
            for worker in ready:
                if in_hand[worker] >= self._in_hand:
                    continue
                found = self._next(worker, there)
                if found is None:
                    return
                work, piece = found
                in_hand[worker] += 1
                self._holds[worker] = work.holds
                function, *arguments = work.task(piece)
                slot = {"model": 1 / self._in_hand}
                future = self._workers.submit(
                    function, *arguments, resources=slot, workers=[worker]
                )
                self._running[future] = (work, piece, worker)

    def _take_back(self, there: set[str]) -> None:
        """Put the pieces of workers that are gone back to those that are to be dealt."""
        gone = [
            future
            for future, (_, _, worker) in self._running.items()
            if worker not in there and not future.done()
        ]
        self._workers.client.cancel(gone)
        for future in gone:
            if future not in self._running:  # let go of with another piece of its work
                continue
            work, piece, _ = self._running.pop(future)
            self._deaths[work, piece] += 1
            if self._deaths[work, piece] <= DEATHS[self._workers.lasting]:
                self._pieces.setdefault(work, []).append(piece)
            else:
                deaths = self._deaths[work, piece]
                what = f"{deaths} workers died one after another that had part {piece} in hand"
                self._give_up(work, WorkersGone(what))

    def _next(self, worker: str, there: set[str]) -> tuple[Work, int] | None:
        """Return the piece that a worker should do next, None where none is left."""
        while work := self._choice(worker, there):
            if work in self._pieces:
                pieces = self._pieces[work]
                piece = pieces.pop(0)
                if not pieces:
                    del self._pieces[work]
                return work, piece
            self._waiting.remove(work)
            try:
                pieces = work.begin()
            except Exception as error:
                work.fail(error)
                continue
            if pieces:
                self._pieces[work] = pieces
            else:
                self._end(work)
        return None

    def _choice(self, worker: str, there: set[str]) -> Work | None:
        left = [*self._pieces, *self._waiting]  # what is begun comes first
        if not left:
            return None
        mine = self._holds.get(worker)
        others = {held for who, held in self._holds.items() if who != worker and who in there}
        amount = Counter(work.holds for work in left)
        amount.update({work.holds: len(pieces) for work, pieces in self._pieces.items()})

        def rank(work: Work) -> tuple[bool, bool, int]:
            free = work.holds not in others
            return work.holds != mine, not free, 0 if free else -amount[work.holds]

        return min(left, key=rank)

    def _settle(self, future: Future) -> None:
        if future not in self._running:  # let go of with another piece of its work
            return
        work, piece, worker = self._running.pop(future)
        try:
            work.take(future.result())
        except Exception as error:
            if self._again(work, piece, worker, error):
                self._pieces.setdefault(work, []).append(piece)
                return
            self._give_up(work, error)
            return
        if work not in self._pieces and not any(
            other is work for other, _, _ in self._running.values()
        ):
            self._end(work)

    def _give_up(self, work: Work, error: Exception) -> None:
        """Let work fail, and let go of all its pieces."""
        work.fail(error)
        self._pieces.pop(work, None)
        mine = [future for future, (other, _, _) in self._running.items() if other is work]
        self._workers.client.cancel(mine)
        for future in mine:
            del self._running[future]

    def _again(self, work: Work, piece: int, worker: str, error: Exception) -> bool:
        """Tell whether a piece that failed is to be dealt again, to somebody else.

        TRIES count from the last progress.
        """
        if not self._workers.gave_back(error):
            return False
        self._rests[worker] = time.monotonic() + REST_SECONDS
        before, self._reached[work, piece] = self._reached[work, piece], work.progress()
        if self._reached[work, piece] > before:
            self._crashes[work, piece] = 0
        self._crashes[work, piece] += 1
        return self._crashes[work, piece] < TRIES

    def _end(self, work: Work) -> None:
        try:
            work.end()
        except Exception as error:
            work.fail(error)


def together(sizes: Iterable[int | None]) -> int | None:
    """Return the sum of sizes, None where one is not known."""
    known = list(sizes)
    return None if None in known else sum(size for size in known if size is not None)
