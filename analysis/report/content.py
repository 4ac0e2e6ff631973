"""What a page is made from: plain data of one run, gathered by whoever has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.results import CellResults


@dataclass(frozen=True)
class Story:
    """A text as it is shown.

    Attributes:
        emotion: its emotion.
        topic: what it is about, "" where that is not known.
        text: the text.
    """

    emotion: str
    topic: str
    text: str


@dataclass(frozen=True)
class Refused:
    """A reply that was refused, or an imported text that breaks a check and stays in.

    Attributes:
        reason: name of the check, with what it found.
        emotion: that was asked for, "" for a neutral text.
        text: the reply.
    """

    reason: str
    emotion: str
    text: str


@dataclass(frozen=True)
class CorpusContent:
    """A corpus as it is shown.

    Attributes:
        name: in the manifest.
        writer: model that wrote it, None where that is not known.
        prompts: templates it was written with, by name; empty for an imported one.
        stories: texts to read, some or all.
        n_stories: how many there are.
        refused: some replies that were refused.
    """

    name: str
    writer: str | None
    prompts: dict[str, str]
    stories: tuple[Story, ...]
    n_stories: int
    refused: tuple[Refused, ...]


@dataclass(frozen=True)
class SteeringContent:
    """What steering did, as it is shown.

    Attributes:
        trends: the table `steering_trends`.
        tests: `steering_tests`.
        transfer: `transfer`.
        reached: `transfer_layers`.
        pictures: its figures as PNG, by name and page (`transfer`, `transfer-2`).
    """

    trends: pd.DataFrame
    tests: pd.DataFrame
    transfer: pd.DataFrame
    reached: pd.DataFrame
    pictures: dict[str, bytes]


@dataclass(frozen=True)
class RunContent:
    """A run as it is shown.

    Attributes:
        name: of the run.
        manifest: with every default, and what it was resolved to.
        versions: of the programs that made stages of a kind (reading, analysis), by kind.
        cells: results of every cell.
        tables: `geometry`, `claims`, `claim_summary`, `profiles`, `activations`, `detection`,
            `corpora` and `norms` of the run.
        files: tables to download, by file name.
        left: names of tables that are too large to carry.
        corpora: every corpus.
        steering: None where nothing was steered.
    """

    name: str
    manifest: dict[str, Any]
    versions: dict[str, dict[str, str]]
    cells: list[CellResults]
    tables: dict[str, pd.DataFrame]
    files: dict[str, bytes]
    left: tuple[str, ...]
    corpora: list[CorpusContent]
    steering: SteeringContent | None = None
