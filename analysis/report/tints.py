"""How tokens are coloured, on a page and on a terminal."""

from __future__ import annotations

COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999")
"""Of the leading emotions, Okabe & Ito's palette, which is safe for the colour blind."""

FAINT, STRONG = 2.0, 3.0
"""From where on a token is coloured faintly, and strongly: in standard deviations of the corpus'
tokens, smoothed as what is coloured is (`analysis.token_spread`)."""

WHITE = {False: 0.6, True: 0.3}
"""Share of white in a faint colour and in a strong one, so that black is legible on either."""


def tint(colour: str, strong: bool) -> tuple[int, int, int]:
    """Return red, green and blue, 0 to 255, of a token's ground."""
    white = WHITE[strong]
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    mixed = (round(part * (1 - white) + 255 * white) for part in (red, green, blue))
    return next(mixed), next(mixed), next(mixed)
