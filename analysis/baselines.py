"""What the words of a corpus give without a model: a bag of words, and the words' own ratings.

A bag of words takes a story vector's place: the same emotion means, contrasts and components. The
ratings of a story's words take a component's. Stories are drawn as they are for a model, so that a
difference from a model's r has an interval of its own. Words are of whole texts, whatever window a
model is averaged over.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float32, Float64
from numpy import ndarray

from analysis.contrasts import layer_vectors
from analysis.corpus import story_ratings
from analysis.geometry import NotEnough, correlate
from analysis.resampling import Units, draw_weights, freed_of_drawing, resampling_units, weighted_r
from analysis.robustness import correlations, space_of, story_draws
from analysis.settings import AXES, Settings
from analysis.words import words_of
from manifests.norms import Norms
from store.corpus import Text

DIMENSIONS = 300
"""Of the bag of words after the singular value decomposition."""


def corpus_baselines(
    texts: Sequence[Text], emotions: Sequence[str], norms: Sequence[Norms], settings: Settings
) -> xr.Dataset:
    """Return r of valence and arousal by the words of a corpus, and its draws over stories.

    Args:
        texts: of the corpus.
        emotions: in the order of `settings.ratings`.
        norms: the sets behind `settings.ratings`, in their order.
        settings: as the corpus' cells are analysed with.

    Returns:
        Data set over contrast, norms, axis and draw:

        - bag_of_words_r, bag_of_words_draw: r of PC1 of the bag of words with valence, of PC2 with
          arousal, signed as the components are, and over draws;
        - bag_of_words_missing: why there is none;
        - lexical_r, lexical_draw: r of the emotions' ratings with the mean ratings of their
          stories' words, the emotion's own word and its inflections left out;
        - lexical_n: emotions behind it.
    """
    ids = [text.text_id for text in texts]
    labels = [text.emotion or "" for text in texts]
    units = resampling_units(ids, labels, emotions, settings.seed)
    shape = (len(settings.contrasts), len(norms), len(AXES))
    r_CNX = np.full(shape, np.nan)
    draw_BCNX = np.full((settings.bootstraps, *shape), np.nan, dtype=np.float32)
    missing = []
    bags = _as_layer(bag_of_words([text.text for text in texts], settings.seed))
    vectors = layer_vectors(bags, labels, emotions, units=units)
    for at, contrast in enumerate(settings.contrasts):
        try:
            space = space_of(vectors, contrast, settings)
        except NotEnough as error:
            missing.append(str(error))
            continue
        missing.append("")
        r_CNX[at] = correlations(space.scores_EX, settings)
        draw_BCNX[:, at], _ = story_draws(vectors, space, emotions, settings)
    lexical = [_lexical(texts, labels, emotions, rated, units, settings) for rated in norms]
    return xr.Dataset(
        {
            "bag_of_words_r": (("contrast", "norms", "axis"), r_CNX),
            "bag_of_words_draw": (("draw", "contrast", "norms", "axis"), draw_BCNX),
            "bag_of_words_missing": ("contrast", missing),
            "lexical_r": (("norms", "axis"), np.array([r for r, _, _ in lexical])),
            "lexical_draw": (("norms", "draw", "axis"), np.array([d for _, d, _ in lexical])),
            "lexical_n": (("norms", "axis"), np.array([n for _, _, n in lexical])),
        },
        coords={
            "contrast": list(settings.contrasts),
            "norms": [rated.name for rated in norms],
            "axis": list(AXES),
        },
    )


def bag_of_words(texts: Sequence[str], seed: int) -> Float64[ndarray, "text dimension"]:
    """Return texts as points whose inner products are nearly those of their TF-IDF vectors.

    Words weigh by their number in the text and the logarithm of their rarity over texts, a text's
    weights have length 1; the leading DIMENSIONS of a singular value decomposition, not centred
    (latent semantic analysis, Deerwester et al. 1990).

    Args:
        texts: stories and neutral texts.
        seed: of the randomised decomposition.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    weights = TfidfVectorizer(analyzer=words_of).fit_transform(texts)
    n = min(DIMENSIONS, min(weights.shape) - 1)
    points: Float64[ndarray, "text dimension"] = TruncatedSVD(
        n, n_iter=7, random_state=seed
    ).fit_transform(weights)
    return points


def _as_layer(point_ND: Float64[ndarray, "text dimension"]) -> xr.DataArray:
    return xr.DataArray(point_ND, dims=("text", "d_model"))


def _lexical(
    texts: Sequence[Text],
    labels: Sequence[str],
    emotions: Sequence[str],
    norms: Norms,
    units: Units,
    settings: Settings,
) -> tuple[list[float], Float32[ndarray, "draw axis"], list[int]]:
    """Return r with the ratings of words, its draws, and how many emotions are behind it."""
    rated_NX = np.full((len(texts), len(AXES)), np.nan)
    for at, text in enumerate(texts):
        if text.emotion is not None:
            rated_NX[at] = story_ratings(text.text, text.emotion, norms).mean
    found = layer_vectors(_as_layer(rated_NX), labels, emotions, units=units)
    rating_EX = settings.ratings[norms.name]
    whole = [correlate(x_E, y_E) for x_E, y_E in zip(found.u_ED.T, rating_EX.T, strict=True)]
    count_U = found.unit_count_U
    weight_BU = draw_weights(units, count_U, emotions, settings.bootstraps, settings.seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_UX = np.where(count_U[:, None] > 0, found.unit_sum_UD / count_U[:, None], 0)
    there_E = np.isfinite(found.u_ED).all(axis=1)
    value_BEX = np.zeros((settings.bootstraps, len(emotions), len(AXES)))
    for emotion in range(len(emotions)):
        mine = units.emotion_U == emotion
        value_BEX[:, emotion] = weight_BU[:, mine] @ mean_UX[mine]
    r_BX = weighted_r(
        value_BEX[:, there_E], rating_EX[there_E], np.ones((len(value_BEX), int(there_E.sum())))
    )
    r_X = np.array([w.r for w in whole])
    freed = freed_of_drawing(r_BX, r_X, np.ones(len(AXES))).astype(np.float32)
    return [w.r for w in whole], freed, [w.n for w in whole]
