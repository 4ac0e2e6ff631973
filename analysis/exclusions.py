"""What was left out of a run's numbers, each time with its names, how many they are, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from analysis.directions import MIN_RATED
from analysis.resampling import MAX_UNDRAWN
from analysis.results import FINGERPRINT_DIGITS, CellResults

MAX_NAMES = 200
"""Names given of each exclusion; the rest is counted."""

COLUMNS = ("model", "corpus", "other", "window", "contrast", "norms", "layers", "what", "n")


def exclusions_table(cells: list[CellResults]) -> pd.DataFrame:
    """Return one row for each thing left out; no row where nothing was.

    `what` is `emotions` or `texts` left out, `n` of them, with their `names`, `results` or
    `intervals` that are missing in some `layers`, or a `neutral basis` of too few texts; `other`
    is the corpus or model that a cell is compared with. An empty field means all.
    """
    rows = [row | _made_by(cell) for cell in cells for row in _of_cell(cell)]
    rows += [row for a, b in combinations(cells, 2) for row in _of_pair(a, b)]
    empty = dict.fromkeys((*COLUMNS, "names", "why", "fingerprint", "fingerprint_b"), "")
    return pd.DataFrame([empty | row for row in rows], columns=list(empty))


def ranges(numbers: Sequence[int]) -> str:
    """Return numbers in ascending order as `3, 5-9`, from a negative one as `-1 to 2`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(
        str(r[0]) if len(r) == 1 else f"{r[0]}{' to ' if r[0] < 0 else '-'}{r[-1]}" for r in runs
    )


def _of_cell(cell: CellResults) -> Iterator[dict[str, Any]]:
    results, named = cell.results, {"model": cell.model, "corpus": cell.corpus}
    emotions = [str(e) for e in results["emotion"].to_numpy()]
    for norms in (str(n) for n in results["norms"].to_numpy()):
        rated_E = np.isfinite(results["rating"].sel(norms=norms).to_numpy()).all(axis=1)
        if not rated_E.all():
            unrated = [e for e, rated in zip(emotions, rated_E, strict=True) if not rated]
            why = "not rated: in the principal components, in no correlation or fitted direction"
            yield {**named, "norms": norms, **_named("emotions", unrated), "why": why}
        if rated_E.sum() < MIN_RATED:
            why = f"directions need {MIN_RATED} rated emotions, r rests on {rated_E.sum()}"
            yield {**named, "norms": norms, "what": "results", "why": why}
    yield from _texts(cell, named)
    yield from _missing(cell, named)
    yield from _without_interval(cell, named)
    for window in (str(w) for w in results["window"].to_numpy()):
        halved = results["halved"].sel(window=window).to_numpy()
        single = [emotions[at] for at in np.flatnonzero(~halved.all(axis=0))]
        if halved.any() and single:
            why = "too few stories for two halves: not in half_cosine, reliability, cosine_bounded"
            yield {**named, "window": window, **_named("emotions", single), "why": why}
        score = results["score"].sel(window=window).isel(component=0)
        there = score.notnull().transpose("layer", "contrast", "emotion").to_numpy()
        some = there.any(axis=2)
        gone = [emotions[at] for at in np.flatnonzero(~there[some].all(axis=0))]
        if some.any() and gone:
            why = "no story with a token in the window and a number in every dimension"
            yield {**named, "window": window, **_named("emotions", gone), "why": why}
        ranked = np.isfinite(results["detected_emotion"].sel(window=window).to_numpy())
        alone = [emotions[at] for at in np.flatnonzero(~ranked.any(axis=0))]
        unseen = [emotion for emotion in alone if emotion not in gone]
        if ranked.any() and unseen:
            why = "all its stories are held out at once: not in the detection of emotions"
            yield {**named, "window": window, **_named("emotions", unseen), "why": why}


def _texts(cell: CellResults, named: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yield texts without a token in a window, and stories that are not finite at some layers."""
    results = cell.results
    for window in (str(w) for w in results["window"].to_numpy()):
        at = results.sel(window=window)
        if n := int(at["texts_without_token"]):
            names = str(at["texts_without_token_names"].item())
            counted = {"window": window, "what": "texts", "n": n, "names": names}
            yield {**named, **counted, "why": "no token in the window"}
        stories = at["variance_n_stories"].to_series()
        for lost, rows in stories.groupby(stories.max() - stories):
            if lost:
                where = {"window": window, "layers": ranges(sorted(int(i) for i in rows.index))}
                why = "stories that are not finite at these layers, though at others"
                yield {**named, **where, "what": "texts", "n": int(lost), "why": why}
        for contrast in (str(c) for c in results["contrast"].to_numpy()):
            n_K = at["n_neutral_components"].sel(contrast=contrast)
            full = (n_K > 0) & (n_K >= at["n_neutral"] - 1)
            if full.any():
                layers = ranges([int(i) for i in at["layer"].to_numpy()[full.to_numpy()]])
                why = (
                    f"{int(at['n_neutral'].max())} neutral texts span too few directions: the "
                    "basis takes all their variance, not the share asked for"
                )
                where = {"window": window, "contrast": contrast, "layers": layers}
                yield {**named, **where, "what": "neutral basis", "why": why}


def _without_interval(cell: CellResults, named: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yield layers whose r has no interval over stories, for want of stories to draw."""
    results = cell.results
    for window in (str(w) for w in results["window"].to_numpy()):
        at = results.sel(window=window)
        found = at["r"].notnull() & at["story_draw"].isnull().all("draw")
        layers = found.any(["contrast", "norms", "component"])
        if layers.any():
            numbers = sorted(int(i) for i in at["layer"].to_numpy()[layers.to_numpy()])
            why = (
                f"more than {MAX_UNDRAWN:.0%} of the emotions have a single text, or too few are "
                "rated: no interval over stories"
            )
            where = {"window": window, "layers": ranges(numbers)}
            yield {**named, **where, "what": "intervals", "why": why}


def join_names(names: Sequence[str]) -> str:
    """Return names in one line, the first MAX_NAMES of them."""
    shown = "; ".join(names[:MAX_NAMES])
    rest = len(names) - MAX_NAMES
    return f"{shown}; and {rest} more" if rest > 0 else shown


def _missing(cell: CellResults, named: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yield what has no results, layers with the same reason together."""
    series = cell.results["missing"].to_series()
    missing = series[series != ""].rename("why").reset_index()
    for (window, contrast, why), rows in missing.groupby(["window", "contrast", "why"], sort=False):
        layers = ranges(sorted(int(layer) for layer in rows["layer"]))
        where = {"window": window, "contrast": contrast, "layers": layers}
        yield {**named, **where, "what": "results", "why": why}


def _of_pair(a: CellResults, b: CellResults) -> Iterator[dict[str, Any]]:
    """Yield the emotions that one of two cells lacks, where the two are compared."""
    if (a.model == b.model) == (a.corpus == b.corpus):
        return
    for here, there in ((a, b), (b, a)):
        other = there.corpus if a.model == b.model else there.model
        known = {str(e) for e in there.results["emotion"].to_numpy()}
        alone = [str(e) for e in here.results["emotion"].to_numpy() if str(e) not in known]
        if alone:
            named = {"model": here.model, "corpus": here.corpus, "other": other}
            why = f"not in {there.model}@{there.corpus}, left out of comparisons with it"
            yield {**named, **_named("emotions", alone), "why": why, **_made_by(here, there)}


def _made_by(cell: CellResults, other: CellResults | None = None) -> dict[str, str]:
    both = {"fingerprint": cell, "fingerprint_b": other}
    return {key: "" if c is None else c.fingerprint[:FINGERPRINT_DIGITS] for key, c in both.items()}


def _named(what: str, names: Sequence[str]) -> dict[str, Any]:
    return {"what": what, "n": len(names), "names": join_names(names)}
