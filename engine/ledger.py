"""The book of a run: which stages can begin, what each one made, what failed and why."""

from __future__ import annotations

import dataclasses
import hashlib
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import yaml

from engine.child import ChildFailed
from engine.events import Event, Listener, Note, StageFailed, StageFinished
from engine.machines.workers import ClusterGone
from engine.outputs import output_keys
from engine.plan import Plan, Stage, State, Status
from engine.versions import program_versions
from manifests.errors import InputError
from store.digests import digests_of, write_digests
from store.layout import Layout
from store.mirror import forget, push
from store.records import Record, derived_identity, read_record, record_text, write_record


@dataclass
class Outcome:
    """What a run did."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class Ledger:
    """Plan, place and outcome of one run; what its stages share.

    Attributes:
        folders: where the models lie that are needed, by name.
        label: put before a stage's id wherever it is told of, where several runs are at work.
    """

    def __init__(
        self,
        plan: Plan,
        layout: Layout,
        folders: dict[str, str],
        listener: Listener,
        label: str = "",
    ):
        self.plan, self.layout, self.folders, self.label = plan, layout, folders, label
        self._listener = listener
        self.outcome = Outcome()
        self.versions = program_versions()

    def listener(self, event: Event) -> None:
        """Tell of something."""
        if isinstance(event, Note):
            self._listener(event)
        else:
            self._listener(dataclasses.replace(event, stage=f"{self.label}{event.stage}"))

    def ready(self, *kinds: str) -> list[Status]:
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
                self.fail(stage.id, f"needs {', '.join(blocked)}")
            else:
                ready.append(status)
        return ready

    def begin(self, stage: Stage) -> None:
        """Forget a stage's record before its output changes: a record never outlives what it says.

        The output on disk is then nobody's until the stage ends well.
        """
        forget(self.layout, stage.kind, stage.name)

    def inputs(self, stage: Stage) -> dict[str, str]:
        """Return the identities of what a stage reads."""
        inputs = {}
        for key in stage.after:
            read = self.plan.stages[key]
            record = read_record(self.layout.record(read.kind, read.name))
            assert record is not None
            inputs[key] = record.identity
        return inputs

    def finish(
        self,
        stage: Stage,
        started: float,
        figures: dict[str, Any],
        identity: str | None = None,
    ) -> None:
        """Write a stage's digests and record, after its output; it began at `started`, monotonic.

        The record, which says that the stage is done, comes last.
        """
        inputs = self.inputs(stage)
        record = Record(
            stage=stage.id,
            fingerprint=stage.fingerprint,
            identity=identity or derived_identity(stage.fingerprint, inputs),
            inputs=inputs,
            seconds=round(time.monotonic() - started, 3),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            figures=figures,
            versions=self.versions,
            listed=True,
        )
        self._list_output(stage, record)
        write_record(self.layout.record(stage.kind, stage.name), record)
        push(self.layout, stage.kind, stage.name)
        self.outcome.done.append(stage.id)
        self.listener(StageFinished(stage.id, record.seconds, figures))

    def _list_output(self, stage: Stage, record: Record) -> None:
        """Write down the digests of what a stage has left, for verification."""
        layout = self.layout
        digests = digests_of(layout, output_keys(layout, stage))
        key = layout.record(stage.kind, stage.name).relative_to(layout.run).as_posix()
        digests[key] = hashlib.sha256(record_text(record).encode()).hexdigest()
        write_digests(layout.digests(stage.kind, stage.name), stage.id, digests)

    def fail(self, stage: str, message: str, log: str = "", tail: tuple[str, ...] = ()) -> None:
        """Note that a stage failed and tell the listener."""
        self.outcome.failed[stage] = message
        self.listener(StageFailed(stage, message, log, tail))

    @contextmanager
    def failing(self, stages: list[str]) -> Iterator[None]:
        """Turn an error into the failure of these stages, so that the others go on."""
        try:
            yield
        except ClusterGone:  # nothing else can be done there either
            raise
        except ChildFailed as error:
            for stage in stages:
                self.fail(stage, str(error), str(error.log), tuple(error.tail()))
        except Exception as error:
            log = self.layout.logs / "errors.log"
            with suppress(OSError):  # the disk may be full
                log.parent.mkdir(parents=True, exist_ok=True)
                with log.open("a", encoding="utf-8") as stream:
                    traceback.print_exc(file=stream)
            told = isinstance(error, InputError)  # names the file, and says what it is
            for stage in stages:
                what = str(error) if told else f"{type(error).__name__}: {error}"
                self.fail(stage, what, str(log))


def resolved_manifest(plan: Plan) -> str:
    """Return the manifest as YAML with every default, versions and fingerprints."""
    manifest = plan.study.manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
    manifest["resolved"] = {
        "versions": program_versions(),
        "models": plan.models,
        "fingerprints": {key: stage.fingerprint for key, stage in plan.stages.items()},
    }
    return yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=100)
