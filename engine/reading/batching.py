"""Which texts are read together: by length, under a budget of padded tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

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
