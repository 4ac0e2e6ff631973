"""Colours to tell apart: on white, in the dark, by the colour blind and, in a row, in grey.

Distances are Euclidean in OKLab (Ottosson 2020), whose lightness runs from 0 (black) to 1 (white),
between colours as seen by most people and by those without red or green cones (Machado, Oliveira &
Fernandes 2009).
"""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float64
from matplotlib import colors
from numpy import ndarray

RGB = tuple[float, float, float]

FIRST = ("#0072B2", "#E69F00", "#000000", "#CC79A7", "#009E73", "#56B4E9", "#D55E00")
"""Okabe & Ito's colours without yellow, which is too pale on white, in an order that keeps the
first ones apart in grey."""

CONTRAST = 2.0
"""Least contrast with white (WCAG 2)."""

N_COLOURS = 128
"""Colours before the first one comes again."""

RECENT = 7
"""From so many colours before it a colour differs most, since one panel has eight at most."""

RECENT_WEIGHT, GREY_WEIGHT = 0.5, 1.5
"""What a difference in colour, and in lightness, from those counts beside one from all colours."""

LIGHTNESS = {False: (0.38, 0.83), True: (0.62, 0.95)}
"""Of the darkest and of the lightest colour, on white and in the dark look."""

DARK_FIRST = ("#5AA9DC", "#F0B440", "#F4F4F4", "#E5A5C8", "#37C79B", "#9AD7FA", "#FF8A4C")
"""FIRST in the dark look."""

HUES = np.pi / 3
"""How far a colour in the dark look may be from its own hue."""

TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
NO_RED = np.array(
    [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ]
)
NO_GREEN = np.array(
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
)
SIGHTS = (np.eye(3), NO_RED, NO_GREEN)


def palette_colour(i: int) -> RGB:
    """Return the i-th colour: FIRST, then the one farthest from all before it."""
    red, green, blue = _palette()[i % N_COLOURS]
    return float(red), float(green), float(blue)


def dark_colour(i: int) -> RGB:
    """Return the i-th colour in the dark look: near the hue of the other, and light."""
    red, green, blue = _dark_palette()[i % N_COLOURS]
    return float(red), float(green), float(blue)


def contrast(a: RGB, b: RGB) -> float:
    """Return the contrast of two colours (WCAG 2), from 1 to 21."""
    weight_X = np.array([0.2126, 0.7152, 0.0722])
    low, high = sorted(float(weight_X @ _linear(np.array(c))) + 0.05 for c in (a, b))
    return high / low


def difference(a: RGB, b: RGB) -> float:
    """Return the least distance of two colours by any of SIGHTS, in OKLab."""
    return float(_apart(_seen(np.array([a])), _seen(np.array(b)))[0])


@functools.cache
def _palette() -> Float64[ndarray, "colour 3"]:
    """Return N_COLOURS sRGB colours, each as far as can be from those before it."""
    rgb_KX = _candidates(*LIGHTNESS[False])
    pale_K = np.array([contrast((r, g, b), (1, 1, 1)) < CONTRAST for r, g, b in rgb_KX])
    return _farthest(FIRST, rgb_KX[~pale_K], np.full(N_COLOURS, np.nan))


@functools.cache
def _dark_palette() -> Float64[ndarray, "colour 3"]:
    """Return N_COLOURS sRGB colours like those of the palette, for a dark ground."""
    hue_N = _hue(_seen(_palette())[0])
    return _farthest(DARK_FIRST, _candidates(*LIGHTNESS[True]), hue_N)


def _farthest(
    first: tuple[str, ...],
    rgb_KX: Float64[ndarray, "candidate 3"],
    hue_N: Float64[ndarray, " colour"],
) -> Float64[ndarray, "colour 3"]:
    """Return the first colours, then candidates, each as far as can be from all before it.

    Args:
        first: colours to begin with.
        rgb_KX: colours to choose from.
        hue_N: where each one's hue is to lie, NaN where it may lie anywhere.
    """
    chosen = [np.array(colors.to_rgb(colour)) for colour in first]
    seen_SKX = _seen(rgb_KX)
    light_K, hue_K = seen_SKX[0, :, 0], _hue(seen_SKX[0])
    apart = [_apart(seen_SKX, _seen(colour)) for colour in chosen]
    nearest_K = np.min(apart, axis=0)
    for hue in hue_N[len(first) :]:
        grey_K = np.min([abs(light_K - _seen(c)[0, 0]) for c in chosen[-RECENT:]], axis=0)
        score_K = np.minimum(nearest_K, GREY_WEIGHT * grey_K + 0.02)
        score_K = np.minimum(score_K, RECENT_WEIGHT * np.min(apart[-RECENT:], axis=0))
        turned_K = np.abs((hue_K - hue + np.pi) % (2 * np.pi) - np.pi)
        best = int(np.where(turned_K > HUES, -1, score_K).argmax())
        chosen.append(rgb_KX[best])
        apart.append(_apart(seen_SKX, seen_SKX[:, best]))
        nearest_K = np.minimum(nearest_K, apart[-1])
    return np.array(chosen)


def _candidates(darkest: float, lightest: float) -> Float64[ndarray, "candidate 3"]:
    """Return sRGB colours in even steps of lightness, hue and colourfulness."""
    light, hue, chroma = np.meshgrid(
        np.linspace(darkest, lightest, 14),
        np.linspace(0, 2 * np.pi, 48, endpoint=False),
        np.linspace(0.05, 0.25, 6),
        indexing="ij",
    )
    lab = np.stack([light, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)
    rgb_KX = _rgb(lab.reshape(-1, 3))
    inside: Float64[ndarray, "candidate 3"] = rgb_KX[((rgb_KX >= 0) & (rgb_KX <= 1)).all(axis=1)]
    return inside


def _hue(lab_KX: ndarray) -> ndarray:
    """Return the angle of OKLab coordinates."""
    return np.arctan2(lab_KX[..., 2], lab_KX[..., 1])


def _apart(
    seen_SKX: Float64[ndarray, "sight candidate 3"], seen_SX: Float64[ndarray, "sight 3"]
) -> Float64[ndarray, " candidate"]:
    """Return the least distance of each colour from one, by any of SIGHTS."""
    far_SK = np.linalg.norm(seen_SKX - seen_SX[:, None], axis=-1)
    least: Float64[ndarray, " candidate"] = far_SK.min(axis=0)
    return least


def _seen(rgb_KX: ndarray) -> ndarray:
    """Return OKLab coordinates of what is seen of sRGB colours, SIGHTS along the first axis."""
    linear_KX = _linear(rgb_KX)
    lms = np.stack([np.clip(linear_KX @ sight_XX.T, 0, 1) @ TO_LMS.T for sight_XX in SIGHTS])
    seen: ndarray = np.cbrt(lms) @ TO_LAB.T
    return seen


def _rgb(lab_KX: Float64[ndarray, "colour 3"]) -> Float64[ndarray, "colour 3"]:
    """Return the sRGB colours of OKLab coordinates; outside of 0 to 1 a screen has none."""
    linear_KX = (lab_KX @ np.linalg.inv(TO_LAB).T) ** 3 @ np.linalg.inv(TO_LMS).T
    steep_KX = 1.055 * np.maximum(linear_KX, 0.0031308) ** (1 / 2.4) - 0.055
    rgb_KX: Float64[ndarray, "colour 3"] = np.where(
        linear_KX <= 0.0031308, 12.92 * linear_KX, steep_KX
    )
    return rgb_KX


def _linear(rgb_KX: ndarray) -> ndarray:
    """Return linear light of sRGB colours."""
    return np.where(rgb_KX <= 0.04045, rgb_KX / 12.92, ((rgb_KX + 0.055) / 1.055) ** 2.4)
