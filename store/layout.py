"""Where everything of a run lies: the folder names that others rely on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """Paths of one run; nothing is created by asking for one.

    Attributes:
        root: folder that holds runs.
        run_name: the manifest's name.
    """

    root: Path
    run_name: str

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

    def record(self, kind: str, name: str) -> Path:
        """Return the record of a finished stage."""
        return self.run / "records" / kind / f"{name}.json"

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

    def superseded(self, corpus: str, fingerprint: str) -> Path:
        """Return where a corpus goes whose settings were changed."""
        return self.run / "corpora" / ".superseded" / f"{corpus}-{fingerprint[:16]}"

    def cell(self, cell: str) -> Path:
        """Return a cell's folder (`model@corpus`)."""
        return self.run / "cells" / cell

    def residuals(self, cell: str) -> Path:
        """Return a cell's story vectors."""
        return self.cell(cell) / "residuals.zarr"

    def analysis(self, cell: str) -> Path:
        """Return a cell's results."""
        return self.cell(cell) / "analysis.zarr"
