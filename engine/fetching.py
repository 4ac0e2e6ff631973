"""Brings models, tokenizers and data sets to this machine, for nodes that have no network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.hub import WORDS, Repository, ask_hub
from engine.models import (
    ModelSource,
    ModelUnavailable,
    cache_folder,
    fetch_description,
    fetch_model,
    model_source,
)
from engine.tasks import FETCHING
from manifests.errors import InputError
from manifests.resolve import Study
from store.exchange import read_texts


@dataclass(frozen=True)
class Fetched:
    """Something that was to be brought here.

    Attributes:
        kind: `model` or `data set`.
        name: in the manifest.
        origin: where it comes from.
        commit: of the hub, None for what does not come from there or is not here.
        pinned: the manifest names that commit.
        folder: where it lies now, None for what could not be had.
        problem: why not, else empty.
    """

    kind: str
    name: str
    origin: str
    commit: str | None
    pinned: bool
    folder: Path | None
    problem: str = ""


def fetch_all(
    studies: Sequence[Study], descriptions_only: bool, tell: Callable[[str], None]
) -> Iterator[Fetched]:
    """Yield everything that studies need from elsewhere, once it is here or cannot be had.

    The hub is asked for all of it before anything is downloaded: what is gated or missing comes
    first, then what can be had.

    Args:
        studies: manifests with what they name.
        descriptions_only: of models only what a plan needs: config and tokenizer.
        tell: called with what is being done.
    """
    models: dict[Any, tuple[Study, str, Repository | None]] = {}
    texts: dict[Any, tuple[Study, str, Repository]] = {}
    for study in studies:
        for name in study.manifest.models:
            source = model_source(study, name)
            key = (source.builtin, source.hf, source.revision, source.path, source.random_seed)
            there = source.hf and Repository("model", source.hf, source.revision)
            models.setdefault(key, (study, name, there or None))
        for name in study.importing:
            spec = study.importing[name].spec
            if spec.hf is not None:
                repository = Repository("dataset", spec.hf, spec.revision)
                texts.setdefault((repository, spec.config), (study, name, repository))
    tell("asking the hub")
    found = [*models.values(), *texts.values()]
    answers = ask_hub(repository for _, _, repository in found if repository is not None)
    for _, name, repository in found:
        if repository is not None and (why := answers[repository].problem):
            kind = WORDS[repository.kind]
            yield Fetched(kind, name, repository.name, None, False, None, why)
    for study, name, repository in models.values():
        if repository is None or not answers[repository].problem:
            yield _fetch_model(study, name, descriptions_only, tell)
    for study, name, repository in texts.values():
        if not answers[repository].problem:
            tell(f"fetching the data set {repository.name}")
            yield _fetch_texts(study, name, answers[repository].commit)


def _fetch_model(
    study: Study, name: str, description_only: bool, tell: Callable[[str], None]
) -> Fetched:
    source, entry = model_source(study, name), study.manifest.models[name]
    origin = source.hf or source.path or f"builtin {source.builtin}"

    commit = None
    try:
        if description_only and source.hf is not None:
            tell(f"fetching config and tokenizer of {name} ({origin})")
            folder = fetch_description(source)
        else:
            folder = fetch_here(source, lambda task: tell(f"{FETCHING[task]} {name} ({origin})"))
    except ModelUnavailable as error:
        return Fetched("model", name, origin, None, False, None, str(error))
    if source.hf is not None:
        commit = model_source(study, name).revision
    return Fetched("model", name, origin, commit, entry.revision == commit, folder)


def fetch_here(source: ModelSource, tell: Callable[[str], None]) -> Path:
    """Return the folder of a model, after unpacking or downloading it in a process of its own.

    Args:
        source: of the model.
        tell: called with the task that is begun, a key of `FETCHING`.

    Raises:
        ModelUnavailable: it cannot be had.
    """
    from engine.child import Child, ChildFailed
    from engine.device import child_environment

    def run_child(task: str, job: dict[str, Any]) -> Any:
        tell(task)
        child = Child(cache_folder() / "logs" / f"fetch-{source.name}.log", child_environment())
        try:
            return child.call(task, job, lambda event: None)
        except ChildFailed as error:
            raise ModelUnavailable(str(error).removeprefix("ModelUnavailable: ")) from None
        finally:
            child.stop()

    return fetch_model(source, run_child, complete=True)


def _fetch_texts(study: Study, corpus: str, commit: str | None) -> Fetched:
    source = study.importing[corpus]
    origin = str(source.spec.hf)
    try:
        n = sum(1 for _ in read_texts(source))
    except InputError as error:
        return Fetched("data set", corpus, origin, None, False, None, str(error))
    pinned = commit is not None and source.spec.revision == commit
    return Fetched("data set", corpus, f"{origin}, {n:,} texts", commit, pinned, None)
