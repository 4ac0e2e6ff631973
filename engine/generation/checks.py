"""What a text by itself is checked for: pure functions of the text, its emotion and thresholds.

Written for English. Checks on replies (how many stories, cut off by the engine) are in
`engine.generation.replies`, near-duplicates in `engine.generation.duplicates`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from analysis.words import (
    LOOP_WORDS,
    find_inflections,
    narration,
    repeated_share,
    runs,
    words_of,
)
from manifests.schema import Checks, TextCheck

CHECKS_VERSION = 2
"""Goes up when a check comes to another verdict under the same thresholds."""

ECHO_WORDS = 8
OPENING = 240
"""Characters of narration at a text's beginning where refusals and thinking aloud show."""

_WRITES = r"(?:write|create|produce|craft|draft|generate|compose|come up with)"
_STORY = r"(?:stor(?:y|ies)|scenes?|paragraphs?|narratives?|texts?|vignettes?|descriptions?)"
_SOME = r"(?:\w+[ -]){0,4}?"

REASONING_MARKS = re.compile(
    r"</?\s*(?:think|thinking|thought|reasoning|reflection|scratchpad)\s*>|\[/?THINK\]"
    r"|<\|(?:channel|message|start_of_thought|end_of_thought|inner_prefix|inner_suffix)\|>"
    r"|<unused9[45]>|\u25c1/?think\u25b7|assistantfinal|\A\s*analysis(?=[A-Z])"
    r"|\A\s*(?:analysis|thought|thoughts|commentary|thinking process)\s*:?\s*\n",
    re.IGNORECASE,
)
REASONING_OPENING = re.compile(
    r"^\W*(?:(?:okay|ok|alright|hmm|so|well|first)\W+)*(?:"
    r"the user (?:wants|asks|is asking|asked|needs|has asked|requested|requests)"
    rf"|let(?:'s| us| me) (?:think (?:about|through)|brainstorm|{_WRITES} {_SOME}{_STORY})"
    rf"|(?:i|we)(?: need to| have to| must| should|'ll| will|'m asked to| am asked to|"
    rf" are asked to|'re asked to)(?: now)? {_WRITES} {_SOME}{_STORY})",
    re.IGNORECASE,
)
REFUSAL_ANYWHERE = re.compile(
    r"\bas an? (?:AI|artificial intelligence|large language model|language model)\b"
    r"|\bI(?:'m| am) (?:just |only )?an? (?:AI|language model|virtual assistant)\b",
    re.IGNORECASE,
)
REFUSAL_OPENING = re.compile(
    r"^[\s*_]*(?:(?:I(?:'m| am)(?: very| so| really)? sorry,?(?: but)?|I apologi[sz]e,?(?: but)?"
    r"|unfortunately,?) )?I(?:'m| am)? ?(?:can ?not|can't|won't|unable to|not able to)"
    r"(?: \w+ly)? (?:assist|comply|help (?:you )?with (?:that|this)|(?:fulfill?|continue with) "
    rf"(?:this|that|your)|(?:{_WRITES}|provide|do) (?:(?:that|this|it)(?=\W*(?:$|[.,;!]))"
    rf"|{_SOME}(?:{_STORY}|content|requests?)\b))",
    re.IGNORECASE,
)
STORY_HEADING = re.compile(
    r"^[ \t#*_>\[(\"-]*story\s*(?:no\.?|number|\#)?\s*(?P<number>\d{1,3})[ \t]*"
    r"(?P<rest>(?:[:.\-\u2013\u2014)\]*_|].*)?)$",
    re.IGNORECASE | re.MULTILINE,
)
ANYWHERE: dict[str, re.Pattern[str]] = {
    "a story marker": STORY_HEADING,
    "a heading": re.compile(
        r"^\s{0,3}#{1,6}\s.*$|^\s*(?:\*\*|__)[^*_\n]+(?:\*\*|__):?\s*$", re.MULTILINE
    ),
    "a label": re.compile(
        r"^\W*(?:title|story|topic|emotion|theme|setting|word count|prompt|paragraph)"
        r"(?:\s+\d+)?\**\s*:",
        re.IGNORECASE | re.MULTILINE,
    ),
    "a rule": re.compile(r"^\s*(?:-{3,}|_{3,}|={3,})\s*$", re.MULTILINE),
    "a note on length": re.compile(r"\bword count\b|\(\d+ words\)", re.IGNORECASE),
    "a placeholder": re.compile(
        r"\[(?:your|insert|name|character|emotion|topic)\b[^\]\n]*\]", re.I
    ),
    "a special token": re.compile(
        r"<\|[^|>\n]{1,40}\|>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>"
        r"|<\|?end\|?>"
    ),
}
"""Debris that is none wherever it stands but in a story's own speech."""
CHAT_OPENING = re.compile(
    r"\A\W*(?:(?:sure|certainly|of course|absolutely|great|okay|alright)\b[^.\n]{0,40}[.!,:]\s*)?"
    r"(?:here(?:'s| is| are)|below (?:is|are)|the following (?:is|are))\b"
    rf"[^.\n]{{0,80}}\b{_STORY}\b[^.\n]{{0,80}}(?::|\n)"
    r"|\A\W*(?:sure|certainly|of course|absolutely)(?: thing)?[!,.:]?\s*"
    r"(?:\n|here\b|below\b|I(?:'ll| will| can|'d)\b)"
    r"|\A\s*(?:assistant|model)\s*:?\s*\n",
    re.IGNORECASE,
)
CHAT_CLOSING = re.compile(
    r"\b(?:let me know (?:if|whether|what) you|I hope (?:this|these) (?:stor|scene|narrative|text"
    r"|helps|meets|fits|captures|is what)|I hope you (?:like|enjoy)(?:ed)? (?:this|the|these) stor"
    rf"|would you like (?:me to (?:{_WRITES}|continue|revise|expand|change)|another (?:one|story))"
    r"|feel free to (?:ask (?:me )?(?:for|if)|let me know)"
    rf"|this {_STORY} (?:shows|conveys|captures|illustrates|explores|demonstrates|aims|is about))",
    re.IGNORECASE,
)
_QUOTES = r"\"'\u201d\u2019\u00bb"
ENDING = re.compile(rf"(?:[.!?\u2026]|[\u2014\u2013-](?=[{_QUOTES}]))[{_QUOTES})\]*_\s]*\Z")
"""A sentence's end, or a dash that a quotation mark follows."""
OTHER_ENDING = re.compile(r"\bthe end\W*\Z|,\s*\n\s*[^\n,]{1,40}\Z", re.IGNORECASE)
"""`The End`, or a letter's signature."""


@dataclass(frozen=True)
class Source:
    """What a text is checked against.

    Attributes:
        checks: thresholds.
        emotion: the word that must not be told; None for a neutral text.
        instructions: runs of ECHO_WORDS words of the prompt's own wording, in lower case.
    """

    checks: Checks
    emotion: str | None
    instructions: frozenset[tuple[str, ...]] = field(default_factory=frozenset)


def find_flaws(text: str, source: Source) -> Iterator[tuple[TextCheck, str]]:
    """Yield (check, what was found) for every check that a text breaks, skipped ones too."""
    for name, check in _CHECKS.items():
        if found := check(text, source):
            yield name, found


def first_flaw(text: str, source: Source) -> str:
    """Return why a text is refused, as `check: what was found`, or "" if it is kept."""
    for name, found in find_flaws(text, source):
        if name not in source.checks.skip:
            return f"{name}: {found}"
    return ""


def instruction_runs(templates: Iterable[str]) -> frozenset[tuple[str, ...]]:
    """Return the runs of ECHO_WORDS words that prompt templates hold between placeholders."""
    segments = [part for template in templates for part in re.split(r"\{[^}]*\}", template)]
    return frozenset(run for part in segments for run in runs(words_of(part), ECHO_WORDS))


def _reasoning(text: str, source: Source) -> str:
    opening = narration(_plain(text))[:OPENING]
    if found := REASONING_MARKS.search(text) or REASONING_OPENING.search(opening):
        return f"thinks aloud ({_shown(found[0])})"
    return ""


def _refusal(text: str, source: Source) -> str:
    told = narration(_plain(text))
    if found := REFUSAL_OPENING.search(told[:OPENING]) or REFUSAL_ANYWHERE.search(told):
        return f"declines ({_shown(found[0])})"
    return ""


def _debris(text: str, source: Source) -> str:
    for what, pattern in ANYWHERE.items():
        if found := pattern.search(text):
            return f"{what} ({_shown(found[0])})"
    told = narration(_plain(text)).strip()
    if found := CHAT_OPENING.search(told):
        return f"a chat opening ({_shown(found[0])})"
    if found := CHAT_CLOSING.search(told.rpartition("\n")[2]):
        return f"a chat closing ({_shown(found[0])})"
    if source.instructions:
        for run in runs(words_of(text), ECHO_WORDS):
            if run in source.instructions:
                return f"the prompt's own words ({' '.join(run)})"
    return ""


def _too_short(text: str, source: Source) -> str:
    n, least = len(text.split()), source.checks.min_words
    return f"{n} words, at least {least} are asked for" if n < least else ""


def _too_long(text: str, source: Source) -> str:
    n, most = len(text.split()), source.checks.max_words
    return f"{n} words, at most {most} are asked for" if n > most else ""


def _cut_off(text: str, source: Source) -> str:
    if ENDING.search(text) or OTHER_ENDING.search(text.strip()):
        return ""
    return f"ends in the middle ({_shown(text[-30:])})"


def _repetition(text: str, source: Source) -> str:
    share = repeated_share(text)
    if share <= source.checks.max_repetition:
        return ""
    return f"{share:.2f} of its {LOOP_WORDS}-word runs stand in it before"


def _leak(text: str, source: Source) -> str:
    if source.emotion is None:
        return ""
    if source.checks.leak == "substring":
        return f"holds {source.emotion!r}" if source.emotion.lower() in text.lower() else ""
    words = words_of(text.replace("-", " "))
    for place in find_inflections(source.emotion, words):
        return f"holds {' '.join(words[place])!r} for {source.emotion!r}"
    return ""


def _plain(text: str) -> str:
    """Return a text with straight apostrophes, which most models do not write."""
    return text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "..."


_CHECKS: dict[TextCheck, Callable[[str, Source], str]] = {
    "reasoning": _reasoning,
    "refusal": _refusal,
    "debris": _debris,
    "too_short": _too_short,
    "too_long": _too_long,
    "cut_off": _cut_off,
    "repetition": _repetition,
    "leak": _leak,
}
