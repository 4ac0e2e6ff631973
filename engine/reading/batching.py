"""Which texts are read together: by length, under a budget of padded tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from engine.reading.reader import TooLarge

CPU_TOKENS = 2048
GPU_TOKENS = 16_384


def default_budget(device: torch.device) -> int:
    """Return how many padded tokens a forward pass begins with on a device."""
    return CPU_TOKENS if device.type == "cpu" else GPU_TOKENS


def batches(lengths: Sequence[int], padded_tokens: int) -> Iterator[list[int]]:
    """Yield indices of texts to read together: longest first, at most `padded_tokens` each.

    A text longer than the budget is read alone. Depends on the lengths only.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * lengths[batch[0]] > padded_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def is_out_of_memory(error: BaseException) -> bool:
    """Tell torch's ways of saying that memory is short, on a GPU and on a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


class Budget:
    """Padded tokens of a forward pass, halved whenever memory runs out."""

    def __init__(self, tokens: int):
        self.tokens = tokens

    def halve(self) -> dict[str, str]:
        """Go on with half; return what to tell the user."""
        self.tokens //= 2
        return {"note": f"memory ran out: reading goes on with {self.tokens:,} tokens a batch"}


def read_in_batches(
    lengths: Sequence[int],
    budget: Budget,
    read: Callable[[list[int]], None],
    on_event: Callable[[dict[str, str]], None],
) -> Iterator[list[int]]:
    """Read texts in batches of like lengths, smaller ones when memory runs out.

    Args:
        lengths: tokens of each text.
        budget: of a batch.
        read: reads the texts of these numbers at once; what it did counts once it returns.
        on_event: told, under `note`, where batches became smaller.

    Yields:
        Numbers of the texts of each batch that was read.

    Raises:
        TooLarge: one text alone does not fit the memory.
    """
    waiting = list(range(len(lengths)))
    while waiting:
        batch = next(batches([lengths[i] for i in waiting], budget.tokens))
        texts = [waiting[i] for i in batch]
        try:
            read(texts)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(texts) == 1:
                what = f"one text of {lengths[texts[0]]:,} tokens does not fit the memory"
                raise TooLarge(what) from None
            on_event(budget.halve())
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        done = set(texts)
        waiting = [i for i in waiting if i not in done]
        yield texts


def padded(
    batch: Sequence[Sequence[int]], device: torch.device
) -> tuple[Int[Tensor, "row token"], Int[Tensor, "row token"]]:
    """Return token ids right-padded with 0, and the mask that says which are there."""
    ids_RT = torch.zeros((len(batch), max(len(ids) for ids in batch)), dtype=torch.long)
    mask_RT = torch.zeros_like(ids_RT)
    for row, ids in enumerate(batch):
        ids_RT[row, : len(ids)] = torch.tensor(ids)
        mask_RT[row, : len(ids)] = 1
    return ids_RT.to(device), mask_RT.to(device)
