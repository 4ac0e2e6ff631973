"""Finished corpora for other people: the published schema, with a card that says what they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from engine.plan import State, Status
from manifests.errors import InputError, Problem
from manifests.resolve import Study
from store.corpus import read_corpus
from store.exchange import write_published
from store.layout import Layout


def export_corpora(
    study: Study, layout: Layout, statuses: Iterable[Status], corpus: str | None, target: Path
) -> Iterator[tuple[Path, int]]:
    """Write corpora to folders of their own under `target`; yield each folder and its texts.

    Args:
        study: what the manifest names.
        layout: where its run lies.
        statuses: where its stages stand.
        corpus: the one to write; None for all.
        target: made where it is not there.

    Raises:
        InputError: an unknown corpus, one that is not finished, or a folder that exists.
    """
    known = list(study.manifest.corpora)
    if corpus is not None and corpus not in known:
        what = f"no corpus {corpus!r}; known: {', '.join(known)}"
        raise InputError(Problem(study.document.file, None, "corpora", what))
    wanted = known if corpus is None else [corpus]
    states = {s.stage.name: s for s in statuses if s.stage.kind in ("generate", "import")}
    for name in wanted:
        if states[name].state is not State.DONE:
            what = "is not finished; `emovec generate` finishes it"
            raise InputError(Problem(layout.stories(name), None, "", what))
        if (target / name).exists():
            raise InputError(Problem(target / name, None, "", "exists; give another folder"))
    for name in wanted:
        texts = read_corpus(layout.stories(name)).texts
        write_published(target / name, name, about_corpus(study, name), texts)
        yield target / name, len(texts)


def about_corpus(study: Study, corpus: str) -> str:
    """Return where a corpus comes from, in a sentence or two."""
    if (writing := study.writing.get(corpus)) is None:
        imported = study.importing[corpus].spec
        source = f" from the hub data set {imported.hf}" if imported.hf else ""
        source += f" at {imported.revision}" if imported.revision else ""
        return f"Imported{source} with emovec; see its source for the terms of use."
    spec, model = writing.spec, study.manifest.models[writing.spec.model]
    source = model.hf or model.builtin or f"a local model ({spec.model})"
    if model.revision:
        source += f" at {model.revision}"
    return (
        f"Written by {source} with emovec: {len(writing.emotions)} emotions, "
        f"{spec.topics_per_emotion} topics each, {spec.stories_per_topic} stories a topic, "
        f"temperature {spec.temperature}, top_p {spec.top_p}, seed {spec.seed}. "
        "The terms of the model apply."
    )
