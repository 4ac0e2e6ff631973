"""What is looked at where PC1 follows valence best: which layers those are, clusters, cosines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.clusters import kmeans_clusters
from analysis.geometry import NotEnough
from analysis.geometry_table import peaks
from analysis.results import FINGERPRINT_DIGITS, CellResults
from analysis.settings import GEOMETRY
from analysis.similarity import gram_cosines

COSINE_COLUMNS = (
    *("model", "corpus", "window", "contrast", "norms", "layer"),
    *("emotion", "emotion_b", "cosine", "fingerprint"),
)

NUMBERS = tuple(range(2, 16))
"""Numbers of clusters that are tried."""

FINE = 10
"""A number of clusters that is shown beside the one with the largest silhouette, often just two."""


def shown_layers(
    geometry: pd.DataFrame, model: str, window: str, contrast: str, norms: str
) -> dict[int, list[str]]:
    """Return the layers at which a model's corpora peak, and which do there.

    Every corpus is shown at every such layer, so that corpora can be seen at one layer too. One
    without a peak (no r at any block) adds none.

    Args:
        geometry: as `analysis.tables.geometry_table` returns it.
        model: a model in it.
        window: a window in it.
        contrast: a contrast in it.
        norms: norms in it.
    """
    best = peaks(geometry)
    chosen = best[
        (best["model"] == model)
        & (best["window"] == window)
        & (best["contrast"] == contrast)
        & (best["norms"] == norms)
    ]
    found: dict[int, list[str]] = {}
    for corpus, layer in zip(chosen["corpus"], chosen["layer"], strict=True):
        found.setdefault(int(layer), []).append(str(corpus))
    return dict(sorted(found.items()))


def cluster_table(
    cells: list[CellResults], geometry: pd.DataFrame, seed: int, numbers: Sequence[int] = NUMBERS
) -> pd.DataFrame:
    """Return k-means clusters of emotions at each layer at which a corpus of the model peaks.

    One row for each cell, window, contrast, norms (they decide the layer), layer and emotion:
    `peak_of` names the corpora that peak there, `n_clusters` is the number with the largest
    `silhouette`, and then FINE; cluster 1 is the largest. Emotions without a vector have no row.
    """
    rows: list[dict[str, object]] = []
    for cell in cells:
        known: dict[tuple[str, str, int], list[dict[str, object]]] = {}
        for norms in (str(n) for n in cell.results["norms"].to_numpy()):
            for window in (str(w) for w in cell.results["window"].to_numpy()):
                for contrast in (str(c) for c in cell.results["contrast"].to_numpy()):
                    layers = shown_layers(geometry, cell.model, window, contrast, norms)
                    for layer, corpora in layers.items():
                        key = (window, contrast, layer)
                        if key not in known:
                            known[key] = _clustered(cell, *key, seed, numbers)
                        named = {
                            "model": cell.model,
                            "corpus": cell.corpus,
                            "window": window,
                            "contrast": contrast,
                            "norms": norms,
                            "layer": layer,
                            "peak_of": " ".join(corpora),
                        }
                        end = {"fingerprint": cell.fingerprint[:FINGERPRINT_DIGITS]}
                        rows += [{**named, **row, **end} for row in known[key]]
    columns = ["model", "corpus", "window", "contrast", "norms", "layer", "peak_of"]
    columns += ["n_clusters", "silhouette", "cluster", "emotion", "fingerprint"]
    return pd.DataFrame(rows, columns=columns)


def cosine_table(cells: list[CellResults], geometry: pd.DataFrame) -> pd.DataFrame:
    """Return cosines between the emotions' contrast vectors where their corpus peaks.

    One row for each cell, window and pair of emotions, at the peak by the first norms, for the
    contrast `both`; for `mean-centered` where the run has no other.
    """
    rows = []
    for cell in cells:
        contrasts = [str(c) for c in cell.results["contrast"].to_numpy()]
        contrast = "neutral-pca" if "neutral-pca" in contrasts else contrasts[0]
        norms = str(cell.results["norms"].to_numpy()[0])
        for window in (str(w) for w in cell.results["window"].to_numpy()):
            layers = shown_layers(geometry, cell.model, window, contrast, norms)
            for layer in [i for i, corpora in layers.items() if cell.corpus in corpora]:
                at = cell.results.sel(window=window, contrast=contrast, layer=layer)
                emotions = np.array([str(e) for e in at["emotion"].to_numpy()])
                first, second = np.triu_indices(len(emotions), k=1)
                pairs = {
                    "model": cell.model,
                    "corpus": cell.corpus,
                    "window": window,
                    "contrast": GEOMETRY[contrast],
                    "norms": norms,
                    "layer": layer,
                    "emotion": emotions[first],
                    "emotion_b": emotions[second],
                    "cosine": gram_cosines(at["gram"].to_numpy())[first, second],
                    "fingerprint": cell.fingerprint[:FINGERPRINT_DIGITS],
                }
                rows.append(pd.DataFrame(pairs)[list(COSINE_COLUMNS)])
    if not rows:
        return pd.DataFrame(columns=list(COSINE_COLUMNS))
    return pd.concat(rows, ignore_index=True)


def _clustered(
    cell: CellResults, window: str, contrast: str, layer: int, seed: int, numbers: Sequence[int]
) -> list[dict[str, object]]:
    """Return rows of number, silhouette, cluster and emotion, cluster by cluster."""
    results = cell.results.sel(window=window, contrast=contrast, layer=layer)
    gram_EE, emotions = results["gram"].to_numpy(), results["emotion"].to_numpy()
    try:
        found = kmeans_clusters(gram_EE, sorted({*numbers, FINE}), seed)
    except NotEnough:  # too few emotions have a vector to be grouped at all
        return []
    tried = [k for k in numbers if k in found]
    shown = {max(tried, key=lambda k: found[k].silhouette): None} if tried else {}
    rows: list[dict[str, object]] = []
    for k in [*shown, *({FINE} & {*found} - {*shown})]:
        labelled = zip(found[k].label_E, emotions, strict=True)
        for label, _, name in sorted((int(c), at, str(e)) for at, (c, e) in enumerate(labelled)):
            if label >= 0:
                part = {"cluster": label + 1, "emotion": name}
                rows.append({"n_clusters": k, "silhouette": found[k].silhouette, **part})
    return rows
