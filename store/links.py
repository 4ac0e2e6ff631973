"""A run is read and written in its own folder only: links that lead out of it are refused."""

from __future__ import annotations

import os
from pathlib import Path

from manifests.errors import InputError, Problem
from store.layout import Layout


def require_own_folder(layout: Layout) -> None:
    """Refuse a run's folder that is a link, or in which a link leads out of it.

    The root itself may be a link: that is where a person says that runs live.

    Raises:
        InputError: naming the link and where it leads.
    """
    if layout.run.is_symlink():
        raise _refusal(layout.run)
    home = layout.run.resolve()
    waiting = [layout.run] if layout.run.is_dir() else []
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    if not Path(os.path.realpath(entry.path)).is_relative_to(home):
                        raise _refusal(Path(entry.path))
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))


def _refusal(link: Path) -> InputError:
    what = (
        f"a link to {os.path.realpath(link)}, out of the run's folder, and is not "
        "followed; put what it names in its place, or give that folder as --root"
    )
    return InputError(Problem(link, None, "", what))
