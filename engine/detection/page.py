"""Scored texts as a page: kept until all are read, then written as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from analysis.detection import leading_emotions
from analysis.report.text_page import ScoredText, build_text_page, text_payload
from analysis.report.tints import COLOURS
from engine.detection.output import UNIT, About, TextMean
from engine.detection.reading import Piece
from manifests.errors import InputError, Problem
from store.atomic import write_text

MAX_SHOWN = 200_000
"""Tokens times layers that a page holds; a browser is slow beyond."""


class PageWriter:
    """Collects texts and writes the page at the end."""

    def __init__(self, file: Path, about: About):
        self._file, self._about = file, about
        self._texts: list[dict[str, Any]] = []
        self._n = 0
        self._begin()

    def _begin(self) -> None:
        self._mean = TextMean(len(self._about.layers), len(self._about.emotions))
        self._tokens: list[str] = []
        self._scores: list[Float32[ndarray, "token layer emotion"]] = []

    def take(self, piece: Piece) -> None:
        """Keep tokens.

        Raises:
            InputError: more than a page holds.
        """
        self._n += piece.score.shape[0] * piece.score.shape[1]
        if self._n > MAX_SHOWN:
            what = (
                f"a page holds {MAX_SHOWN:,} tokens times layers, these are more; choose fewer "
                "layers (--layer), or write a .csv or .parquet"
            )
            raise InputError(Problem(self._file, None, "", what))
        self._tokens += piece.shown
        self._scores.append(piece.score)
        self._mean.add(piece)
        if piece.last:
            self._texts.append(self._payload(piece.name))
            self._begin()

    def _payload(self, name: str) -> dict[str, Any]:
        score_TLE = np.concatenate(self._scores)
        leading = [
            leading_emotions(score_TLE[:, layer], len(COLOURS))
            for layer in range(score_TLE.shape[1])
        ]
        return text_payload(ScoredText(name, self._tokens, score_TLE), leading, self._mean.mean())

    def end(self) -> None:
        """Write the page."""
        about = self._about
        page = build_text_page(
            self._texts,
            about.cell,
            about.layers,
            about.layers.index(about.best),
            about.window,
            UNIT,
            about.emotions,
            [about.detection[layer] for layer in about.layers],
            about.spread_LW,
        )
        write_text(self._file, page)
