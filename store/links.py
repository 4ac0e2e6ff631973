"""A run is read and written in its own folder only: links that lead out of it are refused.

So is what is neither a file nor a folder, such as a pipe, at which a reader would wait for good.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from manifests.errors import InputError, Problem
from store.layout import Layout

KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def require_own_folder(layout: Layout) -> None:
    """Refuse a run's folder that is a link, or in which a link leads out or a pipe or device lies.

    The root itself may be a link: that is where a person says that runs live.

    Raises:
        InputError: naming the link and where it leads, or the pipe or device.
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
                elif not entry.is_file(follow_symlinks=False):
                    _require_file(Path(entry.path))


def _require_file(path: Path) -> None:
    try:
        kind = KINDS.get(stat.S_IFMT(path.lstat().st_mode))
    except FileNotFoundError:  # gone by now
        return
    if kind is not None:
        what = f"{kind}, where a run has files and folders only; remove it"
        raise InputError(Problem(path, None, "", what))


def _refusal(link: Path) -> InputError:
    what = (
        f"a link to {os.path.realpath(link)}, out of the run's folder, and is not "
        "followed; put what it names in its place, or give that folder as --root"
    )
    return InputError(Problem(link, None, "", what))
