"""Where everything of a run lies: the folder names that others rely on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from store.places import Far, Place, place

WORK = Path("runs")
"""Where a run whose root is an object store keeps what has to be on a disk, in the folder that the
command is given in."""

LARGE = ("residuals.zarr", "analysis.zarr", "words.zarr")
"""Folders that live in the object store alone, where a run has one."""


@dataclass(frozen=True)
class Layout:
    """Places of one run; nothing is created by asking for one.

    Attributes:
        root: folder that holds runs.
        run_name: the manifest's name.
        far: the same in an object store, None for a run that lives in its folder alone. Story
            vectors and results are there and not in the folder; everything else is in the folder
            and, once it is finished, there too.
    """

    root: Path
    run_name: str
    far: Far | None = None

    @property
    def far_run(self) -> Far | None:
        """The run's folder in an object store."""
        return None if self.far is None else self.far / self.run_name

    def folders(self) -> list[Place]:
        """Return where the run lives: its folder, and its place in an object store."""
        return [self.run, *([] if self.far_run is None else [self.far_run])]

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.root / self.run_name

    @property
    def manifest(self) -> Path:
        """The manifest with every default spelled out, versions and fingerprints."""
        return self.run / "manifest.yaml"

    @property
    def lock(self) -> Path:
        """The run's lock file."""
        return self.run / ".lock"

    @property
    def logs(self) -> Path:
        """What vLLM, transformers and child processes print."""
        return self.run / "logs"

    @property
    def tables(self) -> Path:
        """CSV tables over all cells."""
        return self.run / "tables"

    @property
    def figures(self) -> Path:
        """PNG and PDF figures."""
        return self.run / "figures"

    @property
    def page(self) -> Path:
        """The page that shows the run."""
        return self.run / "report" / "index.html"

    def record(self, kind: str, name: str) -> Path:
        """Return the record of a finished stage."""
        return self.run / "records" / kind / f"{name}.json"

    def digests(self, kind: str, name: str) -> Path:
        """Return the list of what every byte was that a finished stage left."""
        return self.run / "digests" / kind / f"{name}.sha256"

    @property
    def manifest_pending(self) -> Path:
        """Says, while it is there, that the manifest and its list are being written."""
        return self.digests("manifest", "all").with_suffix(".pending")

    def damaged(self, when: str) -> Path:
        """Return where verification moves what is damaged."""
        return self.run / ".damaged" / when

    def home(self, key: str) -> Place:
        """Return the folder of the run in which a file lies, by its path in the run."""
        if self.far_run is not None and any(f"/{name}/" in key for name in LARGE):
            return self.far_run
        return self.run

    def corpus(self, corpus: str) -> Path:
        """Return a corpus' folder."""
        return self.run / "corpora" / corpus

    def journal(self, corpus: str) -> Path:
        """Return a corpus' journal."""
        return self.corpus(corpus) / "journal.jsonl"

    def stories(self, corpus: str) -> Path:
        """Return a sealed corpus."""
        return self.corpus(corpus) / "stories.parquet"

    def flagged(self, corpus: str) -> Path:
        """Return the list of a corpus' texts that break a check and stay in."""
        return self.corpus(corpus) / "flagged.csv"

    def given_up(self, corpus: str) -> Path:
        """Return the list of what a corpus lacks because it was refused too often."""
        return self.corpus(corpus) / "given_up.csv"

    def words(self, corpus: str) -> Place:
        """Return what a corpus' words give without a model."""
        return self._large("corpora", corpus, LARGE[2])

    def superseded(self, corpus: str, fingerprint: str) -> Path:
        """Return where a corpus goes whose settings were changed."""
        return self.run / "corpora" / ".superseded" / f"{corpus}-{fingerprint[:16]}"

    def residuals(self, cell: str) -> Place:
        """Return a cell's story vectors (`model@corpus`)."""
        return self._large("cells", cell, LARGE[0])

    def analysis(self, cell: str) -> Place:
        """Return a cell's results."""
        return self._large("cells", cell, LARGE[1])

    def superseded_steering(self, cell: str, fingerprint: str) -> Path:
        """Return where what steering measured goes when its settings are changed."""
        return self.steering(cell).parent / ".superseded" / f"steering-{fingerprint[:16]}.jsonl"

    def steering(self, cell: str) -> Path:
        """Return the journal of what a cell's model wrote and was found to be while steered."""
        return self.run / "cells" / cell / "steering.jsonl"

    def steering_directions(self, cell: str) -> Path:
        """Return the unit directions that a cell's model is steered with."""
        return self.run / "cells" / cell / "steering.safetensors"

    def _large(self, *parts: str) -> Place:
        where: Place = self.run if self.far_run is None else self.far_run
        for part in parts:
            where = where / part
        return where


def layout_of(root: str | Path, run_name: str) -> Layout:
    """Return the layout of a run under a root, which is a folder or an object store's address.

    Raises:
        ValueError: an address of an unknown kind.
    """
    where = place(str(root))
    if isinstance(where, Path):
        return Layout(where, run_name)
    scheme, _, rest = where.address.partition("://")
    return Layout(WORK / scheme / rest, run_name, where)
