"""Words, layers and cells analysed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.tasks.worker import one_thread_each
from manifests.norms import Norms
from store.places import place, total_size
from store.shards import shard_span


@dataclasses.dataclass(frozen=True)
class AnalysedCell:
    """A cell whose results are there, and what they are compared with.

    Attributes:
        model: that read.
        corpus: that was read.
        fingerprint: of the analysis.
        results: folder of its results.
        words: folder of what the corpus' words give without a model.
        twin: the model of the same configuration with random weights, None where there is none.
        writer: the model that wrote the corpus, None where that is not known.
        names: what coordinates of its results hold, by their names.
    """

    model: str
    corpus: str
    fingerprint: str
    results: str
    words: str
    twin: str | None
    writer: str | None
    names: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)


def analyse_words(
    stories: str,
    emotions: list[str],
    norms: Sequence[Norms],
    settings: Any,
    attributes: dict[str, Any],
    target: str,
) -> dict[str, Any]:
    """Analyse the words of a corpus without a model, and write the results."""
    from analysis.baselines import corpus_baselines
    from store.corpus import read_corpus
    from store.results import write_analysis

    one_thread_each()
    texts = read_corpus(Path(stories)).texts
    found = corpus_baselines(texts, emotions, norms, settings)
    write_analysis(place(target), found.assign_attrs(attributes))
    return {"texts": len(texts), "bytes": total_size(place(target))}


def analyse_layer(residuals: str, window: str, layer: int, settings: Any) -> Any:
    """Analyse one window and layer of a cell from its store."""
    from analysis.layer import analyse_layer as analyse
    from store.residuals import open_residuals

    one_thread_each()
    return analyse(open_residuals(place(residuals), as_dask=False), window, layer, settings)


def join_cell(
    residuals: str,
    keys: list[tuple[str, int]],
    results: list[Any],
    emotions: list[str],
    n_layers: int,
    settings: Any,
    attributes: dict[str, Any],
    target: str,
) -> dict[str, Any]:
    """Join a cell's layers, add what its store says of its tokens, and write its data set."""
    from analysis.activations import massive_activations
    from analysis.cell import join_layers
    from analysis.exclusions import join_names
    from store.residuals import open_residuals
    from store.results import write_analysis

    one_thread_each()
    found = join_layers(dict(zip(keys, results, strict=True)), emotions, n_layers, settings)
    store = open_residuals(place(residuals), as_dask=False)
    read = np.minimum(store["text_tokens"].to_numpy(), store.attrs["extraction"]["max_tokens"])
    spans = [shard_span(place(residuals), shard) for shard in range(store.sizes["shard"])]
    activations = massive_activations(
        store.assign(
            tokens_read=("text", read),
            shard_tokens=("shard", [read[s.start : s.stop].sum() for s in spans]),
        )
    )
    ids, empty_NW = store["text_id"].to_numpy(), (store["token_count"] == 0).to_numpy()
    found = found.merge(activations).assign(
        texts_without_token=("window", empty_NW.sum(axis=0)),
        texts_without_token_names=(
            "window",
            [join_names([str(i) for i in ids[empty_N]]) for empty_N in empty_NW.T],
        ),
    )
    write_analysis(place(target), found.assign_attrs(attributes))
    missing = found["missing"].to_series()
    reasons = missing[missing != ""].groupby(level=["window", "contrast"]).first()
    return {
        "layers": found.sizes["layer"],
        "windows": found.sizes["window"],
        "bytes": total_size(place(target)),
        "missing": {f"{window}, {c}": str(why) for (window, c), why in reasons.items()},
    }
