"""Words of an English text: how it is cut into them, and which belong to one stem."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

import snowballstemmer

APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"
WORD = re.compile(rf"[^\W_]+(?:[{APOSTROPHES}][^\W_]+)*")

_POSSESSIVE = re.compile(rf"[{APOSTROPHES}]s?$")
_stemmer = snowballstemmer.stemmer("english")


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    return [word.lower() for word in WORD.findall(text)]


def runs(words: list[str], n: int) -> Iterator[tuple[str, ...]]:
    """Yield every run of n consecutive words."""
    return zip(*(words[i:] for i in range(n)), strict=False)


@lru_cache(maxsize=1 << 17)
def stem(word: str) -> str:
    """Return a lower-case word's Snowball stem, without a possessive; `-ily` counts as `-y`."""
    word = _POSSESSIVE.sub("", word)
    if len(word) > 5 and word.endswith("ily"):
        word = word[:-3] + "y"
    return str(_stemmer.stemWord(word))


def find_stems(phrase: str, words: list[str]) -> Iterator[slice]:
    """Yield where a phrase, or an inflection of it, stands among words (hyphens count as spaces).

    Args:
        phrase: one or several words.
        words: as `words_of` gives them for a text whose hyphens are spaces.
    """
    wanted = [stem(word) for word in words_of(phrase.replace("-", " "))]
    n = len(wanted)
    for at in range(len(words) - n + 1 if n else 0):
        if stem(words[at]) == wanted[0] and [stem(w) for w in words[at : at + n]] == wanted:
            yield slice(at, at + n)
