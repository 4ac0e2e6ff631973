"""Whether a direction does more than others would: against controls, and between layers.

An effect is half the difference between adding a direction and subtracting it, so what either sign
does alike (damage) is not in it. Of a small addition it is the gradient's product with the
direction: over random directions that is normal around 0, whose size the controls tell. A direction
is held against it by Student's t with as many degrees of freedom as there are controls.

Two kinds of control answer two questions. Random directions: does it do more than an addition of
that length? Random mixtures of the emotions' vectors: does it do more than any contrast between
emotions, which lies where a residual stream varies most?
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float64
from numpy import ndarray
from scipy.stats import spearmanr
from scipy.stats import t as student_t

from analysis.effects import (
    OTHER,
    WHERE,
    Condition,
    SteeredCell,
    Values,
    effects,
    interval,
    is_control,
    trends,
)
from manifests.steering import MIXTURE, RANDOM

TESTED = ("log_odds", "log_odds" + OTHER, "preference")
"""Measures that controls are taken of: those that need no text."""

MIN_CONTROLS = 5
SIGNIFICANT, HALF = 0.05, 0.5


def effect_tables(cells: Sequence[SteeredCell]) -> dict[str, pd.DataFrame]:
    """Return every table of steering.

    Returns:
        `steering`: a row for each condition and measure. `steering_trends`: over strengths.
        `steering_tests`: against controls. `transfer`: every two layers. `transfer_layers`: from
        how far away a layer can be steered. `steered_texts`: what was written.
    """
    found: dict[str, list[pd.DataFrame]] = {}
    for cell in cells:
        transfer = transfers(cell)
        tables = {
            "steering": effects(cell.values),
            "steering_trends": trends(cell.values),
            "steering_tests": against_controls(cell),
            "transfer": transfer,
            "transfer_layers": reached(transfer),
            "steered_texts": cell.texts,
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


def against_controls(cell: SteeredCell) -> pd.DataFrame:
    """Return whether directions do more than controls, at the strength that has most of those.

    Returns:
        Columns direction, layer, strength, measure, `n` prompts, `effect` with `low` and `high`
        (half the difference of both signs, Student's interval over prompts); of each kind of
        control (`random`, `mixture`) `_n`, `_rms` (the root mean square of their effects), `_share`
        (of them whose effect is at least as large) and `_p`; `p_corrected`: the larger of the two
        p, by Holm's method over the directions and layers of a measure; `held_out_r`, of valence
        and arousal, NaN for emotions; `nll_change`: nats a token more, as the unsteered model finds
        what was written, at the worse sign. What there are fewer than MIN_CONTROLS controls of is
        NaN; without either kind there is no row.
    """
    out, nll = [], _nll_changes(cell.values)
    for layer, strength in _tested(cell).items():
        names = dict.fromkeys(
            d for d, i, j, s in cell.log_p if (i, j, s) == (layer, layer, strength) and d
        )
        for measure in TESTED:
            for direction in names:
                if (
                    is_control(direction)
                    or (direction, layer, layer, strength) not in (cell.values[measure])
                ):
                    continue
                own = direction if measure.endswith(OTHER) else ""
                effect_P = _half(cell, measure, (direction, layer, layer, strength), own)
                if effect_P is None:
                    continue
                effect, low, high = interval(effect_P)
                held = [
                    _held(cell, measure, kind, [d for d in names if d.startswith(kind)],
                          (layer, strength), own, effect)
                    for kind in (RANDOM, MIXTURE)
                ]  # fmt: skip
                n = int(np.isfinite(effect_P).sum())
                out.append(
                    (direction, layer, strength, measure, n, effect, low, high, *held[0], *held[1],
                     cell.held_out.get(direction, {}).get(layer, np.nan),
                     max(nll.get((direction, layer, sign * strength), np.nan) for sign in (-1, 1)))
                )  # fmt: skip
    kinds = [f"{kind[:-1]}_{what}" for kind in (RANDOM, MIXTURE) for what in HELD]
    first = ["direction", "layer", "strength", "measure", "n", "effect", "low", "high", *kinds]
    last = ["held_out_r", "nll_change"]
    table = pd.DataFrame(out, columns=[*first, *last])
    p = table[["random_p", "mixture_p"]].max(axis=1)
    corrected = p.groupby(table["measure"]).transform(lambda of: holm(of.to_numpy(dtype=float)))
    return table.assign(p_corrected=corrected)[[*first, "p_corrected", *last]]


HELD = ("n", "rms", "share", "p")


def _tested(cell: SteeredCell) -> dict[int, float]:
    """Return the strength at which each layer has most controls, where it has any."""
    counted: dict[tuple[int, float], int] = {}
    for direction, source, target, strength in cell.log_p:
        if is_control(direction) and source == target and strength > 0:
            key = (target, strength)
            counted[key] = counted.get(key, 0) + 1
    steered = {target for d, source, target, _ in cell.values["words"] if d and source == target}
    found: dict[int, float] = {}
    for layer, strength in sorted(counted, key=lambda key: (counted[key], key[1])):
        if layer in steered and counted[layer, strength] >= MIN_CONTROLS:
            found[layer] = strength
    return dict(sorted(found.items()))


def _half(
    cell: SteeredCell, measure: str, condition: Condition, own: str
) -> Float64[ndarray, " prompt"] | None:
    """Return half the difference between adding and subtracting, None where either was not taken.

    Args:
        cell: what was measured.
        measure: of TESTED.
        condition: the addition.
        own: direction whose own words are left out.
    """
    direction, source, target, strength = condition
    opposite = (direction, source, target, -strength)
    if measure == "preference":
        found = [cell.values[measure].get(c) for c in (condition, opposite)]
    else:
        found = [cell.log_odds(c, own) if c in cell.log_p else None for c in (condition, opposite)]
    plus, minus = found
    return None if plus is None or minus is None else (plus - minus) / 2


def _held(
    cell: SteeredCell,
    measure: str,
    kind: str,
    names: Sequence[str],
    at: tuple[int, float],
    own: str,
    effect: float,
) -> tuple[int, float, float, float]:
    """Return how many controls of a kind there are, their size, the share as large, and p."""
    layer, strength = at
    halves = [_half(cell, measure, (name, layer, layer, strength), own) for name in names]
    control_K = np.array([half_P.mean() for half_P in halves if half_P is not None])
    if len(control_K) < MIN_CONTROLS:
        return len(control_K), np.nan, np.nan, np.nan
    return (
        len(control_K),
        _rms(control_K),
        float((np.abs(control_K) >= abs(effect)).mean()),
        control_p(effect, control_K),
    )


def control_p(effect: float, control_K: Float64[ndarray, " control"]) -> float:
    """Return the two-sided p of an effect among controls that are normal around 0."""
    size = _rms(control_K)
    return float(2 * student_t.sf(abs(effect) / size, len(control_K))) if size > 0 else np.nan


def _rms(control_K: Float64[ndarray, " control"]) -> float:
    return float(np.sqrt((control_K**2).mean()))


def holm(p: Float64[ndarray, " test"]) -> Float64[ndarray, " test"]:
    """Return p corrected for the number of tests by Holm (1979); NaN stays and does not count."""
    out, there = np.full(len(p), np.nan), np.flatnonzero(np.isfinite(p))
    order = there[np.argsort(p[there], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    out[order] = np.minimum(1, np.maximum.accumulate(steps)) if len(order) else []
    return out


def _nll_changes(values: Values) -> dict[tuple[str, int, float], float]:
    """Return, by direction, layer and strength, how much worse the model as it is finds a text."""
    table = effects({"words": values["words"], "nll": values["nll"]})
    here = table[(table["measure"] == "nll") & (table["source_layer"] == table["layer"])]
    keys = zip(here["direction"], here["layer"], here["strength"], strict=True)
    return dict(zip(keys, here["change"], strict=True))


def transfers(cell: SteeredCell) -> pd.DataFrame:
    """Return what a direction of one layer does at another, and in its own place.

    Returns:
        Columns direction, source_layer, layer, strength, measure, `n` prompts, `effect` with `low`
        and `high` (half the difference between adding and subtracting it), `cosine` of the
        directions of the two layers, `relative`: the effect over that of the layer's own direction
        there; `random_rms` and `random_p`: against random directions at that layer (NaN with fewer
        than MIN_CONTROLS).
    """
    out = []
    moved = {(d, s) for at in cell.values.values() for d, i, j, s in at if i != j and s > 0}
    for measure, by_condition in cell.values.items():
        controls: dict[tuple[int, float], Float64[ndarray, " control"]] = {}
        for direction, source, target, strength in by_condition:
            opposite = (direction, source, target, -strength)
            if (direction, strength) not in moved or opposite not in by_condition:
                continue
            half_P = (
                by_condition[direction, source, target, strength] - by_condition[opposite]
            ) / 2
            effect, low, high = interval(half_P)
            if (target, strength) not in controls:
                controls[target, strength] = _random_effects(by_condition, target, strength)
            control_K = controls[target, strength]
            enough = len(control_K) >= MIN_CONTROLS
            layers, grid = cell.cosines[direction]
            out.append(
                (direction, source, target, strength, measure, int(np.isfinite(half_P).sum()),
                 effect, low, high, float(grid[layers.index(source), layers.index(target)]),
                 _rms(control_K) if enough else np.nan,
                 control_p(effect, control_K) if enough else np.nan)
            )  # fmt: skip
    columns = [*WHERE, "measure", "n", "effect", "low", "high", "cosine", "random_rms", "random_p"]
    table = pd.DataFrame(out, columns=columns)
    keys = ["direction", "layer", "strength", "measure"]
    own = table[table["source_layer"] == table["layer"]].set_index(keys)["effect"]
    there = pd.Series(
        [own.get(tuple(row), np.nan) for row in table[keys].itertuples(index=False)], dtype=float
    )
    first = columns[: columns.index("random_rms")]
    return table.assign(relative=table["effect"] / there)[
        [*first, "relative", *columns[len(first) :]]
    ]


def _random_effects(
    by_condition: dict[Condition, Float64[ndarray, " prompt"]], target: int, strength: float
) -> Float64[ndarray, " control"]:
    """Return the effects of random directions at a layer."""
    found = [
        (value_P - by_condition[d, i, j, -strength]).mean() / 2
        for (d, i, j, s), value_P in by_condition.items()
        if d.startswith(RANDOM)
        and (i, j, s) == (target, target, strength)
        and (d, i, j, -strength) in by_condition
    ]
    return np.array(found)


def reached(transfer: pd.DataFrame) -> pd.DataFrame:
    """Return, for each layer that is steered with the directions of others, from where it works.

    Args:
        transfer: as `transfers` gives it.

    Returns:
        Columns direction, layer, strength, measure, `effect` and `random_p` of the layer's own
        direction, `sources` (other layers), `rho` (Spearman's, of their effects with their cosines
        to the layer's own direction), `half_from` and `half_to`: the directions of all layers
        between these do at least half of what the layer's own does; NaN where its own effect is
        not told from random directions (p of .05 or more). Layers with fewer than three sources
        are left out.
    """
    out = []
    keys = ["direction", "layer", "strength", "measure"]
    for (direction, layer, strength, measure), here in transfer.groupby(keys, sort=False):
        is_own = here["source_layer"] == layer
        own, others = here[is_own], here[~is_own]
        if own.empty or len(others) < 3:
            continue
        effect, p = float(own["effect"].iloc[0]), float(own["random_p"].iloc[0])
        rho = float(spearmanr(others["effect"], others["cosine"]).statistic)
        half_from = half_to = np.nan
        if p < SIGNIFICANT:
            relative = here.set_index("source_layer")["relative"].sort_index()
            half_from, half_to = _run_around(relative, int(str(layer)))
        out.append(
            (direction, layer, strength, measure, effect, p, len(others), rho, half_from, half_to)
        )  # fmt: skip
    return pd.DataFrame(
        out, columns=[*keys, "effect", "random_p", "sources", "rho", "half_from", "half_to"]
    )


def _run_around(relative: pd.Series[float], layer: int) -> tuple[int, int]:
    """Return the first and last of the layers around one that do at least half as much."""
    layers = [int(i) for i in relative.index]
    works = [value >= HALF for value in relative]
    first = last = layers.index(layer)
    while first > 0 and works[first - 1]:
        first -= 1
    while last < len(layers) - 1 and works[last + 1]:
        last += 1
    return layers[first], layers[last]
