"""The table for reading says what the table of numbers says."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.markdown import clusters_markdown, geometry_markdown


def geometry() -> pd.DataFrame:
    valence = {("a", "all"): [0.9, 0.3, 0.71, 0.5], ("a", "rms"): [0.1, 0.2, np.nan, 0.612]}
    p = {("a", "all"): [1e-9, 0.2, 0.0005, 0.03], ("a", "rms"): [0.5, 0.2, np.nan, 0.004]}
    return pd.DataFrame(
        {
            "model": "m",
            "corpus": corpus,
            "window": window,
            "contrast": "neutral-pca",
            "norms": "glasgow",
            "layer": layer,
            "n_emotions": 82,
            "pc1_variance": 0.254,
            "pc2_variance": 0.1,
            "valence_r": valence[corpus, window][layer + 1],
            "valence_p": p[corpus, window][layer + 1] if layer == -1 else 1e-9,
            "valence_p_corrected": np.nan if layer == -1 else p[corpus, window][layer + 1],
            "arousal_r": 0.05 * (layer + 1),
            "arousal_p": 0.9,
            "arousal_p_corrected": 0.9,
        }
        for corpus, window in valence
        for layer in (-1, 0, 1, 2)
    )


def test_rows_columns_marks_and_peaks() -> None:
    text = geometry_markdown(geometry())
    assert "## m reads a: contrast neutral-pca, norms glasgow (n = 82)" in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert rows[0][1:5] == ["all: PC1 %", "all: valence", "all: PC2 %", "all: arousal"]
    assert rows[0][5:] == ["rms: PC1 %", "rms: valence", "rms: PC2 %", "rms: arousal |"]
    assert rows[2][:5] == ["| embed", "25", ".90\\*\\*\\*", "10", ".00"]  # a baseline is no peak
    assert [row[2] for row in rows[3:]] == [".30", "**.71\\*\\*\\***", ".50\\*"]
    assert [row[6] for row in rows[3:]] == [".20", "nan", "**.61\\*\\***"]
    assert [row[4] for row in rows[3:]] == [".05", ".10", "**.15**"]


def test_clusters_are_listed_where_their_corpus_peaks() -> None:
    rows = [
        {
            "model": "m",
            "corpus": corpus,
            "window": "all",
            "contrast": "neutral-pca",
            "norms": "glasgow",
            "layer": 4,
            "peak_of": "a",
            "n_clusters": 2,
            "silhouette": -0.25,
            "cluster": cluster,
            "emotion": emotion,
        }
        for corpus in ("a", "b")
        for cluster, emotion in ((1, "glad"), (1, "happy"), (2, "sad"))
    ]
    text = clusters_markdown(pd.DataFrame(rows))
    assert "## m reads a: window all, contrast neutral-pca, layer 4 (peak by glasgow)" in text
    assert "m reads b" not in text
    assert "2 clusters, mean silhouette -.25:" in text
    assert "| 1 | 2 | glad, happy |" in text
    assert "| 2 | 1 | sad |" in text
