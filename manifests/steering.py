"""What a steered model is given and measured on: the shipped set by name, a user's own by path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from manifests.document import Document, KeyPath, read_document
from manifests.errors import InputError, Problem
from manifests.files import refusal
from manifests.lists import HERE, is_path, placeholders

CHOICES = "preferences"
REPORT = "self_report"

RANDOM, MIXTURE = "random-", "mixture-"
"""What the names of controls begin with: random directions, and random mixtures of the emotions'
vectors."""


@dataclass(frozen=True)
class SteeringPrompts:
    """Prompts of steering.

    Attributes:
        continuations: beginnings that a model goes on with as plain text.
        questions: asked as a user of a chat.
        self_report: beginnings of sentences about the speaker's feeling.
        positive: ends of those sentences; as plain text behind the beginning, spaces included.
        negative: the opposite ends.
        preference: a sentence with {first} and {second} that ends before the choice.
        preferences: pairs of a pleasant and an unpleasant choice.
    """

    continuations: tuple[str, ...]
    questions: tuple[str, ...]
    self_report: tuple[str, ...]
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    preference: str
    preferences: tuple[tuple[str, str], ...]


def read_steering_prompts(
    value: str, base: Any, document: Document, path: KeyPath
) -> SteeringPrompts:
    """Return a set of steering prompts, by shipped name or path relative to `base`.

    Raises:
        InputError: an unknown name, or a set that lacks something.
    """
    known = {file.stem: file for file in sorted((HERE / "prompts" / "steering").glob("*.yaml"))}
    file = base / value if is_path(value) else known.get(value)
    if file is None or refusal(file) is not None:
        what = f"no such prompts: {value!r}; shipped: {', '.join(known)}"
        raise InputError(document.problem(path, what))
    return _Reading(read_document(file)).result()


class _Reading:
    """Reads one file and gathers everything that is wrong in it."""

    def __init__(self, document: Document):
        self._document = document
        self._problems: list[Problem] = []

    def result(self) -> SteeringPrompts:
        if not isinstance(self._document.data, dict):
            what = f"not a set of steering prompts: expected continuations, {REPORT}, {CHOICES}"
            raise InputError(self._document.problem((), what))
        self._keys((), {"continuations", "questions", REPORT, CHOICES})
        self._keys((REPORT,), {"prompts", "positive", "negative"})
        self._keys((CHOICES,), {"prompt", "pairs"})
        found = SteeringPrompts(
            continuations=self._texts(("continuations",), empty=True),
            questions=self._texts(("questions",), empty=True),
            self_report=self._texts((REPORT, "prompts")),
            positive=self._texts((REPORT, "positive")),
            negative=self._texts((REPORT, "negative")),
            preference=self._sentence(),
            preferences=self._pairs(),
        )
        if both := set(found.positive) & set(found.negative):
            self._refuse((REPORT,), f"{min(both)!r} is both positive and negative")
        if not found.continuations and not found.questions:
            self._refuse((), "give continuations or questions, at least one")
        if self._problems:
            raise InputError(self._problems)
        return found

    def _refuse(self, path: KeyPath, what: str) -> None:
        self._problems.append(self._document.problem(path, what))

    def _at(self, path: KeyPath) -> Any:
        found = self._document.data
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    def _keys(self, path: KeyPath, known: set[str]) -> None:
        found = self._at(path)
        if not isinstance(found, dict):
            self._refuse(path, f"expected {', '.join(sorted(known))}")
            return
        for key in found:
            if key not in known:
                self._refuse((*path, key), f"unknown key; known: {', '.join(sorted(known))}")

    def _texts(self, path: KeyPath, empty: bool = False) -> tuple[str, ...]:
        found = self._at(path)
        if found is None and empty:
            return ()
        whole = isinstance(found, list) and all(isinstance(t, str) and t.strip() for t in found)
        if not whole or not (found or empty):
            self._refuse(path, "expected a list of texts")
            return ()
        if len(set(found)) < len(found):
            self._refuse(path, "the same text stands in the list twice")
        return tuple(found)

    def _sentence(self) -> str:
        found = self._at((CHOICES, "prompt"))
        try:
            names = placeholders(found)
        except (TypeError, ValueError):
            names = []
        if sorted(names) != ["first", "second"]:
            self._refuse((CHOICES, "prompt"), "must hold {first} and {second}, each once")
        return str(found)

    def _pairs(self) -> tuple[tuple[str, str], ...]:
        found = self._at((CHOICES, "pairs"))
        pairs = found if isinstance(found, list) else []
        good = [
            (pair[0], pair[1])
            for pair in pairs
            if isinstance(pair, list)
            and len(pair) == 2
            and all(isinstance(text, str) and text.strip() for text in pair)
        ]
        if not good or len(good) < len(pairs):
            self._refuse((CHOICES, "pairs"), "expected a list of [pleasant, unpleasant] texts")
        return tuple(good)
