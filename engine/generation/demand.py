"""What a corpus still needs: decided from the rows of its journal alone, live and after a restart.

The journal holds what the model said; which of it is the corpus follows from the checks. A row
judged under other checks is judged again, so a changed threshold throws no reply away: what was
accepted and still passes stays, and what was refused and now passes fills what is missing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, overload

from engine.generation.checks import CHECKS_VERSION, Source, instruction_runs
from engine.generation.replies import Verdict, judge
from manifests.resolve import Writing
from store.corpus import Text
from store.fingerprint import fingerprint
from store.journal import row_at
from store.journal_shapes import Oddity, odd_reply

Row = dict[str, Any]
Place = tuple[int, int]
"""Where a kept text stands: offset of its row in the journal, number within the row."""

Outcome = Literal["kept", "ahead", "refused"]
"""What becomes of a reply: `ahead` passes, but is needed only if those asked before it fail."""


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
        attempt: 0 for the first time it is asked, and one more each time.
    """

    id: str
    kind: Literal["emotion", "neutral"]
    emotion: str
    topic: str
    slots: tuple[int, ...]
    attempt: int = 0


class Demand:
    """What a corpus still needs, given the journal's rows so far.

    A request for several stories that is refused `attempts` times falls back to one request for
    each; a single story refused as often is given up and listed in `given_up`. A text withdrawn
    as a duplicate counts as one refusal of its story, and its place is left for good.

    While seats are free, a request is asked some attempts `ahead`. The lowest attempt that passes
    is kept, whichever comes first, so that short replies, which come sooner, are not favoured.
    """

    def __init__(self, corpus: str, writing: Writing):
        self.corpus, self.writing = corpus, writing
        self.given_up: dict[str, str] = {}
        self.checks_id = fingerprint(checks_settings(writing))[:16]
        self._roots = {request.id: request for request in self._initial()}
        self._root_of = {
            text_id(request, slot): request
            for request in self._roots.values()
            for slot in request.slots
        }
        self._places: dict[str, Place] = {}
        self._earlier: dict[str, list[Place]] = {}
        self._spares: dict[str, list[tuple[bool, int, Place]]] = {}
        self._next: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._reason: dict[str, str] = {}
        self._in_flight: defaultdict[str, set[int]] = defaultdict(set)
        self._instructions = instruction_runs(vars(writing.prompts).values())

    @property
    def duplicates_from(self) -> float | None:
        """Similarity from which a text is a duplicate, None where that is not checked."""
        checks = self.writing.spec.checks
        return None if "duplicate" in checks.skip else checks.max_overlap

    @property
    def wanted(self) -> int:
        """Texts in the finished corpus."""
        return len(self._root_of)

    @property
    def n_kept(self) -> int:
        """Texts kept so far."""
        return len(self._places)

    @property
    def n_open(self) -> int:
        """Requests that are on their way and whose texts are missing."""
        return len(self._in_flight)

    def every_prompt(self) -> list[Request]:
        """Return a request for every prompt that may come to be asked, fallbacks too."""
        roots = list(self._roots.values())
        return roots + [self._single(root, slot) for root in roots for slot in root.slots[:1]]

    def replay(self, rows: Iterable[tuple[int, Row]]) -> list[Request]:
        """Take in a journal, as (offset, row), and return what is to be asked, in corpus order.

        Its rows are sound: read with `oddity`.
        """
        for offset, row in rows:
            self._apply(row, offset)
        for key in self._spares:
            self._fill(key)
        return [due for root in self._roots.values() for due in self._due(root)]

    def oddity(self, row: Row) -> Oddity | None:
        """Return what about a row of a journal of these settings no run writes, or None."""
        if (odd := odd_reply(row)) is not None:
            return odd
        if row["outcome"] == "withdrawn":
            known = row["text_id"] in self._root_of
            return None if known else ("text_id", f"no text of {self.corpus}")
        root = self._roots.get(row["request"])
        if root is None and row["request"] not in self._root_of:
            return "request", f"nothing that is asked for {self.corpus}"
        n_stories = 1 if root is None else len(root.slots)
        if row["stories"] and len(row["stories"]) != n_stories:
            return "stories", f"{len(row['stories'])}, where {n_stories} are asked for"
        return None

    def take(self, row: Row, offset: int) -> list[Request]:
        """Take in a row just written and return what is to be asked because of it."""
        root = self._apply(row, offset)
        if "request" in row:
            self._settle(self.request(row["request"]))
        return self._due(root)

    def ahead(self) -> Request | None:
        """Return the next attempt of a request that is on its way, or None.

        A request has at most one attempt more on its way than it was refused: what was refused
        often will probably need many more, and at most half of all attempts are in vain.
        """
        spec, free = self.writing.spec, []
        for identity, attempts in self._in_flight.items():
            refused = self._refused[identity]
            if len(attempts) <= refused and refused + len(attempts) < spec.attempts:
                free.append((len(attempts) / (1 + refused), identity))
        return self._send(self.request(min(free)[1])) if free else None

    def outcome(self, request: Request, verdict: Verdict) -> Outcome:
        """Return what becomes of a reply that has just come."""
        if verdict.reason:
            return "refused"
        earlier = any(a < request.attempt for a in self._in_flight.get(request.id, ()))
        return "ahead" if earlier or not self._missing(request) else "kept"

    def judge(self, request: Request, reply: str, finish_reason: str) -> Verdict:
        """Split and check a reply."""
        emotion = request.emotion if request.kind == "emotion" else None
        source = Source(self.writing.spec.checks, emotion, self._instructions)
        return judge(reply, finish_reason, len(request.slots), source)

    def texts(self, journal: Path) -> Iterator[Text]:
        """Yield the kept texts in corpus order, read from the journal one at a time."""
        with journal.open("rb") as stream:
            for key, (offset, index) in self._ordered():
                root = self._root_of[key]
                body = self.verdict(row_at(stream, offset)).stories[index]
                slot = 0 if root.kind == "neutral" else int(key.rpartition("/")[2])
                emotion = None if root.kind == "neutral" else root.emotion
                yield Text(key, root.kind, emotion, root.topic, slot, body)

    def kept(self, journal: Path) -> KeptTexts:
        """Return the kept texts in corpus order as a sequence that reads from the journal."""
        return KeptTexts(self, journal, list(self._ordered()))

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

    def _apply(self, row: Row, offset: int) -> Request:
        """Take in a row and return the root request that it belongs to."""
        if row["outcome"] == "withdrawn":
            root = self._root_of[row["text_id"]]
            if self.duplicates_from is not None and row["overlap"] >= self.duplicates_from:
                self._withdraw(row["text_id"], (row["place"][0], row["place"][1]))
                single = root.id if len(root.slots) == 1 else row["text_id"]
                self._refuse(single, row["reason"])
            return root
        request = self.request(row["request"])
        self._next[request.id] = max(self._next[request.id], row["attempt"] + 1)
        self._landed(request, row["attempt"])
        verdict = self.verdict(row)
        if verdict.reason:
            self._refuse(request.id, verdict.reason)
        for index, slot in enumerate(request.slots if verdict.stories else ()):
            key, place = text_id(request, slot), (offset, index)
            if row["outcome"] == "kept":
                if (before := self._places.get(key)) is not None:
                    self._earlier.setdefault(key, []).append(before)
                self._places[key] = place
            else:  # one that came ahead goes before one that was refused when it came
                order = (row["outcome"] == "refused", row["attempt"], place)
                self._spares.setdefault(key, []).append(order)
        return self._root_of[text_id(request, request.slots[0])]

    def _landed(self, request: Request, attempt: int) -> None:
        """Note that an attempt is no longer on its way."""
        if request.id in self._in_flight:
            self._in_flight[request.id].discard(attempt)
            if not self._in_flight[request.id]:
                del self._in_flight[request.id]

    def _settle(self, request: Request) -> None:
        """Put what came ahead in its place if nothing before it is on its way."""
        on_the_way = min(self._in_flight.get(request.id, ()), default=None)
        for key in self._missing(request):
            refused, attempt, place = min(self._spares.get(key) or [(True, 0, (0, 0))])
            if not refused and (on_the_way is None or attempt < on_the_way):
                self._places[key] = place
                self._spares[key].remove((refused, attempt, place))
        if not self._missing(request):  # what is still on its way is not waited for
            self._in_flight.pop(request.id, None)

    def _missing(self, request: Request) -> list[str]:
        keys = [text_id(request, slot) for slot in request.slots]
        return [key for key in keys if key not in self._places]

    def _withdraw(self, key: str, place: Place) -> None:
        """Take a text out; an earlier one of the same request that passes takes its place."""
        if self._places.get(key) == place:
            del self._places[key]
        self._earlier[key] = [other for other in self._earlier.get(key, []) if other != place]
        self._spares[key] = [other for other in self._spares.get(key, []) if other[2] != place]
        if key not in self._places and self._earlier[key]:
            self._places[key] = self._earlier[key].pop()
        self._fill(key)

    def _fill(self, key: str) -> None:
        """Give a missing text a reply that came ahead, or was refused and passes now."""
        if key not in self._places and self._spares.get(key):
            spare = min(self._spares[key])
            self._spares[key].remove(spare)
            self._places[key] = spare[2]

    def _refuse(self, request: str, reason: str) -> None:
        self._refused[request] += 1
        self._reason[request] = reason

    def verdict(self, row: Row) -> Verdict:
        """Return what the checks of today say of a reply in the journal."""
        if row["checks"] == self.checks_id:
            return Verdict(tuple(row["stories"]), row["reason"])
        return self.judge(self.request(row["request"]), row["reply"], row["finish_reason"])

    def request(self, identity: str) -> Request:
        """Return a request by id: all stories asked for at once, or one of them."""
        if (root := self._roots.get(identity)) is not None:
            return root
        return self._single(self._root_of[identity], int(identity.rpartition("/")[2]))

    @staticmethod
    def _single(root: Request, slot: int) -> Request:
        """Return the request for one story of a root, the root itself if it is one story."""
        if len(root.slots) == 1:
            return root
        return replace(root, id=text_id(root, slot), slots=(slot,))

    def _due(self, root: Request) -> list[Request]:
        """Return what is to be asked now for a root request, and note that it is on its way."""
        keys = {slot: text_id(root, slot) for slot in root.slots}
        missing = [slot for slot, key in keys.items() if key not in self._places]
        if not missing or root.id in self._in_flight:
            return []
        if len(root.slots) == 1 or (
            len(missing) == len(keys)
            and self._refused[root.id] < self.writing.spec.attempts
            and not any(self._next[key] or self._refused[key] for key in keys.values())
        ):
            candidates = [root]
        else:  # it fell back: what a story by itself was asked stands, though `attempts` be raised
            candidates = [self._single(root, slot) for slot in missing]
        return [ask for request in candidates if (ask := self._ask(request)) is not None]

    def _ask(self, request: Request) -> Request | None:
        if request.id in self._in_flight:
            return None
        if self._refused[request.id] >= self.writing.spec.attempts:
            self.given_up[request.id] = self._reason[request.id]
            return None
        return self._send(request)

    def _send(self, request: Request) -> Request:
        """Return a request with its next attempt, noted as on its way."""
        attempt = self._next[request.id]
        self._next[request.id] += 1
        self._in_flight[request.id].add(attempt)
        return replace(request, attempt=attempt)

    def _ordered(self) -> Iterator[tuple[str, Place]]:
        return ((key, self._places[key]) for key in self._root_of if key in self._places)


class KeptTexts(Sequence[str]):
    """The texts that a demand has kept, in corpus order, each read from the journal when asked."""

    def __init__(self, demand: Demand, journal: Path, places: list[tuple[str, Place]]):
        self._demand, self._places = demand, places
        self._stream = journal.open("rb")

    def text_id(self, index: int) -> str:
        """Return a text's id."""
        return self._places[index][0]

    def place(self, index: int) -> Place:
        """Return where a text stands in the journal."""
        return self._places[index][1]

    def close(self) -> None:
        """Close the journal."""
        self._stream.close()

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        offset, number = self._places[index][1]
        return self._demand.verdict(row_at(self._stream, offset)).stories[number]


def checks_settings(writing: Writing) -> dict[str, Any]:
    """Return what decides which replies are kept, for fingerprints."""
    settings = writing.spec.checks.model_dump(mode="json")
    return {**settings, "skip": sorted(settings["skip"]), "version": CHECKS_VERSION}


def text_id(request: Request, slot: int) -> str:
    """Return the id of one text that a request asks for."""
    if request.kind == "neutral":
        return request.id
    return "/".join([*request.id.split("/")[:2], str(slot)])


def _escaped(emotion: str) -> str:
    """Keep slashes in a user's emotion words out of request ids."""
    return emotion.replace("%", "%25").replace("/", "%2F")
