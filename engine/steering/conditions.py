"""What is added, where and how strongly: every condition of a cell's steering, in a fixed order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from manifests.resolve import Steered
from manifests.schema import Steering
from manifests.steering import MIXTURE, RANDOM, SteeringPrompts

DEPTHS = (1 / 3, 1 / 2, 2 / 3)
"""Where a model is steered when the manifest names no layers."""


@dataclass(frozen=True)
class Condition:
    """One way in which the residual stream is changed.

    Attributes:
        direction: `valence`, `arousal`, an emotion, `random-0` or `mixture-0` and so on; "" where
            nothing is added.
        source: layer that the direction was found at.
        target: layer whose output it is added to.
        strength: length of what is added, in units of the mean token norm at `target`; negative
            for the opposite direction.
    """

    direction: str
    source: int
    target: int
    strength: float

    @property
    def key(self) -> str:
        """Name in a journal."""
        return f"{self.direction}/{self.source}/{self.target}/{self.strength!r}"

    @property
    def tensor(self) -> str:
        """Name of the direction in the file of directions; none of an emotion's looks like it."""
        return tensor_name(self.direction)

    def json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)


UNSTEERED = Condition("", -1, -1, 0.0)


TENSOR, HELD_OUT = "direction.", "held-out."
"""What names in the file of directions begin with: a direction's rows; an axis' r with emotions
that its direction never saw, by layer."""


def tensor_name(direction: str) -> str:
    """Return the name of a direction's tensor."""
    return f"{TENSOR}{direction}"


def steered_layers(spec: Steering, n_layers: int) -> list[int]:
    """Return the layers that a model of so many blocks is steered at."""
    if spec.layers is not None:
        return list(spec.layers)
    return sorted({min(n_layers - 1, round(n_layers * depth)) for depth in DEPTHS})


TRANSFER_CONTROLS = 8
"""Random directions that say, at every layer, what a transferred one does by chance."""


def random_names(spec: Steering) -> list[str]:
    """Return the names of the random directions, those that texts are written with first."""
    return [f"{RANDOM}{number}" for number in range(spec.random + spec.controls)]


def mixture_names(spec: Steering) -> list[str]:
    """Return the names of the random mixtures of the emotions' vectors."""
    return [f"{MIXTURE}{number}" for number in range(spec.controls)]


def tested_strength(spec: Steering) -> float:
    """Return the strength at which directions are held against controls: the middle one."""
    return sorted(spec.strengths)[len(spec.strengths) // 2]


def written_conditions(spec: Steering, layers: Sequence[int]) -> list[Condition]:
    """Return the conditions that texts are written under: none, doses, and a few transfers."""
    signed = sorted(sign * strength for strength in spec.strengths for sign in (-1, 1))
    found = [
        Condition(direction, layer, layer, strength)
        for direction in (*spec.directions, *random_names(spec)[: spec.random])
        for layer in layers
        for strength in signed
    ]
    if spec.transfer is not None:
        found += [
            Condition(spec.transfer.direction, source, target, sign * spec.transfer.strength)
            for source in layers
            for target in layers
            for sign in (-1, 1)
        ]
    return list(dict.fromkeys([UNSTEERED, *found]))


def chosen_conditions(spec: Steering, layers: Sequence[int]) -> list[Condition]:
    """Return the conditions that preferences are taken under: those written, and their controls."""
    controls = [
        Condition(direction, layer, layer, sign * tested_strength(spec))
        for direction in (*random_names(spec), *mixture_names(spec))
        for layer in layers
        for sign in (-1, 1)
    ]
    return list(dict.fromkeys([*written_conditions(spec, layers), *controls]))


def scored_conditions(
    spec: Steering, layers: Sequence[int], blocks: Sequence[int]
) -> list[Condition]:
    """Return the conditions that log-odds are taken under: chosen ones, every transfer, controls.

    Args:
        spec: the manifest's section.
        layers: that the model is steered at.
        blocks: that have directions.
    """
    found = chosen_conditions(spec, layers)
    if spec.transfer is not None:
        moved = [
            *((spec.transfer.direction, i, j) for j in blocks for i in blocks),
            *((name, j, j) for name in random_names(spec)[:TRANSFER_CONTROLS] for j in blocks),
        ]
        found += [
            Condition(direction, source, target, sign * spec.transfer.strength)
            for direction, source, target in moved
            for sign in (-1, 1)
        ]
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Opening:
    """What a text begins with.

    Attributes:
        id: `continuation-0`, `question-0` and so on.
        text: of the prompt.
        chat: it is put as a user of a chat, where the tokenizer has a template.
    """

    id: str
    text: str
    chat: bool


def openings(prompts: SteeringPrompts) -> list[Opening]:
    """Return what texts begin with."""
    kinds = (("continuation", prompts.continuations, False), ("question", prompts.questions, True))
    return [
        Opening(f"{kind}-{number}", text, chat)
        for kind, texts, chat in kinds
        for number, text in enumerate(texts)
    ]


@dataclass(frozen=True)
class Request:
    """One text to write."""

    condition: Condition
    opening: Opening
    sample: int

    @property
    def key(self) -> str:
        """Name in a journal."""
        return f"{self.condition.key}|{self.opening.id}|{self.sample}"

    def seed(self, seed: int) -> int:
        """Return the sampling seed: the same under every condition."""
        digest = hashlib.sha256(f"{seed}\0{self.opening.id}\0{self.sample}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1


def requests(
    conditions: Sequence[Condition], prompts: SteeringPrompts, samples: int
) -> Iterator[Request]:
    """Yield every text to write, those of all conditions on one prompt together."""
    for sample in range(samples):
        for opening in openings(prompts):
            for condition in conditions:
                yield Request(condition, opening, sample)


def n_measures(steered: Steered, n_layers: int, blocks: Sequence[int]) -> tuple[int, int]:
    """Return how many texts a cell's steering writes, and how many conditions it scores."""
    layers = steered_layers(steered.spec, n_layers)
    n_prompts = len(steered.prompts.continuations) + len(steered.prompts.questions)
    texts = len(written_conditions(steered.spec, layers)) * n_prompts * steered.spec.samples
    return texts, len(scored_conditions(steered.spec, layers, blocks))
