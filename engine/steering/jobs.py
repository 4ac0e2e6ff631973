"""What the two children of a cell's steering are given, and how they read it.

A job holds `stage`, `model` (folder, dtype, chat template and vLLM settings), `spec` and `prompts`
(of the manifest), `layers` (that are steered), `blocks` (that have directions, in the order of the
rows of `directions`, a safetensors file), `token_norms` (of each block), `journal` and its
`fingerprint`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.steering.addition import Addition
from engine.steering.conditions import (
    Condition,
    Opening,
    chosen_conditions,
    scored_conditions,
    written_conditions,
)
from manifests.schema import Steering
from manifests.steering import SteeringPrompts

WRITTEN, SCORED, JUDGED = "written", "scored", "judged"
"""Kinds of rows in a journal: a text; a condition's log-probabilities; a text's perplexity."""


def spec_of(job: dict[str, Any]) -> Steering:
    """Return the manifest's section."""
    return Steering.model_validate_json(json.dumps(job["spec"]))


def prompts_of(job: dict[str, Any]) -> SteeringPrompts:
    """Return the prompts."""
    given = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in job["prompts"].items()
    }
    given["preferences"] = tuple((a, b) for a, b in given["preferences"])
    return SteeringPrompts(**given)


def conditions_of(job: dict[str, Any], what: str) -> list[Condition]:
    """Return the conditions that are `written`, `chosen` (preferences are taken) or `scored`."""
    spec = spec_of(job)
    if what == "written":
        return written_conditions(spec, job["layers"])
    if what == "chosen":
        return chosen_conditions(spec, job["layers"])
    return scored_conditions(spec, job["layers"], job["blocks"])


def addition_of(job: dict[str, Any], condition: Condition) -> Addition | None:
    """Return what a condition adds, in residual stream units; None for nothing."""
    if not condition.direction:
        return None
    blocks: Sequence[int] = job["blocks"]
    unit = job["token_norms"][blocks.index(condition.target)]
    return Addition(
        condition.tensor,
        blocks.index(condition.source),
        condition.target,
        condition.strength * unit,
    )


Ends = tuple[list[int], list[list[int]]]
"""Token ids of a beginning, and of each of its ends."""


class OpeningEncoder:
    """Turns openings into token ids; those of a chat by the model's template where it has one."""

    def __init__(self, model: dict[str, Any]):
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(
            model["folder"], trust_remote_code=model["trust_remote_code"]
        )
        self._model = model
        if model["chat_template"] is not None:
            self._tokenizer.chat_template = model["chat_template"]

    @property
    def chats(self) -> bool:
        """Whether there is a chat template."""
        return bool(getattr(self._tokenizer, "chat_template", None))

    def encode(self, opening: Opening) -> list[int]:
        """Return the token ids of an opening."""
        if not (opening.chat and self.chats):
            return self.text(opening.text)
        ids = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": opening.text}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
            **self._model["chat_template_kwargs"],
        )
        return [int(i) for i in ids]

    def text(self, text: str) -> list[int]:
        """Return the token ids of a text with the tokenizer's own special tokens."""
        return [int(i) for i in self._tokenizer(text)["input_ids"]]

    def end(self, beginning: str, end: str) -> list[int]:
        """Return the token ids that an end adds to a beginning.

        Raises:
            ValueError: the tokenizer joins the two, so that the end has no tokens of its own.
        """
        before, whole = self.text(beginning), self.text(beginning + end)
        if whole[: len(before)] != before or len(whole) == len(before):
            raise ValueError(
                f"the tokenizer joins {beginning[-20:]!r} and {end!r}; begin the end with a space, "
                "or end the beginning with a whole word"
            )
        return whole[len(before) :]

    def decode(self, prompt: Sequence[int], ids: Sequence[int]) -> str:
        """Return the text that token ids add to a prompt, special tokens left out."""
        before, whole = (
            self._tokenizer.decode(list(given), skip_special_tokens=True)
            for given in (prompt, [*prompt, *ids])
        )
        return str(whole[len(before) :])

    def self_reports(self, prompts: SteeringPrompts) -> list[Ends]:
        """Return the beginnings of self-reports, each with its positive, then negative ends.

        Raises:
            ValueError: the tokenizer joins a beginning and an end.
        """
        ends = (*prompts.positive, *prompts.negative)
        return [
            (self.text(beginning), [self.end(beginning, end) for end in ends])
            for beginning in prompts.self_report
        ]

    def choices(self, prompts: SteeringPrompts) -> list[Ends]:
        """Return each pair's sentence in both orders, with the pleasant and the unpleasant end.

        Raises:
            ValueError: the tokenizer joins a sentence and an end.
        """
        found = []
        for pair in prompts.preferences:
            for first, second in (pair, pair[::-1]):
                sentence = prompts.preference.format(first=first.strip(), second=second.strip())
                found.append((self.text(sentence), [self.end(sentence, end) for end in pair]))
        return found

    def stop_tokens(self) -> set[int]:
        """Return the tokens that end a reply: the tokenizer's and the generation config's."""
        found = {self._tokenizer.eos_token_id} - {None}
        file = Path(self._model["folder"]) / "generation_config.json"
        if file.is_file():
            more = json.loads(file.read_bytes()).get("eos_token_id")
            found |= set(more if isinstance(more, list) else [more]) - {None}
        return found
