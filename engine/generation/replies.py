"""A model's reply: how it is split into stories, and why it is kept or refused as a whole."""

from __future__ import annotations

import re
from dataclasses import dataclass

from engine.generation.checks import REASONING_MARKS, STORY_HEADING, Source, first_flaw

TITLE_WORDS = 12
"""Text behind a heading on its own line counts as a title up to this many words."""


@dataclass(frozen=True)
class Verdict:
    """Stories of a kept reply, or why it is refused (`check: figures`)."""

    stories: tuple[str, ...]
    reason: str


def judge(reply: str, finish_reason: str, n_stories: int, source: Source) -> Verdict:
    """Split a reply and check every part; one story that fails refuses the reply.

    Args:
        reply: what the model wrote.
        finish_reason: why the engine ended it, in vLLM's words.
        n_stories: number of stories asked for.
        source: what each story is checked against.
    """
    if finish_reason == "length":
        return Verdict((), "truncated: the reply reached max_new_tokens")
    if finish_reason != "stop":
        return Verdict((), f"unfinished: the engine ended it with {finish_reason!r}")
    if "reasoning" not in source.checks.skip and (found := REASONING_MARKS.search(reply)):
        return Verdict((), f"reasoning: thinks aloud ({found[0]})")
    stories = split_reply(reply, n_stories)
    if len(stories) != n_stories:
        return Verdict((), f"story_count: {len(stories)}, asked for {n_stories}")
    for number, story in enumerate(stories, start=1):
        if reason := first_flaw(story, source):
            where = f" (story {number})" if n_stories > 1 else ""
            return Verdict((), reason + where)
    return Verdict(tuple(stories), "")


def split_reply(reply: str, n_stories: int) -> list[str]:
    """Split a reply into stories at headings such as `STORY 2:` on lines of their own.

    What follows on a heading's line is a title, and left out, if it is short and no sentence; else
    it begins the story. So is a line at a story's beginning that is all heading. A reply without
    headings is one story if one was asked for, none otherwise.
    """
    headings = list(STORY_HEADING.finditer(reply))
    if not headings:
        return [_story("", reply)] if n_stories == 1 else []
    ends = [heading.start() for heading in headings[1:]] + [len(reply)]
    return [
        _story(heading["rest"], reply[heading.end() : end])
        for heading, end in zip(headings, ends, strict=True)
    ]


def _story(rest: str, body: str) -> str:
    """Return a story from the rest of its heading's line and the lines below."""
    body = _RULES.sub("", body.strip()).strip()
    first = rest.lstrip(_SEPARATORS).rstrip()
    if first and body and _is_title(first.rstrip("*_# ")):
        first = ""
    if not first and (line := _TITLE_LINE.match(body)) and body[line.end() :].strip():
        body = body[line.end() :].strip()
    return f"{first}\n\n{body}".strip()


def _is_title(text: str) -> bool:
    return len(text.split()) <= TITLE_WORDS and not text.endswith(_SENTENCE_ENDS)


_SEPARATORS = " \t:.-\u2013\u2014)]*_|"
_SENTENCE_ENDS = (".", "!", "?", ",", ";", "\u2026", '"', "\u201d", "'", "\u2019")
_RULES = re.compile(r"\A(?:\s*(?:[-*_=]\s?){3,}\n)+|(?:\n\s*(?:[-*_=]\s?){3,})+\Z")
_TITLE_LINE = re.compile(
    r"\A(?:#{1,6}[ \t]+(?P<a>[^\n]{1,80})|(?:\*\*|__)(?P<b>[^*_\n]{1,80})(?:\*\*|__):?"
    r"|\W*title\W*:(?P<c>[^\n]{1,80}))[ \t]*\n",
    re.IGNORECASE,
)
