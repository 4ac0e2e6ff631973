"""A model's reply: how it is split into stories, and why it is kept or refused as a whole."""

from __future__ import annotations

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
        return Verdict((), "cut_off: the reply reached max_new_tokens")
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

    A short rest of a heading's line is a title and left out; a long one begins the story. A reply
    without headings is one story if one was asked for, none otherwise.
    """
    headings = list(STORY_HEADING.finditer(reply))
    if not headings:
        return [reply.strip()] if n_stories == 1 else []
    ends = [heading.start() for heading in headings[1:]] + [len(reply)]
    stories = []
    for heading, end in zip(headings, ends, strict=True):
        rest = heading["rest"].strip(" \t:.*_#-\u2013\u2014\"')]")
        body = reply[heading.end() : end].strip(" \t\n*_-#")
        if len(rest.split()) > TITLE_WORDS or not body:
            body = f"{rest}\n\n{body}".strip()
        stories.append(body.strip())
    return stories
