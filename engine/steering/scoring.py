"""Measures without sampling, in a child process: what follows by condition, perplexity by text.

Self-reports: log P of each positive and negative end behind a beginning about the speaker's own
feeling, from which log-odds follow (`analysis.effects`). Preference: log P(pleasant) -
log P(unpleasant) as the end of a sentence that names both, mean over both orders. Perplexity: how
the model as it is finds what was written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.steering.addition import Addition
from engine.steering.conditions import Condition, openings
from engine.steering.jobs import (
    JUDGED,
    SCORED,
    WRITTEN,
    OpeningEncoder,
    addition_of,
    conditions_of,
    prompts_of,
    spec_of,
)
from engine.steering.model import SteeredModel
from manifests.steering import SteeringPrompts
from store.journal import Journal, read_journal
from store.journal_shapes import odd_measure

OnEvent = Callable[[dict[str, Any]], None]
TEXTS_AT_ONCE = 64
CONDITIONS_AT_ONCE = 64


def score_steered(job: dict[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Score every condition, and judge every text, that the journal lacks.

    Args:
        job: as `engine.steering.jobs` describes it.
        on_event: called with {stage, done, tokens} on the way.

    Returns:
        `conditions` scored and `texts` judged.
    """
    spec, model, file = spec_of(job), job["model"], Path(job["journal"])
    with Journal(file, job["fingerprint"]) as journal:
        rows = list(read_journal(file, odd_measure))
        scored = {row["key"] for row in rows if row["row"] == SCORED}
        judged = {row["text"] for row in rows if row["row"] == JUDGED}
        texts = [row for row in rows if row["row"] == WRITTEN]
        todo = [c for c in conditions_of(job, "scored") if c.key not in scored]
        unread = [row for row in texts if row["text"] not in judged]
        if not (todo or unread):
            return {"conditions": 0, "texts": 0}
        encoder = OpeningEncoder(model)
        steered = SteeredModel(
            model["folder"],
            job["scoring_dtype"],
            model["trust_remote_code"],
            model["tensor_parallel_size"],
            job["directions"],
            spec.steer_prompt,
        )
        done, told = len(texts) + len(scored) + len(judged), 0.0
        for row in _every_row(job, steered, encoder, todo, unread):
            journal.append(row)
            done += 1
            if time.monotonic() - told > 0.5:
                told = time.monotonic()
                on_event({"stage": job["stage"], "done": done, "tokens": 0})
    return {"conditions": len(todo), "texts": len(unread)}


def _every_row(
    job: dict[str, Any],
    steered: SteeredModel,
    encoder: OpeningEncoder,
    todo: Sequence[Condition],
    unread: Sequence[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    prompts = prompts_of(job)
    measures, wanted = Measures(steered, encoder, prompts), set(conditions_of(job, "chosen"))
    for first in range(0, len(todo), CONDITIONS_AT_ONCE):
        conditions = todo[first : first + CONDITIONS_AT_ONCE]
        additions = [addition_of(job, condition) for condition in conditions]
        log_p = measures.self_reports(additions).round(6)
        chosen = [number for number, c in enumerate(conditions) if c in wanted]
        preference = measures.preferences([additions[number] for number in chosen])
        by_number = dict(zip(chosen, preference.tolist(), strict=True))
        for number, condition in enumerate(conditions):
            yield {
                "row": SCORED,
                "key": condition.key,
                "condition": condition.json(),
                "log_p": log_p[number].tolist(),
                "preference": by_number.get(number),  # not of what is transferred only
            }
    beginnings = {opening.id: encoder.encode(opening) for opening in openings(prompts)}
    for first in range(0, len(unread), TEXTS_AT_ONCE):
        batch = unread[first : first + TEXTS_AT_ONCE]
        replies = [row["tokens"] for row in batch]
        found = steered.text_log_probabilities([beginnings[r["prompt"]] for r in batch], replies)
        for row, value, tokens in zip(batch, found, replies, strict=True):
            yield {
                "row": JUDGED,
                "text": row["text"],
                "nll": None if np.isnan(value) else -float(value),
                "tokens": len(tokens),
            }


class Measures:
    """What is measured of a model without having it write."""

    def __init__(self, steered: SteeredModel, encoder: OpeningEncoder, prompts: SteeringPrompts):
        """Encode the prompts.

        Raises:
            ValueError: the tokenizer joins a beginning and an end.
        """
        self._steered = steered
        self._reports, self._choices = encoder.self_reports(prompts), encoder.choices(prompts)

    def self_reports(self, additions: Sequence[Addition | None]) -> np.ndarray:
        """Return each end's log-probability, [addition, beginning, end], in nats."""
        found = [
            self._steered.log_probabilities(beginning, ends, additions)
            for beginning, ends in self._reports
        ]
        return np.stack(found, axis=1)

    def preferences(self, additions: Sequence[Addition | None]) -> np.ndarray:
        """Return how much likelier the pleasant choice is, [addition, pair], in nats."""
        if not additions:
            return np.zeros((0, len(self._choices) // 2))
        found = []
        for sentence, ends in self._choices:
            logp = self._steered.log_probabilities(sentence, ends, additions)
            found.append(logp[:, 0] - logp[:, 1])
        by_order = np.stack(found, axis=1).reshape(len(additions), -1, 2)
        return np.asarray(by_order.mean(axis=2))
