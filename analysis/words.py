"""Words of an English text: how it is cut into them, which inflect one another, who speaks."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from functools import lru_cache

import snowballstemmer

APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"
WORD = re.compile(rf"[^\W_]+(?:[{APOSTROPHES}][^\W_]+)*")

LOOP_WORDS = 5
"""Length of a run of words that a text should not hold twice."""

_POSSESSIVE = re.compile(rf"[{APOSTROPHES}]s?$")
_SPEECH = re.compile(
    r"\"[^\"\n]*(?:\"|$)|\u201c[^\u201d\n]*(?:\u201d|$)"
    r"|(?<!\w)\u2018[^\u2018\n]*?\u2019(?!\w)|(?<![\w*])\*[^*\n]+\*(?!\*)",
    re.MULTILINE,
)
_stemmer = snowballstemmer.stemmer("english")
_stemming = threading.Lock()  # it keeps the word that it works on; corpora are described at once


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    return [word.lower() for word in WORD.findall(text)]


def runs(words: list[str], n: int) -> Iterator[tuple[str, ...]]:
    """Yield every run of n consecutive words."""
    return zip(*(words[i:] for i in range(n)), strict=False)


def repeated_share(text: str) -> float:
    """Return the share of a text's 5-word runs that stand in it before, 0 below 5 words."""
    words = words_of(text)
    total = len(words) - LOOP_WORDS + 1
    return 1 - len(set(runs(words, LOOP_WORDS))) / total if total > 0 else 0.0


@lru_cache(maxsize=1 << 17)
def stem(word: str) -> str:
    """Return a lower-case word's Snowball stem; a possessive goes, `-ily` counts as `-y`."""
    word = _POSSESSIVE.sub("", word)
    if len(word) > 5 and word.endswith("ily"):
        word = word[:-3] + "y"
    if word.endswith(("icked", "icking")):  # panicked, of panic
        word = word.replace("icked", "iced").replace("icking", "icing")
    with _stemming:
        return str(_stemmer.stemWord(word))


def inflects(word: str, target: str) -> bool:
    """Tell whether a word is a target or an inflection of it, both in lower case.

    Words of one stem count (`annoys` for annoyed, `happiness` for happy), and comparatives; the
    root of a longer target does not (`thank` for thankful), nor do irregular forms (`shook` for
    shaken).
    """
    if word == target:
        return True
    if word.endswith(("er", "est")) and target in _positives(word):
        return True
    if stem(word) != stem(target):
        return False
    return target.endswith(("ed", "ing")) or word.startswith(target[:-1])


def find_inflections(phrase: str, words: list[str]) -> Iterator[slice]:
    """Yield where a phrase, or an inflection of it, stands among words (hyphens count as spaces).

    Args:
        phrase: one or several words.
        words: as `words_of` gives them for a text whose hyphens are spaces.
    """
    wanted = words_of(phrase.replace("-", " "))
    n = len(wanted)
    for at in range(len(words) - n + 1 if n else 0):
        if all(inflects(words[at + k], target) for k, target in enumerate(wanted)):
            yield slice(at, at + n)


def narration(text: str) -> str:
    """Return a text without quoted speech and without what stands in italics (`*thoughts*`)."""
    return _SPEECH.sub(" ", text)


def _positives(word: str) -> set[str]:
    """Return what a comparative or superlative may be of."""
    root = word.removesuffix("er").removesuffix("est")
    found = {root, f"{root}e"}
    if root.endswith("i"):
        found.add(f"{root[:-1]}y")
    if len(root) > 2 and root[-1] == root[-2]:
        found.add(root[:-1])
    return found
