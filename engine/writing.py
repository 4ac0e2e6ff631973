"""Writes corpora with vLLM, in a child process: requests stream in, replies go to the journal.

Each finished reply is split, checked and appended to its corpus' journal at once; what is asked
instead of a refused one joins the running batch. A restart replays the journal and goes on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.device import has_gpu
from engine.stories import Demand, Request, check_reply, split_reply
from manifests.lists import Prompts
from manifests.resolve import Writing
from manifests.schema import Generate
from store.journal import Journal, read_journal

EVENT_SECONDS = 0.5
CPU_SEQUENCES = 64

OnEvent = Callable[[dict[str, Any]], None]


@dataclass
class Desk:
    """A corpus being written."""

    name: str
    demand: Demand
    journal: Journal
    output_tokens: int = 0
    refused: int = 0


def write_corpora(job: dict[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Write all corpora of one model with one load of it.

    Args:
        job: `model` (folder and vLLM settings) and `corpora` (name, journal, fingerprint and
            writing of each), as `engine.tasks` makes them.
        on_event: called with {corpus, done, total, tokens, refused} on the way.

    Returns:
        For each corpus: output_tokens and refused replies of this load, seconds, and `given_up`
        (reason by request id).

    Raises:
        ValueError: a model without a chat template, or a context that is too short.
    """
    desks = {c["name"]: _desk(c) for c in job["corpora"]}
    waiting = deque(
        (desks[corpus["name"]], request)
        for corpus in job["corpora"]
        for request in desks[corpus["name"]].demand.replay(read_journal(Path(corpus["journal"])))
    )
    started = time.monotonic()
    with ExitStack() as journals:
        for desk in desks.values():
            journals.enter_context(desk.journal)
        if waiting:
            _stream(job["model"], waiting, on_event)
    return {
        name: {
            "output_tokens": desk.output_tokens,
            "refused": desk.refused,
            "seconds": time.monotonic() - started,
            "given_up": desk.demand.given_up,
        }
        for name, desk in desks.items()
    }


def _desk(corpus: dict[str, Any]) -> Desk:
    demand = Demand(corpus["name"], writing_from_json(corpus["writing"]))
    return Desk(corpus["name"], demand, Journal(Path(corpus["journal"]), corpus["fingerprint"]))


def writing_to_json(writing: Writing) -> dict[str, Any]:
    """Return a `Writing` as plain JSON."""
    return {
        "spec": writing.spec.model_dump(mode="json"),
        "emotions": list(writing.emotions),
        "topics": list(writing.topics),
        "neutral_topics": list(writing.neutral_topics),
        "prompts": vars(writing.prompts),
    }


def writing_from_json(data: dict[str, Any]) -> Writing:
    """Return the `Writing` that `writing_to_json` took apart."""
    return Writing(
        Generate.model_validate(data["spec"]),
        tuple(data["emotions"]),
        tuple(data["topics"]),
        tuple(data["neutral_topics"]),
        Prompts(**data["prompts"]),
    )


def _stream(model: dict[str, Any], waiting: deque[tuple[Desk, Request]], on_event: OnEvent) -> None:
    """Keep one vLLM engine full until nothing is waited for."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        model["folder"], trust_remote_code=model["trust_remote_code"]
    )
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            f"the tokenizer in {model['folder']} has no chat template, so it cannot be asked for "
            "stories; put a chat_template.jinja beside it"
        )

    def encode(desk: Desk, request: Request) -> list[int]:
        message = {"role": "user", "content": desk.demand.prompt(request)}
        ids = tokenizer.apply_chat_template(
            [message],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
            **model["chat_template_kwargs"],
        )
        return [int(i) for i in ids]

    needed = max(
        len(encode(desk, request)) + desk.demand.writing.spec.max_new_tokens
        for desk, request in waiting
    )
    engine, sampling = _start_engine(model, needed)
    limit = 4 * (model["max_num_seqs"] or CPU_SEQUENCES)
    running: dict[str, tuple[Desk, Request]] = {}
    told = 0.0
    while waiting or running:
        while waiting and len(running) < limit:
            desk, request = waiting.popleft()
            key = f"{desk.name}|{request.id}|{request.attempt}"
            running[key] = (desk, request)
            prompt = {"prompt_token_ids": encode(desk, request)}
            engine.add_request(key, prompt, sampling(desk, request))
        for output in engine.step():
            if output.finished:
                desk, request = running.pop(output.request_id)
                again = _settle(desk, request, output)
                waiting.extendleft((desk, r) for r in reversed(again))
        if time.monotonic() - told > EVENT_SECONDS or not (waiting or running):
            told = time.monotonic()
            _tell({id(d): d for d, _ in [*waiting, *running.values()]}.values(), on_event)
    engine.engine_core.shutdown()


def _tell(desks: Any, on_event: OnEvent) -> None:
    for desk in desks:
        on_event(
            {
                "corpus": desk.name,
                "done": len(desk.demand.kept),
                "total": desk.demand.wanted,
                "tokens": desk.output_tokens,
                "refused": desk.refused,
            }
        )


def _settle(desk: Desk, request: Request, output: Any) -> list[Request]:
    """Split, check and journal one reply; return what to ask because of it."""
    reply = output.outputs[0]
    stories = split_reply(reply.text, len(request.slots))
    spec = desk.demand.writing.spec
    reason = check_reply(stories, request, str(reply.finish_reason), spec.min_words)
    desk.output_tokens += len(reply.token_ids)
    desk.journal.append(
        {
            "request": request.id,
            "attempt": request.attempt,
            "seed": desk.demand.seed(request),
            "outcome": "refused" if reason else "kept",
            "reason": reason,
            "stories": [] if reason else stories,
            "reply": reply.text,
            "finish_reason": str(reply.finish_reason),
            "prompt_tokens": len(output.prompt_token_ids),
            "output_tokens": len(reply.token_ids),
        }
    )
    if not reason:
        desk.demand.keep(request, stories)
        return []
    desk.refused += 1
    return desk.demand.refuse(request, reason)


def _start_engine(model: dict[str, Any], needed: int) -> tuple[Any, Any]:
    """Return vLLM's engine and a function that gives a request's sampling parameters."""
    from transformers import AutoConfig
    from vllm import LLM, SamplingParams
    from vllm.sampling_params import RequestOutputKind

    config = AutoConfig.from_pretrained(
        model["folder"], trust_remote_code=model["trust_remote_code"]
    ).get_text_config()
    longest = getattr(config, "max_position_embeddings", None)
    context = model["max_model_len"] or needed
    if needed > min(context, longest or context):
        raise ValueError(
            f"the longest prompt with max_new_tokens takes {needed} tokens, more than the "
            f"model's context of {min(context, longest or context)}; lower max_new_tokens"
        )
    settings: dict[str, Any] = {}
    if not has_gpu():
        # Chunked prefill with a seed per request fails on a CPU (vLLM 0.32 rewinds the random
        # generator by an offset that only CUDA generators have), so prompts are taken whole.
        settings = {
            "enforce_eager": True,
            "max_num_seqs": CPU_SEQUENCES,
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(context, 2048),
        }
    if model["max_num_seqs"] is not None:
        settings["max_num_seqs"] = model["max_num_seqs"]
    llm = LLM(
        model=model["folder"],
        dtype=model["dtype"],
        load_format="safetensors",
        trust_remote_code=model["trust_remote_code"],
        tensor_parallel_size=model["tensor_parallel_size"],
        gpu_memory_utilization=model["gpu_memory_utilization"],
        max_model_len=context,
        disable_log_stats=True,
        **settings,
    )

    def sampling(desk: Desk, request: Request) -> Any:
        spec = desk.demand.writing.spec
        return SamplingParams(
            temperature=spec.temperature,
            top_p=spec.top_p,
            max_tokens=spec.max_new_tokens,
            seed=desk.demand.seed(request),
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    return llm.llm_engine, sampling
