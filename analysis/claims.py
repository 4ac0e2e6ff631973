"""What arXiv 2606.26987 found, each finding as a formula with thresholds that decides it.

The findings are the paper's, the thresholds this project's. What is computed is in
`analysis.predicates`. Claims are about the expected peak, which need not be the block with the
largest r in the stories at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

from analysis.directions import ESTIMATORS
from analysis.inference import COLLAPSED, RUN, SIGNIFICANT
from analysis.predicates import (
    ALIKE,
    AROUSAL_GAP,
    COSINE_GAP,
    FAR,
    HALFWAY,
    HIGH_CKA,
    LOW_COSINE,
    MIN_PHASE,
    PEAK_R,
    PHASE_GAP,
    SILHOUETTE_GAP,
    OfCell,
    OfPair,
    arousal_by_corpus,
    axis_turns,
    beyond,
    cka_high,
    cleaner,
    clusters_apart,
    collapse_and_return,
    early_collapse,
    grids_alike,
    late_emergence,
    own_better,
    three_phases,
    valence_peak,
)


@dataclass(frozen=True)
class Claim:
    """A finding of the paper, or what it must be held to.

    Attributes:
        name: in tables.
        statement: in words.
        formula: what is computed, and when it holds and fails; undecided otherwise.
        over: what the interval is over: stories or emotions.
        of_cell: decides it for a cell; None for a claim about two corpora.
        of_pair: decides it for one model's cells with two corpora, None where it does not apply.
        norms: whether it depends on ratings.
        without: whether it is also decided without the largest dimensions.
        estimators: of CKA or of directions that it is decided by; the debiased CKA always with all
            dimensions.
    """

    name: str
    statement: str
    formula: str
    over: str
    of_cell: OfCell | None = None
    of_pair: OfPair | None = None
    norms: bool = True
    without: bool = True
    estimators: tuple[str, ...] = ("",)


EXPECTED_PEAK = (
    "the expected peak, the block where infinitely many stories would give the largest r"
)
SIMILARITIES = ("cka", "cka_debiased")
_NAMES = {
    "embedding": "the embedding output",
    "random": "the same model with random weights",
    "bag_of_words": "a bag of words",
    "lexical": "the ratings of the stories' words",
}

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "valence-peak",
        "PC1 follows valence at .7 or more in some block",
        f"Measured: r at {EXPECTED_PEAK}. Holds if its interval reaches {PEAK_R} throughout and "
        f"corrected p < {SIGNIFICANT}, fails if its interval lies below",
        "stories",
        valence_peak,
    ),
    Claim(
        "late-emergence",
        "PC1 follows valence late only",
        f"Measured: depth of {EXPECTED_PEAK}. Holds if the first of {RUN} consecutive blocks with "
        f"corrected p < {SIGNIFICANT} (onset) and the whole interval of the peak's depth lie at "
        f"{HALFWAY} or more, and {RUN} consecutive blocks before have intervals of r below half "
        "the peak's r. Fails if onset or that whole interval lie before, or there is no onset and "
        f"the interval of the peak's r lies below {PEAK_R}",
        "stories",
        late_emergence,
    ),
    Claim(
        "early-collapse",
        "valence peaks early and collapses after",
        f"Measured: the largest expected r of the weakest {RUN} consecutive blocks after the "
        f"interval of the peak's depth begins, over r at the peak: {EXPECTED_PEAK}. Holds if its "
        f"interval lies at {COLLAPSED} or less, the whole interval of the peak's depth at "
        f"{HALFWAY} or less, and the peak's corrected p < {SIGNIFICANT}. Fails if either interval "
        "lies above, or there are no such blocks",
        "stories",
        early_collapse,
    ),
    Claim(
        "collapse-and-return",
        "valence is there, is lost over some blocks and comes back",
        f"Measured: the largest expected r of {RUN} consecutive blocks over the smaller of the "
        "expected peaks before and after them, where that is least. Holds if its interval lies at "
        f"{COLLAPSED} or less and corrected p < {SIGNIFICANT} both before and after, fails if its "
        "interval lies above",
        "stories",
        collapse_and_return,
    ),
    Claim(
        "three-cka-phases",
        "the space passes through three phases over depth",
        f"Measured: of the best three runs of {MIN_PHASE} or more blocks, by how much CKA within "
        "exceeds CKA across the weaker boundary, at the same distance between blocks. Holds if "
        f"its interval reaches {PHASE_GAP} throughout, fails if it lies below",
        "emotions",
        three_phases,
        norms=False,
        estimators=SIMILARITIES,
    ),
    Claim(
        "cka-high",
        "the space stays the same throughout",
        f"Measured: the smallest CKA of two blocks. Holds if its interval reaches {HIGH_CKA} "
        "throughout, fails if it lies below",
        "emotions",
        cka_high,
        norms=False,
        estimators=SIMILARITIES,
    ),
    Claim(
        "axis-turns-space-stays",
        "the valence axis turns over depth while the space stays",
        f"Measured: median cosine of valence directions of blocks {FAR} or more of the depth "
        "apart, between itself and itself freed of the stories' noise. Holds if both lie at "
        f"{LOW_COSINE} or less and the interval of their median CKA reaches {HIGH_CKA}. Fails if "
        "either lies on the other side throughout",
        "the stories' noise",
        axis_turns,
        without=False,
        estimators=ESTIMATORS,
    ),
    *(
        Claim(
            f"{axis}-beyond-{baseline.replace('_', '-')}",
            f"{'PC1' if axis == 'valence' else 'PC2'} follows {axis} better than {name} does",
            f"Measured: r at {EXPECTED_PEAK}, less that of {name}"
            f"{' at its own expected peak' if baseline == 'random' else ''}. Holds if its interval "
            "lies above 0, fails if it lies at 0 or below",
            "stories",
            beyond(axis, baseline),
            without=False,
        )
        for axis in ("valence", "arousal")
        for baseline, name in _NAMES.items()
    ),
    Claim(
        "arousal-by-corpus",
        "how well PC2 follows arousal depends on the corpus",
        f"Measured: r at {EXPECTED_PEAK}, one corpus less the other. Holds if its interval lies "
        f"{AROUSAL_GAP} or more from 0, fails if it lies within {AROUSAL_GAP} of 0",
        "stories",
        of_pair=arousal_by_corpus,
    ),
    Claim(
        "own-corpus-better",
        "a model's PC1 follows valence better in its own stories than in another's",
        f"Measured: r at {EXPECTED_PEAK}, own corpus less the other. Holds if its interval lies "
        "above 0, fails if it lies at 0 or below",
        "stories",
        of_pair=own_better,
    ),
    Claim(
        "cleaner-directions",
        "one corpus gives cleaner valence directions",
        "Measured: median cosine of neighbouring blocks' valence directions, one corpus less the "
        "other, between itself and itself freed of the stories' noise. Holds if both lie "
        f"{COSINE_GAP} or more from 0 on one side, fails if both lie within {COSINE_GAP} of 0",
        "the stories' noise",
        of_pair=cleaner,
        without=False,
        estimators=ESTIMATORS,
    ),
    Claim(
        "clusters-apart",
        "positive and negative emotions are further apart in one corpus",
        "Measured: silhouette on the plane of PC1 and PC2, one corpus less the other, each at "
        f"{EXPECTED_PEAK} with valence. Holds if its interval lies {SILHOUETTE_GAP} or more from "
        f"0, fails if it lies within {SILHOUETTE_GAP} of 0",
        "emotions",
        of_pair=clusters_apart,
    ),
    Claim(
        "cka-grids-alike",
        "the CKA grids of two corpora are alike",
        f"Measured: Pearson's r of the two grids over pairs of blocks, the mean at each distance "
        "between blocks taken off both. Holds if its interval reaches "
        f"{ALIKE} throughout, fails if it lies below",
        "emotions",
        of_pair=grids_alike,
        norms=False,
        estimators=SIMILARITIES,
    ),
)
"""Every claim, in the order of the tables."""
