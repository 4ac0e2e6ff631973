"""What verification finds, and what it could not look at."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What is the matter with a file."""

    DAMAGED = "damaged"
    MISSING = "missing"
    SUSPECT = "suspect"
    """Nothing vouches for it, since the list of digests that did is damaged or gone."""
    STRAY = "stray"
    """In a folder of arrays, where whoever opens it would see it, though no stage wrote it."""
    DEVIATES = "deviates"
    """Read again, a text's vectors are others."""
    UNKNOWN = "unknown"
    """Nothing of the run names it; it harms nothing."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        kind: what is the matter.
        key: path in the run's folder.
        stage: `kind:name` of the stage that wrote it, "" where none did.
        what: what is wrong, in words.
        copy: it is the copy in an object store that is meant.
    """

    kind: Kind
    key: str
    stage: str
    what: str
    copy: bool = False

    @property
    def is_damage(self) -> bool:
        """Whether the run is not what it was."""
        return self.kind is not Kind.UNKNOWN


@dataclass
class Report:
    """What a look at a run came to.

    Attributes:
        files: files held against a digest or, without one, looked into.
        size: bytes read of them.
        seconds: wall time.
        not_covered: keys by the reason why no digest speaks of them.
        notes: what a person should know, a line each.
        figures: counts of what was checked, by name.
        recomputed: for each cell the texts read again and the largest deviation.
        failed: something that was asked for could not be done.
    """

    findings: list[Finding] = field(default_factory=list)
    files: int = 0
    size: int = 0
    seconds: float = 0.0
    not_covered: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    notes: list[str] = field(default_factory=list)
    figures: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    recomputed: dict[str, dict[str, float]] = field(default_factory=dict)
    failed: bool = False
    _seen: set[tuple[str, bool]] = field(default_factory=set)

    @property
    def damage(self) -> list[Finding]:
        """The findings that say that the run is not what it was."""
        return [finding for finding in self.findings if finding.is_damage]

    def add(self, kind: Kind, key: str, stage: str, what: str, copy: bool = False) -> None:
        """Note a finding; a file is said to be damaged once, but each text that deviates."""
        if kind is Kind.DEVIATES or not self.found(key, copy):
            self.findings.append(Finding(kind, key, stage, what, copy))
            self._seen.add((key, copy))

    def found(self, key: str, copy: bool = False) -> bool:
        """Tell whether something was found about a file."""
        return (key, copy) in self._seen

    def is_damaged(self, key: str) -> bool:
        """Tell whether a file is known to be damaged, missing or in doubt."""
        return any(finding.key == key for finding in self.damage)

    def found_under(self, folder: str) -> bool:
        """Tell whether something was found about the metadata of a folder of arrays."""
        return any(f.key.startswith(f"{folder}/") and "/c/" not in f.key for f in self.findings)
