"""What the hub says of a repository, before anything of it is downloaded."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

AT_ONCE = 8
"""Questions to the hub that wait for their answers at once."""

Kind = Literal["model", "dataset"]
WORDS: dict[Kind, str] = {"model": "model", "dataset": "data set"}


@dataclass(frozen=True)
class Repository:
    """A repository of the hub, at a revision.

    Attributes:
        kind: what it holds.
        name: `owner/name`.
        revision: commit, tag or branch; the default branch when None.
    """

    kind: Kind
    name: str
    revision: str | None


@dataclass(frozen=True)
class Answer:
    """What the hub says of a repository.

    Attributes:
        commit: that its revision stands for, None where the hub cannot be asked.
        problem: why it cannot be had, else empty.
    """

    commit: str | None
    problem: str = ""


def ask_hub(repositories: Iterable[Repository]) -> dict[Repository, Answer]:
    """Ask for every repository's commit, and whether this account may have it.

    One request each, and a second where access is restricted. Where the hub cannot be reached the
    answer is empty: what is wanted may be in this machine's cache.
    """
    wanted = list(dict.fromkeys(repositories))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(wanted, pool.map(_ask, wanted), strict=True))


def _ask(repository: Repository) -> Answer:
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api, name, kind = HfApi(), repository.name, repository.kind
    try:
        info = api.repo_info(name, revision=repository.revision, repo_type=kind)
        if getattr(info, "gated", False):
            api.auth_check(name, repo_type=kind)
    except HfHubHTTPError as error:
        refused = refusal(error, name, repository.revision)
        return Answer(None, "" if refused is None else f"{WORDS[kind]} {refused}")
    except (httpx2.HTTPError, OSError):
        return Answer(None)
    return Answer(info.sha)


def refusal(error: Exception, repository: str, revision: str | None) -> str | None:
    """Return in words why the hub refuses a repository, None for any other error."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        what = "is gated: accept its terms on the hub and log in with `hf auth login`"
    elif isinstance(error, RepositoryNotFoundError):
        what = "does not exist on the hub, or is private"
    elif isinstance(error, RevisionNotFoundError):
        what = f"has no revision {revision!r}"
    else:
        return None
    return f"{repository} {what}"
