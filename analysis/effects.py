"""What steering does: by condition against no steering, and over strengths.

Intervals are over prompts (Student's, 95 %): each counts once, with the mean of its samples, and
always beside itself without steering. A measure that a text does not have (no rated word, no
word at all) is NaN and leaves that prompt out of it, which `n` shows.

An emotion's direction may raise the emotion's own word and nothing else. Measures of words
therefore come twice for such a direction: with all words, and (`OTHER`) without its own and their
inflections, with and without steering alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64
from numpy import ndarray
from scipy.stats import page_trend_test, spearmanr
from scipy.stats import t as student_t

from analysis.corpus import story_ratings
from analysis.settings import AXES
from analysis.words import find_inflections, repeated_share, words_of
from manifests.norms import Norms
from manifests.steering import MIXTURE, RANDOM

LEVEL = 0.95
OTHER = "_other"
"""What a measure's name ends with where the direction's own words are left out."""

MEASURES = {
    "log_odds": "log-odds of positive against negative self-reports, nats",
    "log_odds_other": "the same without the direction's own words",
    "preference": "log-odds of pleasant against unpleasant choices, nats",
    "valence": "mean rating of the words written, in the norms' scale",
    "valence_other": "the same without the direction's own words",
    "arousal": "mean rating of the words written, in the norms' scale",
    "arousal_other": "the same without the direction's own words",
    "nll": "nats a token of what was written, as the unsteered model finds it (the logarithm "
    "of its perplexity)",
    "repetition": "share of 5-word runs that stand in the text before",
    "words": "words of a text",
}
"""What is measured, and in which units."""

DAMAGE = ("nll", "repetition")
"""Measures that tell whether a model is broken: either sign may break it, so they are followed over
the size of the strength."""

WHERE = ["direction", "source_layer", "layer", "strength"]
"""What a condition is told by; direction "" and layers -1 where nothing is added."""

Condition = tuple[str, int, int, float]
UNSTEERED: Condition = ("", -1, -1, 0.0)
Values = dict[str, dict[Condition, Float64[ndarray, " prompt"]]]
"""By measure and condition: a value for each prompt, NaN where it has none. What a direction is
held against stands under its name with strength 0 where that is not simply UNSTEERED."""


@dataclass(frozen=True)
class SteeredCell:
    """What was measured of one cell.

    Attributes:
        model: that was steered.
        corpus: whose directions were used.
        n_layers: blocks of the model.
        rows: of its journal.
        positive: ends of self-reports.
        negative: the opposite ends; a scored row has log-probabilities of both, in this order.
        norms: that rate the words written.
        cosines: of directions at every two layers, by direction: layers and [layer, layer].
        held_out: by axis and layer, r of the ratings with emotions that the direction never saw.
        fingerprint: of the stage that made it.
    """

    model: str
    corpus: str
    n_layers: int
    rows: Sequence[dict[str, Any]]
    positive: Sequence[str]
    negative: Sequence[str]
    norms: Norms
    cosines: dict[str, tuple[list[int], Float64[ndarray, "layer layer"]]]
    held_out: dict[str, dict[int, float]]
    fingerprint: str

    @cached_property
    def texts(self) -> pd.DataFrame:
        """Every text that was written (`written_texts`)."""
        return written_texts(self.rows, self.norms)

    @cached_property
    def log_p(self) -> dict[Condition, Float64[ndarray, "beginning end"]]:
        """Log-probabilities of the ends of self-reports by condition, in nats."""
        return {
            _condition(row): np.array(row["log_p"], dtype=float)
            for row in self.rows
            if row["row"] == "scored"
        }

    def log_odds(
        self, condition: Condition, direction: str = ""
    ) -> Float64[ndarray, " beginning"] | None:
        """Return log P(any positive end) - log P(any negative end) under a condition, in nats.

        Args:
            condition: one that was scored.
            direction: whose own words are left out.

        Returns:
            None where no positive or no negative end is left.
        """
        ends = [*self.positive, *self.negative]
        own = [bool(direction) and _holds(direction, end) for end in ends]
        n = len(self.positive)
        sides = [[i for i in where if not own[i]] for where in (range(n), range(n, len(ends)))]
        if not all(sides):
            return None
        positive, negative = (
            np.logaddexp.reduce(self.log_p[condition][:, side], axis=1) for side in sides
        )
        return np.asarray(positive - negative)

    def has_own_end(self, direction: str) -> bool:
        """Tell whether an end of the self-reports is a direction's own word."""
        return any(_holds(direction, end) for end in (*self.positive, *self.negative))

    @cached_property
    def values(self) -> Values:
        """Every measure under every condition."""
        return _measured(self)


def _holds(direction: str, text: str) -> bool:
    words = words_of(text.replace("-", " "))
    return next(find_inflections(direction, words), None) is not None


def written_texts(rows: Iterable[dict[str, Any]], norms: Norms) -> pd.DataFrame:
    """Return a row for each text that was written, with what is measured of it."""
    rows = list(rows)
    nll_of = {row["text"]: row["nll"] for row in rows if row["row"] == "judged"}
    out = []
    for row in rows:
        if row["row"] != "written":
            continue
        rated, n_words = story_ratings(row["reply"], "", norms), len(words_of(row["reply"]))
        out.append(
            {
                **dict(zip(WHERE, _condition(row), strict=True)),
                "prompt": row["prompt"],
                "sample": row["sample"],
                "valence": rated.mean[0],
                "arousal": rated.mean[1],
                "rated_words": rated.words,
                "nll": np.nan if (nll := nll_of.get(row["text"])) is None else nll,
                "repetition": repeated_share(row["reply"]) if n_words else np.nan,
                "words": n_words,
                "finish_reason": row["finish_reason"],
                "text": row["reply"],
            }
        )
    columns = [*WHERE, "prompt", "sample", "valence", "arousal", "rated_words", "nll"]
    columns += ["repetition", "words", "finish_reason", "text"]
    order = pd.DataFrame(out, columns=columns)
    return order.sort_values([*WHERE, "prompt", "sample"], ignore_index=True)


def _measured(cell: SteeredCell) -> Values:
    found: Values = {name: {} for name in MEASURES}
    emotions = [
        name
        for name in dict.fromkeys(direction for direction, *_ in cell.log_p)
        if name and name not in AXES and not is_control(name)
    ]
    for condition in cell.log_p:
        whole = cell.log_odds(condition)
        assert whole is not None
        found["log_odds"][condition] = whole
    for emotion in filter(cell.has_own_end, emotions):
        for condition in [c for c in cell.log_p if c[0] in (emotion, "")]:
            rest = cell.log_odds(condition, emotion)
            if rest is not None:
                found["log_odds" + OTHER][_of(emotion, condition)] = rest
    for row in cell.rows:
        if row["row"] == "scored" and row["preference"] is not None:
            found["preference"][_condition(row)] = np.array(row["preference"], dtype=float)
    written = [name for name in MEASURES if name in cell.texts.columns]
    for where, by_prompt in _by_prompt(cell.texts, written):
        for name in written:
            found[name][where] = by_prompt[name].to_numpy(dtype=float)
    for emotion in emotions:
        mine = cell.texts[cell.texts["direction"].isin([emotion, ""])]
        rated = [story_ratings(text, emotion, cell.norms).mean for text in mine["text"]]
        names = [axis + OTHER for axis in AXES]
        mine = mine.assign(**dict(zip(names, np.array(rated).reshape(-1, 2).T, strict=True)))
        for where, by_prompt in _by_prompt(mine, names):
            for name in names:
                found[name][_of(emotion, where)] = by_prompt[name].to_numpy(dtype=float)
    return found


def _of(direction: str, condition: Condition) -> Condition:
    """Return a condition of a direction, its own where nothing is added."""
    return (direction, *UNSTEERED[1:]) if condition == UNSTEERED else condition


def _by_prompt(
    texts: pd.DataFrame, measures: Sequence[str]
) -> Iterable[tuple[Condition, pd.DataFrame]]:
    prompts = sorted(texts["prompt"].unique())
    for where, group in texts.groupby(WHERE, sort=False):
        mean = group.groupby("prompt")[list(measures)].mean().reindex(prompts)
        yield where, mean  # type: ignore[misc]


def unsteered(
    by_condition: dict[Condition, Float64[ndarray, " prompt"]], direction: str
) -> Float64[ndarray, " prompt"] | None:
    """Return what a direction's values are held against; None where that was not measured."""
    own = by_condition.get((direction, *UNSTEERED[1:]))
    return by_condition.get(UNSTEERED) if own is None else own


def effects(values: Values) -> pd.DataFrame:
    """Return mean and change against no steering of each measure under each condition.

    Returns:
        Columns WHERE, `measure`, `n` (prompts behind the change), `mean`, `low`, `high`, `change`,
        `change_low`, `change_high`. Conditions that no text was written under are not here.
    """
    out = []
    written = set(values["words"])
    for measure, by_condition in values.items():
        for where, value_P in by_condition.items():
            base_P = unsteered(by_condition, where[0])
            if where not in written or base_P is None:
                continue
            change_P = value_P - base_P
            mean, low, high = interval(value_P)
            change, change_low, change_high = interval(change_P)
            if where == UNSTEERED:
                change_low = change_high = np.nan
            out.append(
                (*where, measure, int(np.isfinite(change_P).sum()), mean, low, high, change,
                 change_low, change_high)
            )  # fmt: skip
    columns = [*WHERE, "measure", "n", "mean", "low", "high", "change", "change_low", "change_high"]
    return pd.DataFrame(out, columns=columns)


def trends(values: Values) -> pd.DataFrame:
    """Return how each measure moves with strength, for each direction added where it was found.

    Measures of DAMAGE are followed over the size of the strength, the mean of both signs.

    Returns:
        Columns direction, layer, measure, `over` (`strength` or `size`), `n` (prompts with a value
        at every strength), `slope` (by least squares, for a strength of one mean token norm) with
        `low` and `high`, `rho` (Spearman's, of the means with strength), `page_p` (two-sided, from
        Page's (1963) test of an ordered alternative in both directions, NaN of fewer than three),
        `largest` (the mean change of largest size at any strength) and `largest_at` (that
        strength). Whether a direction moves anything more than others do is not told from these:
        `analysis.effect_tests`.
    """
    out = []
    for measure, by_condition in values.items():
        curves: dict[tuple[str, int], list[float]] = {}
        for direction, source, target, strength in by_condition:
            if (direction, source, target, strength) in values["words"] and source == target != -1:
                curves.setdefault((direction, target), []).append(strength)
        for (direction, layer), found in curves.items():
            base_P = unsteered(by_condition, direction)
            if base_P is None or len(found) < 2:
                continue
            added = {s: by_condition[direction, layer, layer, s] for s in found}
            change = {s: interval(value_P - base_P)[0] for s, value_P in added.items()}
            largest_at = max(change, key=lambda s: (abs(change[s]), s))
            by_strength = {0.0: base_P, **added}
            if measure in DAMAGE:
                sizes = sorted({abs(s) for s in by_strength})
                by_strength = {
                    s: _mean_of([by_strength.get(s), by_strength.get(-s)]) for s in sizes
                }
            strengths = sorted(by_strength)
            value_PS = np.stack([by_strength[s] for s in strengths], axis=1)
            whole_PS = value_PS[np.isfinite(value_PS).all(axis=1)]
            slope, low, high = interval(_slopes(whole_PS, strengths))
            rho, p = _monotone(whole_PS, strengths)
            over = "size" if measure in DAMAGE else "strength"
            out.append(
                (direction, layer, measure, over, len(whole_PS), slope, low, high, rho, p,
                 change[largest_at], largest_at)
            )  # fmt: skip
    columns = ["direction", "layer", "measure", "over", "n", "slope", "low", "high", "rho"]
    return pd.DataFrame(out, columns=[*columns, "page_p", "largest", "largest_at"])


def _mean_of(
    values: Sequence[Float64[ndarray, " prompt"] | None],
) -> Float64[ndarray, " prompt"]:
    """Return the mean of those that are there, prompt by prompt."""
    return np.mean([value_P for value_P in values if value_P is not None], axis=0)


def direction_cosines(
    rows_LD: Float64[ndarray, "layer d_model"],
) -> Float64[ndarray, "layer layer"]:
    """Return cosines between the rows of one direction at every two layers."""
    unit_LD = rows_LD / np.linalg.norm(rows_LD, axis=1, keepdims=True)
    return np.asarray(unit_LD @ unit_LD.T)


def _condition(row: dict[str, Any]) -> Condition:
    given = row["condition"]
    return given["direction"], given["source"], given["target"], float(given["strength"])


def is_control(direction: str) -> bool:
    """Tell a control (RANDOM or MIXTURE) by its name."""
    return direction.startswith((RANDOM, MIXTURE))


def interval(value_P: Float64[ndarray, " prompt"]) -> tuple[float, float, float]:
    """Return mean and Student's interval over prompts, those without a value left out."""
    there_P = value_P[np.isfinite(value_P)]
    if len(there_P) < 2:
        return (float(there_P[0]) if len(there_P) else np.nan), np.nan, np.nan
    mean, n = float(there_P.mean()), len(there_P)
    half = float(student_t.ppf((1 + LEVEL) / 2, n - 1) * there_P.std(ddof=1) / np.sqrt(n))
    return mean, mean - half, mean + half


def _slopes(
    value_PS: Float64[ndarray, "prompt strength"], strengths: Sequence[float]
) -> Float64[ndarray, " prompt"]:
    x_S = np.array(strengths) - np.mean(strengths)
    return np.asarray(value_PS @ x_S / (x_S @ x_S))


def _monotone(
    value_PS: Float64[ndarray, "prompt strength"], strengths: Sequence[float]
) -> tuple[float, float]:
    """Return Spearman's rho of the means with strength, and Page's p for either direction."""
    if len(value_PS) < 2 or np.ptp(value_PS) == 0:
        return np.nan, np.nan
    rho = float(spearmanr(strengths, value_PS.mean(axis=0)).statistic)
    if len(strengths) < 3:  # of a single strength, damage has two sizes: an order needs three
        return rho, np.nan
    rising, falling = (
        page_trend_test(values, method="asymptotic").pvalue for values in (value_PS, -value_PS)
    )
    return rho, float(min(1.0, 2 * min(rising, falling)))
