"""What the rows of journals hold: their keys and the types of these.

A row's checksum says that it is as it was written, not who wrote it. What reads a journal gives
`store.journal` one of these, or one that asks more, and a row that no run writes is named there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

from manifests.errors import shorten
from store.journal_lines import Row

Oddity = tuple[str, str]
"""Key of a row, and what is wrong with it."""

Odd = Callable[[Row], Oddity | None]
"""Tells what about a row is none of those that belong into a journal, None where nothing is."""

MAX_COUNT = 2**63


def any_row(row: Row) -> None:
    """Ask nothing: of rows of other settings or versions, which are counted and not used."""


def odd_reply(row: Row) -> Oddity | None:
    """Look at a row of a corpus' journal: a reply, or a text that was withdrawn."""
    # Almost every row is decided here, at a microsecond; what is left is looked at key by key.
    if (
        _REPLY_TYPES.get(tuple(row)) == tuple(map(type, row.values()))
        and row["outcome"] in OUTCOMES
        and row["reply"].isascii()
        and row["reason"].isascii()
        and 0 <= row["attempt"] < MAX_COUNT
        and 0 <= row.get("prompt_tokens", 0) < MAX_COUNT
        and 0 <= row.get("output_tokens", 0) < MAX_COUNT
    ):
        for story in row["stories"]:
            if type(story) is not str or not story.isascii():
                break
        else:
            return None
    outcome = row.get("outcome")
    if outcome == "withdrawn":
        return _odd(row, _WITHDRAWN)
    if outcome not in OUTCOMES:
        return "outcome", _unlike(f"one of {', '.join(OUTCOMES)}, withdrawn", row, "outcome")
    return _odd(row, _REPLY, _OPTIONAL)


def odd_measure(row: Row) -> Oddity | None:
    """Look at a row of a journal of steering: a text written or judged, a condition scored."""
    kind = row.get("row")
    if not isinstance(kind, str) or kind not in _MEASURES:
        return "row", _unlike(f"one of {', '.join(_MEASURES)}", row, "row")
    return _odd(row, _MEASURES[kind])


Part = tuple[Callable[[Any], bool], str]
"""Tells whether a value is right, and what would be, in words."""


def _odd(row: Row, parts: Mapping[str, Part], optional: tuple[str, ...] = ()) -> Oddity | None:
    for key, (is_right, words) in parts.items():
        if key not in row:
            if key not in optional:
                return key, f"missing; {words} belongs there"
        elif not is_right(row[key]):
            return key, _unlike(words, row, key)
    unknown = next((key for key in row if key not in parts), None)
    return None if unknown is None else (unknown, f"unknown key; known: {', '.join(parts)}")


def _unlike(words: str, row: Row, key: str) -> str:
    if key not in row:
        return f"missing; {words} belongs there"
    value = row[key]
    if isinstance(value, list | dict):  # written out, it may be deeper than Python goes
        return f"expected {words}, got another {'list' if isinstance(value, list) else 'object'}"
    return f"expected {words}, got {shorten(value)}"


def _is_text(value: Any) -> bool:
    """Tell text from other things, and from text with half a surrogate pair, which no file takes.

    It may have any length: a journal's line is in memory already.
    """
    if type(value) is not str:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_COUNT


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < MAX_COUNT)


def _is_layer(value: Any) -> bool:
    return value == -1 or _is_count(value)


def _list_of(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: type(value) is list and all(map(is_right, value))


def _is_place(value: Any) -> bool:
    return _list_of(_is_count)(value) and len(value) == 2


def _is_table(value: Any) -> bool:
    rows = _list_of(_list_of(_is_number))(value)
    return rows and len({len(numbers) for numbers in value}) == 1


def _is_condition(value: Any) -> bool:
    return type(value) is dict and _odd(value, _CONDITION) is None


_TEXT: Part = (_is_text, "text")
_COUNT: Part = (_is_count, "a whole number from 0")
_NUMBER: Part = (_is_number, "a number")

OUTCOMES = ("kept", "ahead", "refused")
_REPLY: dict[str, Part] = {
    "request": _TEXT,
    "attempt": _COUNT,
    "seed": _COUNT,
    "outcome": _TEXT,
    "reason": _TEXT,
    "checks": _TEXT,
    "stories": (_list_of(_is_text), "a list of texts"),
    "reply": _TEXT,
    "finish_reason": _TEXT,
    "prompt_tokens": _COUNT,
    "output_tokens": _COUNT,
}
_OPTIONAL = ("seed", "prompt_tokens", "output_tokens")
_WITHDRAWN: dict[str, Part] = {
    "text_id": _TEXT,
    "outcome": _TEXT,
    "reason": _TEXT,
    "overlap": _NUMBER,
    "place": (_is_place, "two whole numbers from 0"),
}
_CONDITION: dict[str, Part] = {
    "direction": _TEXT,
    "source": (_is_layer, "a layer"),
    "target": (_is_layer, "a layer"),
    "strength": _NUMBER,
}
_STEERED: Part = (_is_condition, f"an object with {', '.join(_CONDITION)}")
_MEASURES: dict[str, dict[str, Part]] = {
    "written": {
        "row": _TEXT,
        "text": _TEXT,
        "condition": _STEERED,
        "prompt": _TEXT,
        "sample": _COUNT,
        "seed": _COUNT,
        "reply": _TEXT,
        "finish_reason": _TEXT,
        "tokens": (_list_of(_is_count), "a list of token numbers"),
    },
    "scored": {
        "row": _TEXT,
        "key": _TEXT,
        "condition": _STEERED,
        "log_p": (_is_table, "lists of numbers, all of one length"),
        "preference": (
            lambda value: value is None or _list_of(_is_number)(value),
            "a list of numbers, or null",
        ),
    },
    "judged": {
        "row": _TEXT,
        "text": _TEXT,
        "nll": (lambda value: value is None or _is_number(value), "a number, or null"),
        "tokens": _COUNT,
    },
}


def _reply_types() -> dict[tuple[str, ...], tuple[type, ...]]:
    """Return the types of a reply's values by its keys, in the order in which runs write them."""
    types: dict[str, type] = dict.fromkeys(_REPLY, str)
    types |= dict.fromkeys(("attempt", *_OPTIONAL), int)
    types["stories"] = list
    found = {}
    for n in range(len(_OPTIONAL) + 1):
        for left_out in combinations(_OPTIONAL, n):
            keys = tuple(key for key in _REPLY if key not in left_out)
            found[keys] = tuple(types[key] for key in keys)
    return found


_REPLY_TYPES = _reply_types()
