"""The table for reading says what the table of numbers says."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.markdown import geometry_markdown


def geometry() -> pd.DataFrame:
    valence = {("a", "all"): [0.9, 0.3, 0.71, 0.5], ("b", "all"): [0.1, 0.2, np.nan, 0.612]}
    p = {("a", "all"): [1e-9, 0.2, 0.0005, 0.03], ("b", "all"): [0.5, 0.2, np.nan, 0.004]}
    return pd.DataFrame(
        {
            "model": "m",
            "corpus": corpus,
            "window": window,
            "contrast": "neutral-pca",
            "norms": "glasgow",
            "layer": layer,
            "n_emotions": 82,
            "valence_r": valence[corpus, window][layer + 1],
            "valence_p": p[corpus, window][layer + 1],
            "arousal_r": 0.05 * (layer + 1),
            "arousal_p": 0.9,
        }
        for corpus, window in valence
        for layer in (-1, 0, 1, 2)
    )


def test_rows_columns_marks_and_peaks() -> None:
    text = geometry_markdown(geometry())
    assert "## m: valence, contrast neutral-pca, norms glasgow" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[0] == "| layer | a, all (n = 82) | b, all (n = 82) |"
    assert rows[2] == "| embed | .90\\*\\*\\* | .10 |"  # a baseline is no peak
    assert rows[3] == "| 0 | .30 | .20 |"
    assert rows[4] == "| 1 | **.71\\*\\*\\*** | nan |"
    assert rows[5] == "| 2 | .50\\* | **.61\\*\\*** |"
    assert rows[-1] == "| 2 | **.15** | **.15** |"
