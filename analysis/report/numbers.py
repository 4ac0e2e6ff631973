"""How numbers stand on the page and in the sentences: one form for all of them."""

from __future__ import annotations

import math
import re

MISSING = "\N{EN DASH}"


def decimal(value: float, digits: int = 2, sign: bool = False) -> str:
    """Return a number without the zero before its point: .74, -.05, 1.00; a dash for none."""
    if not math.isfinite(value):
        return MISSING
    return re.sub(r"^([+-]?)0\.", r"\1.", f"{value:{'+' if sign else ''}.{digits}f}")


def p_value(p: float) -> str:
    """Return `= .012`, `< .001` or `= 1`; `not known` for none."""
    if not math.isfinite(p):
        return "not known"
    if p >= 0.9995:
        return "= 1"
    return "< .001" if p < 0.001 else f"= {decimal(p, 3)}"


def percent(share: float, digits: int = 0) -> str:
    """Return a share as per cent: `16 %`."""
    return MISSING if not math.isfinite(share) else f"{100 * share:.{digits}f} %"


def interval(low: float, high: float) -> str:
    """Return `[-.39, .96]`."""
    return f"[{decimal(low)}, {decimal(high)}]"


def listed(names: list[str], most: int = 4) -> str:
    """Return `a, b and c`, or `a, b, c and 22 more` where there are more than `most`."""
    shown = names if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
