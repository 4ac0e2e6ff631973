"""Three verdicts, and what decides them: an interval on either side of a threshold, or across it.

A claim that is a conjunction holds when all its parts hold and fails when one fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from scipy import stats

from analysis.inference import LEVEL


class Verdict(StrEnum):
    """What the figures say of a claim."""

    HOLDS = "holds"
    FAILS = "fails"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Figure:
    """A number with its interval; NaN where it is missing.

    Attributes:
        value: the number over all stories and emotions.
        low: lower end of the interval.
        high: upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Finding:
    """The figure that decides a claim, and what it decides.

    Attributes:
        figure: with its interval.
        verdict: what follows.
        at: blocks that the figure is of, "" where it is of all of them.
    """

    figure: Figure
    verdict: Verdict
    at: str = ""


NO_FIGURE = Figure(float("nan"), float("nan"), float("nan"))


def at_least(figure: Figure, threshold: float) -> Verdict:
    """Hold where the whole interval reaches the threshold, fail where none of it does."""
    if figure.low >= threshold:
        return Verdict.HOLDS
    return Verdict.FAILS if figure.high < threshold else Verdict.UNDECIDED


def at_most(figure: Figure, threshold: float) -> Verdict:
    """Hold where the whole interval stays at or below the threshold, fail where none of it does."""
    if figure.high <= threshold:
        return Verdict.HOLDS
    return Verdict.FAILS if figure.low > threshold else Verdict.UNDECIDED


def apart(figure: Figure, margin: float) -> Verdict:
    """Hold where a difference is a margin or more either way, fail where it is less for sure."""
    if figure.low >= margin or figure.high <= -margin:
        return Verdict.HOLDS
    inside = figure.low > -margin and figure.high < margin
    return Verdict.FAILS if inside else Verdict.UNDECIDED


def all_of(*verdicts: Verdict) -> Verdict:
    """Return the verdict of a conjunction."""
    if Verdict.FAILS in verdicts:
        return Verdict.FAILS
    held = all(verdict is Verdict.HOLDS for verdict in verdicts)
    return Verdict.HOLDS if held else Verdict.UNDECIDED


def jackknife(whole: float, without_G: Float64[ndarray, " group"]) -> Figure:
    """Return a number with its delete-a-group jackknife interval (Shao & Tu 1995, eq. 2.13).

    Args:
        whole: over all emotions.
        without_G: without each of G groups; the interval is NaN where one of these is.
    """
    n = len(without_G)
    error = np.sqrt((n - 1) / n * np.square(without_G - without_G.mean()).sum())
    reach = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * error)
    return Figure(float(whole), float(whole) - reach, float(whole) + reach)
