"""Where the variance of story vectors is: between emotions, between topics, or neither.

In the paper's design topics are not crossed with emotions: each emotion is written on three of a
hundred topics, drawn for it, so that the sums of squares of emotions and of topics overlap. What
is identified is the variance of emotions beyond topics and of topics beyond emotions; the
components below (Henderson 1953, method 3) take the overlap into account, given that effects are
drawn at random and add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float64, Int
from numpy import ndarray
from scipy.sparse import csr_array

SMALLEST_EIGENVALUE = 1e-9
"""Eigenvalues below this share of the largest count as zero."""

MAX_TOPICS = 1000
"""Topics up to which they are told from pairs: beyond, they are titles rather than topics."""


@dataclass(frozen=True)
class Design:
    """Which emotion and topic each text is under; a pair is one emotion on one topic.

    Attributes:
        pair_N: pair of each text, -1 for a neutral one.
        emotion_P: emotion of each pair.
        topic_P: topic of each pair.
        n_emotions: emotions that are numbered.
        n_topics: topics that are numbered.
    """

    pair_N: Int[ndarray, " text"]
    emotion_P: Int[ndarray, " pair"]
    topic_P: Int[ndarray, " pair"]
    n_emotions: int
    n_topics: int

    @property
    def shares_topics(self) -> bool:
        """Tell whether emotions share topics, and not more topics than are told from pairs."""
        return self.n_topics < len(self.topic_P) and self.n_topics <= MAX_TOPICS


@dataclass(frozen=True)
class VarianceShares:
    """Shares of the story vectors' total variance, summed over dimensions.

    Attributes:
        n_stories: stories with a vector.
        n_topics: their topics.
        n_pairs: their pairs of emotion and topic.
        emotion: component of emotions, NaN where each has one topic and they differ, or so few
            topics are shared that what a pair has of its own cannot be told.
        topic: of topics, NaN where they cannot be told from emotions or pairs.
        pair: of what an emotion and a topic have beyond both: interaction, and the reply in which
            several stories were written together; of topics too where `topic` is NaN.
        rest: of stories of one pair, NaN where every pair has one story (then it is in `pair`).
        emotion_ss: sum of squares of emotions, whatever their topics, over the total.
        topic_ss: of topics beyond emotions, NaN where `topic` is; with emotion_ss, pair_ss and
            rest_ss it adds up to 1.
        pair_ss: of pairs beyond emotions and topics.
        rest_ss: of stories within pairs.
        emotion_beyond_topic_ss: of emotions beyond topics, NaN where `topic` is.

    Components are ratios of unbiased estimates and may fall below 0. Those that are identified add
    up to 1, less what `emotion` and `topic` hold together where `emotion` is NaN. Sums of squares
    grow with the number of groups: noise alone gives emotions (emotions - 1) / (stories - 1).
    """

    n_stories: int
    n_topics: int
    n_pairs: int
    emotion: float
    topic: float
    pair: float
    rest: float
    emotion_ss: float
    topic_ss: float
    pair_ss: float
    rest_ss: float
    emotion_beyond_topic_ss: float


SHARES = tuple(field.name for field in fields(VarianceShares))


def story_design(text_id: Sequence[str], emotion: Sequence[str], emotions: Sequence[str]) -> Design:
    """Return the design of a corpus from its text ids, `emotion/topic number/story number`.

    Args:
        text_id: of each text.
        emotion: of each text, "" for a neutral one.
        emotions: emotions in the wanted order.
    """
    row_of = {name: row for row, name in enumerate(emotions)}
    pairs: dict[tuple[int, str], int] = {}
    topics: dict[str, int] = {}
    pair_N = np.full(len(text_id), -1)
    for at, (key, name) in enumerate(zip(text_id, emotion, strict=True)):
        if name == "":
            continue
        topic = key.rsplit("/", 2)[-2]
        topics.setdefault(topic, len(topics))
        pair_N[at] = pairs.setdefault((row_of[name], topic), len(pairs))
    emotion_P = np.array([row for row, _ in pairs], dtype=int)
    topic_P = np.array([topics[topic] for _, topic in pairs], dtype=int)
    return Design(pair_N, emotion_P, topic_P, len(emotions), len(topics))


class VarianceSums:
    """Sums over the stories of one window and layer that the shares follow from.

    Texts come in blocks, each text once. What is held is a vector for each topic, and one for each
    pair of which some texts have come and some have not.
    """

    def __init__(self, design: Design, d_model: int):
        self._design = design
        stories = design.pair_N[design.pair_N >= 0]
        n_pairs = len(design.emotion_P)
        self._left_P = np.bincount(stories, minlength=n_pairs)
        self._count_P = np.zeros(n_pairs)
        self._emotion_ED = np.zeros((design.n_emotions, d_model))
        apart = design.shares_topics  # else all topics are one group, which says nothing
        self._topic_P = design.topic_P if apart else np.zeros_like(design.topic_P)
        self._topic_TD = np.zeros((design.n_topics if apart else 1, d_model))
        self._open: dict[int, Float64[ndarray, " d_model"]] = {}
        self._pair_squares = 0.0
        self._squares = 0.0
        self._shift: Float64[ndarray, " d_model"] | None = None

    def add(
        self,
        texts: slice,
        x_ND: Float64[ndarray, "text d_model"],
        there_N: Bool[ndarray, " text"],
    ) -> None:
        """Add a block of texts; those that are not there have no vector."""
        pair_N = self._design.pair_N[texts]
        wanted_N = there_N & (pair_N >= 0)
        if wanted_N.any():
            chosen = x_ND[wanted_N]
            if self._shift is None:  # sums of squares about a large mean lose digits
                self._shift = chosen.mean(axis=0)
            self._add(pair_N[wanted_N], chosen - self._shift)
        passed = np.bincount(pair_N[pair_N >= 0], minlength=len(self._left_P))
        self._left_P -= passed
        for pair in [p for p in self._open if self._left_P[p] == 0]:
            sum_D = self._open.pop(pair)
            self._pair_squares += float(sum_D @ sum_D) / self._count_P[pair]

    def _add(self, pair_N: Int[ndarray, " text"], y_ND: Float64[ndarray, "text d_model"]) -> None:
        here, place_N = np.unique(pair_N, return_inverse=True)
        sums_PD = group_sums(y_ND, place_N, len(here))
        for sums_GD, group_P in (
            (self._emotion_ED, self._design.emotion_P),
            (self._topic_TD, self._topic_P),
        ):
            groups, place_P = np.unique(group_P[here], return_inverse=True)
            sums_GD[groups] += group_sums(sums_PD, place_P, len(groups))
        self._squares += float(np.einsum("nd,nd->", y_ND, y_ND))
        self._count_P[here] += np.bincount(place_N)
        for pair, sum_D in zip(here, sums_PD, strict=True):
            self._open[int(pair)] = self._open.get(int(pair), 0.0) + sum_D

    def shares(self) -> VarianceShares:
        """Return the shares; NaN what the design does not identify, all where nothing varies.

        Raises:
            ValueError: some stories have not been added.
        """
        if self._left_P.any():
            raise ValueError(f"{int(self._left_P.sum())} stories have not been added")
        counts = _Counts.of(self._design, self._topic_P, len(self._topic_TD), self._count_P)
        n = counts.n_stories
        here_P = self._count_P > 0
        n_topics, n_pairs = len(np.unique(self._design.topic_P[here_P])), int(here_P.sum())
        unknown = VarianceShares(n, n_topics, n_pairs, *([float("nan")] * 9))
        if n < 2:
            return unknown
        mean_square = float(np.square(self._emotion_ED.sum(axis=0)).sum()) / n
        total = self._squares - mean_square
        emotion = _grouped(self._emotion_ED, counts.emotion_E) - mean_square
        topic = _grouped(self._topic_TD, counts.topic_T) - mean_square
        beyond_TD = self._topic_TD - counts.topic_given_ET.T @ self._emotion_ED
        both = emotion + float(np.vdot(beyond_TD, counts.inverse_TT @ beyond_TD))
        pair = self._pair_squares - mean_square
        if total <= 0:
            return unknown
        component = np.array(counts.components(emotion, topic, both, pair, total))
        whole = np.nansum(component)
        blurred = counts.rank and np.isnan(component[2])
        if blurred or (n_topics > 1 and n_pairs == counts.present):
            component[:2] = np.nan
        of_emotion, of_topic, of_pair, of_rest = (float(part / whole) for part in component)
        return VarianceShares(
            n_stories=n,
            n_topics=n_topics,
            n_pairs=n_pairs,
            emotion=of_emotion,
            topic=of_topic,
            pair=of_pair,
            rest=of_rest,
            emotion_ss=emotion / total,
            topic_ss=(both - emotion) / total if counts.rank else float("nan"),
            pair_ss=(pair - both) / total,
            rest_ss=(total - pair) / total,
            emotion_beyond_topic_ss=(both - topic) / total if counts.rank else float("nan"),
        )


def group_sums(
    x_ND: Float64[ndarray, "row d_model"],
    group_M: Int[ndarray, " member"],
    n_groups: int,
    row_M: Int[ndarray, " member"] | None = None,
) -> Float64[ndarray, "group d_model"]:
    """Return sums of rows by group; a sparse product, far faster than `numpy.add.at`.

    Args:
        x_ND: rows.
        group_M: the group of each member.
        n_groups: groups.
        row_M: the row that each member is; when None, there is one member for each row.
    """
    row_M = np.arange(len(x_ND)) if row_M is None else row_M
    picks = (np.ones(len(group_M)), (group_M, row_M))
    sums: Float64[ndarray, "group d_model"] = csr_array(picks, shape=(n_groups, len(x_ND))) @ x_ND
    return sums


@dataclass(frozen=True)
class _Counts:
    """What the numbers of stories say, whatever their vectors.

    Attributes:
        emotion_E: stories of each emotion.
        topic_T: stories of each topic.
        pair_P: stories of each pair.
        topic_given_ET: shares of topics among an emotion's stories.
        inverse_TT: pseudo-inverse of the normal equations of topics beyond emotions.
        rank: their rank, 0 where the design does not tell topics from pairs or emotions.
        of_pairs_PT: what is left of each pair's topic beyond its emotion, times its stories.
        cross_ET: stories of each emotion on each topic.
    """

    emotion_E: Float64[ndarray, " emotion"]
    topic_T: Float64[ndarray, " topic"]
    pair_P: Float64[ndarray, " pair"]
    topic_given_ET: Float64[ndarray, "emotion topic"]
    inverse_TT: Float64[ndarray, "topic topic"]
    rank: int
    of_pairs_PT: Float64[ndarray, "pair topic"]
    cross_ET: Float64[ndarray, "emotion topic"]
    emotion_P: Int[ndarray, " pair"]
    topic_P: Int[ndarray, " pair"]

    @classmethod
    def of(
        cls,
        design: Design,
        topic_P: Int[ndarray, " pair"],
        n_topics: int,
        pair_P: Float64[ndarray, " pair"],
    ) -> _Counts:
        cross_ET = np.zeros((design.n_emotions, n_topics))
        np.add.at(cross_ET, (design.emotion_P, topic_P), pair_P)
        emotion_E, topic_T = cross_ET.sum(axis=1), cross_ET.sum(axis=0)
        given_ET = cross_ET / np.maximum(emotion_E, 1)[:, None]
        values, vectors = np.linalg.eigh(np.diag(topic_T) - cross_ET.T @ given_ET)
        some = values > SMALLEST_EIGENVALUE * max(topic_T.max(initial=0), 1)
        counted_E, counted_T = int((emotion_E > 0).sum()), int((topic_T > 0).sum())
        if counted_E + some.sum() <= counted_T:  # no emotion shares a topic with another one
            some[:] = False
        inverse_TT = (vectors[:, some] / values[some]) @ vectors[:, some].T
        own_PT = np.zeros((len(pair_P), n_topics))
        own_PT[np.arange(len(pair_P)), topic_P] = 1
        of_pairs_PT = pair_P[:, None] * (own_PT - given_ET[design.emotion_P])
        return cls(
            emotion_E,
            topic_T,
            pair_P,
            given_ET,
            inverse_TT,
            int(some.sum()),
            of_pairs_PT,
            cross_ET,
            design.emotion_P,
            topic_P,
        )

    @property
    def n_stories(self) -> int:
        return int(self.pair_P.sum())

    @property
    def present(self) -> int:
        """Emotions that have a story."""
        return int((self.emotion_E > 0).sum())

    def components(
        self, emotion: float, topic: float, both: float, pair: float, total: float
    ) -> tuple[float, float, float, float]:
        """Return the components of emotion, topic, pair and rest from reductions in squares.

        Each reduction's expectation is a sum of components with coefficients that follow from the
        design (Searle, Casella & McCulloch 1992, chapter 5); they are solved from the last on. A
        component that no equation determines counts as 0 in the others and is NaN.
        """
        n = self.n_stories
        n_emotions, n_topics, n_pairs = (
            int((counts > 0).sum()) for counts in (self.emotion_E, self.topic_T, self.pair_P)
        )
        squares_E = np.bincount(self.emotion_P, self.pair_P**2, len(self.emotion_E))
        squares_T = np.bincount(self.topic_P, self.pair_P**2, len(self.topic_T))
        pairs_in_emotions = float((squares_E / np.maximum(self.emotion_E, 1)).sum())
        pairs_in_topics = float((squares_T / np.maximum(self.topic_T, 1)).sum())
        pairs_beyond = float(np.vdot(self.of_pairs_PT, self.of_pairs_PT @ self.inverse_TT))

        free = n - n_pairs
        rest = (total - pair) / free if free else np.nan
        free = n_pairs - n_emotions - self.rank
        weight = n - pairs_in_emotions - pairs_beyond
        between = (pair - both - free * _known(rest)) / weight if free else np.nan
        if self.rank:
            explained = both - emotion - self.rank * _known(rest) - pairs_beyond * _known(between)
            emotions_of_T = np.square(self.cross_ET).sum(axis=0) / np.maximum(self.topic_T, 1)
            of_topic = np.square(self.cross_ET).sum(axis=1) / np.maximum(self.emotion_E, 1)
            topics = explained / (n - float(of_topic.sum()))
            free = n_emotions + self.rank - n_topics
            weight = n - float(emotions_of_T.sum())
            pairs = pairs_in_emotions + pairs_beyond - pairs_in_topics
            explained = both - topic - free * _known(rest) - pairs * _known(between)
        else:
            topics = np.nan
            free = n_emotions - 1
            weight = n - float(np.square(self.emotion_E).sum()) / n
            pairs = pairs_in_emotions - float(np.square(self.pair_P).sum()) / n
            explained = emotion - free * _known(rest) - pairs * _known(between)
        emotions = explained / weight if free else np.nan
        return float(emotions), float(topics), float(between), float(rest)


def _known(component: float) -> float:
    return 0.0 if component != component else component


def _grouped(sums_GD: Float64[ndarray, "group d_model"], counts_G: Float64[ndarray, " g"]) -> float:
    squares_G = np.square(sums_GD).sum(axis=1)
    return float((squares_G / np.maximum(counts_G, 1)).sum())
