"""Folders of objects that live on this machine or in an object store, seen alike.

An object appears whole or not at all in both, by rename here and by the store's own promise there.
A folder does not: `replaced_folder` writes the object that says it is there last.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from store.atomic import folder_written_whole, written_whole

SCHEMES = ("s3", "gs")

RETRIES: Any = {
    "max_retries": 10_000,  # the time decides
    "retry_timeout": timedelta(minutes=3),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=8)},
}
"""A store that is started again within this time is ridden through."""

MARK = "zarr.json"
"""The object of a Zarr group that says that it is there."""


class StoreRefused(Exception):
    """An object store does not do what is asked; the message names it and the next step."""


@dataclass(frozen=True)
class Far:
    """A folder in an object store, such as `s3://bucket/some/folder`.

    Credentials, region and endpoint come from the environment as the stores' own tools have them
    (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, ...).
    """

    address: str

    def __truediv__(self, part: str) -> Far:
        return Far(f"{self.address}/{part}")

    def __str__(self) -> str:
        return self.address

    def resolve(self) -> Far:
        """Return itself: an address has no other name."""
        return self

    @property
    def name(self) -> str:
        """Its last part."""
        return self.address.rpartition("/")[2]


Place = Path | Far


def is_far(text: str) -> bool:
    """Tell whether a text is the address of an object store."""
    return "://" in text


def place(text: str) -> Place:
    """Return the folder that a text names.

    Raises:
        ValueError: an address of an unknown kind, without a bucket, with keys or with `..` in it.
    """
    if not is_far(text):
        return Path(text)
    scheme, _, rest = text.partition("://")
    parts = rest.strip("/").split("/")
    if "@" in parts[0]:  # not repeated here: it may end up in a log
        raise ValueError(
            "keys do not belong in an address; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if scheme not in SCHEMES or not parts[0] or {".", ".."} & set(parts):
        known = " or ".join(f"{s}://bucket/folder" for s in SCHEMES)
        raise ValueError(f"{text!r} is not an address that is known; write {known}")
    return Far(text.rstrip("/"))


@lru_cache(maxsize=64)
def _opened(address: str, patient: bool = True) -> Any:
    """Return the obstore store of an address, which rides through a restart or soon gives up."""
    retries: Any = RETRIES if patient else {**RETRIES, "retry_timeout": timedelta(seconds=8)}
    from obstore.store import GCSStore, S3Store

    if address.startswith("gs://"):
        return GCSStore.from_url(address, retry_config=retries)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint is None:
        return S3Store.from_url(address, retry_config=retries)
    return S3Store.from_url(
        address,
        endpoint=endpoint,
        virtual_hosted_style_request=False,
        client_options={"allow_http": endpoint.startswith("http://")},
        retry_config=retries,
    )


@contextmanager
def told(where: Far) -> Iterator[None]:
    """Turn what an object store answers into one line.

    Raises:
        StoreRefused: in place of the library's errors.
        FileNotFoundError: there is no such object.
    """
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, FileNotFoundError) as error:
        what = _reason(error)
        if what is None:
            raise FileNotFoundError(f"{where}: no such object") from None
        raise StoreRefused(f"{where}: {what}") from None


FULL = ("QuotaExceeded", "StorageFull", "InsufficientStorage", "507 ", "no free volumes")
"""What stores call it (Ceph, MinIO, SeaweedFS)."""


def _reason(error: Exception) -> str | None:
    """Return what an object store's answer means for a person; None for a missing object."""
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    text = str(error)
    if "NoSuchBucket" in text:
        return "there is no such bucket; make it, or mend its name"
    if isinstance(error, FileNotFoundError):
        return None
    code, message = (
        found.group(1) if (found := re.search(rf"<{tag}>([^<]*)</{tag}>", text)) else ""
        for tag in ("Code", "Message")
    )
    line = f"{code}: {message}" if code else text.splitlines()[0].strip()
    if any(word in text for word in FULL):
        return f"the bucket is full, or its quota is used up; make room, and run again ({line})"
    refused = isinstance(error, PermissionDeniedError | UnauthenticatedError)
    if refused or "403 Forbidden" in text or "401 Unauthorized" in text:
        return (
            "the store refuses these keys; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or "
            "Google's credentials) to ones that may write there"
        )
    if "onnect" in text.splitlines()[0] or "error sending request" in text:
        return "nothing answers there; look at AWS_ENDPOINT_URL and at the network"
    return f"the store fails ({line}); look at its space and its log, and run again"


def stays_inside(key: str) -> bool:
    """Tell whether a key, which somebody else may have written, names a place inside a folder."""
    return "\0" not in key and not {".", "..", ""} & set(key.split("/"))


def zarr_store(where: Place, read_only: bool = False) -> Any:
    """Return what zarr opens for a folder."""
    if isinstance(where, Path):
        return where
    from zarr.storage import ObjectStore

    return ObjectStore(_opened(where.address), read_only=read_only)


def read_object(where: Place, key: str) -> bytes:
    """Return an object's bytes.

    Raises:
        FileNotFoundError: there is none.
        StoreRefused: the store does not give it.
    """
    if isinstance(where, Path):
        return (where / key).read_bytes()
    import obstore

    with told(where / key):
        return bytes(obstore.get(_opened(where.address), key).bytes())


def write_object(where: Far, key: str, content: bytes | Path) -> None:
    """Write an object whole."""
    import obstore

    with told(where / key):
        obstore.put(_opened(where.address), key, content)


def write_whole(where: Place, key: str, content: bytes) -> None:
    """Write an object whole, wherever it is to lie."""
    if isinstance(where, Far):
        write_object(where, key, content)
        return
    with written_whole(where / key) as partial:
        partial.write_bytes(content)


def delete_objects(where: Far, keys: list[str]) -> None:
    """Delete some objects; those that are not there count as deleted."""
    import obstore

    with told(where):
        for key in keys:
            try:
                obstore.delete(_opened(where.address), key)
            except FileNotFoundError:
                continue


def sizes(where: Place, under: str = "") -> dict[str, int]:
    """Return the bytes of every object of a folder by its key.

    Args:
        where: the folder.
        under: only objects in this folder of it.
    """
    if isinstance(where, Path):
        files = (where / under).rglob("*") if under else where.rglob("*")
        return {f.relative_to(where).as_posix(): f.stat().st_size for f in files if f.is_file()}
    import obstore

    with told(where):
        pages = obstore.list(_opened(where.address), under or None)
        return {meta["path"]: int(meta["size"]) for page in pages for meta in page}


def total_size(where: Place) -> int:
    """Return the bytes of everything in a folder."""
    return sum(sizes(where).values())


def there(where: Place) -> bool:
    """Tell whether a Zarr group is there."""
    if isinstance(where, Path):
        return (where / MARK).is_file()
    try:
        read_object(where, MARK)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def replaced_folder(where: Place) -> Iterator[Any]:
    """Give what zarr writes a small group into; put it in place when the block ends well.

    In an object store the group is made in memory, what was there is deleted, its mark first, and
    the new one's mark is written last: a crash on the way leaves nothing that counts as there.
    """
    if isinstance(where, Path):
        with folder_written_whole(where) as partial:
            yield partial
        return
    from zarr.storage import MemoryStore

    held: dict[str, Any] = {}
    yield MemoryStore(held)
    old = sorted(sizes(where), key=lambda key: key != MARK)
    delete_objects(where, old)
    for key in sorted(held, key=lambda key: key == MARK):
        write_object(where, key, held[key].to_bytes())


def copy_here(where: Far, key: str, target: Path) -> None:
    """Bring an object to this machine, whole."""
    with written_whole(target) as partial:
        partial.write_bytes(read_object(where, key))


def require_answering(where: Far) -> None:
    """Look for an object without patience.

    Raises:
        StoreRefused: nothing answers there, or it refuses.
    """
    import obstore

    with suppress(FileNotFoundError), told(where):
        obstore.head(_opened(where.address, patient=False), MARK)


def require_writable(where: Far, name: str) -> None:
    """Look for, write and delete a small object, so that a refusal is known before any work.

    Raises:
        StoreRefused: with the reason.
    """
    with suppress(FileNotFoundError):
        read_object(where, name)
    write_object(where, name, b"emovec writes here\n")
    delete_objects(where, [name])
