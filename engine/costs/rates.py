"""How fast a run's finished stages were, here and as a share of a known GPU's peak."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from engine.costs.machines import GPUS, gpu_of
from engine.costs.workload import Work


@dataclass(frozen=True)
class Rates:
    """What finished stages say of speed; None where none says it.

    Attributes:
        reading: operations a second.
        writing: operations a second.
        utilisation: share of the data sheet's peak that reading and writing reached, by GPU.
    """

    reading: float | None
    writing: float | None
    utilisation: dict[str, tuple[float | None, float | None]]


def measured_rates(done: Iterable[tuple[Work, dict[str, Any]]]) -> Rates:
    """Return how fast stages were.

    Args:
        done: the work of finished stages that wrote or read corpora, and their records' figures:
            `tokens_per_second` (of replies where it wrote), `gpu` and `gpus` where there were any.
    """
    spent = {False: [0.0, 0.0], True: [0.0, 0.0]}  # operations, seconds; reading and writing
    reached: dict[str, dict[bool, list[float]]] = {}
    for work, figures in done:
        rate, tokens = figures.get("tokens_per_second"), work.tokens
        if work.writes:
            tokens = work.output_tokens
        if not (rate and tokens and work.flops):
            continue
        seconds = tokens / rate
        spent[work.writes][0] += work.flops
        spent[work.writes][1] += seconds
        gpu = gpu_of(str(figures.get("gpu", "")))
        if gpu is not None and figures.get("gpus"):
            of_gpu = reached.setdefault(gpu, {False: [0.0, 0.0], True: [0.0, 0.0]})
            of_gpu[work.writes][0] += work.flops
            of_gpu[work.writes][1] += seconds * figures["gpus"] * GPUS[gpu].flops[work.dtype]
    return Rates(
        _over(spent[False]),
        _over(spent[True]),
        {gpu: (_over(both[False]), _over(both[True])) for gpu, both in reached.items()},
    )


def _over(pair: list[float]) -> float | None:
    return pair[0] / pair[1] if pair[1] else None
