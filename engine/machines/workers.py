"""A Dask client whose tasks belong to one run: they tell that run alone, and end with it."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.child import ChildFailed
from engine.events import EVENT_TYPES, Listener, Note
from engine.versions import other_versions

if TYPE_CHECKING:
    from distributed import Client, Future, Scheduler

    from engine.tasks import WorkerUnfit

MODEL_SLOT = {"model": 1}
"""Dask resource: a worker holds one model at a time."""

WORTH_PROCESSES = 40
"""Windows and layers from which starting processes for them is worth its seconds."""

LOOK_SECONDS = 1.0
"""How often workers that have come, or a cluster that is gone, are looked for."""

WAIT_SECONDS = 30.0
"""After how long without any worker a person is told."""

TRIES = 3
"""How often a task is given to a cluster's workers that give it back without any progress."""

REST_SECONDS = 15.0
"""How long a worker gets nothing after it gave something back: its job may be ending."""

NOBODY = "tcp://127.0.0.1:1"
"""No worker's address; a task without any address may go to all."""


@dataclass(frozen=True)
class Run:
    """What a task knows of the run that it works for.

    Attributes:
        token: of the run, unique.
        host: that the run was started on.
        process: that it was started by.
        program: digest of this program's source.
        folders: that a worker must see, under the same paths.
        gpu: whether a worker must have one.
        models: folders of models that a worker must see.
    """

    token: str
    host: str
    process: int
    program: str
    folders: tuple[str, ...] = ()
    gpu: bool = False
    models: tuple[str, ...] = ()

    @property
    def topic(self) -> str:
        """Dask topic of what its tasks tell."""
        return f"emovec-{self.token}"


def new_run(folders: tuple[str, ...]) -> Run:
    """Return a run of this process."""
    return Run(uuid.uuid4().hex[:12], socket.gethostname(), os.getpid(), program_digest(), folders)


def quiet() -> None:
    """Keep Dask's own words off the screen: what matters to a person is told in ours."""
    for name in ("distributed", "distributed.client"):  # the second has a level of its own
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").addFilter(_is_not_an_old_wait)


def _is_not_an_old_wait(record: logging.LogRecord) -> bool:
    """Tell a log record from that of a wait that ran out after Dask had let go of it.

    On a busy machine one is now and then left behind when a cluster ends; tornado, which waits for
    Dask, words it so. A notebook's own are told.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, TimeoutError) and error.args == ("Timeout",))


@cache
def program_digest() -> str:
    """Return the sha256 over this program's source, which every worker must share."""
    room = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for name in ("manifests", "store", "analysis", "engine"):
        for file in sorted((room / name).rglob("*.py")):
            digest.update(str(file.relative_to(room)).encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


GONE = "the Dask scheduler is gone; what is done is kept, and the same command goes on"


class ClusterGone(Exception):
    """A cluster cannot be used any more; the message says why and what to do."""


class Workers:
    """Workers somewhere, and how one run uses them.

    Attributes:
        client: a Dask client of theirs.
        run: the run.
        lasting: they come and go by themselves, so that having none is a reason to wait.
        wanted: how many of them there is work for, so that no more are called or kept; as many as
            can be had when None.
    """

    def __init__(
        self,
        client: Client,
        run: Run,
        listener: Listener,
        lasting: bool = False,
        trouble: Callable[[], str | None] = lambda: None,
        dismiss: Callable[[str, str], None] | None = None,
        at_most: int | None = None,
        wanted: int | None = None,
    ):
        """Use workers for a run.

        Args:
            client: a Dask client of theirs.
            run: the run.
            listener: told what tasks tell, and what becomes of workers.
            lasting: whether they come and go by themselves.
            trouble: says why no more of them come, None while they do.
            dismiss: given the name of a worker that cannot do this run's tasks, and why, where
                another can be had in its place; gives trouble if too many cannot.
            at_most: how many of them can be had, where that is known before they are there.
            wanted: how many of them there is work for.
        """
        self.client, self.run, self.lasting = client, run, lasting
        self.wanted, self._at_most = wanted, at_most
        self._listener, self._trouble, self._dismiss = listener, trouble, dismiss
        self._looked_at: set[str] = set()
        self._unfit: dict[str, str] = {}
        self._compared: set[str] = set()
        self._anywhere: set[str] = set()
        self._allowed = [NOBODY]
        self._told: list[str] | None = None
        self._looked = -LOOK_SECONDS
        client.subscribe_topic(run.topic, _relay(listener))

    def submit(self, work: Callable[..., Any], *arguments: Any, **options: Any) -> Future:
        """Have a function of `engine.tasks` called; a worker that dies costs another try."""
        from engine import tasks

        key = f"{work.__name__}-{uuid.uuid4().hex}"
        self.require_there()
        if "workers" not in options:
            self._anywhere.add(key)
            if self._unfit:
                self.fit()
                options["workers"] = self._allowed
        return self.client.submit(
            tasks.call, self.run, work, *arguments, key=key, pure=False, **options
        )

    def completed(self, futures: Iterable[Future]) -> Iterator[Future]:
        """Yield futures as they end, and tell once when nobody is there to work on them.

        Raises:
            ClusterGone: they will not end.
        """
        left, alone_since, told = list(futures), time.monotonic(), False
        while left:
            ended = self.ended(left)
            for future in [future for future in left if future in ended]:
                left.remove(future)
                yield future
            if not self.lasting or ended or set(self.addresses()) - set(self._unfit):
                alone_since, told = time.monotonic(), False
            elif not told and time.monotonic() - alone_since > WAIT_SECONDS:
                told = True
                self._listener(Note("no worker is there; waiting for one"))

    def ended(self, futures: Iterable[Future]) -> set[Future]:
        """Wait a little for some futures and return those that have ended.

        Raises:
            ClusterGone: none will end.
        """
        from distributed import wait

        try:
            with self.client.as_current():  # a wait belongs to the loop of its futures' client
                found = wait(list(futures), timeout=LOOK_SECONDS, return_when="FIRST_COMPLETED")
        except TimeoutError:
            found = None
        except CancelledError:  # the connection is lost: nobody else cancels what is waited for
            raise ClusterGone(GONE) from None
        self.require_there()
        if self.lasting and time.monotonic() - self._looked >= LOOK_SECONDS:
            self._keep_from_unfit()
            self._looked = time.monotonic()
        return set(found.done) if found is not None else set()

    def _keep_from_unfit(self) -> None:
        """Let tasks that wait go to the workers that are fit now, and to no others.

        Dask keeps what it was told when a task was given to it: workers that come later would
        never get it, though all that were there are gone.
        """
        self.fit()
        if not self._unfit or self._allowed == self._told:
            return
        self._anywhere &= set(self.client.futures)
        self.client.run_on_scheduler(_allow, keys=sorted(self._anywhere), addresses=self._allowed)
        self._told = self._allowed

    def result(self, future: Future) -> Any:
        """Return what a future gives.

        Raises:
            ClusterGone: it will give nothing.
        """
        for _ in self.completed([future]):
            pass
        return future.result()

    def require_there(self) -> None:
        """Refuse to go on with a cluster that is gone.

        Raises:
            ClusterGone: with the reason.
        """
        if (what := self._trouble()) is not None:
            raise ClusterGone(what)
        if self.client.status not in ("running", "connecting"):
            raise ClusterGone(GONE)

    def gave_back(self, error: BaseException | None) -> bool:
        """Tell whether a task failed for its worker's sake, so that it is to be tried again.

        That a model's process died counts: its job may be ending.
        """
        from distributed import KilledWorker

        from engine.tasks import WorkerUnfit

        if not self.lasting:
            return False
        if isinstance(error, WorkerUnfit):
            self.leave_out(error)
            return True
        return isinstance(error, KilledWorker) or (isinstance(error, ChildFailed) and error.crashed)

    def leave_out(self, error: WorkerUnfit) -> None:
        """Give a worker nothing more that says of itself that it cannot do this run's tasks."""
        self._looked_at.add(error.worker)
        if error.worker not in self._unfit:
            self._found_unfit(error.worker, str(error))

    def _found_unfit(self, address: str, why: str) -> None:
        self._unfit[address] = why
        self._listener(Note(f"{why}; it is left out"))
        worker = self.addresses().get(address)
        if self._dismiss is not None and worker is not None:
            self._dismiss(str(worker["name"]), why)

    def fit(self) -> list[str]:
        """Return the workers that can do this run's tasks; others are told of once.

        Raises:
            ClusterGone: there are workers, none can, nor could any that is gone, and no others
                are to come in their place.
        """
        there = self.addresses()
        if not self.lasting:
            return list(there)
        from engine import tasks

        if new := [address for address in there if address not in self._looked_at]:
            found = self.client.run(tasks.require_fit, self.run, workers=new, on_error="return")
            for address, answer in found.items():
                self._looked_at.add(address)
                if isinstance(answer, ImportError | tasks.WorkerUnfit):
                    self._found_unfit(address, str(answer))
                elif isinstance(answer, tuple):
                    self._compare(*answer)
        fit = [address for address in there if address not in self._unfit]
        if there and not fit and self._allowed == [NOBODY] and self._dismiss is None:
            raise ClusterGone(next(self._unfit[address] for address in there))
        self._allowed = fit or self._allowed
        return fit

    def _compare(self, host: str, versions: dict[str, str]) -> None:
        """Tell once of each host whose programs are others, whose last digits may differ."""
        if host not in self._compared and (others := other_versions(versions)):
            self._compared.add(host)
            self._listener(Note(f"a worker on {host} has {', '.join(others)}"))

    def do(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Have one task done by a worker that has its model slot free, and wait for its result."""
        return self.result(self.submit(work, *arguments, resources=MODEL_SLOT))

    def addresses(self) -> dict[str, Any]:
        """Return the workers that hold models, by address."""
        workers = self.client.scheduler_info(n_workers=-1).get("workers", {})
        return {
            address: worker for address, worker in workers.items() if "model" in worker["resources"]
        }

    def places(self) -> int:
        """Return among how many of them work can be divided: those to be had, or that are there."""
        if not self.lasting:
            return 1
        return self._at_most or max(1, len(self.fit()))

    def let_go(self) -> None:
        """End the models that the workers hold for this run."""
        self._everywhere("end_child")

    def stop(self) -> None:
        """End what the workers do for this run, and let none of its tasks begin."""
        self._everywhere("stop_run")

    def _everywhere(self, name: str) -> None:
        from engine import tasks

        if self.client.status != "running":  # a scheduler that is gone has no workers
            return
        with contextlib.suppress(OSError, TimeoutError, AttributeError):  # it goes just now
            self.client.run(getattr(tasks, name), self.run.token, on_error="ignore")


def _allow(keys: list[str], addresses: list[str], dask_scheduler: Scheduler) -> None:
    """Have a scheduler give tasks to some workers only, at once where they are there."""
    there = [key for key in keys if key in dask_scheduler.tasks]
    dask_scheduler.set_restrictions(dict.fromkeys(there, addresses))
    for worker in [dask_scheduler.workers[a] for a in addresses if a in dask_scheduler.workers]:
        waiting = dask_scheduler.bulk_schedule_unrunnable_after_adding_worker(worker)
        dask_scheduler.transitions(waiting, f"allow-{uuid.uuid4().hex}")


def asking(run: Run, gpu: bool) -> Run:
    """Return a run whose workers must have a GPU, or need not."""
    return replace(run, gpu=gpu)


def _relay(listener: Listener) -> Callable[[tuple[Any, dict[str, Any]]], None]:
    """Return what hands the events of tasks to a listener."""

    def relay(event: tuple[Any, dict[str, Any]]) -> None:
        payload = dict(event[1]["event"])
        listener(EVENT_TYPES[payload.pop("type")](**payload))

    return relay
