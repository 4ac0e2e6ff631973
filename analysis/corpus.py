"""What a corpus' words say before any model reads it: size, variety, person, lexical affect.

The lexical valence and arousal of an emotion's stories, correlated with the emotion's own rating,
is what the words alone carry: a reader's geometry has to be seen against it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from analysis.geometry import correlate
from analysis.words import APOSTROPHES, find_inflections, narration, words_of
from manifests.norms import Norms
from store.corpus import Text

MATTR_WORDS = 100
"""Window of the moving-average type-token ratio, in words."""

Person = Literal["first", "third", "neither"]

FIRST = frozenset({"i", "me", "my", "mine", "myself", "we", "us", "our", "ours", "ourselves"})
THIRD = frozenset(
    {"he", "him", "his", "himself", "she", "her", "hers", "herself"}
    | {"they", "them", "their", "theirs", "themselves"}
)


@dataclass
class Lexicon:
    """Running sums of one set of norms over an emotion's stories."""

    words: int = 0
    valence: list[float] = field(default_factory=list)
    arousal: list[float] = field(default_factory=list)


@dataclass
class EmotionTally:
    """What is counted for one emotion."""

    stories: int = 0
    words: int = 0
    lexicon: dict[str, Lexicon] = field(default_factory=dict)


@dataclass
class CorpusTally:
    """What is counted over a corpus, one text at a time.

    Attributes:
        emotions: by emotion, in order of first appearance.
        story_words: words of each story.
        neutral: number of neutral texts.
        neutral_words: words of all of them.
        types: distinct words of the stories.
        mattr: moving-average type-token ratio of each story with at least MATTR_WORDS words.
        person: stories told in each person.
        tokens: tokens of all texts; None without a tokenizer.
    """

    emotions: dict[str, EmotionTally] = field(default_factory=dict)
    story_words: list[int] = field(default_factory=list)
    neutral: int = 0
    neutral_words: int = 0
    types: set[str] = field(default_factory=set)
    mattr: list[float] = field(default_factory=list)
    person: Counter[Person] = field(default_factory=Counter)
    tokens: int | None = None


def tally_corpus(
    texts: Iterable[Text],
    norms: Iterable[Norms],
    count_tokens: Callable[[str], int] | None = None,
) -> CorpusTally:
    """Count over all texts of a corpus, reading each once."""
    norms = list(norms)
    tally = CorpusTally(tokens=None if count_tokens is None else 0)
    for text in texts:
        words = words_of(text.text)
        if count_tokens is not None and tally.tokens is not None:
            tally.tokens += count_tokens(text.text)
        if text.emotion is None:
            tally.neutral += 1
            tally.neutral_words += len(words)
            continue
        emotion = tally.emotions.setdefault(text.emotion, EmotionTally())
        emotion.stories += 1
        emotion.words += len(words)
        tally.story_words.append(len(words))
        tally.types.update(words)
        tally.person[narrator(text.text)] += 1
        if (ratio := moving_type_token_ratio(words)) is not None:
            tally.mattr.append(ratio)
        for rated in norms:
            lexicon = emotion.lexicon.setdefault(rated.name, Lexicon())
            found = story_ratings(text.text, text.emotion, rated)
            lexicon.words += found.words
            if found.words:
                lexicon.valence.append(found.mean[0])
                lexicon.arousal.append(found.mean[1])
    return tally


def summary_row(tally: CorpusTally) -> dict[str, float]:
    """Return size, variety and person of a corpus; NaN for what cannot be had.

    words, types and type_token_ratio are of the stories; type_token_ratio falls with a corpus'
    length, mattr (mean over stories of Covington & McFall's 2010 moving average over 100 words)
    does not. tokens are of all texts. Shares are of the stories.
    """
    per_emotion = [emotion.stories for emotion in tally.emotions.values()]
    words, n = sum(tally.story_words), len(tally.story_words)
    return {
        "n_emotions": len(per_emotion),
        "stories": n,
        "stories_per_emotion_min": min(per_emotion, default=0),
        "stories_per_emotion_max": max(per_emotion, default=0),
        "neutral": tally.neutral,
        "words": words,
        "words_per_story": float(np.median(tally.story_words)) if n else np.nan,
        "words_per_story_min": min(tally.story_words, default=0),
        "words_per_story_max": max(tally.story_words, default=0),
        "neutral_words": tally.neutral_words,
        "tokens": np.nan if tally.tokens is None else tally.tokens,
        "types": len(tally.types),
        "type_token_ratio": len(tally.types) / words if words else np.nan,
        "mattr": float(np.mean(tally.mattr)) if tally.mattr else np.nan,
        "first_person_share": tally.person["first"] / n if n else np.nan,
        "third_person_share": tally.person["third"] / n if n else np.nan,
    }


def emotion_rows(tally: CorpusTally, norms: Norms) -> pd.DataFrame:
    """Return one row for each emotion: its own ratings and its stories' mean lexical ones.

    A story's lexical valence is the mean rating of its rated words, the emotion's word and its
    inflections left out; an emotion's is the mean over its stories that have a rated word, NaN
    where there is none. `rated_words` is the share of words that the norms rate.
    """
    ratings = norms.rate(list(tally.emotions))
    rows = []
    for (name, emotion), (valence, arousal) in zip(tally.emotions.items(), ratings, strict=True):
        lexicon = emotion.lexicon[norms.name]
        rows.append(
            {
                "emotion": name,
                "norms": norms.name,
                "stories": emotion.stories,
                "words": emotion.words,
                "rated_words": lexicon.words / emotion.words if emotion.words else np.nan,
                "valence": float(valence),
                "arousal": float(arousal),
                "content_valence": float(np.mean(lexicon.valence)) if lexicon.valence else np.nan,
                "content_arousal": float(np.mean(lexicon.arousal)) if lexicon.arousal else np.nan,
            }
        )
    return pd.DataFrame(rows)


def content_row(rows: pd.DataFrame) -> dict[str, float]:
    """Correlate the lexical affect of stories with their emotion's own rating, over emotions.

    Returns:
        Pearson r and two-sided p for valence and arousal over the n_content_emotions that have
        both, NaN below three or where one side is constant; and the share of words that are rated.
    """
    words = rows["words"].sum()
    rated = (rows["rated_words"] * rows["words"]).sum()
    found: dict[str, float] = {"rated_word_share": float(rated / words) if words else np.nan}
    for axis in ("valence", "arousal"):
        result = correlate(rows[f"content_{axis}"].to_numpy(), rows[axis].to_numpy())
        found["n_content_emotions"] = result.n
        found |= {f"content_{axis}_r": result.r, f"content_{axis}_p": result.p}
    return found


def narrator(text: str) -> Person:
    """Tell who narrates a story: whether first- or third-person pronouns prevail outside speech.

    A first-person narrator speaks of others too, so `first` needs as many first-person pronouns as
    a quarter of the third-person ones, and at least two.
    """
    counts = Counter(words_of(narration(text)))
    first = sum(n for word, n in counts.items() if _pronoun(word) in FIRST)
    third = sum(n for word, n in counts.items() if _pronoun(word) in THIRD)
    if first >= 2 and first >= third / 4:
        return "first"
    return "third" if third else "neither"


def moving_type_token_ratio(words: list[str]) -> float | None:
    """Return the mean share of distinct words over all windows of 100 words, None below that."""
    if len(words) < MATTR_WORDS:
        return None
    counts = Counter(words[:MATTR_WORDS])
    distinct = [len(counts)]
    for out, new in zip(words, words[MATTR_WORDS:], strict=False):
        counts[new] += 1
        counts[out] -= 1
        if not counts[out]:
            del counts[out]
        distinct.append(len(counts))
    return float(np.mean(distinct)) / MATTR_WORDS


@dataclass(frozen=True)
class StoryRatings:
    """Ratings of a story's words.

    Attributes:
        words: rated words.
        mean: their mean valence and arousal, NaN without any.
    """

    words: int
    mean: tuple[float, float]


def story_ratings(text: str, emotion: str, norms: Norms) -> StoryRatings:
    """Return the ratings of a story's words, the emotion's word and its inflections left out."""
    words = words_of(text.replace("-", " "))
    own = {
        at for place in find_inflections(emotion, words) for at in range(place.start, place.stop)
    }
    rated = [
        norms.ratings[word]
        for at, word in enumerate(words)
        if at not in own and word in norms.ratings
    ]
    if not rated:
        return StoryRatings(0, (float("nan"), float("nan")))
    valence, arousal = np.mean(rated, axis=0)
    return StoryRatings(len(rated), (float(valence), float(arousal)))


def _pronoun(word: str) -> str:
    """Return a word without what is contracted to it (`he's`, `I'm`)."""
    for apostrophe in APOSTROPHES:
        word = word.partition(apostrophe)[0]
    return word
