"""Writes corpora with vLLM, in a child process: requests stream in, replies go to the journal.

Each finished reply is split, checked and appended to its corpus' journal at once; what is asked
instead of a refused one joins the running batch. When nothing of a corpus is on its way, its texts
are held against each other, and the later of two near-duplicates is asked for again. A restart
replays the journal and goes on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.device import gpu_name, has_gpu, replica_environments
from engine.generation.demand import Demand, Request
from engine.generation.duplicates import near_duplicates
from engine.generation.prompts import OnEvent, PromptEncoder, writing_from_json
from engine.generation.replicas import Ask, Replicas, Reply
from store.journal import Journal, journal_rows

EVENT_SECONDS = 0.5


@dataclass
class Desk:
    """A corpus being written.

    Attributes:
        stage: that writes it, for telling of it.
        file: its journal's file.
        demand: what it still needs.
        journal: the journal, open for appending.
        output_tokens: written under this load of the model.
        refused: replies refused under this load.
        complete: every text is there or given up, and none is a duplicate.
    """

    stage: str
    file: Path
    demand: Demand
    journal: Journal
    output_tokens: int = 0
    refused: int = 0
    complete: bool = False


def write_corpora(job: dict[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Write all corpora of one model with one load of it.

    Args:
        job: `model` (folder, context and vLLM settings) and `corpora` (stage, name, journal,
            fingerprint and writing of each), as `engine.corpora` makes them.
        on_event: called with {stage, done, total, tokens, refused} on the way.

    Returns:
        For each corpus by its stage: output_tokens and refused replies of this load; output
        `tokens_per_second` of the whole load from the first engine's start on, with `gpu`, their
        name, and `gpus`, how many, where it was GPUs; and `given_up` (reason by request id).

    Raises:
        ValueError: a model without a chat template, or too few GPUs.
        EngineDied: vLLM's process is gone; calling again goes on.
    """
    desks = [_desk(corpus) for corpus in job["corpora"]]
    rate, gpus = None, {}
    with ExitStack() as journals:
        waiting: deque[tuple[Desk, Request]] = deque()
        for desk in desks:
            journals.enter_context(desk.journal)
            requests = desk.demand.replay(journal_rows(desk.file, desk.demand.oddity))
            waiting.extend((desk, request) for request in requests)
            waiting.extend((desk, request) for request in _finish(desk))
        if waiting:
            seconds, n_gpus = _stream(job["model"], waiting, on_event)
            if (gpu := gpu_name()) is not None:
                gpus = {"gpu": gpu, "gpus": n_gpus}
            rate = sum(desk.output_tokens for desk in desks) / seconds
    return {
        desk.stage: {
            "output_tokens": desk.output_tokens,
            "refused": desk.refused,
            "tokens_per_second": rate,
            **gpus,
            "given_up": desk.demand.given_up,
        }
        for desk in desks
    }


def _desk(corpus: dict[str, Any]) -> Desk:
    demand = Demand(corpus["name"], writing_from_json(corpus["writing"]))
    file = Path(corpus["journal"])
    return Desk(corpus["stage"], file, demand, Journal(file, corpus["fingerprint"]))


def _stream(
    model: dict[str, Any], waiting: deque[tuple[Desk, Request]], on_event: OnEvent
) -> tuple[float, int]:
    """Keep the engines full until nothing is waited for.

    Returns:
        The seconds they worked, and the GPUs that a machine with some gave them.
    """
    environments = replica_environments(
        model["replicas"], model["tensor_parallel_size"], model["gpu_memory_utilization"]
    )
    encoder = PromptEncoder(model)
    running: dict[str, tuple[Desk, Request]] = {}

    def next_ask() -> Ask | None:
        if not waiting:
            return None
        desk, request = waiting.popleft()
        key = f"{desk.stage}|{request.id}|{request.attempt}"
        running[key] = (desk, request)
        prompt = encoder.encode(desk.demand.prompt(request))
        return Ask(key, prompt, sampling_parameters(desk.demand, request))

    told = 0.0
    desks = list({id(desk): desk for desk, _ in waiting}.values())
    with closing(Replicas(model, environments, next_ask)) as replicas:
        while any(desk.demand.n_open for desk in desks):
            if (reply := replicas.reply(EVENT_SECONDS)) is not None:
                desk, request = running.pop(reply.key)
                due = _settle(desk, request, reply) or _finish(desk)
                waiting.extendleft((desk, request) for request in reversed(due))
                while len(waiting) < replicas.free_seats and (ahead := _ahead(desks)):
                    waiting.append(ahead)
                if waiting:
                    replicas.wake()
            for desk in desks:
                desk.journal.sync_soon()
            if time.monotonic() - told > EVENT_SECONDS:
                told = time.monotonic()
                _tell(desks, on_event)
        ended = time.monotonic()
        _tell(desks, on_event)
        assert replicas.ready is not None
        return ended - replicas.ready, len(environments) * model["tensor_parallel_size"]


def _ahead(desks: Iterable[Desk]) -> tuple[Desk, Request] | None:
    """Return something to ask ahead of need, for a seat that would be empty."""
    for desk in desks:
        if (request := desk.demand.ahead()) is not None:
            return desk, request
    return None


def _tell(desks: Iterable[Desk], on_event: OnEvent) -> None:
    for desk in desks:
        on_event(
            {
                "stage": desk.stage,
                "done": desk.demand.n_kept,
                "total": desk.demand.wanted,
                "tokens": desk.output_tokens,
                "refused": desk.refused,
            }
        )


def _settle(desk: Desk, request: Request, reply: Reply) -> list[Request]:
    """Split, check and journal one reply; return what to ask because of it."""
    verdict = desk.demand.judge(request, reply.text, reply.finish_reason)
    desk.output_tokens += reply.output_tokens
    desk.refused += bool(verdict.reason)
    row = {
        "request": request.id,
        "attempt": request.attempt,
        "seed": desk.demand.seed(request),
        "outcome": desk.demand.outcome(request, verdict),
        "reason": verdict.reason,
        "checks": desk.demand.checks_id,
        "stories": list(verdict.stories),
        "reply": reply.text,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": reply.prompt_tokens,
        "output_tokens": reply.output_tokens,
    }
    return desk.demand.take(row, desk.journal.append(row))


def _finish(desk: Desk) -> list[Request]:
    """Withdraw the near-duplicates of a corpus of which nothing is on its way.

    Returns:
        What to ask instead of them.
    """
    demand = desk.demand
    if demand.n_open or desk.complete:
        return []
    withdrawn = 0
    due: list[Request] = []
    if demand.duplicates_from is not None:
        with closing(demand.kept(desk.file)) as texts:
            for found in near_duplicates(texts, demand.duplicates_from):
                row = {
                    "text_id": texts.text_id(found.position),
                    "outcome": "withdrawn",
                    "reason": f"duplicate: {found.overlap:.2f} of {texts.text_id(found.earlier)}",
                    "overlap": found.overlap,
                    "place": texts.place(found.position),
                }
                due += demand.take(row, desk.journal.append(row))
                withdrawn += 1
    if withdrawn and not due:  # a text that took another's place has not been looked at
        return _finish(desk)
    desk.complete = not due
    return due


def sampling_parameters(demand: Demand, request: Request) -> Any:
    """Return the sampling parameters of a request, for vLLM's sampler or on a CPU for ours."""
    from engine.generation.nucleus import ours

    params = vllm_sampling(demand, request)
    return params if has_gpu() else ours(params)


def vllm_sampling(demand: Demand, request: Request) -> Any:
    """Return vLLM's sampling parameters of a request."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    spec = demand.writing.spec
    return SamplingParams(
        temperature=spec.temperature,
        top_p=spec.top_p,
        seed=demand.seed(request),
        max_tokens=spec.max_new_tokens,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_special_tokens=False,  # what is left of them in a reply is debris, to be seen
    )
