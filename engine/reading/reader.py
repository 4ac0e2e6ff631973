"""What both readers have in common: token ids of N texts in, `Pooled` out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engine.reading.pooling import Pooled
from engine.reading.windows import Span

OnEvent = Callable[[dict[str, Any]], None]
"""Called with {texts, tokens} done so far, or {note} for something that a user should know."""


@dataclass(frozen=True)
class ReaderSettings:
    """What a reader is loaded with.

    Attributes:
        folder: config, tokenizer and safetensors.
        dtype: precision of the forward pass.
        layers: wanted layers in order, -1 for the embedding output.
        max_tokens: tokens of the longest text that will come.
        batch_tokens: tokens of one forward pass; None for what suits the device.
        trust_remote_code: run code that comes with the model.
        devices: GPUs that one copy of the model takes.
        memory_share: share of their memory that the vllm reader takes.
    """

    folder: str
    dtype: str
    layers: tuple[int, ...]
    max_tokens: int
    batch_tokens: int | None
    trust_remote_code: bool
    devices: int
    memory_share: float = 0.9


class Reader(Protocol):
    """A model that reads token sequences.

    Attributes:
        layers: wanted layers in order, -1 for the embedding output.
    """

    layers: Sequence[int]

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, whole, with the tokenizer's own special tokens."""
        ...

    def read(
        self, sequences: Sequence[Sequence[int]], windows: Sequence[Span], on_event: OnEvent
    ) -> Pooled:
        """Read texts, each by itself, and pool every wanted layer.

        Args:
            sequences: token ids of each text, none empty.
            windows: token windows.
            on_event: called after each forward pass.

        Raises:
            NotFinite: a mean over real tokens is not finite.
            TooLarge: it does not fit the memory however small the batches are.
        """
        ...

    def forward_only(self, sequences: Sequence[Sequence[int]]) -> None:
        """Run texts through the model and keep nothing, to see what keeping costs."""
        ...


class TooLarge(Exception):
    """Reading does not fit the memory however small the batches are."""


def tokenize(
    tokenizer: Callable[[str], dict[str, list[int]]], texts: Sequence[str]
) -> list[list[int]]:
    """Return the token ids of each text, whole, with the tokenizer's own special tokens."""
    return [list(tokenizer(text)["input_ids"]) for text in texts]
