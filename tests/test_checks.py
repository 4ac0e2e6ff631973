"""Checks of texts and replies, each with what breaks it and what comes close and does not."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.words import repeated_share, runs, words_of
from engine.generation.checks import (
    Source,
    find_flaws,
    first_flaw,
    instruction_runs,
)
from engine.generation.duplicates import Duplicate, jaccard, near_duplicates, shingles
from engine.generation.replies import judge, split_reply
from manifests.schema import Checks

STORY = (
    'Mara set the kettle down and looked at the clock. "You are late," she said, though nobody '
    "had come in. Rain ran along the gutter, the radio hummed, and the stairs stayed quiet. She "
    "counted her coins twice, folded the map, and put on her brother's coat before the bell rang."
)
LOOSE = Checks(min_words=1)


def flaws(text: str, emotion: str | None = "happy", checks: Checks = LOOSE) -> list[str]:
    return [name for name, _ in find_flaws(text, Source(checks, emotion))]


def test_a_sound_story_has_no_flaw() -> None:
    assert flaws(STORY, checks=Checks()) == []


@pytest.mark.parametrize(
    ("emotion", "sentence", "leaks"),
    [
        ("happy", "He was happier than before.", True),
        ("happy", "She hummed happily.", True),
        ("happy", "Happiness came late.", True),
        ("happy", "He was unhappy.", False),
        ("mad", "He made a romance of it.", False),
        ("mad", "It went madly on.", True),
        ("eager", "A meager light.", False),
        ("desperate", "He desperately ran.", True),
        ("invigorated", "The invigorating air.", True),
        ("on edge", "He sat on the edge.", False),
        ("on edge", "He was on edge.", True),
        ("self-conscious", "A self conscious bow.", True),
        ("self-conscious", "A conscious bow by himself.", False),
        ("worn out", "The shoes were worn-out.", True),
        ("grief-stricken", "The stricken ship.", False),
        ("calm", "The Calm's end.", True),
        ("sad", "The saddest of them.", True),
        ("angry", "She was angrier now.", True),
        ("sad", "The sandest of them, saddle up.", False),
        ("thankful", "Thank you.", False),
        ("playful", "The children played.", False),
        ("hopeful", "She lost hope.", False),
        ("grateful", "A cheese grater and a grate.", False),
        ("panicked", "Panic rose.", True),
        ("annoyed", "It annoys me, an annoyance.", True),
        ("safe", "Safely home, in safety.", True),
    ],
)
def test_a_leak_is_the_word_or_an_inflection(emotion: str, sentence: str, leaks: bool) -> None:
    assert ("leak" in flaws(f"{STORY} {sentence}", emotion)) is leaks


def test_the_papers_rule_is_a_substring() -> None:
    paper = Checks(leak="substring")
    assert "leak" in flaws(f"{STORY} A meager light.", "eager", paper)
    assert "leak" not in flaws(f"{STORY} The invigorating air.", "invigorated", paper)
    assert "leak" not in flaws(f"{STORY} Happy.", None, paper)


@pytest.mark.parametrize(
    ("check", "text"),
    [
        ("reasoning", f"<think>Plan.</think> {STORY}"),
        ("reasoning", f"Okay, the user wants a story. {STORY}"),
        ("reasoning", f"I need to write a story about a walk. {STORY}"),
        ("reasoning", f"<|channel|>analysis {STORY}"),
        ("reasoning", f"analysisWe need to write a story.assistantfinal{STORY}"),
        ("reasoning", f"thought\nThe user wants a story.\n{STORY}"),
        ("reasoning", f"I should write a story about a walk. {STORY}"),
        ("reasoning", f"We are asked to write three stories. {STORY}"),
        ("reasoning", f"Let's write a story. Need 100 words. {STORY}"),
        ("reasoning", f"Thinking Process:\n1. Plan. {STORY}"),
        ("reasoning", f"<|inner_prefix|>{STORY}"),
        ("refusal", "I’m sorry, but I can’t write that."),
        ("refusal", "I'm sorry, but I can't write that."),
        ("refusal", f"I cannot provide a story with this content. {STORY}"),
        ("debris", f"Here’s a short story about it:\n\n{STORY}"),
        ("debris", f"assistant\n\n{STORY}"),
        ("debris", f"{STORY}\n\nWould you like another story?"),
        ("debris", f"{STORY}\n\nThis narrative shows how she feels."),
        ("debris", f"{STORY} She met [Your Name] there."),
        ("refusal", f"I cannot help with this request. {STORY}"),
        ("refusal", f"{STORY} As an AI language model, I have no feelings."),
        ("debris", f"Here are three stories about it: {STORY}"),
        ("debris", f"Sure!\n\n{STORY}"),
        ("debris", f"**The Long Way**\n\n{STORY}"),
        ("debris", f"## Rain\n{STORY}"),
        ("debris", f"Title: Rain\n\n{STORY}"),
        ("debris", f"STORY 2:\n{STORY}"),
        ("debris", f"{STORY}\n\n---\n\n{STORY}"),
        ("debris", f"{STORY} (Word count: 60)"),
        ("debris", f"{STORY}<|im_end|>"),
        ("debris", f"{STORY}\n\nLet me know if you want another one."),
        ("cut_off", f"{STORY} And then he"),
        ("cut_off", f"{STORY} And then,"),
        ("repetition", f"{STORY} " + "He went up the stairs again. " * 8),
        ("too_short", "One two three."),
        ("too_long", STORY * 20),
    ],
)
def test_each_check_finds_what_it_is_for(check: str, text: str) -> None:
    assert check in flaws(text, checks=Checks())
    assert check not in flaws(STORY, checks=Checks())


@pytest.mark.parametrize(
    "text",
    [
        f"\"I'm sorry, but I can't write to him,\" she said. {STORY}",
        f"I cannot believe how late it is. {STORY}",
        f"I have to get home, I thought. {STORY}",
        f"Sure enough, the door was open. {STORY}",
        f"Of course he came. {STORY}",
        f"Here is where the river bends. {STORY}",
        f"The story began on a Monday. He had read 2 stories. {STORY}",
        f"{STORY} *Never again.*",
        f"{STORY} “Who is there?”",
        f'{STORY} "But you never—"',
        f"{STORY} He waited…",
        f"{STORY} He hoped this letter would reach her.",
        f"{STORY}\n\nThe title: nobody remembered it.",
        f'"I hope this works," he muttered. {STORY}',
        f'{STORY} "I hope you like them," she said.',
        f'{STORY} "Let me know if you hear from him," the nurse said.',
        f'{STORY} "Would you like me to walk you home?"',
        f'"Sure!" said Tom. {STORY}',
        f"“Of course!” Mina laughed. {STORY}",
        f"He found a slip of paper. Note: gone to the lake. {STORY}",
        f"{STORY}\n\n* * *\n\nHe left.",
        f"Here are the drafts he never sent. {STORY}",
        f"I can't help but smile at it. {STORY}",
        f"I cannot bring myself to write the date. {STORY}",
        f"I have to make it to the station. {STORY}",
        f"Let me start at the beginning. {STORY}",
        f"{STORY}\n\nThe End",
        f"{STORY}\n\nWith all my love,\nMara",
    ],
)
def test_stories_that_come_close_pass(text: str) -> None:
    assert flaws(text) == []


def test_the_prompts_own_words_are_debris() -> None:
    runs_of = instruction_runs(["Write {n} tales in which every person keeps a very old secret."])
    echo = f"{STORY} A tale in which every person keeps a very old secret."
    assert first_flaw(echo, Source(LOOSE, None, runs_of)).startswith("debris: the prompt's own")
    assert first_flaw(STORY, Source(LOOSE, None, runs_of)) == ""


def test_a_skipped_check_refuses_nothing() -> None:
    text = f"{STORY} He was happy."
    assert first_flaw(text, Source(Checks(), "happy")).startswith("leak: holds 'happy'")
    assert first_flaw(text, Source(Checks(skip=("leak",)), "happy")) == ""


def test_repetition_is_the_share_of_runs_seen_before() -> None:
    assert repeated_share("a b c d") == 0
    assert repeated_share("a b c d e f g h i j") == 0
    assert repeated_share("a b c d e a b c d e") == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    ("reply", "n", "stories"),
    [
        ("STORY 1:\nA b.\n\nSTORY 2:\nC d.", 2, ["A b.", "C d."]),
        ("**Story 1: The Lake**\n\nA b.\n\n**Story 2: Rain**\n\nC d.", 2, ["A b.", "C d."]),
        ("## Story #1\nA b.\n\n---\n\n## Story #2\nC d.\n", 2, ["A b.", "C d."]),
        ("Here they are.\n\nStory 1: A b.\nStory 2: C d.", 2, ["A b.", "C d."]),
        ("A b.\n\nC d.", 2, []),
        (" A b. \n", 1, ["A b."]),
        ("STORY 1:\nA b.", 1, ["A b."]),
        ("The story began.\nIt was a long story 2 tell.", 1,
         ["The story began.\nIt was a long story 2 tell."]),
        ("He sat.\nStory 2 was never told.\nHe left.", 1,
         ["He sat.\nStory 2 was never told.\nHe left."]),
        ('STORY 1: "You are late," she said.\n\nHe shrugged.', 1,
         ['"You are late," she said.\n\nHe shrugged.']),
        ("STORY 1: The rain had not stopped for days.\nMara sat.", 1,
         ["The rain had not stopped for days.\n\nMara sat."]),
        ("STORY 1:\n\n**The Clockmaker**\n\nA b.\n\nSTORY 2 - Rain\nC d.", 2, ["A b.", "C d."]),
        ("STORY 1:\n## The Lake\nA b.\n***\nSTORY 2:\nTitle: Rain\nC d.\n---", 2,
         ["A b.", "C d."]),
        ("**Story 1:** The rain fell on and on.\n**Story 2:** It rained.", 2,
         ["The rain fell on and on.", "It rained."]),
        ("*Thud.* She turned. *Not again.*", 1, ["*Thud.* She turned. *Not again.*"]),
        ("**The Long Way**\n\nA b.", 1, ["A b."]),
    ],
)  # fmt: skip
def test_replies_are_split_at_headings(reply: str, n: int, stories: list[str]) -> None:
    assert split_reply(reply, n) == stories


def test_a_long_line_behind_a_heading_begins_the_story() -> None:
    reply = "Story 1: " + "word " * 20 + "\nMore of it."
    assert split_reply(reply, 1)[0].startswith("word word")
    assert split_reply(reply, 1)[0].endswith("More of it.")


def test_a_refusal_names_its_check_and_story() -> None:
    source = Source(Checks(), "happy")
    reply = f"STORY 1:\n{STORY}\nSTORY 2:\n{STORY}"
    assert judge(reply, "stop", 2, source).stories == (STORY, STORY)
    assert judge(reply, "stop", 2, source).reason == ""
    assert judge(reply, "length", 2, source).reason.startswith("truncated")
    assert judge(reply, "abort", 2, source).reason.startswith("unfinished")
    assert judge(reply, "stop", 3, source).reason == "story_count: 2, asked for 3"
    short = judge(f"STORY 1:\n{STORY}\nSTORY 2:\nA b.", "stop", 2, source)
    assert short.reason == "too_short: 2 words, at least 40 are asked for (story 2)"
    thought = judge(f"<think>x</think>\n{reply}", "stop", 2, source)
    assert thought.reason == "reasoning: thinks aloud (<think>)"


def noisy(text: str, rng: random.Random, share: float) -> str:
    return " ".join(f"x{rng.random()}" if rng.random() < share else w for w in text.split())


def brute_force(texts: list[str], threshold: float) -> list[tuple[int, int]]:
    found: dict[int, int] = {}
    sets = [{tuple(run) for run in runs(words_of(t), 3)} for t in texts]
    for later in range(len(texts)):
        for earlier in range(later):
            a, b = sets[earlier], sets[later]
            if earlier not in found and len(a & b) / len(a | b) >= threshold:
                found[later] = earlier
                break
    return list(found.items())


def test_near_duplicates_are_those_of_a_search_over_all_pairs() -> None:
    rng = random.Random(3)
    words = [f"w{i}" for i in range(300)]
    texts = [" ".join(rng.choices(words, k=80)) for _ in range(150)]
    texts += [noisy(rng.choice(texts), rng, rng.choice([0.02, 0.08, 0.3])) for _ in range(150)]
    rng.shuffle(texts)
    found = near_duplicates(texts, 0.5)
    want = brute_force(texts, 0.5)
    assert len(want) > 50
    # Bands miss a pair just above the threshold with probability .004.
    assert len(set(want) ^ {(d.position, d.earlier) for d in found}) <= 1
    for d in found:
        assert d.overlap == jaccard(shingles(texts[d.position]), shingles(texts[d.earlier]))


def test_the_later_of_two_copies_is_the_duplicate_and_many_copies_are_quick() -> None:
    assert near_duplicates(["a b c d", "e f g h", "A b, c d!"], 0.9) == [Duplicate(2, 0, 1.0)]
    assert near_duplicates([], 0.5) == []
    copies = near_duplicates(["one two three four five"] * 3000, 0.5)
    assert {d.earlier for d in copies} == {0}
    assert len(copies) == 2999


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=400))
def test_any_text_is_judged_without_an_error(text: str) -> None:
    for n in (1, 3):
        verdict = judge(text, "stop", n, Source(Checks(), "on edge"))
        assert bool(verdict.reason) != bool(verdict.stories)
