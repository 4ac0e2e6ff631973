"""Deals the shards of many cells to workers, each of which holds one model at a time.

A worker gets shards of the model that it holds while there are any, then those of a model that
nobody holds, then those of the model with most left. Each has two shards in hand, so that it reads
one while it writes another; no more are handed out, so that a worker that dies takes only its own
along, and one that comes late finds work. The shards of a worker that is gone are dealt again from
here, as is what a worker that is about to die gives back as failed: Dask, told that others may do
it too, leaves a task where its worker was if nobody else was there at that moment.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from engine.machines.workers import (
    HALF_SLOT,
    LOOK_SECONDS,
    REST_SECONDS,
    TRIES,
    WAIT_SECONDS,
    Workers,
)

if TYPE_CHECKING:
    from distributed import Future

IN_HAND = 2
"""Shards that a worker has at once."""

PATIENCE_SECONDS = 300.0
"""How long workers of this machine may all be gone: those that died are started again."""

DEATHS = {True: 1000, False: 3}
"""Workers that may be gone with a shard in hand, on a cluster (jobs end for reasons of their own)
and on this machine."""


class NoWorkers(Exception):
    """Nobody is there to read, and nobody will come."""


class WorkersGone(Exception):
    """Too many workers were gone, one after another, that had a shard in hand."""


class Reading(Protocol):
    """A cell that is read.

    Attributes:
        holds: what a worker has to hold for it: model and backend.
    """

    holds: str

    def begin(self) -> list[int]:
        """Prepare its store and return the shards to read."""

    def task(self, shard: int) -> tuple[Any, ...]:
        """Return the function and arguments that read a shard."""

    def take(self, figures: dict[str, Any]) -> None:
        """Take the figures of a shard that is done."""

    def end(self) -> None:
        """Every shard is done."""

    def fail(self, error: Exception) -> None:
        """The cell cannot be begun, a shard cannot be read, or the cell cannot be ended."""


class Dealer:
    """Deals until every cell is read or has failed."""

    def __init__(self, workers: Workers, readings: Sequence[Reading]):
        self._workers = workers
        self._waiting = list(readings)
        self._shards: dict[Reading, list[int]] = {}
        self._running: dict[Future, tuple[Reading, int, str]] = {}
        self._holds: dict[str, str] = {}
        self._rests: dict[str, float] = {}
        self._crashes: Counter[tuple[Reading, int]] = Counter()
        self._deaths: Counter[tuple[Reading, int]] = Counter()

    def deal(self, tell: Callable[[str], None]) -> None:
        """Have everything read.

        Args:
            tell: called with what a person should know of the workers.

        Raises:
            NoWorkers: all processes of this machine are gone and none comes back.
            ClusterGone: a cluster's workers will not read.
        """
        alone_since, told = time.monotonic(), False
        try:
            while self._waiting or self._shards or self._running:
                self._workers.require_there()
                there, now = self._workers.fit(), time.monotonic()
                self._take_back(set(self._workers.addresses()))
                self._hand_out([w for w in there if self._rests.get(w, 0.0) <= now], set(there))
                self._workers.wanted = self._wanted()
                if there:
                    alone_since, told = now, False
                elif not self._workers.lasting and now - alone_since > PATIENCE_SECONDS:
                    raise NoWorkers("every process that reads has died, and none came back")
                elif not told and now - alone_since > WAIT_SECONDS:
                    told = True
                    tell("no worker is there; waiting for one")
                if self._running:
                    for future in self._workers.ended(self._running):
                        self._settle(future)
                elif self._waiting or self._shards:
                    time.sleep(LOOK_SECONDS)
        finally:
            with suppress(Exception):  # of a cluster that is gone there is nothing to cancel
                self._workers.client.cancel(list(self._running))

    def _wanted(self) -> int | None:
        """Return for how many workers there are shards, None while that is not known."""
        if self._waiting:
            return None
        return len(self._running) + sum(len(shards) for shards in self._shards.values())

    def _hand_out(self, ready: list[str], there: set[str]) -> None:
        in_hand = Counter(worker for _, _, worker in self._running.values())
        for _ in range(IN_HAND):  # one each, then the second: who is idle comes first
            for worker in ready:
                if in_hand[worker] >= IN_HAND:
                    continue
                found = self._next(worker, there)
                if found is None:
                    return
                reading, shard = found
                in_hand[worker] += 1
                self._holds[worker] = reading.holds
                work, *arguments = reading.task(shard)
                future = self._workers.submit(
                    work, *arguments, resources=HALF_SLOT, workers=[worker]
                )
                self._running[future] = (reading, shard, worker)

    def _take_back(self, there: set[str]) -> None:
        """Put the shards of workers that are gone back to those that are to be dealt."""
        gone = [
            future
            for future, (_, _, worker) in self._running.items()
            if worker not in there and not future.done()
        ]
        self._workers.client.cancel(gone)
        for future in gone:
            if future not in self._running:  # let go of with another shard of its cell
                continue
            reading, shard, _ = self._running.pop(future)
            self._deaths[reading, shard] += 1
            if self._deaths[reading, shard] <= DEATHS[self._workers.lasting]:
                self._shards.setdefault(reading, []).append(shard)
            else:
                deaths = self._deaths[reading, shard]
                what = f"{deaths} workers died one after another that had shard {shard} in hand"
                self._give_up(reading, WorkersGone(what))

    def _next(self, worker: str, there: set[str]) -> tuple[Reading, int] | None:
        """Return the shard that a worker should read next, None where none is left."""
        while reading := self._choice(worker, there):
            if reading in self._shards:
                shards = self._shards[reading]
                shard = shards.pop(0)
                if not shards:
                    del self._shards[reading]
                return reading, shard
            self._waiting.remove(reading)
            try:
                shards = reading.begin()
            except Exception as error:
                reading.fail(error)
                continue
            if shards:
                self._shards[reading] = shards
            else:
                self._end(reading)
        return None

    def _choice(self, worker: str, there: set[str]) -> Reading | None:
        left = [*self._shards, *self._waiting]  # cells that are begun come first
        if not left:
            return None
        mine = self._holds.get(worker)
        others = {held for who, held in self._holds.items() if who != worker and who in there}
        amount = Counter(reading.holds for reading in left)
        amount.update({reading.holds: len(shards) for reading, shards in self._shards.items()})

        def rank(reading: Reading) -> tuple[bool, bool, int]:
            free = reading.holds not in others
            return reading.holds != mine, not free, 0 if free else -amount[reading.holds]

        return min(left, key=rank)

    def _settle(self, future: Future) -> None:
        if future not in self._running:  # let go of with another shard of its cell
            return
        reading, shard, worker = self._running.pop(future)
        try:
            reading.take(future.result())
        except Exception as error:
            if self._again(reading, shard, worker, error):
                self._shards.setdefault(reading, []).append(shard)
                return
            self._give_up(reading, error)
            return
        if reading not in self._shards and not any(
            cell is reading for cell, _, _ in self._running.values()
        ):
            self._end(reading)

    def _give_up(self, reading: Reading, error: Exception) -> None:
        """Let a cell fail, and let go of all its shards."""
        reading.fail(error)
        self._shards.pop(reading, None)
        mine = [other for other, (cell, _, _) in self._running.items() if cell is reading]
        self._workers.client.cancel(mine)
        for other in mine:
            del self._running[other]

    def _again(self, reading: Reading, shard: int, worker: str, error: Exception) -> bool:
        """Tell whether a shard that failed is to be dealt again, to somebody else."""
        if not self._workers.gave_back(error):
            return False
        self._rests[worker] = time.monotonic() + REST_SECONDS
        self._crashes[reading, shard] += 1
        return self._crashes[reading, shard] < TRIES

    def _end(self, reading: Reading) -> None:
        try:
            reading.end()
        except Exception as error:
            reading.fail(error)


def by_holding(readings: Sequence[Reading]) -> Iterator[list[Reading]]:
    """Yield the cells that need the same held, together, in order of first appearance."""
    groups: dict[str, list[Reading]] = {}
    for reading in readings:
        groups.setdefault(reading.holds, []).append(reading)
    yield from groups.values()
