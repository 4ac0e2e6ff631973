"""Tokens drawn on a CPU: the very distribution that temperature and top_p describe."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.generation.drawing import HEAD, draw
from engine.generation.nucleus import KEY, NucleusSampler, ours

DRAWS = 20_000


def as_vllm_has_it(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    """Return the probabilities that vLLM's own sampler draws from, [vocabulary]."""
    from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p_pytorch

    scaled = (logits / temperature)[None].clone()
    kept = apply_top_k_top_p_pytorch(scaled, None, torch.tensor([top_p]), allow_cpu_sync=True)
    return kept.softmax(dim=-1)[0]


@pytest.mark.parametrize(
    ("spread", "temperature", "top_p", "beyond_head"),
    [
        (4.0, 0.8, 0.95, False),
        (4.0, 1.0, 0.5, False),
        (4.0, 2.0, 0.99, True),
        (4.0, 1.0, 1.0, True),
        (1.0, 1.0, 0.95, True),
        (1.0, 0.4, 0.3, False),
    ],
)
def test_tokens_are_drawn_as_often_as_vllm_would(
    spread: float, temperature: float, top_p: float, beyond_head: bool
) -> None:
    logits = spread * torch.randn(3_000, generator=torch.Generator().manual_seed(1))
    want = as_vllm_has_it(logits, temperature, top_p)
    assert bool((want > 0).sum() > HEAD) == beyond_head
    even = (torch.arange(DRAWS) + 0.5) / DRAWS  # each token's share of them is its probability
    rows = [part.shape[0] for part in even.split(500)]
    chosen = torch.cat(
        [
            draw(
                logits.expand(n, -1),
                torch.full((n,), temperature),
                torch.full((n,), top_p),
                part,
            )
            for n, part in zip(rows, even.split(500), strict=True)
        ]
    )
    got = torch.bincount(chosen, minlength=len(logits)) / DRAWS
    assert not bool(((got > 0) & (want == 0)).any())
    assert float((got - want).abs().max()) < 1.01 / DRAWS + 1e-5


def test_a_row_is_drawn_by_its_own_settings() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.1, 0.2, 0.7]]))
    chosen = draw(
        logits, torch.tensor([1.0, 1.0, 1e-3]), torch.tensor([1.0, 0.7, 1.0]), torch.full((3,), 0.9)
    )
    # .9 lies in the last fifth of row 0; in row 1 the nucleus is {2, 1}; row 2 is all but greedy
    assert chosen.tolist() == [2, 1, 2]


def test_requests_keep_their_numbers_when_rows_move() -> None:
    from vllm import SamplingParams
    from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

    def params(seed: int) -> SamplingParams:
        return ours(SamplingParams(temperature=1.0, top_p=1.0, seed=seed))

    def chosen(sampler: NucleusSampler) -> list[int]:
        return [int(i) for i in sampler.apply(torch.zeros(3, 50_000)).argmax(dim=-1)]

    made: list[list[int]] = [[], [], []]
    sampler = NucleusSampler(None, torch.device("cpu"), False)  # type: ignore[arg-type]
    added = [(i, params(seed), [1], made[i]) for i, seed in enumerate((7, 8, 7))]
    sampler.update_state(BatchUpdate(batch_size=3, removed=[], added=added, moved=[]))
    first = chosen(sampler)
    assert first[0] == first[2] != first[1]
    assert chosen(sampler) == first  # what is thrown away and asked again is the same
    made[0].append(5)
    second = chosen(sampler)
    assert second[0] != first[0]
    assert second[1:] == first[1:]
    moved = [(0, 1, MoveDirectionality.SWAP)]
    sampler.update_state(BatchUpdate(batch_size=3, removed=[], added=[], moved=moved))
    assert chosen(sampler) == [second[1], second[0], second[2]]
    greedy = (1, ours(SamplingParams(temperature=0, top_p=0.9, seed=1)), [1], [])
    sampler.update_state(BatchUpdate(batch_size=3, removed=[2], added=[greedy], moved=[]))
    assert chosen(sampler) == [second[1], 0, 0]  # zeros are left as they are


def test_what_vllm_would_draw_again_is_refused() -> None:
    from vllm import SamplingParams

    how = {KEY: {"temperature": 1.0, "top_p": 0.9, "seed": 1}}
    with pytest.raises(ValueError, match="temperature"):
        NucleusSampler.validate_params(SamplingParams(temperature=1.0, extra_args=how))
