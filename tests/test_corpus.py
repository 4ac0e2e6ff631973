"""What a corpus' words say, against counts made by hand and by other means."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import stats

from analysis.corpus import (
    content_row,
    emotion_rows,
    moving_type_token_ratio,
    narrator,
    summary_row,
    tally_corpus,
)
from analysis.words import stem
from manifests.document import Document
from manifests.norms import Norms, read_norms
from store.corpus import Text
from tests.tiny import WORDS

GLASGOW = "glasgow"


@pytest.fixture(scope="module")
def glasgow(tmp_path_factory: pytest.TempPathFactory) -> Norms:
    folder = tmp_path_factory.mktemp("norms")
    return read_norms(GLASGOW, False, folder, Document(folder / "m.yaml", {}, {}), ())


def story(emotion: str, number: int, text: str) -> Text:
    return Text(f"{emotion}/000/{number}", "emotion", emotion, "t", number, text)


def test_counts_are_those_made_by_hand(glasgow: Norms) -> None:
    texts = [
        story("sad", 0, "The cat saw the dog."),
        story("sad", 1, "I ran. I fell. My dog barked."),
        story("calm", 0, "Rain, rain, rain."),
        Text("neutral-000", "neutral", None, "t", 0, "Four words of it."),
    ]
    row = summary_row(tally_corpus(texts, [glasgow], count_tokens=len))
    assert row["stories"] == 3
    assert (row["stories_per_emotion_min"], row["stories_per_emotion_max"]) == (1, 2)
    assert (row["words"], row["neutral_words"], row["words_per_story"]) == (5 + 7 + 3, 4, 5)
    assert row["types"] == len({*"the cat saw dog i ran fell my barked rain".split()})
    assert row["type_token_ratio"] == pytest.approx(10 / 15)
    assert row["tokens"] == sum(len(text.text) for text in texts)
    assert row["first_person_share"] == pytest.approx(1 / 3)
    assert row["third_person_share"] == 0
    assert np.isnan(row["mattr"])
    assert np.isnan(summary_row(tally_corpus(texts, [glasgow]))["tokens"])


def test_lexical_affect_leaves_out_the_emotions_own_word(glasgow: Norms) -> None:
    texts = [
        story("happy", 0, "A happy dog. Happiness! The grave and the zzz."),
        story("happy", 1, "Zzz zzz."),
        story("content", 0, "Zzz."),
    ]
    rows = emotion_rows(tally_corpus(texts, [glasgow]), glasgow).set_index("emotion")
    want = np.mean([glasgow.ratings["dog"], glasgow.ratings["grave"]], axis=0)
    assert glasgow.ratings.keys() >= {"happy", "happiness"}
    assert "the" not in glasgow.ratings
    got = rows.loc["happy", ["content_valence", "content_arousal"]].to_numpy(dtype=float)
    np.testing.assert_allclose(got, want)
    assert rows.loc["happy", "rated_words"] == pytest.approx(2 / 11)
    assert rows.loc["happy", "valence"] == glasgow.ratings["happy"][0]
    assert rows.loc["content", "valence"] == glasgow.ratings["content (happy)"][0]
    assert np.isnan(rows.loc["content", "content_valence"])


def test_content_correlation_equals_scipy(glasgow: Norms) -> None:
    rng = np.random.default_rng(0)
    emotions = ["happy", "calm", "sad", "angry", "proud", "bored", "on edge"]
    own_words = tuple(emotion[:3] for emotion in emotions)
    words = (word for word in glasgow.ratings if word.isalpha())
    rated = sorted(word for word in words if not word.startswith(own_words))
    texts = [
        story(emotion, k, " ".join(rng.choice(rated, 40))) for emotion in emotions for k in range(3)
    ]
    rows = emotion_rows(tally_corpus(texts, [glasgow]), glasgow)
    found = content_row(rows)
    for axis, name in enumerate(("valence", "arousal")):
        own = np.array([glasgow.ratings[e][axis] for e in emotions[:-1]])
        means = [
            np.mean([np.mean([glasgow.ratings[w][axis] for w in t.text.split()])
                     for t in texts if t.emotion == e])
            for e in emotions[:-1]
        ]  # fmt: skip
        want = stats.pearsonr(means, own)
        assert found[f"content_{name}_r"] == pytest.approx(want.statistic, abs=1e-6)
        assert found[f"content_{name}_p"] == pytest.approx(want.pvalue, abs=1e-6)
    assert found["n_content_emotions"] == 6
    few = content_row(rows.head(2))
    assert np.isnan(few["content_valence_r"])


@pytest.mark.parametrize(
    ("text", "person"),
    [
        ("I took my coat. It rained on me.", "first"),
        ('She laughed. "I know, I know," she said. "My turn."', "third"),
        ("“I know my way,” he said. “We do.”", "third"),
        ("I'm late, I've missed it, and he knows.", "first"),
        ("He left. She left. They sat. Her hat, his hat. I saw.", "third"),
        ("Rain fell on the roof.", "neither"),
    ],
)
def test_the_narrator_is_told_outside_speech(text: str, person: str) -> None:
    assert narrator(text) == person


def test_the_moving_ratio_equals_the_slow_one() -> None:
    rng = np.random.default_rng(1)
    words = list(rng.choice(WORDS, 250))
    slow = np.mean([len(set(words[i : i + 100])) / 100 for i in range(151)])
    assert moving_type_token_ratio(words) == pytest.approx(slow)
    assert moving_type_token_ratio(words[:99]) is None


def test_stems_do_not_depend_on_what_other_threads_stem() -> None:
    endings = ("ing", "edly", "ness", "ies", "ization")
    words = [f"{word}{ending}" for word in WORDS for ending in endings] * 4
    alone = [stem.__wrapped__(word) for word in words]
    with ThreadPoolExecutor(8) as threads:
        together = [list(threads.map(stem.__wrapped__, words)) for _ in range(5)]
    assert all(found == alone for found in together)
