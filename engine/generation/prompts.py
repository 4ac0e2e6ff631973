"""Requests as token ids, and whether a model can take them; needs its tokenizer and config only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from engine.generation.demand import Demand, Request
from manifests.lists import Prompts
from manifests.resolve import Writing
from manifests.schema import Generate

OnEvent = Callable[[dict[str, Any]], None]

MEASURED_PROMPTS = 512
"""Longest prompts, in characters, whose tokens are counted to find the longest in tokens."""


class PromptEncoder:
    """Turns requests into a model's token ids with its chat template."""

    def __init__(self, model: dict[str, Any]):
        """Load the tokenizer.

        Args:
            model: `folder`, `trust_remote_code`, `chat_template` (its text, None for the
                tokenizer's own) and `chat_template_kwargs`.

        Raises:
            ValueError: the tokenizer has no chat template, or the template cannot take a request.
        """
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(
            model["folder"], trust_remote_code=model["trust_remote_code"]
        )
        self._arguments = model["chat_template_kwargs"]
        if model["chat_template"] is not None:
            self._tokenizer.chat_template = model["chat_template"]
        if not getattr(self._tokenizer, "chat_template", None):
            raise ValueError(
                "has no chat template, so it cannot be asked for stories; give it one with "
                "chat_template: path/to/template.jinja"
            )
        try:
            self.encode("x")
        except Exception as error:  # templates raise errors of their own making
            raise ValueError(f"its chat template fails: {error}") from None

    def encode(self, prompt: str) -> list[int]:
        """Return the token ids of a conversation that a prompt opens."""
        ids = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
            **self._arguments,
        )
        return [int(i) for i in ids]

    def longest(self, demand: Demand, requests: Iterable[Request]) -> int:
        """Return the length in tokens of the longest prompt among requests."""
        prompts = sorted({demand.prompt(request) for request in requests}, key=len)
        return max((len(self.encode(p)) for p in prompts[-MEASURED_PROMPTS:]), default=0)


def measure_prompts(job: dict[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Find the context that a model needs to write corpora, before any engine is started.

    Args:
        job: as `engine.generation.writing.write_corpora` takes it.
        on_event: not called.

    Returns:
        `context` in tokens; or `problem` (key path in the manifest, and what is wrong) and, where
        it is one corpus', its `stage`: the model has no chat template, or a prompt with its reply
        does not fit.
    """
    model = job["model"]
    try:
        encoder = PromptEncoder(model)
    except ValueError as error:
        return _problem(["models", model["name"]], f"model {model['name']!r} {error}")
    limits = context_limits(model)
    context = model["max_model_len"] or 0
    for corpus in job["corpora"]:
        demand = Demand(corpus["name"], writing_from_json(corpus["writing"]))
        prompt = encoder.longest(demand, demand.every_prompt())
        reply = demand.writing.spec.max_new_tokens
        for name, limit in limits.items():
            if limit is not None and prompt + reply > limit:
                what = (
                    f"the longest prompt ({prompt} tokens) and max_new_tokens ({reply}) are more "
                    f"than the {name} of {model['name']!r} ({limit}); lower max_new_tokens"
                )
                path = ["corpora", corpus["name"], "generate", "max_new_tokens"]
                return {**_problem(path, what), "stage": corpus["stage"]}
        context = max(context, prompt + reply)
    return {"context": context}


def _problem(path: list[str], what: str) -> dict[str, Any]:
    return {"problem": {"path": path, "what": what}}


def writing_to_json(writing: Writing) -> dict[str, Any]:
    """Return a `Writing` as plain JSON."""
    return {
        "spec": writing.spec.model_dump(mode="json"),
        "emotions": list(writing.emotions),
        "topics": list(writing.topics),
        "neutral_topics": list(writing.neutral_topics),
        "prompts": vars(writing.prompts),
        "chat_template": writing.chat_template,
    }


def writing_from_json(data: dict[str, Any]) -> Writing:
    """Return the `Writing` that `writing_to_json` took apart."""
    return Writing(
        Generate.model_validate_json(json.dumps(data["spec"])),
        tuple(data["emotions"]),
        tuple(data["topics"]),
        tuple(data["neutral_topics"]),
        Prompts(**data["prompts"]),
        data["chat_template"],
    )


def context_limits(model: dict[str, Any]) -> dict[str, int | None]:
    """Return what a prompt and its reply may take in tokens, None where nothing says."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(
        model["folder"], trust_remote_code=model["trust_remote_code"]
    ).get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    return {
        "max_model_len": model["max_model_len"],
        "context": int(positions) if positions else None,
    }
