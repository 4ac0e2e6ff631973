"""Near-duplicates in a corpus: MinHash finds candidates, the texts themselves decide.

Decided in the order given: a text is a duplicate if an earlier one that is none is as alike as the
threshold says. The order in which texts arrived plays no part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import UInt32
from numpy.typing import NDArray

from analysis.words import runs, words_of

SHINGLE_WORDS = 3
PERMUTATIONS = 128
BAND_ROWS = 3
"""With 42 bands of 3 rows a pair of Jaccard similarity .5 is found with probability .996."""
CROWD = 64
"""Earlier members of a band's bucket that a text is held against; only texts copied more often
than that fill a bucket so."""
BLOCK = 4096

Signatures = UInt32[np.ndarray, "text permutation"]


@dataclass(frozen=True)
class Duplicate:
    """A text (by position) that is nearly an earlier one, and their Jaccard similarity."""

    position: int
    earlier: int
    overlap: float


def near_duplicates(texts: Sequence[str], threshold: float) -> list[Duplicate]:
    """Return the duplicates among texts, in their order.

    Args:
        texts: the texts; each is read once, candidates again, so a sequence may read from disk.
        threshold: Jaccard similarity of 3-word runs from which two texts are duplicates.

    Source: Broder 1997, "On the resemblance and containment of documents"; signatures by
    `datasketch`, bands by sorting, so that memory stays at 512 bytes a text and a band.
    """
    signatures = _signatures(texts)
    candidates: dict[int, list[int]] = {}
    for earlier, later in _candidate_pairs(signatures):
        candidates.setdefault(int(later), []).append(int(earlier))
    found: dict[int, Duplicate] = {}

    @lru_cache(maxsize=4096)
    def earlier_shingles(position: int) -> set[str]:
        return shingles(texts[position])

    for later in sorted(candidates):
        mine = shingles(texts[later])
        originals = {found[e].earlier if e in found else e for e in candidates[later]}
        for earlier in sorted(originals):
            overlap = jaccard(mine, earlier_shingles(earlier))
            if overlap >= threshold:
                found[later] = Duplicate(later, earlier, overlap)
                break
    return list(found.values())


def shingles(text: str) -> set[str]:
    """Return a text's 3-word runs (the whole text where it has fewer words)."""
    words = words_of(text)
    return {" ".join(run) for run in runs(words, SHINGLE_WORDS)} or {" ".join(words)}


def jaccard(a: set[str], b: set[str]) -> float:
    """Return the size of the intersection over that of the union."""
    return len(a & b) / len(a | b)


def _signatures(texts: Sequence[str]) -> Signatures:
    from datasketch import MinHash

    signatures = np.empty((len(texts), PERMUTATIONS), dtype=np.uint32)
    for start in range(0, len(texts), BLOCK):
        block = [
            [shingle.encode() for shingle in shingles(texts[i])]
            for i in range(start, min(start + BLOCK, len(texts)))
        ]
        for i, minhash in enumerate(MinHash.generator(block, num_perm=PERMUTATIONS, seed=1)):
            signatures[start + i] = minhash.hashvalues
    return signatures


def _candidate_pairs(signatures: Signatures) -> NDArray[np.int64]:
    """Return distinct pairs (earlier, later) of texts that may be duplicates.

    Copies of a signature go with its first text; of the first texts, those that agree in all rows
    of at least one band.
    """
    _, first, which = np.unique(signatures, axis=0, return_index=True, return_inverse=True)
    original = first[which.ravel()]
    copies = np.flatnonzero(original != np.arange(len(signatures)))
    pairs = [np.stack([original[copies], copies], axis=1)]
    originals = np.sort(first)
    for band in range(PERMUTATIONS // BAND_ROWS):
        rows = signatures[originals, band * BAND_ROWS : (band + 1) * BAND_ROWS]
        _, bucket, size = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
        shared = np.flatnonzero(size[bucket.ravel()] > 1)
        order = shared[np.argsort(bucket.ravel()[shared], kind="stable")]
        found = list(_within_buckets(order, bucket.ravel()[order]))
        if found:
            pairs.append(originals[np.asarray(found, dtype=np.int64)])
    return np.unique(np.concatenate(pairs), axis=0)


def _within_buckets(
    order: NDArray[np.int64], bucket: NDArray[np.int64]
) -> Iterator[tuple[int, int]]:
    """Yield (earlier, later) for members of the same bucket, which lie together in `order`."""
    start = 0
    for at in range(len(order)):
        if bucket[at] != bucket[start]:
            start = at
        for earlier in range(start, min(at, start + CROWD)):
            yield int(order[earlier]), int(order[at])
