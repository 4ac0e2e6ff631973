"""What steering does: by condition against no steering, over strengths, and between layers.

Intervals are over prompts (Student's, 95 %): each counts once, with the mean of its samples, and
always beside itself without steering. A measure that a text does not have (no rated word, no
word at all) is NaN and leaves that prompt out of it, which `n` shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64
from numpy import ndarray
from scipy.stats import page_trend_test, spearmanr
from scipy.stats import t as student_t

from analysis.corpus import story_ratings
from analysis.words import repeated_share, words_of
from manifests.norms import Norms

LEVEL = 0.95
RANDOM = "random-"
"""What the names of random directions begin with."""

MEASURES = {
    "log_odds": "log-odds of positive against negative self-reports, nats",
    "preference": "log-odds of pleasant against unpleasant choices, nats",
    "valence": "mean rating of the words written, in the norms' scale",
    "arousal": "the same",
    "nll": "nats a token of what was written, as the unsteered model finds it (the logarithm "
    "of its perplexity)",
    "repetition": "share of 5-word runs that stand in the text before",
    "words": "words of a text",
}
"""What is measured, and in which units."""

WHERE = ["direction", "source_layer", "layer", "strength"]
"""What a condition is told by; direction "" and layers -1 where nothing is added."""

Condition = tuple[str, int, int, float]
UNSTEERED: Condition = ("", -1, -1, 0.0)


@dataclass(frozen=True)
class SteeredCell:
    """What was measured of one cell.

    Attributes:
        model: that was steered.
        corpus: whose directions were used.
        n_layers: blocks of the model.
        rows: of its journal.
        cosines: of directions at every two layers, by direction: layers and [layer, layer].
        fingerprint: of the stage that made it.
    """

    model: str
    corpus: str
    n_layers: int
    rows: Sequence[dict[str, Any]]
    cosines: dict[str, tuple[list[int], Float64[ndarray, "layer layer"]]]
    fingerprint: str


def effect_tables(cells: Sequence[SteeredCell], norms: Norms) -> dict[str, pd.DataFrame]:
    """Return every table of steering.

    Args:
        cells: what was measured.
        norms: that rate the words written.

    Returns:
        `steering`: a row for each condition and measure. `steering_trends`: over strengths.
        `transfer`: every two layers. `steered_texts`: what was written.
    """
    found: dict[str, list[pd.DataFrame]] = {}
    for cell in cells:
        texts = written_texts(cell.rows, norms)
        values = measured(cell.rows, texts)
        tables = {
            "steering": effects(values),
            "steering_trends": trends(values),
            "transfer": transfers(values, cell.cosines),
            "steered_texts": texts,
        }
        about = {"model": cell.model, "corpus": cell.corpus}
        for name, table in tables.items():
            labelled = table.assign(**about, fingerprint=cell.fingerprint)
            if "layer" in labelled:
                labelled["depth"] = (labelled["layer"] / cell.n_layers).where(
                    labelled["layer"] >= 0
                )
            first = [*about, *(c for c in table.columns)]
            rest = [c for c in labelled.columns if c not in first]
            found.setdefault(name, []).append(labelled[[*first, *rest]])
    return {name: pd.concat(tables, ignore_index=True) for name, tables in found.items()}


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


Values = dict[str, dict[Condition, Float64[ndarray, " prompt"]]]
"""By measure and condition: a value for each prompt, NaN where it has none."""


def measured(rows: Iterable[dict[str, Any]], texts: pd.DataFrame) -> Values:
    """Return each measure's value for every condition and prompt."""
    found: Values = {name: {} for name in MEASURES}
    for row in rows:
        if row["row"] == "scored":
            for name in ("log_odds", "preference"):
                if row[name] is not None:
                    found[name][_condition(row)] = np.array(row[name], dtype=float)
    written = [name for name in MEASURES if name in texts.columns]
    prompts = sorted(texts["prompt"].unique())
    for where, group in texts.groupby(WHERE, sort=False):
        by_prompt = group.groupby("prompt")[written].mean().reindex(prompts)
        for name in written:
            found[name][where] = by_prompt[name].to_numpy(dtype=float)  # type: ignore[index]
    return found


def effects(values: Values) -> pd.DataFrame:
    """Return mean and change against no steering of each measure under each condition.

    Returns:
        Columns WHERE, `measure`, `n` (prompts behind the change), `mean`, `low`, `high`, `change`,
        `change_low`, `change_high`. Conditions of `transfer` alone are not here.
    """
    out = []
    written = set(values["words"])
    for measure, by_condition in values.items():
        if UNSTEERED not in by_condition:
            continue
        base_P = by_condition[UNSTEERED]
        for where, value_P in by_condition.items():
            if where not in written:
                continue
            change_P = value_P - base_P
            mean, low, high = _interval(value_P)
            change, change_low, change_high = _interval(change_P)
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

    Returns:
        Columns direction, layer, measure, `n` (prompts with a value at every strength), `slope`
        (by least squares, for a strength of one mean token norm) with `low` and `high`, `rho`
        (Spearman's, of the means with strength), `page_p` (two-sided, from Page's (1963) test of an
        ordered alternative in both directions), and `beyond_random`: the slope's size over the
        largest of the random directions' at that layer, NaN where there are none.
    """
    out = []
    for measure, by_condition in values.items():
        curves: dict[tuple[str, int], list[float]] = {}
        for direction, source, target, strength in by_condition:
            if (direction, source, target, strength) in values["words"] and source == target != -1:
                curves.setdefault((direction, target), []).append(strength)
        slopes: dict[tuple[str, int], float] = {}
        rows = []
        for (direction, layer), found in curves.items():
            strengths = sorted({0.0, *found})
            if len(strengths) < 3 or UNSTEERED not in by_condition:
                continue
            value_PS = np.stack(
                [
                    by_condition[UNSTEERED if s == 0 else (direction, layer, layer, s)]
                    for s in strengths
                ],
                axis=1,
            )
            whole_PS = value_PS[np.isfinite(value_PS).all(axis=1)]
            slope_P = _slopes(whole_PS, strengths)
            slope, low, high = _interval(slope_P)
            slopes[direction, layer] = slope
            rho, p = _monotone(whole_PS, strengths)
            rows.append((direction, layer, measure, len(whole_PS), slope, low, high, rho, p))
        for row in rows:
            random = [
                abs(s) for (d, layer), s in slopes.items() if is_random(d) and layer == row[1]
            ]
            control = np.nan if is_random(row[0]) else max(random, default=np.nan)
            beyond = abs(row[4]) / control if control > 0 else np.nan
            out.append((*row, beyond))
    columns = ["direction", "layer", "measure", "n", "slope", "low", "high", "rho", "page_p"]
    return pd.DataFrame(out, columns=[*columns, "beyond_random"])


def transfers(
    values: Values,
    cosines: dict[str, tuple[list[int], Float64[ndarray, "layer layer"]]],
) -> pd.DataFrame:
    """Return what a direction of one layer does at another, and in its own place.

    Returns:
        Columns direction, source_layer, layer, strength, measure, `n` prompts, `effect` with `low`
        and `high` (half the difference between adding and subtracting it), and `cosine` of the
        directions of the two layers.
    """
    out = []
    moved = {(d, s) for at in values.values() for d, source, target, s in at if source != target}
    for measure, by_condition in values.items():
        for direction, source, target, strength in by_condition:
            if (direction, strength) not in moved:
                continue
            opposite = (direction, source, target, -strength)
            if not direction or strength <= 0 or opposite not in by_condition:
                continue
            if direction not in cosines:
                continue
            half_P = (
                by_condition[direction, source, target, strength] - by_condition[opposite]
            ) / 2
            effect, low, high = _interval(half_P)
            layers, grid = cosines[direction]
            cosine = float(grid[layers.index(source), layers.index(target)])
            n = int(np.isfinite(half_P).sum())
            out.append((direction, source, target, strength, measure, n, effect, low, high, cosine))
    columns = [*WHERE, "measure", "n", "effect", "low", "high", "cosine"]
    return pd.DataFrame(out, columns=columns)


def direction_cosines(
    rows_LD: Float64[ndarray, "layer d_model"],
) -> Float64[ndarray, "layer layer"]:
    """Return cosines between the rows of one direction at every two layers."""
    unit_LD = rows_LD / np.linalg.norm(rows_LD, axis=1, keepdims=True)
    return np.asarray(unit_LD @ unit_LD.T)


def _condition(row: dict[str, Any]) -> Condition:
    given = row["condition"]
    return given["direction"], given["source"], given["target"], float(given["strength"])


def is_random(direction: str) -> bool:
    """Tell a random direction, a control, by its name."""
    return direction.startswith(RANDOM)


def _interval(value_P: Float64[ndarray, " prompt"]) -> tuple[float, float, float]:
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
    rising, falling = (
        page_trend_test(values, method="asymptotic").pvalue for values in (value_PS, -value_PS)
    )
    return rho, float(min(1.0, 2 * min(rising, falling)))
