"""One token drawn from its nucleus by one number, without sorting the vocabulary."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

HEAD = 256
"""Logits of a row that are put in order at first; the nucleus is seldom larger."""


def draw(logits: Tensor, temperature: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
    """Return the index of one token a row, drawn from its nucleus.

    Args:
        logits: float32 [row, vocabulary].
        temperature: above 0, [row].
        top_p: share of the probability that the nucleus holds at least, in (0, 1], [row].
        uniform: what each is drawn by, in [0, 1), [row].

    Returns:
        int64 [row]: the token at which the probabilities, added up from the most probable one on,
        exceed `uniform` times those of the whole nucleus.
    """
    scale = temperature[:, None]
    total = torch.logsumexp(logits / scale, dim=-1, keepdim=True)
    values, tokens = logits.topk(min(HEAD, logits.shape[1]), dim=-1)
    held = torch.exp(values / scale - total).cumsum(dim=-1)  # [row, HEAD]
    chosen = tokens.gather(1, _place(held, top_p, uniform))[:, 0]
    for row in torch.nonzero(held[:, -1] < top_p)[:, 0].tolist() if held.shape[1] == HEAD else ():
        values, tokens = logits[row].sort(descending=True)
        held_by_all = torch.exp(values / scale[row] - total[row]).cumsum(dim=-1)[None]
        chosen[row] = tokens[_place(held_by_all, top_p[row : row + 1], uniform[row : row + 1])[0]]
    return chosen


def _place(held: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
    """Return where in descending order the token drawn stands, [row, 1]; `held` is cumulative."""
    last = torch.searchsorted(held, top_p[:, None]).clamp(max=held.shape[1] - 1)
    nucleus = held.gather(1, last)
    return torch.searchsorted(held, uniform[:, None] * nucleus, right=True).minimum(last)


def uniform_number(seed: int, position: int) -> float:
    """Return the number in [0, 1) that decides a request's token at a position."""
    return float(np.random.Generator(np.random.Philox(key=seed, counter=position)).random())
