from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest

from engine.generation.demand import Demand, Request
from engine.generation.prompts import writing_from_json, writing_to_json
from manifests import Writing, load_study
from store.journal import Journal, journal_rows
from tests.tiny import WORDS

MANIFEST = """\
version: 1
name: s
models: {{w: {{builtin: smollm2-135m}}}}
corpora:
  own:
    generate: {{model: w, emotions: [happy, sad, on edge, calm], topics_per_emotion: 2,
               stories_per_topic: 3, neutral: 2{extra}}}
analysis: {{contrasts: [mean-centered]}}
"""


def writing(folder: Path, extra: str = "") -> Writing:
    extra = extra if "attempts" in extra else f"{extra}, attempts: 2"
    file = folder / "m.yaml"
    file.write_text(MANIFEST.format(extra=extra))
    return load_study(file).writing["own"]


def body(key: str) -> str:
    """Return a text that passes every check and is like no other."""
    rng = random.Random(key)
    return " ".join(f"{rng.choice(WORDS)}{rng.randrange(999)}" for _ in range(50)) + "."


class Scribe:
    """Answers a demand's requests into a journal, as the engine would."""

    def __init__(self, file: Path, demand: Demand, fingerprint: str = "f"):
        self.file, self.demand = file, demand
        self.journal = Journal(file, fingerprint)

    def answer(self, request: Request, reply: str | None) -> list[Request]:
        """Journal a reply (None: one that is cut off) and return what is asked then."""
        finish = "length" if reply is None else "stop"
        verdict = self.demand.judge(request, reply or "", finish)
        row: dict[str, Any] = {
            "request": request.id,
            "attempt": request.attempt,
            "outcome": self.demand.outcome(request, verdict),
            "reason": verdict.reason,
            "checks": self.demand.checks_id,
            "stories": list(verdict.stories),
            "reply": reply or "",
            "finish_reason": finish,
        }
        return self.demand.take(row, self.journal.append(row))

    def keep(self, request: Request) -> list[Request]:
        """Answer with as many fine stories as are asked for."""
        stories = [body(f"{request.id}{request.attempt}{k}") for k in request.slots]
        reply = "\n".join(f"STORY {k}:\n{story}" for k, story in enumerate(stories, 1))
        return self.answer(request, stories[0] if len(stories) == 1 else reply)

    def withdraw(self, text_id: str, overlap: float = 1.0) -> list[Request]:
        kept = self.demand.kept(self.file)
        (index,) = [i for i in range(len(kept)) if kept.text_id(i) == text_id]
        row = {
            "text_id": text_id,
            "outcome": "withdrawn",
            "reason": f"duplicate: {overlap:.2f} of x",
            "overlap": overlap,
            "place": kept.place(index),
        }
        return self.demand.take(row, self.journal.append(row))

    def replayed(self, writing: Writing) -> tuple[Demand, list[Request]]:
        demand = Demand("own", writing)
        return demand, demand.replay(journal_rows(self.file, demand.oddity))


@pytest.fixture
def scribe(tmp_path: Path) -> Scribe:
    return Scribe(tmp_path / "journal.jsonl", Demand("own", writing(tmp_path)))


def texts(scribe: Scribe, demand: Demand | None = None) -> dict[str, str]:
    return {t.text_id: t.text for t in (demand or scribe.demand).texts(scribe.file)}


def test_demand_falls_back_to_single_stories_and_gives_up_with_a_reason(scribe: Scribe) -> None:
    demand = scribe.demand
    waiting = demand.replay([])
    assert len(waiting) == demand.n_open == 4 * 2 + 2
    assert demand.wanted == 4 * 2 * 3 + 2
    first = waiting[0]
    again = scribe.answer(first, None)
    assert [(r.id, r.attempt) for r in again] == [(first.id, 1)]
    singles = scribe.answer(again[0], None)
    assert [(r.id, r.slots) for r in singles] == [(f"{first.id}/{k}", (k,)) for k in range(3)]
    (second,) = scribe.answer(singles[1], None)
    assert scribe.answer(second, "Too short.") == []
    assert demand.given_up == {f"{first.id}/1": "too_short: 2 words, at least 40 are asked for"}
    for request in [singles[0], singles[2], *waiting[1:]]:
        assert scribe.keep(request) == []
    ids = list(texts(scribe))
    assert len(ids) == len(set(ids)) == demand.n_kept == demand.wanted - 1
    assert f"{first.id}/1" not in ids
    assert demand.n_open == 0


def test_a_replayed_journal_gives_the_same_demand(scribe: Scribe, tmp_path: Path) -> None:
    rng = random.Random(5)
    waiting = scribe.demand.replay([])
    for _ in range(40):
        request = waiting.pop(rng.randrange(len(waiting)))
        waiting += scribe.keep(request) if rng.random() < 0.4 else scribe.answer(request, None)
        kept = list(texts(scribe))
        if kept and rng.random() < 0.2:
            waiting += scribe.withdraw(rng.choice(kept))
        demand, due = scribe.replayed(writing(tmp_path))
        assert set(due) == set(waiting)
        assert demand.given_up == scribe.demand.given_up
        assert texts(scribe, demand) == texts(scribe)


@pytest.mark.parametrize("seed", range(5))
def test_asking_ahead_loses_and_doubles_nothing(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    spec = writing(tmp_path, ", attempts: 30")
    scribe = Scribe(tmp_path / "journal.jsonl", Demand("own", spec))
    waiting = scribe.demand.replay([])
    while waiting and len(texts(scribe)) < scribe.demand.wanted:
        while rng.random() < 0.7 and (ahead := scribe.demand.ahead()):
            waiting.append(ahead)
        assert len({(r.id, r.attempt) for r in waiting}) == len(waiting)
        before = texts(scribe)
        request = waiting.pop(rng.randrange(len(waiting)))
        waiting += scribe.keep(request) if rng.random() < 0.3 else scribe.answer(request, None)
        assert before.items() <= texts(scribe).items()
        demand, _ = scribe.replayed(spec)
        assert texts(scribe).items() <= texts(scribe, demand).items()
    assert scribe.demand.n_open == 0
    demand, due = scribe.replayed(spec)
    assert due == []
    assert texts(scribe, demand) == texts(scribe)
    assert len(texts(scribe)) == demand.wanted


def test_a_duplicate_is_asked_for_again_by_itself(scribe: Scribe, tmp_path: Path) -> None:
    waiting = scribe.demand.replay([])
    for request in waiting:
        scribe.keep(request)
    first = waiting[0]
    before = texts(scribe)
    (again,) = scribe.withdraw(f"{first.id}/1")
    assert (again.id, again.slots, again.attempt) == (f"{first.id}/1", (1,), 0)
    scribe.keep(again)
    after = texts(scribe)
    assert list(after) == list(before)
    assert [key for key in after if after[key] != before[key]] == [f"{first.id}/1"]
    assert scribe.withdraw(f"{first.id}/1") == []
    assert scribe.demand.given_up == {f"{first.id}/1": "duplicate: 1.00 of x"}
    demand, due = scribe.replayed(writing(tmp_path))
    assert due == []
    assert demand.given_up == scribe.demand.given_up


def test_more_attempts_keep_the_stories_of_a_fallback(scribe: Scribe, tmp_path: Path) -> None:
    first = scribe.demand.replay([])[0]
    (again,) = scribe.answer(first, None)
    singles = scribe.answer(again, None)
    scribe.keep(singles[0])
    (last,) = scribe.answer(singles[1], None)
    scribe.answer(last, None)
    patient, waiting = scribe.replayed(writing(tmp_path, ", attempts: 9"))
    assert list(texts(scribe, patient)) == [f"{first.id}/0"]
    mine = [(r.id, r.attempt) for r in waiting if r.id.startswith(first.id)]
    assert mine == [(singles[1].id, 2), (singles[2].id, 0)]
    assert patient.given_up == {}


def test_other_checks_judge_the_same_journal_again(scribe: Scribe, tmp_path: Path) -> None:
    waiting = scribe.demand.replay([])
    kept, long = waiting[0], waiting[1]
    scribe.keep(kept)
    story = body("long") + " " + body("er")
    scribe.answer(long, "\n".join(f"STORY {k}:\n{story} {body(str(k))}" for k in range(3)))
    assert scribe.demand.n_kept == 6
    strict, due = scribe.replayed(writing(tmp_path, ", checks: {max_words: 100}"))
    assert list(texts(scribe, strict)) == [f"{kept.id}/{k}" for k in range(3)]
    assert (long.id, 1) in [(r.id, r.attempt) for r in due]
    back, _ = scribe.replayed(writing(tmp_path))
    assert texts(scribe, back) == texts(scribe)


def test_a_withdrawal_outlives_a_change_of_other_checks(scribe: Scribe, tmp_path: Path) -> None:
    for request in scribe.demand.replay([]):
        scribe.keep(request)
    key = next(iter(texts(scribe)))
    first = texts(scribe)[key]
    (again,) = scribe.withdraw(key, overlap=0.7)
    scribe.keep(again)
    now = texts(scribe)
    assert now[key] != first
    for checks in ("max_words: 601", "max_overlap: 0.6", "max_overlap: 0.4"):
        demand, due = scribe.replayed(writing(tmp_path, f", checks: {{{checks}}}"))
        assert due == []
        assert texts(scribe, demand) == now
    for checks in ("max_overlap: 0.8", "skip: [duplicate]"):  # no duplicate any more, but replaced
        demand, due = scribe.replayed(writing(tmp_path, f", checks: {{{checks}}}"))
        assert due == []
        assert texts(scribe, demand) == now
    assert Demand("own", writing(tmp_path, ", checks: {skip: [leak, debris]}")).checks_id == (
        Demand("own", writing(tmp_path, ", checks: {skip: [debris, leak]}")).checks_id
    )


def test_a_relaxed_check_fills_gaps_and_replaces_nothing(scribe: Scribe, tmp_path: Path) -> None:
    waiting = scribe.demand.replay([])
    mended, missing = waiting[0], waiting[1]
    short = [" ".join(body(f"short {k}").split()[-20:]) for k in range(3)]
    reply = "\n".join(f"STORY {k}:\n{story}" for k, story in enumerate(short))
    for request in (mended, missing):
        (again,) = scribe.answer(request, reply)
        if request is mended:
            scribe.keep(again)
    before = texts(scribe)
    demand, due = scribe.replayed(writing(tmp_path, ", checks: {min_words: 10}"))
    after = texts(scribe, demand)
    assert {key: after[key] for key in before} == before
    gained = {key: text for key, text in after.items() if key not in before}
    assert gained == {f"{missing.id}/{k}": short[k] for k in range(3)}
    assert missing.id not in {request.id for request in due}


def test_the_lowest_attempt_that_passes_is_kept_whichever_comes_first(tmp_path: Path) -> None:
    patient = writing(tmp_path, ", stories_per_prompt: 1, attempts: 9")
    scribe = Scribe(tmp_path / "journal.jsonl", Demand("own", patient))
    demand = scribe.demand
    first = demand.replay([])[0]
    assert demand.ahead() is None  # nothing was refused yet
    asked = [first]
    for _ in range(3):
        asked += scribe.answer(asked[-1], None)
    while (request := demand.ahead()) is not None:
        asked.append(request)
    assert [(r.id, r.attempt) for r in asked] == [(first.id, k) for k in range(3 + 4)]
    wanted = demand.n_open
    assert scribe.keep(asked[5]) == []
    assert scribe.keep(asked[4]) == []
    assert scribe.answer(asked[6], None) == []
    assert first.id not in texts(scribe)
    replayed, _ = scribe.replayed(patient)  # killed here: attempt 3 will never come
    assert texts(scribe, replayed)[first.id] == body(f"{first.id}40")
    assert scribe.answer(asked[3], None) == []
    assert texts(scribe)[first.id] == body(f"{first.id}40")
    assert demand.n_open == wanted - 1
    replayed, due = scribe.replayed(patient)
    assert texts(scribe, replayed) == texts(scribe)
    assert first.id not in {request.id for request in due}
    scribe.withdraw(first.id)
    assert texts(scribe)[first.id] == body(f"{first.id}50")
    (again,) = scribe.withdraw(first.id)
    assert again.attempt == 7


def test_no_more_is_asked_ahead_than_attempts_are_left(tmp_path: Path) -> None:
    few = writing(tmp_path, ", stories_per_prompt: 1, attempts: 4")
    scribe = Scribe(tmp_path / "journal.jsonl", Demand("own", few))
    first = scribe.demand.replay([])[0]
    (second,) = scribe.answer(first, None)
    (third,) = scribe.answer(second, None)
    fourth = scribe.demand.ahead()
    assert fourth is not None
    assert fourth.attempt == 3
    assert scribe.demand.ahead() is None
    assert scribe.answer(fourth, None) == []
    assert scribe.demand.given_up == {}
    assert scribe.answer(third, None) == []
    assert first.id in scribe.demand.given_up


@pytest.mark.parametrize("together", [1, 2, 3])
def test_every_split_of_a_pair_gives_the_same_text_ids(tmp_path: Path, together: int) -> None:
    ids = []
    for n in (together, 3):
        demand = Demand("own", writing(tmp_path, f", stories_per_prompt: {n}"))
        scribe = Scribe(tmp_path / f"{n}{len(ids)}.jsonl", demand)
        waiting = demand.replay([])
        assert len({request.id for request in waiting}) == len(waiting)
        for request in waiting:
            scribe.keep(request)
        ids.append(list(texts(scribe)))
    assert ids[0] == ids[1]


def test_seeds_differ_between_requests_and_attempts_and_stay(tmp_path: Path) -> None:
    demand = Demand("own", writing(tmp_path))
    first, second = demand.replay([])[:2]
    again = dataclasses.replace(first, attempt=1)
    seeds = {demand.seed(first), demand.seed(second), demand.seed(again)}
    assert len(seeds) == 3
    assert Demand("own", writing(tmp_path)).seed(first) == demand.seed(first)
    assert Demand("other", writing(tmp_path)).seed(first) != demand.seed(first)


def test_prompts_carry_emotion_topic_and_number(tmp_path: Path) -> None:
    demand = Demand("own", writing(tmp_path))
    first = demand.replay([])[0]
    prompt = demand.prompt(first)
    assert first.emotion in prompt
    assert first.topic in prompt
    assert "3 different" in prompt


def test_an_emotion_called_neutral_cannot_clash_with_neutral_texts(tmp_path: Path) -> None:
    source = writing(tmp_path)
    clash = Writing(
        source.spec, ("neutral", "a/b"), source.topics, source.neutral_topics, source.prompts
    )
    scribe = Scribe(tmp_path / "journal.jsonl", Demand("own", clash))
    for request in scribe.demand.replay([]):
        scribe.keep(request)
    ids = list(texts(scribe))
    assert len(ids) == len(set(ids)) == 2 * 2 * 3 + 2


def test_writing_survives_the_way_to_a_child(tmp_path: Path) -> None:
    before = writing(tmp_path)
    assert writing_from_json(writing_to_json(before)) == before
