"""One HTML file that shows texts coloured by emotion, token by token, at several layers.

Texts and names are untrusted and shown as `analysis.report.safe` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy import ndarray
from plotly.offline import get_plotlyjs

from analysis.report.payload import packed
from analysis.report.safe import policy, visible, visible_in
from analysis.report.tints import COLOURS, FAINT, STRONG, tint
from analysis.token_spread import WIDTHS

HERE = Path(__file__).parent
PARTS = ("text.html", "page.css", "text.css", "text.js")

N_HIGHEST = 5
"""Emotions that are named for a token."""


@dataclass(frozen=True)
class ScoredText:
    """A text with the scores of its tokens.

    Attributes:
        name: its file.
        tokens: what each token adds to the text, so that they are the text when joined; "" for a
            special one.
        score: float32 [token, layer, emotion]; NaN for tokens that do not count.
    """

    name: str
    tokens: list[str]
    score: Float32[ndarray, "token layer emotion"]


def text_payload(
    text: ScoredText, leading: Sequence[Sequence[int]], mean_LE: Float64[ndarray, "layer emotion"]
) -> dict[str, Any]:
    """Return what the page's script shows of a text; scores in hundredths, None where missing.

    Args:
        text: with its scores.
        leading: rows of the leading emotions of each layer, at most as many as there are colours.
        mean_LE: mean scores.
    """
    by_layer = []
    for layer, rows in enumerate(leading):
        score_TE = text.score[:, layer]
        n = min(N_HIGHEST, score_TE.shape[1])
        highest_TK = np.argsort(-score_TE, axis=1, kind="stable")[:, :n]
        by_layer.append(
            {
                "leading": list(rows),
                "curves": [_hundredths(score_TE[:, row]) for row in rows],
                "highest": highest_TK.tolist(),
                "scores": [
                    _hundredths(values)
                    for values in np.take_along_axis(score_TE, highest_TK, axis=1)
                ],
                "mean": _hundredths(mean_LE[layer]),
            }
        )
    return {"name": text.name, "tokens": text.tokens, "layers": by_layer}


def build_text_page(
    texts: Sequence[Mapping[str, Any]],
    cell: str,
    layers: Sequence[int],
    best: int,
    window: str,
    unit: str,
    emotions: Sequence[str],
    said: Sequence[str],
    spread_LW: Float64[ndarray, "layer width"],
) -> str:
    """Return the page; the same texts give the same page.

    Args:
        texts: as `text_payload` returns them.
        cell: `model@corpus` whose vectors are used.
        layers: blocks, in the order of the scores.
        best: number of the layer that is shown first, counted over `layers`.
        window: token window that is scored.
        unit: what a score means.
        emotions: names, in the order of the scores.
        said: what is known of each layer's vectors as detectors.
        spread_LW: how far tokens vary, for each width of smoothing; NaN where not known.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["visible"] = visible
    page, *styles, script = ((HERE / part).read_text() for part in PARTS)
    scripts = [get_plotlyjs(), script]
    data = {
        "texts": list(texts),
        "layers": list(layers),
        "best": best,
        "emotions": list(emotions),
        "said": list(said),
        "colours": list(COLOURS),
        "tints": [[list(tint(c, strong)) for strong in (False, True)] for c in COLOURS],
        "sds": [FAINT, STRONG],
        "widths": list(WIDTHS),
        "steps": [
            [_hundredths(np.array([FAINT, STRONG]) * spread) for spread in spread_W]
            for spread_W in spread_LW
        ],
    }
    return environment.from_string(page).render(
        title=", ".join(str(text["name"]) for text in texts[:3]) + (", …" if texts[3:] else ""),
        policy=policy(scripts),
        css="".join(styles),
        scripts=scripts,
        cell=cell,
        window=window,
        unit=unit,
        data=packed(visible_in(data)),
    )


def _hundredths(values: ndarray) -> list[int | None]:
    return [round(100 * float(v)) if np.isfinite(v) else None for v in values]
