"""Token windows of a batch: which positions count, as weights and as counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Span:
    """A token window [start, end); end None for the end of the text.

    Attributes:
        start: first position taken.
        end: first position no longer taken.
        rms: divide each token's residual by its own root mean square before averaging.
    """

    start: int
    end: int | None
    rms: bool = False


def spans_of(windows: Sequence[Mapping[str, Any]]) -> list[Span]:
    """Return the windows of a manifest, as `Extraction` dumps them."""
    return [Span(w["start"], w["end"], w["normalize"] == "rms") for w in windows]


def window_counts(lengths: Sequence[int], windows: Sequence[Span]) -> NDArray[np.int32]:
    """Return how many tokens each window has in texts of these lengths, int32 [text, window]."""
    counts = [
        [max(0, min(length, length if w.end is None else w.end) - w.start) for w in windows]
        for length in lengths
    ]
    return np.array(counts, dtype=np.int32).reshape(len(lengths), len(windows))


def window_weights(
    starts: Sequence[int], lengths: Sequence[int], windows: Sequence[Span]
) -> NDArray[np.float32]:
    """Return 1 where a token counts for a window and 0 elsewhere, float32 [row, window, token].

    Args:
        starts: position in its text of each row's first token.
        lengths: tokens of each row; what lies behind is padding.
        windows: token windows.
    """
    weights = np.zeros((len(lengths), len(windows), max(lengths)), dtype=np.float32)
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        for column, window in enumerate(windows):
            end = start + length if window.end is None else window.end
            first, last = max(0, window.start - start), min(length, end - start)
            if first < last:
                weights[row, column, first:last] = 1
    return weights
