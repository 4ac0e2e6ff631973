"""From a checked manifest to the content it names: words, topics, templates, ratings, cells.

Everything a manifest refers to by name or path is looked up here, before anything runs.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from manifests.builtin import BUILTIN_MODELS
from manifests.document import Document, KeyPath
from manifests.errors import MAX_PROBLEMS, InputError, Problem
from manifests.files import read_text, refusal
from manifests.lists import Prompts, read_prompts, read_words
from manifests.loading import read_manifest
from manifests.norms import Norms, read_norms
from manifests.schema import AXES, Generate, Import, Manifest, Steering
from manifests.steering import SteeringPrompts, read_steering_prompts
from manifests.weights import weights_refusal

MIN_RATED = 3
"""Fewest rated emotions that a correlation is computed from."""
MAX_CELLS = 100_000
MAX_TEXTS = 10_000_000
"""Of one corpus that a model writes, and emotions times topics of its lists."""
MAX_KNOWN = 200
"""Names that a mistaken one is compared with."""
MIN_NEUTRAL = 2
"""Fewest neutral texts that a neutral basis is computed from."""


@dataclass(frozen=True)
class Cell:
    """One model reading one corpus."""

    model: str
    corpus: str

    @property
    def name(self) -> str:
        """`model@corpus`."""
        return f"{self.model}@{self.corpus}"


@dataclass(frozen=True)
class Pair:
    """An emotion and the topic its stories are about (`topic_index` in the topic list)."""

    emotion: str
    topic_index: int
    topic: str


@dataclass(frozen=True)
class Writing:
    """All that decides what a generated corpus contains, names replaced by content."""

    spec: Generate
    emotions: tuple[str, ...]
    topics: tuple[str, ...]
    neutral_topics: tuple[str, ...]
    prompts: Prompts
    chat_template: str | None = None

    def pairs(self) -> list[Pair]:
        """Return every emotion with each of its topics, in corpus order."""
        return list(self._pairs)

    @cached_property
    def _pairs(self) -> list[Pair]:
        n = len(self.topics)
        wanted = n if self.spec.topics_per_emotion == "all" else self.spec.topics_per_emotion
        return [
            Pair(emotion, index, self.topics[index])
            for emotion in self.emotions
            for index in assign_topics(self.spec.seed, emotion, self.topics, wanted)
        ]


@dataclass(frozen=True)
class Importing:
    """An imported corpus, with the absolute paths of its files (`stories` None: on the hub)."""

    spec: Import
    stories: Path | None
    neutral: Path | None


@dataclass(frozen=True)
class Steered:
    """What is to be steered, names replaced by content.

    Attributes:
        spec: the manifest's section.
        prompts: what models are given.
        cells: whose directions are used.
        norms: that rate directions and words.
        chat_templates: of models whose entry names one, by model.
    """

    spec: Steering
    prompts: SteeringPrompts
    cells: tuple[Cell, ...]
    norms: Norms
    chat_templates: dict[str, str]


@dataclass(frozen=True)
class Study:
    """A manifest with everything it names: what the engine plans from."""

    manifest: Manifest
    document: Document
    writing: dict[str, Writing]
    importing: dict[str, Importing]
    norms: tuple[Norms, ...]
    cells: tuple[Cell, ...]
    steered: Steered | None = None

    @property
    def base(self) -> Path:
        """Folder that the manifest's relative paths start from."""
        return self.document.file.parent

    def model_path(self, model: str) -> Path:
        """Return the absolute folder of a `path` model."""
        path = self.manifest.models[model].path
        assert path is not None
        return (self.base / path).resolve()


def assign_topics(seed: int, emotion: str, topics: Sequence[str], n: int) -> list[int]:
    """Choose `n` topics for an emotion: the same for every generator, stable over versions.

    Topics are ranked by sha256 of seed, emotion and topic; the first n are taken, in list order.
    """

    def rank(index: int) -> bytes:
        return hashlib.sha256(f"{seed}\0{emotion}\0{topics[index]}".encode()).digest()

    return sorted(sorted(range(len(topics)), key=rank)[:n])


def load_study(file: Path) -> Study:
    """Read a manifest and everything it names.

    Raises:
        InputError: one problem for each mistake, with file, line and key.
    """
    manifest, document = read_manifest(file)
    base = document.file.parent
    problems: list[Problem] = []
    writing: dict[str, Writing] = {}
    importing: dict[str, Importing] = {}
    norms: list[Norms] = []

    for name, model in manifest.models.items():
        problems += _model_problems(name, model.builtin, model.path, base, document)
    for name, corpus in manifest.corpora.items():
        try:
            if corpus.generate is not None:
                writing[name] = _resolve_writing(name, corpus.generate, manifest, document)
            elif corpus.import_ is not None:
                importing[name] = _resolve_importing(name, corpus.import_, manifest, document)
        except InputError as error:
            problems += error.problems
    for index, entry in enumerate(manifest.analysis.norms):
        where: KeyPath = ("analysis", "norms", index)
        try:
            norms.append(read_norms(entry.source, entry.guesses, base, document, where))
        except InputError as error:
            problems += error.problems
    names = [n.name for n in norms]
    for repeated in sorted({name for name in names if names.count(name) > 1}):
        what = f"two sets of norms are named {repeated!r}; rename one file"
        problems.append(document.problem(("analysis", "norms"), what))
    cells = _resolve_cells(manifest.cells, ("cells",), manifest, document, problems)
    steered = None
    if manifest.steering is not None:
        steered = _resolve_steering(
            manifest.steering, manifest, document, cells, norms, writing, problems
        )
    if problems:
        raise InputError(problems)

    study = Study(manifest, document, writing, importing, tuple(norms), cells, steered)
    for name, resolved in writing.items():
        check_analysable(study, name, resolved.emotions, resolved.spec.neutral)
    return study


def check_analysable(study: Study, corpus: str, emotions: Sequence[str], n_neutral: int) -> None:
    """Refuse a corpus that the analysis cannot say anything about.

    Raises:
        InputError: too few emotions that some norms rate, or no neutral texts for `neutral-pca`.
    """
    if not any(cell.corpus == corpus for cell in study.cells):
        return
    problems = []
    for index, norms in enumerate(study.norms):
        rated = int(np.isfinite(norms.rate(emotions)).all(axis=1).sum())
        if rated < MIN_RATED:
            what = (
                f"{norms.name} rates {rated} of the {len(emotions)} emotions of corpus "
                f"{corpus!r}; at least {MIN_RATED} are needed"
            )
            problems.append(study.document.problem(("analysis", "norms", index), what))
    if "neutral-pca" in study.manifest.analysis.contrasts and n_neutral < MIN_NEUTRAL:
        what = (
            f"has {n_neutral} neutral texts; the contrast neutral-pca needs at least "
            f"{MIN_NEUTRAL}; add some or drop it"
        )
        problems.append(study.document.problem(("corpora", corpus), what))
    if problems:
        raise InputError(problems)


def _model_problems(
    name: str, builtin: str | None, path: str | None, base: Path, document: Document
) -> Iterable[Problem]:
    if builtin is not None and builtin not in BUILTIN_MODELS:
        what = f"unknown model {builtin!r}; known: {', '.join(BUILTIN_MODELS)}"
        yield document.problem(("models", name, "builtin"), what)
    if path is not None:
        folder = base / path
        key: KeyPath = ("models", name, "path")
        if (why := refusal(folder / "config.json")) is not None:
            missing = "missing" if why == "no such file" else why
            yield document.problem(key, f"no model there: {folder / 'config.json'} is {missing}")
        elif (why := weights_refusal(folder)) is not None:
            yield document.problem(key, why)


def _resolve_writing(name: str, spec: Generate, manifest: Manifest, document: Document) -> Writing:
    base, path = document.file.parent, ("corpora", name, "generate")
    if spec.model not in manifest.models:
        what = f"unknown model {spec.model!r}; {known_names(spec.model, manifest.models)}"
        raise InputError(document.problem((*path, "model"), what))
    if manifest.models[spec.model].weights == "random":
        what = f"model {spec.model!r} has random weights and cannot write"
        raise InputError(document.problem((*path, "model"), what))
    topics = read_words(spec.topics, "topics", base, document, (*path, "topics"))
    neutral = read_words(
        spec.neutral_topics, "neutral-topics", base, document, (*path, "neutral_topics")
    )
    if spec.topics_per_emotion != "all" and spec.topics_per_emotion > len(topics):
        what = f"{spec.topics_per_emotion} topics asked for, {len(topics)} in the list"
        raise InputError(document.problem((*path, "topics_per_emotion"), what))
    if spec.neutral > len(neutral):
        what = f"{spec.neutral} texts asked for, {len(neutral)} neutral topics in the list"
        raise InputError(document.problem((*path, "neutral"), what))
    emotions = read_words(spec.emotions, "emotions", base, document, (*path, "emotions"))
    prompts = read_prompts(spec.prompts, base, document, (*path, "prompts"))
    per_emotion = len(topics) if spec.topics_per_emotion == "all" else spec.topics_per_emotion
    n_texts = len(emotions) * per_emotion * spec.stories_per_topic
    if max(n_texts, len(emotions) * len(topics)) > MAX_TEXTS:
        what = (
            f"{len(emotions):,} emotions, {len(topics):,} topics and {n_texts:,} stories; at most "
            f"{MAX_TEXTS:,} in one corpus"
        )
        raise InputError(document.problem(path, what))
    template = _chat_template(spec.model, manifest, document)
    return Writing(spec, emotions, topics, neutral, prompts, template)


def _chat_template(model: str, manifest: Manifest, document: Document) -> str | None:
    """Return the chat template that a model's entry names, None for the tokenizer's own."""
    file = manifest.models[model].chat_template
    if file is None:
        return None
    found = document.file.parent / file
    if (why := refusal(found)) is not None:
        what = f"{why}: {found}"
        raise InputError(document.problem(("models", model, "chat_template"), what))
    return read_text(found, 1 << 20)


def _resolve_importing(
    name: str, spec: Import, manifest: Manifest, document: Document
) -> Importing:
    path: KeyPath = ("corpora", name, "import")
    found: dict[str, Path | None] = {}
    for key, value in (("stories", spec.stories), ("neutral", spec.neutral)):
        file = None if value is None else document.file.parent / value
        if file is not None and (why := refusal(file, folder=True)) is not None:
            raise InputError(document.problem((*path, key), f"{why}: {file.absolute()}"))
        found[key] = None if file is None else file.resolve()
    if spec.writer is not None and spec.writer not in manifest.models:
        what = f"unknown model {spec.writer!r}; {known_names(spec.writer, manifest.models)}"
        raise InputError(document.problem((*path, "writer"), what))
    return Importing(spec, found["stories"], found["neutral"])


def _resolve_steering(
    spec: Steering,
    manifest: Manifest,
    document: Document,
    cells: Sequence[Cell],
    norms: Sequence[Norms],
    writing: dict[str, Writing],
    problems: list[Problem],
) -> Steered | None:
    """Look up what a section on steering names; None where that cannot be."""
    before = len(problems)

    def refuse(path: KeyPath, what: str) -> None:
        problems.append(document.problem(("steering", *path), what))

    trained = [cell for cell in cells if manifest.models[cell.model].weights != "random"]
    wanted: Sequence[Cell] = trained
    if spec.cells != "all":
        wanted = _resolve_cells(spec.cells, ("steering", "cells"), manifest, document, problems)
        for index, cell in enumerate(wanted):
            if cell not in cells:
                refuse(("cells", index), f"{cell.name} is not among the manifest's cells")
    elif not wanted:
        refuse((), "every model here has random weights; name the cells to steer")
    try:
        prompts = read_steering_prompts(
            spec.prompts, document.file.parent, document, ("steering", "prompts")
        )
    except InputError as error:
        problems += error.problems
    rated = [n for n in norms if spec.norms in (None, n.name)]
    all_read = len(norms) == len(manifest.analysis.norms)
    if all_read and not rated:
        known = known_names(str(spec.norms), [n.name for n in norms])
        refuse(("norms",), f"no norms {spec.norms!r} under analysis; {known}")
    windows = [window.name for window in manifest.extraction.windows]
    if spec.window not in windows:
        refuse(
            ("window",),
            f"no window {spec.window!r} is extracted; {known_names(spec.window, windows)}",
        )
    names = [*spec.directions, *([] if spec.transfer is None else [spec.transfer.direction])]
    corpora = [c for c in dict.fromkeys(cell.corpus for cell in wanted) if c in writing]
    for name in dict.fromkeys(n for n in names if n not in AXES):
        for corpus in corpora if len(problems) <= MAX_PROBLEMS else ():
            known_emotions = writing[corpus].emotions
            if name not in known_emotions:
                what = f"corpus {corpus!r} has no emotion {name!r}"
                refuse(
                    ("directions",), f"{what}; {known_names(name, (*AXES, *known_emotions)[:20])}"
                )
    if len(problems) > before or not rated:
        return None
    templates = {c.model: _chat_template(c.model, manifest, document) for c in wanted}
    found = {model: template for model, template in templates.items() if template is not None}
    return Steered(spec, prompts, tuple(wanted), rated[0], found)


def _resolve_cells(
    wanted: tuple[str, ...] | str,
    path: KeyPath,
    manifest: Manifest,
    document: Document,
    problems: list[Problem],
) -> tuple[Cell, ...]:
    if isinstance(wanted, str):
        n = len(manifest.models) * len(manifest.corpora)
        if n > MAX_CELLS:
            what = f"{n:,} cells; name those to read, at most {MAX_CELLS:,}"
            problems.append(document.problem(path, what))
            return ()
        return tuple(Cell(m, c) for m in manifest.models for c in manifest.corpora)
    cells = []
    for index, text in enumerate(wanted):
        if len(problems) > MAX_PROBLEMS:
            break
        model, at, corpus = text.partition("@")
        if not at:
            what = f"{text!r} is not a cell; write model@corpus"
        elif model not in manifest.models:
            what = (
                f"{text!r} names an unknown model {model!r}; {known_names(model, manifest.models)}"
            )
        elif corpus not in manifest.corpora:
            known = known_names(corpus, manifest.corpora)
            what = f"{text!r} names an unknown corpus {corpus!r}; {known}"
        else:
            cells.append(Cell(model, corpus))
            continue
        problems.append(document.problem((*path, index), what))
    return tuple(cells)


def known_names(given: str, names: Iterable[str]) -> str:
    """Return what a person who gave an unknown name may have meant, else what is known."""
    known = list(islice(names, MAX_KNOWN))
    close = difflib.get_close_matches(given[:100], known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
