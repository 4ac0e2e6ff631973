"""Writes under every condition, in a child process: each text goes to the journal as it comes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from engine.device import has_gpu, replica_environments
from engine.generation.prompts import context_limits
from engine.generation.replicas import Ask, Replicas
from engine.steering.addition import Addition, request_arguments
from engine.steering.conditions import Condition, Opening, Request, openings, requests
from engine.steering.jobs import (
    WRITTEN,
    OpeningEncoder,
    addition_of,
    conditions_of,
    prompts_of,
    spec_of,
)
from manifests.schema import Steering
from store.journal import Journal, read_journal
from store.journal_shapes import odd_measure

OnEvent = Callable[[dict[str, Any]], None]
EVENT_SECONDS = 0.5

ENGINE: dict[str, Any] = {
    "enforce_eager": True,  # hooks are not part of a captured graph
    "enable_prefix_caching": False,  # a steered prompt's keys and values are its own
    "worker_extension_cls": "engine.steering.vllm_worker.SteeredStream",
}
"""vLLM's settings for steering, beyond what a model's entry says."""


def write_steered(job: dict[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Write every text that the journal lacks.

    Args:
        job: as `engine.steering.jobs` describes it.
        on_event: called with {stage, done, tokens} on the way.

    Returns:
        `texts` and `output_tokens` written, and `tokens_per_second` (None where nothing was left).

    Raises:
        EngineDied: vLLM's process is gone; calling again goes on.
    """
    spec, journal_file = spec_of(job), Path(job["journal"])
    with Journal(journal_file, job["fingerprint"]) as journal:
        done = {
            row["text"] for row in read_journal(journal_file, odd_measure) if row["row"] == WRITTEN
        }
        wanted = list(requests(conditions_of(job, "written"), prompts_of(job), spec.samples))
        todo = [request for request in wanted if request.key not in done]
        if not todo:
            return {"texts": 0, "output_tokens": 0, "tokens_per_second": None}
        write = _by_vllm if spec.backend == "vllm" else _by_reference
        started, tokens, told = None, 0, 0.0
        for number, row in enumerate(write(job, spec, todo), start=1):
            if row is None:
                started = time.monotonic()
                continue
            journal.append(row)
            tokens += len(row["tokens"])
            if time.monotonic() - told > EVENT_SECONDS or number > len(todo):
                told = time.monotonic()
                on_event({"stage": job["stage"], "done": len(done) + number - 1, "tokens": tokens})
        assert started is not None
        rate = tokens / (time.monotonic() - started)
    return {"texts": len(todo), "output_tokens": tokens, "tokens_per_second": rate}


def _row(
    request: Request, seed: int, text: str, ended: str, tokens: Sequence[int]
) -> dict[str, Any]:
    return {
        "row": WRITTEN,
        "text": request.key,
        "condition": request.condition.json(),
        "prompt": request.opening.id,
        "sample": request.sample,
        "seed": seed,
        "reply": text,
        "finish_reason": ended,
        "tokens": list(tokens),
    }


class _Asking:
    """What every backend needs of a request: its tokens, its addition, where that begins."""

    def __init__(self, job: dict[str, Any], spec: Steering):
        self._job, self._spec = job, spec
        self.encoder = OpeningEncoder(job["model"])
        self._encoded: dict[Opening, list[int]] = {}
        self.encoder.self_reports(prompts_of(job))  # refused now rather than when texts are there
        self.encoder.choices(prompts_of(job))
        self.longest = max(len(self.prompt(opening)) for opening in openings(prompts_of(job)))
        for name, limit in context_limits(job["model"]).items():
            if limit is not None and self.longest + spec.max_new_tokens > limit:
                raise ValueError(
                    f"the longest prompt ({self.longest} tokens) and steering.max_new_tokens "
                    f"({spec.max_new_tokens}) are more than the {name} of "
                    f"{job['model']['name']!r} ({limit}); lower max_new_tokens"
                )

    def prompt(self, opening: Opening) -> list[int]:
        if opening not in self._encoded:
            self._encoded[opening] = self.encoder.encode(opening)
        return self._encoded[opening]

    def addition(self, condition: Condition) -> Addition | None:
        return addition_of(self._job, condition)

    def start(self, prompt: list[int]) -> int:
        return 0 if self._spec.steer_prompt else len(prompt) - 1


def _by_vllm(
    job: dict[str, Any], spec: Steering, todo: list[Request]
) -> Iterator[dict[str, Any] | None]:
    """Stream requests through vLLM; yield None once when it is up, then a row for each reply."""
    os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"  # the one that `vllm_internals` knows
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    from engine.generation.nucleus import ours

    asking, waiting, model = _Asking(job, spec), iter(todo), job["model"]
    running: dict[str, Request] = {}

    def next_ask() -> Ask | None:
        request = next(waiting, None)
        if request is None:
            return None
        running[request.key] = request
        prompt = asking.prompt(request.opening)
        params = SamplingParams(
            temperature=spec.temperature,
            top_p=spec.top_p,
            seed=request.seed(spec.seed),
            max_tokens=spec.max_new_tokens,
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args=request_arguments(asking.addition(request.condition), asking.start(prompt)),
        )
        return Ask(request.key, prompt, params if has_gpu() else ours(params))

    environments = replica_environments(
        model["replicas"], model["tensor_parallel_size"], model["gpu_memory_utilization"]
    )
    model = {**model, "context": asking.longest + spec.max_new_tokens}

    def prepare(llm: Any) -> None:
        llm.collective_rpc("emovec_steer", args=(job["directions"],))

    with closing(Replicas(model, environments, next_ask, ENGINE, prepare)) as replicas:
        up = False
        for _ in todo:
            reply = None
            while reply is None:
                reply = replicas.reply(EVENT_SECONDS)
                if replicas.ready is not None and not up:
                    up = True
                    yield None
            request = running.pop(reply.key)
            yield _row(
                request,
                request.seed(spec.seed),
                reply.text,
                reply.finish_reason,
                reply.tokens,
            )


def _by_reference(
    job: dict[str, Any], spec: Steering, todo: list[Request]
) -> Iterator[dict[str, Any] | None]:
    """Write one text after another with TransformerLens."""
    from engine.steering.model import SteeredModel

    model, asking = job["model"], _Asking(job, spec)
    steered = SteeredModel(
        model["folder"],
        model["dtype"],
        model["trust_remote_code"],
        model["tensor_parallel_size"],
        job["directions"],
        spec.steer_prompt,
    )
    yield None
    stop = asking.encoder.stop_tokens()
    for request in todo:
        seed = request.seed(spec.seed)
        made = steered.write(
            asking.prompt(request.opening),
            asking.addition(request.condition),
            spec.max_new_tokens,
            stop,
            (spec.temperature, spec.top_p, seed),
        )
        ended = "stop" if made[-1] in stop else "length"
        text = asking.encoder.decode(asking.prompt(request.opening), made)
        yield _row(request, seed, text, ended, made)
