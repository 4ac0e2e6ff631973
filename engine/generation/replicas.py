"""Copies of one model that write at once: a thread for each, all fed from one queue.

vLLM runs each copy in processes of its own; a thread here hands it requests and takes its replies,
so that checking and journalling go on while the engines compute.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from engine.device import has_gpu

CPU_SEQUENCES = 64
CPU_SAMPLER = "engine.generation.nucleus:NucleusSampler"
LOOK_SECONDS = 1.0
SURPLUS = 0.25
"""Requests held ready in an engine beyond those it runs, as a share of them, so that a finished
one is replaced in the same step."""


class EngineDied(Exception):
    """An engine's process is gone; what it was writing has to be asked again."""

    crashed = True


@dataclass(frozen=True)
class Ask:
    """One request for an engine: its key, prompt and sampling settings."""

    key: str
    prompt_token_ids: list[int]
    sampling: Any


@dataclass(frozen=True)
class Reply:
    """What an engine made of a request."""

    key: str
    text: str
    finish_reason: str
    prompt_tokens: int
    tokens: tuple[int, ...]

    @property
    def output_tokens(self) -> int:
        """Tokens of the reply."""
        return len(self.tokens)


class Replicas:
    """Engines that answer requests from `next_ask` until `close`."""

    def __init__(
        self,
        model: dict[str, Any],
        environments: list[dict[str, str]],
        next_ask: Callable[[], Ask | None],
        settings: dict[str, Any] | None = None,
        prepare: Callable[[Any], None] = lambda llm: None,
    ):
        """Start the engines one after another; each begins to work as soon as it is up.

        Args:
            model: folder, context and vLLM settings.
            environments: environment variables of each copy.
            next_ask: returns the next request, or None when there is none for now.
            settings: of vLLM, beyond what the model says.
            prepare: called with each `LLM` before its first request.
        """
        self._settings = {**engine_settings(model), **(settings or {})}
        self._next_ask, self._prepare = next_ask, prepare
        self._asking = threading.Condition()
        self._replies: queue.Queue[Reply | BaseException] = queue.Queue()
        self._starting = threading.Lock()
        self._closed = False
        self._engines: list[psutil.Process] = []
        self._seats: list[tuple[int, set[str]]] = []
        self._looked = time.monotonic()
        self.ready: float | None = None
        """Monotonic time at which the first engine was up, None before."""
        self._threads = [
            threading.Thread(target=self._serve, args=(e,), name=f"replica-{i}", daemon=True)
            for i, e in enumerate(environments)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def free_seats(self) -> int:
        """Requests that the engines could begin with at once, beyond those that they hold."""
        return sum(max(0, seats - len(running)) for seats, running in self._seats)

    def wake(self) -> None:
        """Tell idle engines that `next_ask` has something again."""
        with self._asking:
            self._asking.notify_all()

    def reply(self, timeout: float) -> Reply | None:
        """Return the next finished reply, or None after `timeout` seconds without one.

        Raises:
            EngineDied: an engine's process is gone.
        """
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._look()
        try:
            found = self._replies.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(found, BaseException):
            raise found
        return found

    def _look(self) -> None:
        """Raise EngineDied if a process is gone: vLLM waits for a killed one forever."""
        self._looked = time.monotonic()
        for engine in self._engines:
            if not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE:
                raise EngineDied(f"vLLM's process {engine.pid} is gone")

    def close(self) -> None:
        """Stop the engines and wait for their threads."""
        self._closed = True
        self.wake()
        for thread in self._threads:
            thread.join(timeout=10)

    def _serve(self, environment: dict[str, str]) -> None:
        """Run one engine: start it, keep it full, hand its replies over."""
        from vllm.v1.engine.exceptions import EngineDeadError

        llm = None
        try:
            llm = self._start(environment)
            self._prepare(llm)
            engine = llm.llm_engine
            self.ready = self.ready or time.monotonic()
            seats = engine.vllm_config.scheduler_config.max_num_seqs
            running: set[str] = set()
            self._seats.append((seats, running))
            while not self._closed:
                self._fill(engine, running, int(seats * (1 + SURPLUS)) + 1)
                if not running:
                    continue
                for output in engine.step():
                    if output.finished:
                        running.discard(output.request_id)
                        self._replies.put(_reply(output))
        except EngineDeadError as error:
            died = EngineDied(f"vLLM's engine died: {error}")
            died.__cause__ = error
            self._replies.put(died)
        except BaseException as error:
            self._replies.put(error)
        finally:
            if llm is not None:
                with suppress(Exception):
                    llm.llm_engine.engine_core.shutdown()

    def _fill(self, engine: Any, running: set[str], limit: int) -> None:
        """Hand requests to an engine up to the limit; with none running, wait for one."""
        while len(running) < limit and not self._closed:
            with self._asking:
                ask = self._next_ask()
                if ask is None:
                    if not running:
                        self._asking.wait(timeout=1.0)
                    return
            running.add(ask.key)
            engine.add_request(ask.key, {"prompt_token_ids": ask.prompt_token_ids}, ask.sampling)

    def _start(self, environment: dict[str, str]) -> Any:
        """Return vLLM's front end to a copy of the model that lives under an environment."""
        from vllm import LLM

        with self._starting:  # an engine's processes take the environment as they find it
            others = set(psutil.Process().children())
            before = {name: os.environ.get(name) for name in environment}
            os.environ.update(environment)
            try:
                llm = LLM(**self._settings)
            finally:
                for name, value in before.items():
                    if value is None:
                        os.environ.pop(name, None)
                    else:
                        os.environ[name] = value
            children = set(psutil.Process().children()) - others
            self._engines += [child for child in children if _is_engine(child)]
            return llm


def _is_engine(process: psutil.Process) -> bool:
    """Tell a process that computes from Python's own helpers, such as its resource tracker."""
    try:
        return "resource_tracker" not in " ".join(process.cmdline())
    except psutil.Error:
        return False


def engine_settings(model: dict[str, Any]) -> dict[str, Any]:
    """Return vLLM's settings for a model: what its entry says, and what a CPU needs."""
    settings: dict[str, Any] = {
        "model": model["folder"],
        "dtype": model["dtype"],
        "load_format": "safetensors",
        "trust_remote_code": model["trust_remote_code"],
        "tensor_parallel_size": model["tensor_parallel_size"],
        "gpu_memory_utilization": model["gpu_memory_utilization"],
        "max_model_len": model["context"],
        "disable_log_stats": True,
    }
    if not has_gpu():
        settings |= {
            "enforce_eager": True,
            "max_num_seqs": CPU_SEQUENCES,
            "logits_processors": [CPU_SAMPLER],
        }
    if model["max_num_seqs"] is not None:
        settings["max_num_seqs"] = model["max_num_seqs"]
    return settings


def _reply(output: Any) -> Reply:
    made = output.outputs[0]
    return Reply(
        key=output.request_id,
        text=made.text,
        finish_reason=str(made.finish_reason),
        prompt_tokens=len(output.prompt_token_ids or ()),
        tokens=tuple(int(token) for token in made.token_ids),
    )
