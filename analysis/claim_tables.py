"""Verdicts on every claim under every choice, what they turn on, and how far norms agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from analysis.activations import MASSIVE, MOSTLY
from analysis.claims import CLAIMS, Claim
from analysis.geometry import correlate
from analysis.predicates import NO_BASELINE
from analysis.results import FINGERPRINT_DIGITS, CellResults
from analysis.settings import AXES
from analysis.verdicts import Finding, Verdict
from analysis.view import DIMENSIONS, Choice, View

CHOICES = ("window", "contrast", "norms", "dimensions", "estimator")
OPPOSED = {Verdict.HOLDS.value, Verdict.FAILS.value}
COLUMNS = (
    *("claim", "model", "corpus", "corpus_b", *CHOICES),
    *("verdict", "figure", "low", "high", "over", "at", "norms_agreement"),
    *("fingerprint", "fingerprint_b"),
)
SUMMARY = (
    *("claim", "model", "corpus", "corpus_b", "choices", "holds", "fails", "undecided"),
    *("summary", "turns_on", "artefact", "random_twin", "fingerprint", "fingerprint_b"),
)


def claims_table(cells: list[CellResults], model: str | None = None) -> pd.DataFrame:
    """Return one row for each claim, cell or pair of corpora, and choice.

    `norms` is "" for a claim that needs no ratings, `estimator` for one that needs none, and
    `dimensions` is `all` only where leaving dimensions out is not looked at: such choices coincide
    and are counted once. `estimator` is that of CKA or of valence directions. `figure` is what
    decides, with its interval over `over`; `at` the blocks it is of; `norms_agreement` is r of the
    norms' ratings with the run's first norms', on the axis that the claim is about.

    Args:
        cells: all of them, those with random weights too that others are held against.
        model: whose rows are wanted; every model's when None.
    """
    rows = []
    views: dict[tuple[str, str, Choice], View] = {}

    def view(cell: CellResults, choice: Choice) -> View:
        return views.setdefault((cell.model, cell.corpus, choice), View(cell, choice))

    for claim in CLAIMS:
        for a, b in _subjects(claim, cells):
            if model not in (None, a.model):
                continue
            for choice in _choices(claim, a):
                if claim.of_cell is not None:
                    found: Finding | None = claim.of_cell(view(a, choice), cells)
                else:
                    assert claim.of_pair is not None
                    assert b is not None
                    found = claim.of_pair(view(a, choice), view(b, choice))
                if found is not None:
                    rows.append(_row(claim, a, b, choice, found))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def summary_table(claims: pd.DataFrame, cells: list[CellResults]) -> pd.DataFrame:
    """Return one row for each claim and cell or pair: what holds, and the choices it turns on.

    A verdict turns on a choice where two choices that differ in it only give `holds` and `fails`;
    on one that gives a verdict and `undecided` otherwise it leans, written in brackets. `artefact`
    names the first token where a verdict turns on a window with it against the one without, in a
    model that has blocks where a text's longest token is MASSIVE and mostly the first; and the
    largest dimensions where it turns on leaving them out, in a model that has blocks where they
    carry most of the emotion means' squared norm. `random_twin` is what the same claim comes to for
    the model with random weights.
    """
    rows = []
    keys = ["claim", "model", "corpus", "corpus_b"]
    for key, some in claims.groupby(keys, sort=False):
        counts = some["verdict"].value_counts()
        turns, leans = _turning(some)
        verdicts = [v for v in Verdict if counts.get(v.value, 0)]
        if (some["at"] == NO_BASELINE).all():
            summary = NO_BASELINE
        elif len(verdicts) == 1:
            summary = f"{verdicts[0].value} under every choice"
        elif turns:
            summary = f"turns on {', '.join(turns)}"
        elif len(verdicts) == 2 and Verdict.UNDECIDED in verdicts:
            decided = next(v for v in verdicts if v is not Verdict.UNDECIDED)
            summary = f"{decided.value} or undecided"
        else:
            summary = "turns on several choices together"
        named = [c for c in cells if c.model == key[1] and c.corpus in key[2:]]
        rows.append(
            {
                **dict(zip(keys, key, strict=True)),
                "choices": len(some),
                **{v.value: int(counts.get(v.value, 0)) for v in Verdict},
                "summary": summary,
                "turns_on": " ".join([*turns, *(f"({name})" for name in leans)]),
                "artefact": ", ".join(_artefacts(some, named)),
                **{name: some[name].iloc[0] for name in ("fingerprint", "fingerprint_b")},
            }
        )
    found = pd.DataFrame(rows, columns=list(SUMMARY))
    twins = {(cell.model, cell.corpus): cell.twin for cell in cells if cell.twin is not None}
    said = found.set_index(keys)["summary"].to_dict()
    found["random_twin"] = [
        said.get((claim, twins.get((model, corpus)), corpus, corpus_b), "")
        for claim, model, corpus, corpus_b in found[keys].itertuples(index=False)
    ]
    return found


def profiles_table(cells: list[CellResults]) -> pd.DataFrame:
    """Return onset, peak and collapse of r over the blocks: one row for each cell, choice and axis.

    The columns are those of `analysis.inference.Profile`, NaN where there is no such block.
    """
    rows = []
    for cell in cells:
        for choice in _choices(CLAIMS[0], cell):
            for axis in AXES:
                found = asdict(View(cell, choice).profile(axis))
                blocks = {key: value for key, value in found.items() if isinstance(value, int)}
                found |= {key: np.nan if value < 0 else value for key, value in blocks.items()}
                named = {key: getattr(choice, key) for key in CHOICES}
                rows.append({"model": cell.model, "corpus": cell.corpus, **named, "axis": axis})
                rows[-1] |= found | {"fingerprint": cell.fingerprint[:FINGERPRINT_DIGITS]}
    return pd.DataFrame(rows)


def norms_table(cells: list[CellResults]) -> pd.DataFrame:
    """Return how far sets of norms agree on each corpus' emotions: r and Spearman's rho, n.

    A row's fingerprint is that of the first cell that reads its corpus.
    """
    rows = []
    seen = set()
    for cell in cells:
        if cell.corpus in seen:
            continue
        seen.add(cell.corpus)
        rating = cell.results["rating"]
        names = [str(n) for n in rating["norms"].to_numpy()]
        for (a, b), axis in product(combinations(names, 2), AXES):
            x, y = (rating.sel(norms=n, axis=axis).to_numpy() for n in (a, b))
            found = correlate(x, y)
            figures = {"n": found.n, "r": found.r, "rho": correlate(x, y, ranks=True).r}
            rows.append({"corpus": cell.corpus, "axis": axis, "norms": a, "norms_b": b, **figures})
            rows[-1]["fingerprint"] = cell.fingerprint[:FINGERPRINT_DIGITS]
    columns = ["corpus", "axis", "norms", "norms_b", "n", "r", "rho", "fingerprint"]
    return pd.DataFrame(rows, columns=columns)


def _subjects(
    claim: Claim, cells: list[CellResults]
) -> Iterator[tuple[CellResults, CellResults | None]]:
    if claim.of_cell is not None:
        yield from ((cell, None) for cell in cells)
    else:
        yield from ((a, b) for a, b in combinations(cells, 2) if a.model == b.model)


def _choices(claim: Claim, cell: CellResults) -> Iterator[Choice]:
    results = cell.results
    names = {key: [str(v) for v in results[key].to_numpy()] for key in CHOICES[:3]}
    norms = names["norms"] if claim.norms else [""]
    for window, contrast, rated in product(names["window"], names["contrast"], norms):
        for estimator in claim.estimators:
            without = claim.without and estimator != "cka_debiased"
            for dimensions in DIMENSIONS if without else DIMENSIONS[:1]:
                yield Choice(window, contrast, rated, dimensions, estimator)


def _row(
    claim: Claim, a: CellResults, b: CellResults | None, choice: Choice, found: Finding
) -> dict[str, Any]:
    return {
        "claim": claim.name,
        "model": a.model,
        "corpus": a.corpus,
        "corpus_b": "" if b is None else b.corpus,
        **{key: getattr(choice, key) for key in CHOICES},
        "verdict": found.verdict.value,
        "figure": found.figure.value,
        "low": found.figure.low,
        "high": found.figure.high,
        "over": claim.over,
        "at": found.at,
        "norms_agreement": _agreement(claim, a, choice.norms),
        "fingerprint": a.fingerprint[:FINGERPRINT_DIGITS],
        "fingerprint_b": "" if b is None else b.fingerprint[:FINGERPRINT_DIGITS],
    }


def _agreement(claim: Claim, cell: CellResults, norms: str) -> float:
    if not norms:
        return float("nan")
    axis = "arousal" if "arousal" in claim.name else "valence"
    rating = cell.results["rating"].sel(axis=axis)
    return correlate(rating.sel(norms=norms).to_numpy(), rating.isel(norms=0).to_numpy()).r


def _turning(some: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return the choices that decide between holds and fails, and those that make it undecided."""
    turns, leans = [], []
    for choice in CHOICES:
        sets = _verdicts_but_for(some, choice)
        if any(found >= OPPOSED for found in sets):
            turns.append(choice)
        elif any(len(found) > 1 for found in sets):
            leans.append(choice)
    return turns, leans


def _verdicts_but_for(some: pd.DataFrame, choice: str) -> list[set[str]]:
    """Return the verdicts of rows that differ in one choice only, set by set."""
    others = [key for key in CHOICES if key != choice]
    return list(some.groupby(others, sort=False)["verdict"].agg(set))


def _artefacts(some: pd.DataFrame, cells: list[CellResults]) -> Iterator[str]:
    with_and_without = some[some["window"].isin(["all", "no-first"])]
    if any(found >= OPPOSED for found in _verdicts_but_for(with_and_without, "window")) and any(
        _first_token_carries(cell) for cell in cells
    ):
        yield "first token"
    if any(found >= OPPOSED for found in _verdicts_but_for(some, "dimensions")) and any(
        bool((_blocks(cell)["dropped_norm"] > MOSTLY).any()) for cell in cells
    ):
        yield "largest dimensions"


def _first_token_carries(cell: CellResults) -> bool:
    blocks = _blocks(cell)
    return bool(((blocks["peak_ratio"] > MASSIVE) & (blocks["first_token_peak"] > MOSTLY)).any())


def _blocks(cell: CellResults) -> xr.Dataset:
    return cell.results[["peak_ratio", "first_token_peak", "dropped_norm"]].sel(
        layer=slice(0, None)
    )
