"""What every byte of a finished stage was: lists of sha256, which serve verification only.

Whether a stage is done is never asked of them. A list has the lines of `sha256sum`, so that
`sha256sum --check` in a run's folder reads it too, and ends with the digest of its own lines.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from manifests.errors import shorten
from store.atomic import write_text
from store.layout import Layout
from store.places import Place, read_object, stays_inside

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_END = "# sha256 of the lines above: "


class DamagedList(ValueError):
    """A list of digests is not one that a stage wrote; the message says why.

    Attributes:
        left: what its lines that can be read say, by key, of files inside the folder.
    """

    def __init__(self, left: dict[str, str], what: str):
        super().__init__(what)
        self.left = left


@dataclass(frozen=True)
class Digest:
    """What an object's bytes are: sha256 and length."""

    sha256: str
    size: int


def digest_of(where: Place, key: str) -> Digest:
    """Return the digest of an object.

    Raises:
        FileNotFoundError: there is none.
    """
    if isinstance(where, Path):
        file = where / key
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
            return Digest(found, os.fstat(stream.fileno()).st_size)
    content = read_object(where, key)
    return Digest(hashlib.sha256(content).hexdigest(), len(content))


def digests_of(layout: Layout, keys: Iterable[str]) -> dict[str, str]:
    """Return the sha256 of objects of a run by their keys, read by a thread for each CPU."""
    wanted = sorted(keys)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        found = threads.map(lambda key: digest_of(layout.home(key), key).sha256, wanted)
        return dict(zip(wanted, found, strict=True))


def write_digests(file: Path, stage: str, digests: Mapping[str, str]) -> None:
    """Write a list whole.

    Args:
        file: the list.
        stage: `kind:name`.
        digests: sha256 by key, which is a path in the run's folder.
    """
    lines = [f"# emovec: what {stage} left"]
    lines += [f"{digest}  {key}" for key, digest in sorted(digests.items())]
    text = "".join(f"{line}\n" for line in lines)
    own = hashlib.sha256(text.encode()).hexdigest()
    write_text(file, f"{text}{_END}{own}\n")


def changed_files(layout: Layout, kind: str, name: str) -> list[str]:
    """Return the keys of what a stage left in a run's folder and is not as it was, or is gone.

    Nothing of a stage without a list that can be read.
    """
    changed = []
    try:
        listed = parse_digests(layout.digests(kind, name).read_bytes())
    except (FileNotFoundError, DamagedList):
        return []
    for key, wanted in listed.items():
        if layout.home(key) == layout.run:
            try:
                found = digest_of(layout.run, key).sha256
            except FileNotFoundError:
                found = ""
            if found != wanted:
                changed.append(key)
    return changed


def parse_digests(content: bytes) -> dict[str, str]:
    """Return the sha256 by key that a list holds.

    Raises:
        DamagedList: it is not as it was written, or names a file outside of its folder: whoever
            may write a list can also give it the digest of its lines.
    """
    text, _, end = content.decode("utf-8", errors="replace").rpartition(_END)
    found = (_LINE.fullmatch(line) for line in text.split("\n"))
    named = {line.group(2): line.group(1) for line in found if line is not None}
    digests = {key: digest for key, digest in named.items() if stays_inside(key)}
    own = hashlib.sha256(content[: content.rfind(_END.encode())]).hexdigest()
    if not text or end != f"{own}\n":
        raise DamagedList(digests, "its own digest differs")
    if outside := [key for key in named if key not in digests]:
        what = f"it names {shorten(outside[0])}, which is not inside the folder that it is of"
        raise DamagedList(digests, what)
    return digests
