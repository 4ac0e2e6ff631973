from __future__ import annotations

from pathlib import Path

import pytest

from engine.stories import Demand, Request, check_reply, split_reply
from engine.writing import writing_from_json, writing_to_json
from manifests import Writing, load_study

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


@pytest.mark.parametrize(
    ("reply", "n", "stories"),
    [
        ("STORY 1:\nA b.\n\nSTORY 2:\nC d.", 2, ["A b.", "C d."]),
        ("**Story 1: The Lake**\n\nA b.\n\n**Story 2: Rain**\n\nC d.", 2, ["A b.", "C d."]),
        ("## Story #1\nA b.\n\n---\n\n## Story #2\nC d.\n", 2, ["A b.", "C d."]),
        ("Here they are.\n\nStory 1: A b.\nStory 2: C d.", 2, ["A b", "C d"]),
        ("A b.\n\nC d.", 2, []),
        (" A b. \n", 1, ["A b."]),
        ("STORY 1:\nA b.", 1, ["A b."]),
        ("The story began.\nIt was a long story 2 tell.", 1,
         ["The story began.\nIt was a long story 2 tell."]),
    ],
)  # fmt: skip
def test_replies_are_split_at_headings(reply: str, n: int, stories: list[str]) -> None:
    assert [s.rstrip(".") for s in split_reply(reply, n)] == [s.rstrip(".") for s in stories]


def test_a_long_line_behind_a_heading_begins_the_story() -> None:
    reply = "Story 1: " + "word " * 20 + "\nMore of it."
    assert split_reply(reply, 1)[0].startswith("word word")
    assert split_reply(reply, 1)[0].endswith("More of it.")


def test_a_refusal_names_its_check() -> None:
    request = Request("happy/000", "emotion", "happy", "t", (0, 1))
    story = "word " * 50
    assert check_reply([story, story], request, "stop", 40) == ""
    assert check_reply([story, story], request, "length", 40).startswith("cut_off")
    assert check_reply([story, story], request, "abort", 40).startswith("unfinished")
    assert check_reply([story], request, "stop", 40) == "story_count: 1, asked for 2"
    assert check_reply([story, "a b"], request, "stop", 40).startswith("too_short: story 2 has 2")


def row(request: Request, stories: list[str] | None) -> dict[str, object]:
    return {
        "request": request.id,
        "outcome": "kept" if stories else "refused",
        "reason": "" if stories else "story_count: 0, asked for 3",
        "stories": stories or [],
    }


def test_demand_falls_back_to_single_stories_and_gives_up_with_a_reason(tmp_path: Path) -> None:
    demand = Demand("own", writing(tmp_path))
    waiting = demand.replay([])
    assert len(waiting) == 4 * 2 + 2
    assert demand.wanted == 4 * 2 * 3 + 2
    first = waiting[0]
    again = demand.refuse(first, "r")
    assert [(r.id, r.attempt) for r in again] == [(first.id, 1)]
    singles = demand.refuse(again[0], "r")
    assert [(r.id, r.slots) for r in singles] == [(f"{first.id}/{k}", (k,)) for k in range(3)]
    assert demand.refuse(demand.refuse(singles[1], "r")[0], "too_short: x") == []
    assert demand.given_up == {f"{first.id}/1": "too_short: x"}
    for single in (singles[0], singles[2]):
        demand.keep(single, [f"text of {single.id}"])
    for request in waiting[1:]:
        demand.keep(request, [f"text {k} of {request.id}" for k in request.slots])
    ids = [text.text_id for text in demand.texts()]
    assert len(ids) == len(set(ids)) == demand.wanted - 1
    assert f"{first.id}/1" not in ids


def test_a_replayed_journal_gives_the_same_demand(tmp_path: Path) -> None:
    live = Demand("own", writing(tmp_path))
    rows = []
    waiting = live.replay([])
    for number in range(14):
        request = waiting.pop(0)
        if number % 3 == 0:
            waiting += live.refuse(request, "story_count: 0, asked for 3")
            rows.append(row(request, None))
        else:
            stories = [f"{request.id} {k}" for k in request.slots]
            live.keep(request, stories)
            rows.append(row(request, stories))
    replayed = Demand("own", writing(tmp_path))
    assert set(replayed.replay(rows)) == set(waiting)
    assert replayed.kept == live.kept
    assert replayed.given_up == live.given_up
    assert replayed.texts() == live.texts()


def test_more_attempts_keep_the_stories_of_a_fallback(tmp_path: Path) -> None:
    impatient = Demand("own", writing(tmp_path))
    first = impatient.replay([])[0]
    again = impatient.refuse(first, "r")[0]
    singles = impatient.refuse(again, "r")
    rows = [row(first, None), row(again, None), row(singles[0], ["kept"])]
    rows += [row(singles[1], None), row(singles[1], None)]
    patient = Demand("own", writing(tmp_path, ", attempts: 9"))
    waiting = patient.replay(rows)
    assert [text.text for text in patient.texts()] == ["kept"]
    mine = [(r.id, r.attempt) for r in waiting if r.id.startswith(first.id)]
    assert mine == [(singles[1].id, 2), (singles[2].id, 0)]
    assert patient.given_up == {}


@pytest.mark.parametrize("together", [1, 2, 3])
def test_every_split_of_a_pair_gives_the_same_text_ids(tmp_path: Path, together: int) -> None:
    demand = Demand("own", writing(tmp_path, f", stories_per_prompt: {together}"))
    waiting = demand.replay([])
    assert len({request.id for request in waiting}) == len(waiting)
    for request in waiting:
        demand.keep(request, [f"{request.emotion} {k}" for k in request.slots])
    want = Demand("own", writing(tmp_path))
    for request in want.replay([]):
        want.keep(request, [f"{request.emotion} {k}" for k in request.slots])
    assert demand.texts() == want.texts()


def test_seeds_differ_between_requests_and_attempts_and_stay(tmp_path: Path) -> None:
    demand = Demand("own", writing(tmp_path))
    first, second = demand.replay([])[:2]
    again = demand.refuse(first, "r")[0]
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
    demand = Demand("own", clash)
    waiting = demand.replay([])
    for request in waiting:
        demand.keep(request, ["text"] * len(request.slots))
    ids = [text.text_id for text in demand.texts()]
    assert len(ids) == len(set(ids)) == 2 * 2 * 3 + 2


def test_writing_survives_the_way_to_a_child(tmp_path: Path) -> None:
    before = writing(tmp_path)
    assert writing_from_json(writing_to_json(before)) == before
