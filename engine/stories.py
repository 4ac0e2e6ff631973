"""From prompts to checked stories: what is asked, how a reply is split, why one is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from manifests.resolve import Writing
from store.corpus import Text
from store.fingerprint import fingerprint

HEADING = re.compile(
    r"^[\s#*_>\[(\"-]*story\s*(?:no\.?|number|\#)?\s*(?P<number>\d{1,3})\b(?P<rest>.*)$",
    re.IGNORECASE | re.MULTILINE,
)
TITLE_WORDS = 12
"""Text behind a heading on its own line counts as a title up to this many words."""


@dataclass(frozen=True)
class Request:
    """One thing to ask a model for.

    Attributes:
        id: `emotion/topic number` for all stories of a pair in one reply, with `/story number` or
            `/first-last` behind it for some of them, `neutral-number` for a neutral text.
        kind: what it is for.
        emotion: the emotion, "" for a neutral text.
        topic: the topic.
        slots: numbers of the stories asked for.
        attempt: how often it was refused before.
    """

    id: str
    kind: Literal["emotion", "neutral"]
    emotion: str
    topic: str
    slots: tuple[int, ...]
    attempt: int = 0


class Demand:
    """What a corpus still needs, given the journal's rows so far.

    A request refused `attempts` times falls back to one request for each story; a single story
    refused as often is given up and listed in `given_up`.
    """

    def __init__(self, corpus: str, writing: Writing):
        self.corpus, self.writing = corpus, writing
        self.kept: dict[tuple[str, int], str] = {}
        self.given_up: dict[str, str] = {}
        self._roots = list(self._initial())
        self.wanted = sum(len(request.slots) for request in self._roots)

    def replay(self, rows: Iterable[dict[str, Any]]) -> list[Request]:
        """Take in a journal and return what is still to be asked, in corpus order."""
        refusals: dict[str, list[str]] = {}
        kept: dict[str, dict[str, Any]] = {}
        for row in rows:
            if row["outcome"] == "kept":
                kept.setdefault(row["request"], row)
            else:
                refusals.setdefault(row["request"], []).append(row["reason"])
        asked = kept.keys() | refusals.keys()
        waiting: list[Request] = []
        stack = list(reversed(self._roots))
        while stack:
            request = stack.pop()
            refused = refusals.get(request.id, [])
            singles = self._singles(request)
            if request.id in kept:
                self.keep(request, kept[request.id]["stories"])
            elif any(single.id in asked for single in singles):
                stack += reversed(singles)  # it fell back once; more attempts do not undo that
            elif len(refused) < self.writing.spec.attempts:
                waiting.append(replace(request, attempt=len(refused)))
            else:
                stack += reversed(self._fall_back(request, refused[-1]))
        return waiting

    def keep(self, request: Request, stories: list[str]) -> None:
        """Take in a kept reply."""
        for slot, story in zip(request.slots, stories, strict=True):
            self.kept.setdefault((_pair_id(request), slot), story)

    def refuse(self, request: Request, reason: str) -> list[Request]:
        """Take in a refused reply and return what to ask instead, nothing if it is given up."""
        if request.attempt + 1 < self.writing.spec.attempts:
            return [replace(request, attempt=request.attempt + 1)]
        return self._fall_back(request, reason)

    def texts(self) -> list[Text]:
        """Return the corpus in order, without what was given up."""
        texts = []
        for request in self._roots:
            for slot in request.slots:
                pair = _pair_id(request)
                body = self.kept.get((pair, slot))
                if body is None:
                    continue
                neutral = request.kind == "neutral"
                text_id = pair if neutral else f"{pair}/{slot}"
                emotion = None if neutral else request.emotion
                texts.append(Text(text_id, request.kind, emotion, request.topic, slot, body))
        return texts

    def seed(self, request: Request) -> int:
        """Return a request's sampling seed, from the manifest's seed, corpus, id and attempt."""
        parts = [self.writing.spec.seed, self.corpus, request.id, request.attempt]
        return int(fingerprint(parts)[:8], 16) >> 1

    def prompt(self, request: Request) -> str:
        """Return the text of a request."""
        prompts = self.writing.prompts
        if request.kind == "neutral":
            style = self.writing.spec.neutral_style
            return str(getattr(prompts, f"neutral_{style}")).format(topic=request.topic)
        template = prompts.stories if len(request.slots) > 1 else prompts.story
        return template.format(
            n_stories=len(request.slots), emotion=request.emotion, topic=request.topic
        )

    def _initial(self) -> Iterator[Request]:
        spec = self.writing.spec
        n, together = spec.stories_per_topic, spec.stories_per_prompt or spec.stories_per_topic
        for pair in self.writing.pairs():
            for first in range(0, n, together):
                slots = tuple(range(first, min(first + together, n)))
                part = "" if len(slots) == n else f"/{slots[0]}"
                part += f"-{slots[-1]}" if part and len(slots) > 1 else ""
                identity = f"{_escaped(pair.emotion)}/{pair.topic_index:03d}{part}"
                yield Request(identity, "emotion", pair.emotion, pair.topic, slots)
        for index, topic in enumerate(self.writing.neutral_topics[: spec.neutral]):
            yield Request(f"neutral-{index:03d}", "neutral", "", topic, (0,))

    def _fall_back(self, request: Request, reason: str) -> list[Request]:
        if len(request.slots) == 1:
            self.given_up[request.id] = reason
            return []
        return self._singles(request)

    def _singles(self, request: Request) -> list[Request]:
        """Return the requests for each story by itself, none for what is one already."""
        if len(request.slots) == 1:
            return []
        return [
            replace(request, id=f"{_pair_id(request)}/{slot}", slots=(slot,), attempt=0)
            for slot in request.slots
        ]


def split_reply(reply: str, n_stories: int) -> list[str]:
    """Split a reply into stories at headings such as `STORY 2:` on lines of their own.

    A short rest of a heading's line is a title and left out; a long one begins the story. A reply
    without headings is one story if one was asked for, none otherwise.
    """
    headings = list(HEADING.finditer(reply))
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


def check_reply(stories: list[str], request: Request, finish_reason: str, min_words: int) -> str:
    """Return why a reply is refused, as `check: figures`, or "" if it is kept."""
    if finish_reason == "length":
        return "cut_off: the reply reached max_new_tokens"
    if finish_reason != "stop":
        return f"unfinished: the engine ended it with {finish_reason!r}"
    if len(stories) != len(request.slots):
        return f"story_count: {len(stories)}, asked for {len(request.slots)}"
    for number, story in enumerate(stories, start=1):
        if (words := len(story.split())) < min_words:
            return (
                f"too_short: story {number} has {words} words, at least {min_words} are asked for"
            )
    return ""


def _pair_id(request: Request) -> str:
    """Return the part of a request's id that its stories share, the whole id of a neutral text."""
    return "/".join(request.id.split("/")[:2])


def _escaped(emotion: str) -> str:
    """Keep slashes in a user's emotion words out of request ids."""
    return emotion.replace("%", "%25").replace("/", "%2F")
