"""Pictures that a page carries: fewer bytes of each, and as many as there is room for."""

from __future__ import annotations

import io

from PIL import Image

N_COLOURS = 128
"""Colours of a picture's palette. Fewer pixels would save nothing: smoothing makes more colours."""


def smaller(png: bytes) -> bytes:
    """Return a PNG with a palette of N_COLOURS; the same bytes give the same bytes."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    out = io.BytesIO()
    image.quantize(N_COLOURS, dither=Image.Dither.NONE).save(out, "png", optimize=True)
    return out.getvalue()


def fitting(pictures: dict[str, bytes], limit: int) -> tuple[dict[str, bytes], list[str]]:
    """Return pictures up to the first that does not fit, made smaller, and the others' names.

    Args:
        pictures: PNG by name.
        limit: bytes of all together.
    """
    names = [*pictures]
    taken: dict[str, bytes] = {}
    for at, name in enumerate(names):
        picture = smaller(pictures[name])
        limit -= len(picture)
        if limit < 0:
            return taken, names[at:]
        taken[name] = picture
    return taken, []
