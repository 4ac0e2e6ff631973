"""What a reader who has never heard of it needs first: what was done, and the words for it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from analysis.figures.style import span
from analysis.report.content import CorpusContent, RunContent
from analysis.report.numbers import listed
from analysis.results import without_twins

CONTRASTS = {
    "neutral-pca": "the mean over emotions is taken off, and so are the leading components of "
    "neutral texts",
    "mean-centered": "the mean over emotions is taken off",
}
"""What each contrast of a manifest does to the emotions' mean residuals."""

ESTIMATORS = {
    "component": "the principal component itself (pc1 of valence)",
    "covariance": "the mean of the emotions' vectors weighted by their ratings",
    "ridge": "ridge regression of the ratings",
    "least-squares": "the minimum-norm solution of the same regression",
    "paper": "the component where its r is significant, else least-squares",
}
"""How a direction of valence or arousal is had from the emotions' vectors and their ratings."""


def title(runs: list[RunContent]) -> str:
    """Return what the page is about: `Emotions in small and large`."""
    models = dict.fromkeys(cell.model for run in runs for cell in without_twins(run.cells))
    return f"Emotions in {listed([*models], most=3)}"


def introduction(runs: list[RunContent]) -> list[str]:
    """Return three sentences: who reads what, what an emotion's vector is, what it is held to."""
    cells = [cell for run in runs for cell in without_twins(run.cells)]
    models = [*dict.fromkeys(cell.model for cell in cells)]
    n_emotions = span([cell.results.sizes["emotion"] for cell in cells])
    read = {(run.name, cell.corpus) for run in runs for cell in run.cells}
    corpora = dict.fromkeys(
        _corpus(corpus) for run in runs for corpus in run.corpora if (run.name, corpus.name) in read
    )
    norms = dict.fromkeys(str(n) for cell in cells for n in cell.results["norms"].to_numpy())
    return [
        f"{listed(models)} {'reads' if len(models) == 1 else 'read'} short stories about people "
        f"who feel one of {n_emotions} emotions: {listed([*corpora])}.",
        "At every layer, an emotion's vector is the mean residual stream over its stories, less "
        "what the emotions share (the contrast).",
        "PC1 and PC2, the two directions in which these vectors differ most, are held against how "
        "people rate the emotions' words: PC1 against valence (unpleasant to pleasant), PC2 "
        f"against arousal (calm to excited), by the norms {listed([*norms])}. |r| = 1 is perfect "
        "agreement, 0 is none.",
    ]


def terms(runs: list[RunContent]) -> list[tuple[str, str]]:
    """Return what one chooses on the page, each with what it means, in a line."""
    contrasts = dict.fromkeys(c for run in runs for c in run.manifest["analysis"]["contrasts"])
    windows = dict.fromkeys(
        window_name(w) for run in runs for w in run.manifest["extraction"]["windows"]
    )
    used = Counter(str(e) for run in runs for c in run.cells for e in c.results["estimator"].data)
    estimators = [f"{name}: {says}" for name, says in ESTIMATORS.items() if name in used]
    return [
        ("window", f"the tokens of a story that are averaged: {'; '.join(windows)}."),
        (
            "contrast",
            f"what is taken off an emotion's mean: {'; '.join(map(contrast_says, contrasts))}.",
        ),
        ("norms", "the human ratings of valence and arousal that emotions are held to."),
        ("cell", "one model reading one corpus, written model@corpus."),
        ("layer", "the residual stream behind a block, 0 the first; depth is layer / layers."),
        ("largest dimensions", "the three of a layer that carry most; claims do without them too."),
        ("estimator", f"how a direction of a rating is had. {'; '.join(estimators)}."),
    ]


def contrast_says(name: str) -> str:
    """Return a contrast's name with what it does."""
    return f"{name}: {CONTRASTS[name]}" if name in CONTRASTS else name


def window_name(window: dict[str, Any]) -> str:
    """Return a window's name with its half-open span of tokens."""
    said = f"{window['name']} = [{window['start']}, {window.get('end', 'end')})"
    if window["normalize"] == "rms":
        said += ", each token divided by its root mean square"
    return said


def _corpus(corpus: CorpusContent) -> str:
    wrote = f", written by {corpus.writer}" if corpus.writer else ""
    return f"{corpus.name} ({corpus.n_stories:,}{wrote})"
