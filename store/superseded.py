"""Corpora of settings that were changed: where they go, and the digests that go with them."""

from __future__ import annotations

from pathlib import Path

from store.digests import DamagedList, parse_digests, write_digests
from store.layout import Layout

SUPERSEDED = "corpora/.superseded"
"""The folder of a run that they are in."""

KEPT = "digests.sha256"
"""In a corpus' folder that went aside: the digests that its stages' lists had of its files, by
their names there."""


def keep_digests(layout: Layout, corpus: str) -> None:
    """Write what the lists of digests say of a corpus' files into its folder, before they go.

    The digests are those of when the corpus was finished, not of what the files are now. Nothing is
    written of one that was never finished, or whose list is damaged.
    """
    folder = layout.corpus(corpus)
    root = f"{folder.relative_to(layout.run).as_posix()}/"
    found: dict[str, str] = {}
    for kind, name in (("generate", corpus), ("describe", "all"), ("words", corpus)):
        try:
            listed = parse_digests(layout.digests(kind, name).read_bytes())
        except (FileNotFoundError, DamagedList):
            listed = {}
        for key, sha in listed.items():
            if key.startswith(root) and layout.home(key) == layout.run:
                found[key.removeprefix(root)] = sha
        if not found:
            return
    write_digests(folder / KEPT, f"generate:{corpus}", found)


def put_aside(layout: Layout, corpus: str, fingerprint: str) -> Path:
    """Move a corpus' folder to where corpora of other settings go, and return where that is.

    Args:
        layout: of the run.
        corpus: whose folder is there.
        fingerprint: of the settings it was written under.
    """
    aside = layout.superseded(corpus, fingerprint)
    while aside.exists():
        aside = aside.with_name(f"{aside.name}+")
    aside.parent.mkdir(parents=True, exist_ok=True)
    layout.corpus(corpus).rename(aside)
    return aside
