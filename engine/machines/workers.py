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

from engine.events import EVENT_TYPES, Listener, Note
from engine.versions import other_versions

if TYPE_CHECKING:
    from distributed import Client, Future

    from engine.tasks import WorkerUnfit

MODEL_SLOT = {"model": 1}
"""Dask resource: a worker holds one model at a time."""

LOOK_SECONDS = 1.0
"""How often workers that have come, or a cluster that is gone, are looked for."""

WAIT_SECONDS = 30.0
"""After how long without any worker a person is told."""

HALF_SLOT = {"model": 0.5}
"""For tasks of which one may be read while another is written, with the same model."""


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
    """

    token: str
    host: str
    process: int
    program: str
    folders: tuple[str, ...] = ()
    gpu: bool = False

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
    """

    def __init__(
        self,
        client: Client,
        run: Run,
        listener: Listener,
        lasting: bool = False,
        trouble: Callable[[], str | None] = lambda: None,
    ):
        self.client, self.run, self.lasting = client, run, lasting
        self._listener, self._trouble = listener, trouble
        self._looked_at: set[str] = set()
        self._unfit: dict[str, str] = {}
        self._compared: set[str] = set()
        client.subscribe_topic(run.topic, _relay(listener))

    def submit(self, work: Callable[..., Any], *arguments: Any, **options: Any) -> Future:
        """Have a function of `engine.tasks` called; a worker that dies costs another try."""
        from engine import tasks

        key = f"{work.__name__}-{uuid.uuid4().hex}"
        self.require_there()
        if self._unfit and "workers" not in options:
            options["workers"] = self.fit()
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
            if not self.lasting or ended or self.addresses():
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
            self.require_there()
            return set()
        except CancelledError:  # the connection is lost: nobody else cancels what is waited for
            raise ClusterGone(GONE) from None
        self.require_there()
        return set(found.done)

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

    def leave_out(self, error: WorkerUnfit) -> None:
        """Give a worker nothing more that says of itself that it cannot do this run's tasks."""
        self._looked_at.add(error.worker)
        if error.worker not in self._unfit:
            self._unfit[error.worker] = str(error)
            self._listener(Note(f"{error}; it is left out"))

    def fit(self) -> list[str]:
        """Return the workers that can do this run's tasks; others are told of once.

        Raises:
            ClusterGone: there are workers, and none can.
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
                    self._unfit[address] = str(answer)
                    self._listener(Note(f"{answer}; it is left out"))
                elif isinstance(answer, tuple):
                    self._compare(*answer)
        fit = [address for address in there if address not in self._unfit]
        if there and not fit:
            raise ClusterGone(next(self._unfit[address] for address in there))
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


def asking(run: Run, gpu: bool) -> Run:
    """Return a run whose workers must have a GPU, or need not."""
    return replace(run, gpu=gpu)


def _relay(listener: Listener) -> Callable[[tuple[Any, dict[str, Any]]], None]:
    """Return what hands the events of tasks to a listener."""

    def relay(event: tuple[Any, dict[str, Any]]) -> None:
        payload = dict(event[1]["event"])
        listener(EVENT_TYPES[payload.pop("type")](**payload))

    return relay
