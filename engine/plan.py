"""From a study to its stages: what each depends on, its fingerprint, and what is done already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import analysis
from analysis.paging import CELLS_ON_A_PAGE, effect_pages, figures_of, page_names, pages_of
from engine.generation.checks import CHECKS_VERSION
from engine.generation.demand import Demand, checks_settings
from engine.models import ModelShape, model_identity, model_shape, require_fitting
from engine.steering.conditions import n_measures, steered_layers
from manifests.errors import InputError
from manifests.resolve import Cell, Steered, Study, check_analysable
from manifests.schema import Checks, ModelEntry
from store.corpus import Text, corpus_identity, corpus_size, read_corpus
from store.exchange import read_texts
from store.fingerprint import file_digest, fingerprint, path_digest
from store.journal import journal_fingerprint, journal_rows
from store.journal_shapes import Odd, any_row, odd_measure
from store.layout import Layout
from store.places import Place, there, total_size
from store.records import Record, read_record
from store.shards import group_attributes, missing_shards, n_shards, shard_texts

VERSIONS = {
    "generate": 2,
    "import": 2,
    "describe": 3,
    "extract": 3,
    "words": 1,
    "analyze": 7,
    "tables": 11,
    "figures": 8,
    "steer": 2,
    "effects": 4,
    "page": 8,
}
"""A stage's version goes up when its code gives other output for the same settings."""

PHASES: dict[str, tuple[str, ...]] = {
    "generate": ("generate", "import", "describe"),
    "extract": ("generate", "import", "describe", "extract"),
    "analyze": ("generate", "import", "describe", "extract", "words", "analyze", "tables"),
    "steer": ("generate", "import", "extract", "steer", "effects"),
    "report": ("effects", "tables", "figures", "page"),
    "run": tuple(VERSIONS),
}
"""Stage kinds that each command brings up to date; `report` wants all others to be."""

CORPUS_TABLES = ("corpora", "corpus_emotions")
TABLES = (
    *("geometry", "cka", "valence_directions", "arousal_directions", "directions"),
    *("activations", "cka_corpora", "cka_models", "cka_grids"),
    *("variance", "left_out", "clusters", "emotion_cosines", "exclusions"),
    *("profiles", "claims", "claim_summary", "norms", "detection", "detected_emotions"),
)
PAGES = ("geometry", "clusters", "claims")
"""Tables for reading, in Markdown."""
FIGURES = tuple(CELLS_ON_A_PAGE)
EFFECTS = (
    *("steering", "steering_trends", "steering_tests", "steered_texts"),
    *("transfer", "transfer_layers"),
)
"""Tables of steering."""


LOOKS = Path(analysis.__file__).parent
STYLE = LOOKS / "figures" / "emovec.mplstyle"
PAGE, PAGE_PARTS = LOOKS / "report", ("page.html", "page.css", "page.js")
"""How figures and the page look: a change there makes them again."""


SPEED: Any = {
    "extraction": {"batch_tokens", "workers"},
    "corpora": {"__all__": {"generate": {"attempts", "expected_kept"}}},
    "models": {
        "__all__": {
            *("replicas", "gpu_memory_utilization", "max_num_seqs", "max_model_len"),
            "tensor_parallel_size",
        }
    },
}
"""Settings of speed, patience and expectation, which change nothing that a page says."""


@dataclass(frozen=True)
class Stage:
    """One unit of the plan.

    Attributes:
        kind: a key of VERSIONS.
        name: corpus, cell, or `all`.
        settings: what decides its output beside its inputs.
        after: ids of the stages it reads.
        fingerprint: sha256 over settings, version and the fingerprints of `after`, corpora left
            out: of what they hold, `Record.inputs` has the identity.
    """

    kind: str
    name: str
    settings: dict[str, Any]
    after: tuple[str, ...]
    fingerprint: str

    @property
    def id(self) -> str:
        """`kind:name`."""
        return f"{self.kind}:{self.name}"


class State(StrEnum):
    """Where a stage stands."""

    DONE = "done"
    PARTIAL = "partial"
    STALE = "stale"
    TODO = "to do"


@dataclass(frozen=True)
class Status:
    """A stage with its state.

    Attributes:
        stage: the stage.
        state: DONE; PARTIAL (an interrupted run left work that counts); STALE (there is output of
            other settings, which will be replaced); TODO.
        done: units done.
        total: units in all, None where that is not known yet.
        unit: what is counted.
        size: bytes on disk, or expected where `state` is not DONE; None where not known.
        record: what made the output, where it is DONE.
    """

    stage: Stage
    state: State
    done: int
    total: int | None
    unit: str
    size: int | None
    record: Record | None


class Plan:
    """All stages of a study in order."""

    def __init__(self, study: Study):
        self.study = study
        self.stages: dict[str, Stage] = {}
        self.models = {name: model_identity(study, name) for name in study.manifest.models}
        self.shapes: dict[str, ModelShape | None] = {}
        self._n_imported: dict[str, int] = {}
        for cell in study.cells:
            if cell.model not in self.shapes:
                shape = model_shape(study, cell.model)
                self.shapes[cell.model] = shape
                if shape is not None:
                    require_fitting(study, cell.model, shape)
        self._add_corpora()
        self._add_cells()
        if study.steered is not None:
            self._add_steering(study.steered)
        self._add_page()

    def again(self) -> Plan:
        """Return the same study's plan with what is known of models now, and of imports already."""
        anew = Plan(self.study)
        anew._n_imported |= self._n_imported
        return anew

    def layers(self, model: str) -> list[int] | None:
        """Return the layers kept of a model, -1 first; None while its config is not here."""
        layers = self.study.manifest.extraction.layers
        if layers != "all":
            return [-1, *layers]
        shape = self.shapes[model]
        return None if shape is None else [-1, *range(shape.n_layers)]

    def n_blocks(self, model: str) -> int:
        """Return the number of a model's blocks, whose config is here."""
        shape = self.shapes[model]
        assert shape is not None
        return shape.n_layers

    def inspect(self, layout: Layout) -> dict[str, Status]:
        """Look on disk and return every stage's status."""
        found: dict[str, Status] = {}
        for stage in self.stages.values():
            found[stage.id] = self._status(stage, layout, found)
        return found

    def import_texts(self, corpus: str, layout: Layout, sealed: bool) -> tuple[Text, ...]:
        """Read an imported corpus and check that it can be analysed; `n_texts` knows it then.

        Args:
            corpus: its name.
            layout: where the run lies.
            sealed: read the sealed corpus rather than the files it comes from.

        Raises:
            InputError: broken files, or nothing that can be analysed.
        """
        source = self.study.importing[corpus]
        texts = read_corpus(layout.stories(corpus)).texts if sealed else tuple(read_texts(source))
        emotions = tuple(dict.fromkeys(t.emotion for t in texts if t.emotion is not None))
        n_neutral = sum(text.kind == "neutral" for text in texts)
        check_analysable(self.study, corpus, emotions, n_neutral)
        self._n_imported[corpus] = len(texts)
        return texts

    def result_names(self, model: str) -> dict[str, list[Any]]:
        """Return what the results of a model's cells are labelled with, by coordinate.

        Without layers while they are not known.
        """
        manifest, layers = self.study.manifest, self.layers(model)
        return {
            **({} if layers is None else dict.fromkeys(("layer", "layer_b"), sorted(layers))),
            "window": [window.name for window in manifest.extraction_of(model).windows],
            "contrast": list(manifest.analysis.contrasts),
            "norms": [norms.name for norms in self.study.norms],
        }

    def _add(self, kind: str, name: str, settings: dict[str, Any], after: tuple[str, ...]) -> None:
        read = {stage: self.stages[stage] for stage in after}
        key = fingerprint(
            {
                "stage": kind,
                "version": VERSIONS[kind],
                "settings": settings,
                "after": {  # of a corpus the content counts, which a record's inputs name
                    key: None if stage.kind in ("generate", "import") else stage.fingerprint
                    for key, stage in read.items()
                },
            }
        )
        stage = Stage(kind, name, settings, after, key)
        self.stages[stage.id] = stage

    def _add_corpora(self) -> None:
        for name in self.study.manifest.corpora:
            if name in self.study.writing:
                checks = checks_settings(self.study.writing[name])
                self._add("generate", name, {**self._writing_settings(name), "checks": checks}, ())
            else:
                self._add("import", name, self._importing_settings(name), ())
        names = list(self.study.manifest.corpora)
        settings = {
            "checks_version": CHECKS_VERSION,
            "checks": {name: self.checks(name).model_dump(mode="json") for name in names},
            "tokenizers": {name: self.models.get(self.tokenizer(name)) for name in names},
            "norms": self._norms_settings(),
        }
        self._add("describe", "all", settings, tuple(self.corpus_stage(name) for name in names))

    def checks(self, corpus: str) -> Checks:
        """Return what a corpus' texts are checked for."""
        if corpus in self.study.writing:
            return self.study.writing[corpus].spec.checks
        return self.study.importing[corpus].spec.checks

    def tokenizer(self, corpus: str) -> str:
        """Return the model whose tokenizer counts a corpus: its writer, else its first reader."""
        if corpus in self.study.writing:
            return self.study.writing[corpus].spec.model
        readers = (cell.model for cell in self.study.cells if cell.corpus == corpus)
        return next(readers, next(iter(self.study.manifest.models)))

    def _norms_settings(self) -> dict[str, str]:
        return {norms.name: fingerprint(norms.ratings) for norms in self.study.norms}

    def _importing_settings(self, corpus: str) -> dict[str, Any]:
        source = self.study.importing[corpus]
        files = {"stories": source.stories, "neutral": source.neutral}
        digests = {key: path and path_digest(path) for key, path in files.items()}
        return {**source.spec.model_dump(mode="json", exclude={"checks", "writer"}), **digests}

    def journal_key(self, corpus: str) -> str:
        """Return the fingerprint of all that decides what a model is asked and may answer.

        Which answers are kept is not part of it: other checks judge the same journal again.
        """
        return fingerprint(["journal", VERSIONS["generate"], self._writing_settings(corpus)])

    def _writing_settings(self, corpus: str) -> dict[str, Any]:
        writing = self.study.writing[corpus]
        spec, entry = writing.spec, self.study.manifest.models[writing.spec.model]
        return {
            "corpus": corpus,
            "model": self.models[spec.model],
            "dtype": entry.dtype,
            "chat_template_kwargs": entry.chat_template_kwargs,
            **({} if writing.chat_template is None else {"chat_template": writing.chat_template}),
            "pairs": [[pair.emotion, pair.topic_index, pair.topic] for pair in writing.pairs()],
            "neutral_topics": list(writing.neutral_topics[: spec.neutral]),
            "prompts": vars(writing.prompts),
            **spec.model_dump(
                mode="json",
                include={
                    *("stories_per_topic", "stories_per_prompt", "neutral_style", "seed"),
                    *("temperature", "top_p", "max_new_tokens"),
                },
            ),
        }

    def _add_cells(self) -> None:
        manifest, cells = self.study.manifest, self.study.cells
        for cell in cells:
            settings = {
                "model": self.models[cell.model],
                **manifest.extraction_of(cell.model).model_dump(
                    mode="json", exclude={"batch_tokens", "workers"}
                ),
            }
            self._add("extract", cell.name, settings, (self.corpus_stage(cell.corpus),))
        analysed = {
            "norms": self._norms_settings(),
            "contrasts": list(manifest.analysis.contrasts),
            "neutral_variance": manifest.analysis.neutral_variance,
            "seed": manifest.analysis.seed,
            "bootstraps": manifest.analysis.bootstraps,
        }
        for corpus in dict.fromkeys(cell.corpus for cell in cells):
            self._add("words", corpus, analysed, (self.corpus_stage(corpus),))
        analysed = {**analysed, "permutations": manifest.analysis.permutations}
        for cell in cells:
            self._add("analyze", cell.name, analysed, (f"extract:{cell.name}",))
        analyzed = tuple(f"analyze:{cell.name}" for cell in cells)
        names = {"cells": [cell.name for cell in cells]}
        words = tuple(f"words:{corpus}" for corpus in dict.fromkeys(c.corpus for c in cells))
        compared = {
            **names,
            "random_twins": {cell.name: self.random_twin(cell) for cell in cells},
            "writers": {name: self.writer(name) for name in manifest.corpora},
        }
        self._add("tables", "all", compared, (*analyzed, *words))
        twins = {(self.random_twin(cell), cell.corpus) for cell in cells}
        shown = [(c.model, c.corpus) for c in cells if (c.model, c.corpus) not in twins]
        figures = figures_of(len(manifest.extraction.windows))
        pages = {name: len(pages_of(shown, CELLS_ON_A_PAGE[name])) for name in figures}
        drawn = {**names, "pages": pages, "style": path_digest(STYLE)}
        self._add("figures", "all", drawn, ("tables:all", *analyzed))

    def _add_page(self) -> None:
        manifest, cells = self.study.manifest, [cell.name for cell in self.study.cells]
        settings = {
            "cells": cells,
            "manifest": manifest.model_dump(
                mode="json", by_alias=True, exclude_none=True, exclude=SPEED
            ),
            "parts": {part: path_digest(PAGE / part) for part in PAGE_PARTS},
        }
        after = ["tables:all", "describe:all", *(f"analyze:{name}" for name in cells)]
        after += [self.corpus_stage(name) for name in manifest.corpora]
        if self.study.steered is not None:
            after.append("effects:all")
        self._add("page", "all", settings, tuple(after))

    def _add_steering(self, steered: Steered) -> None:
        manifest, spec = self.study.manifest, steered.spec
        for cell in steered.cells:
            shape, entry = self.shapes[cell.model], manifest.models[cell.model]
            kept = self.layers(cell.model)
            lacking = [i for i in spec.layers or () if kept is not None and i not in kept]
            if shape is not None and spec.layers is None:
                lacking = [i for i in steered_layers(spec, shape.n_layers) if i not in kept or ()]
            if lacking:
                what = f"layer {lacking[0]} of {cell.model} is not extracted"
                raise InputError(self.study.document.problem(("steering", "layers"), what))
            settings = {
                "model": self.models[cell.model],
                "dtype": entry.dtype,
                "scoring_dtype": manifest.extraction_of(cell.model).dtype,
                "chat_template_kwargs": entry.chat_template_kwargs,
                "chat_template": steered.chat_templates.get(cell.model),
                "prompts": vars(steered.prompts),
                "norms": fingerprint(steered.norms.ratings),
                "neutral_variance": manifest.analysis.neutral_variance,
                **spec.model_dump(mode="json", exclude={"cells", "prompts", "norms"}),
            }
            self._add("steer", cell.name, settings, (f"extract:{cell.name}",))
        transferred = spec.transfer is not None
        added = [*spec.directions, *([spec.transfer.direction] if spec.transfer else [])]
        steered_cells = [(cell.model, cell.corpus) for cell in steered.cells]
        effects = {
            "pages": effect_pages(steered_cells, [*dict.fromkeys(added)], transferred),
            "cells": [cell.name for cell in steered.cells],
            "norms": {steered.norms.name: fingerprint(steered.norms.ratings)},
            "style": path_digest(STYLE),
        }
        self._add("effects", "all", effects, tuple(f"steer:{c.name}" for c in steered.cells))

    def random_twin(self, cell: Cell) -> str | None:
        """Return the model with random weights of a trained one's configuration on its corpus.

        Of several the first. A configuration is told by where it comes from; a `revision` that one
        of the two entries leaves open is taken to be the other's.
        """
        models = self.study.manifest.models
        trained = models[cell.model]
        if trained.weights == "random":
            return None

        def alike(entry: ModelEntry) -> bool:
            where = [(e.builtin, e.hf, e.path and Path(e.path)) for e in (entry, trained)]
            revisions = {e.revision for e in (entry, trained)} - {None}
            return where[0] == where[1] and len(revisions) < 2

        readers = {c.model for c in self.study.cells if c.corpus == cell.corpus}
        twins = (
            name
            for name, entry in models.items()
            if name in readers and entry.weights == "random" and alike(entry)
        )
        return next(twins, None)

    def writer(self, corpus: str) -> str | None:
        """Return the model that wrote a corpus, None where that is not known."""
        if corpus in self.study.writing:
            return self.study.writing[corpus].spec.model
        return self.study.importing[corpus].spec.writer

    def n_texts(self, corpus: str, layout: Layout) -> int | None:
        """Return how many texts a corpus has or will have, None for one not looked into yet."""
        if corpus in self.study.writing:
            writing = self.study.writing[corpus]
            return len(writing.pairs()) * writing.spec.stories_per_topic + writing.spec.neutral
        known = self._n_imported.get(corpus)
        return corpus_size(layout.stories(corpus)) if known is None else known

    def corpus_stage(self, corpus: str) -> str:
        """Return the id of the stage that makes a corpus."""
        return f"{'generate' if corpus in self.study.writing else 'import'}:{corpus}"

    def cell(self, name: str) -> Cell:
        """Return a cell by name."""
        return next(cell for cell in self.study.cells if cell.name == name)

    def _status(self, stage: Stage, layout: Layout, found: dict[str, Status]) -> Status:
        record = read_record(layout.record(stage.kind, stage.name))
        done, total, unit, size = _LOOK[stage.kind](self, stage, layout)
        records = {key: found[key].record for key in stage.after}
        inputs = {key: r.identity for key, r in records.items() if r is not None}
        ready = len(inputs) == len(records)
        if (
            record is not None
            and done == total
            and record.fingerprint == stage.fingerprint
            and ready
            and record.inputs == inputs
            and self._matches(stage, layout, record)
        ):
            return Status(stage, State.DONE, done, total, unit, size, record)
        if (
            stage.kind in ("generate", "extract", "steer")
            and done
            and self._counts(stage, layout, inputs)
        ):
            return Status(stage, State.PARTIAL, done, total, unit, size, None)
        stale = record is not None or done > 0
        state = State.STALE if stale else State.TODO
        return Status(stage, state, 0, total, unit, size, None)

    def _matches(self, stage: Stage, layout: Layout, record: Record) -> bool:
        """Tell whether the output on disk is the one that a record speaks of."""
        if stage.kind in ("generate", "import"):
            return record.identity == corpus_identity(layout.stories(stage.name))
        if stage.kind == "steer":
            file = layout.steering(stage.name)
            return file.is_file() and record.identity == file_digest(file)
        if stage.kind in FOLDERS:
            where = FOLDERS[stage.kind](layout, stage.name)
            attributes = group_attributes(where) or {}
            return bool(attributes.get("made_from") == made_from(stage, record.inputs))
        return True

    def _counts(self, stage: Stage, layout: Layout, inputs: dict[str, str]) -> bool:
        """Tell whether unfinished output on disk belongs to this very stage."""
        if stage.kind == "generate":
            return journal_fingerprint(layout.journal(stage.name)) == self.journal_key(stage.name)
        if stage.kind == "steer":
            found = journal_fingerprint(layout.steering(stage.name))
            return found == fingerprint(made_from(stage, inputs))
        attributes = group_attributes(layout.residuals(stage.name)) or {}
        return bool(attributes.get("made_from") == made_from(stage, inputs))


FOLDERS: dict[str, Callable[[Layout, str], Place]] = {
    "extract": Layout.residuals,
    "words": Layout.words,
    "analyze": Layout.analysis,
}
"""Stage kinds whose output says itself what it was made from."""


def made_from(stage: Stage, inputs: dict[str, str]) -> dict[str, Any]:
    """Return what a cell's residuals carry to say which settings and texts they come from."""
    return {"fingerprint": stage.fingerprint, "inputs": inputs}


def rows_of(plan: Plan, stage: Stage, layout: Layout) -> Odd:
    """Return what the rows of a stage's journal are held against.

    Nothing where it is of other settings, whose rows may be another version's and are not used; nor
    where its header is none, which is told wherever rows are read.
    """
    generates = stage.kind == "generate"
    try:
        where = layout.journal(stage.name) if generates else layout.steering(stage.name)
        found = journal_fingerprint(where)
    except InputError:
        return any_row
    if generates:
        demand = Demand(stage.name, plan.study.writing[stage.name])
        return demand.oddity if found == plan.journal_key(stage.name) else any_row
    before = [read_record(layout.record(*key.split(":", 1))) for key in stage.after]
    inputs = {record.stage: record.identity for record in before if record is not None}
    return odd_measure if found == fingerprint(made_from(stage, inputs)) else any_row


Look = tuple[int, int | None, str, int | None]


def _look_generate(plan: Plan, stage: Stage, layout: Layout) -> Look:
    total = plan.n_texts(stage.name, layout) or 0
    sealed = corpus_size(layout.stories(stage.name))
    record = read_record(layout.record(stage.kind, stage.name))
    if sealed is not None and record is not None and record.fingerprint == stage.fingerprint:
        return sealed, total, "texts", _size(layout.corpus(stage.name))
    journal = layout.journal(stage.name)
    kept = 0
    if journal_fingerprint(journal) == plan.journal_key(stage.name):
        demand = Demand(stage.name, plan.study.writing[stage.name])
        demand.replay(journal_rows(journal, demand.oddity))
        kept = demand.n_kept
    return kept, total, "texts", total * 1500


def _look_import(plan: Plan, stage: Stage, layout: Layout) -> Look:
    file = layout.stories(stage.name)
    if file.is_file():
        return 1, 1, "corpus", _size(file)
    source = plan.study.importing[stage.name].stories
    return 0, 1, "corpus", None if source is None else _size(source)


def _look_extract(plan: Plan, stage: Stage, layout: Layout) -> Look:
    folder = layout.residuals(stage.name)
    cell = plan.cell(stage.name)
    layers, shape = plan.layers(cell.model), plan.shapes[cell.model]
    n_texts = plan.n_texts(cell.corpus, layout)
    n_windows = len(plan.study.manifest.extraction.windows)
    if there(folder):
        total = n_shards(folder)
        done = total - len(missing_shards(folder))
        if done == total:
            return done, total, "shards", _bytes(stage, layout, folder)
    else:
        done, total = 0, None
    if layers is None or shape is None or n_texts is None:
        return done, total, "shards", None
    per_shard = min(n_texts, shard_texts(n_windows, len(layers), shape.d_model))
    size = n_texts * n_windows * len(layers) * shape.d_model * 4
    return done, -(-n_texts // per_shard), "shards", size


def _look_results(plan: Plan, stage: Stage, layout: Layout) -> Look:
    folder = FOLDERS[stage.kind](layout, stage.name)
    made = there(folder)
    return int(made), 1, "data set", _bytes(stage, layout, folder) if made else None


def _bytes(stage: Stage, layout: Layout, folder: Place) -> int:
    """Return a folder's bytes, from its record where that says, since looking takes its time."""
    record = read_record(layout.record(stage.kind, stage.name))
    known = record.figures.get("bytes") if record is not None else None
    return total_size(folder) if known is None else int(known)


def _look_describe(plan: Plan, stage: Stage, layout: Layout) -> Look:
    return _look_files([layout.tables / f"{name}.csv" for name in CORPUS_TABLES])


def _look_tables(plan: Plan, stage: Stage, layout: Layout) -> Look:
    tables = [layout.tables / f"{name}.csv" for name in TABLES]
    return _look_files([*tables, *(layout.tables / f"{name}.md" for name in PAGES)])


def _look_figures(plan: Plan, stage: Stage, layout: Layout) -> Look:
    return _look_files([layout.figures / name for name in figure_files(stage)])


def _look_page(plan: Plan, stage: Stage, layout: Layout) -> Look:
    return _look_files([layout.page])


def _look_steer(plan: Plan, stage: Stage, layout: Layout) -> Look:
    """Count rows: each text is written and judged, each condition scored."""
    file, cell, steered = layout.steering(stage.name), plan.cell(stage.name), plan.study.steered
    shape, layers = plan.shapes[cell.model], plan.layers(cell.model)
    done = sum(1 for _ in journal_rows(file, rows_of(plan, stage, layout)))
    if shape is None or layers is None or steered is None:
        return done, None, "measures", None
    blocks = [layer for layer in layers if layer >= 0]
    texts, conditions = n_measures(steered, shape.n_layers, blocks)
    return done, 2 * texts + conditions, "measures", _size(file) if done else None


def _look_effects(plan: Plan, stage: Stage, layout: Layout) -> Look:
    figures = [layout.figures / name for name in figure_files(stage)]
    return _look_files([*(layout.tables / f"{name}.csv" for name in EFFECTS), *figures])


def figure_files(stage: Stage) -> list[str]:
    """Return the names of the files of figures that a stage leaves: PDF, and PNG for each page."""
    pages = stage.settings["pages"]
    return [
        file
        for name, n in pages.items()
        for file in (f"{name}.pdf", *(f"{page}.png" for page in page_names(name, n)))
    ]


def _look_files(files: list[Path]) -> Look:
    made = [file for file in files if file.is_file()]
    return len(made), len(files), "files", sum(file.stat().st_size for file in made) or None


_LOOK = {
    "generate": _look_generate,
    "import": _look_import,
    "describe": _look_describe,
    "extract": _look_extract,
    "words": _look_results,
    "analyze": _look_results,
    "tables": _look_tables,
    "figures": _look_figures,
    "page": _look_page,
    "steer": _look_steer,
    "effects": _look_effects,
}


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
