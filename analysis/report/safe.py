"""What keeps untrusted text harmless on a page: shown as it is, run as nothing, asked of nobody."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
import sys
import unicodedata
from collections.abc import Iterable
from typing import Any

HIDDEN = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")
"""Unicode categories shown by their code: control and format characters (marks of direction, spaces
without a width), private ones, and separators of lines."""

FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
"""Characters that look like nothing in categories that do not."""


def visible(text: object) -> str:
    """Return text with characters that hide or turn the reading direction shown by their code."""
    given = str(text).replace("\r\n", "\n")
    return _hidden().sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", given)


@functools.lru_cache(maxsize=4096)
def is_hidden(character: str) -> bool:
    """Tell whether a character hides or turns the reading direction; tab and newline do not."""
    if character in "\t\n":
        return False
    return unicodedata.category(character) in HIDDEN or character in FILLERS


@functools.cache
def _hidden() -> re.Pattern[str]:
    """Return a pattern for one character that is not seen; tab and newline are."""
    numbers = [i for i in range(sys.maxunicode + 1) if is_hidden.__wrapped__(chr(i))]
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return re.compile("[" + "".join(f"\\U{a:08x}-\\U{b:08x}" for a, b in spans) + "]")


def policy(scripts: Iterable[str]) -> str:
    """Return a content security policy: these scripts, no request, nothing else."""
    digests = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    ]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def visible_in(value: Any) -> Any:
    """Return nested lists and dictionaries with all text made visible."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(key): visible_in(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [visible_in(item) for item in value]
    return value
