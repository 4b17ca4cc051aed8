"""Any Zarr store that is no local folder, through zarr-python: memory, a zip file, fsspec, obstore.

`locate` tells a folder, which is read and written directly, from everything else. zarr is imported when there is such
a store, and none of this needs torch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from ..errors import StoreError, TraceFormatError, TraceNotFoundError, said
from .sizes import check_stored

if TYPE_CHECKING:
    from zarr.abc.store import Store
    from zarr.storage import FsspecStore

__all__ = ["LibraryStore", "Where", "folder_of", "is_url", "local_path", "locate", "open_url"]

Where: TypeAlias = "str | PathLike[str] | Store"
"""What a user names a trace by: a folder, a zip file, a URL, or a store of zarr-python."""

T = TypeVar("T")

_LOCAL_SCHEMES = ("file://", "local://")


def locate(where: Where) -> Path | LibraryStore:
    """Find out what kind of place a trace to read is at.

    Raises:
        TraceNotFoundError: The zip file is missing, or nothing here can follow the URL.
        TraceFormatError: The zip file is damaged, or the store cannot be opened.
        TypeError: `where` is none of these.
    """
    if is_url(where):
        try:
            return open_url(str(where))
        except StoreError as error:
            raise TraceNotFoundError(str(error)) from error
    if isinstance(where, str | PathLike):
        path = local_path(where)
        return _opened_zip(path) if path.suffix == ".zip" and not path.is_dir() else path
    from zarr.abc.store import Store

    if not isinstance(where, Store):
        raise TypeError(f"a trace is named by a path, a URL or a Zarr store, not by {where!r}")
    return folder_of(where) or _opened(where, str(where))


def is_url(where: object) -> bool:
    """Whether it is a URL of something that is not on this machine's disk."""
    return isinstance(where, str) and "://" in where and not where.startswith(_LOCAL_SCHEMES)


def local_path(where: str | PathLike[str]) -> Path:
    """A path, of which a URL such as "file:///tmp/run.zarr" is another spelling; "~" is the home folder."""
    for scheme in _LOCAL_SCHEMES:
        if isinstance(where, str) and where.startswith(scheme):
            return Path(where.removeprefix(scheme))
    try:
        return Path(where).expanduser()
    except RuntimeError:  # "~nobody/run.zarr": there is no such user, but there may be such a folder
        return Path(where)


def folder_of(store: Store) -> Path | None:
    """The folder that a store is another name of, which is then read and written directly."""
    from zarr.storage import FsspecStore, LocalStore

    if isinstance(store, LocalStore):
        return store.root
    if isinstance(store, FsspecStore) and "file" in _protocols(store):
        return Path(store.path)
    return None


def _protocols(store: FsspecStore) -> tuple[str, ...]:
    protocol = store.fs.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def open_url(url: str) -> LibraryStore:
    """A store at a URL, with whatever file system of fsspec knows its scheme.

    Raises:
        StoreError: fsspec is not installed, or knows nothing of the scheme, or wants a further package for it.
    """
    from zarr.storage import FsspecStore

    try:
        return LibraryStore(FsspecStore.from_url(url), url)
    except ModuleNotFoundError as error:
        raise StoreError(f"cannot open {url}: {error}; try: pip install 'diffusion-xray[remote]'") from error
    except Exception as error:
        raise StoreError(f"cannot open {url}: {error}") from error


def _opened_zip(path: Path) -> LibraryStore:
    from zarr.storage import ZipStore

    return _opened(ZipStore(path, mode="r"), str(path))


def _opened(store: Store, name: str) -> LibraryStore:
    try:
        return LibraryStore(store)
    except FileNotFoundError:
        raise TraceNotFoundError(f"there is no trace at {name}; check the path") from None
    except Exception as error:  # a zip file that is none, an address without a server
        raise TraceFormatError(f"{name} cannot be opened: {said(error)}") from error


class LibraryStore:
    """A store of zarr-python for code that is not asynchronous, with one kind of error."""

    def __init__(self, store: Store, name: str = "") -> None:
        from zarr.storage import StorePath

        self.store = store
        self.name = name or _name_of(store)
        """What to call it in messages."""
        _run(StorePath.open(store, ""))  # some stores have to be opened before their first key is asked for

    def get(self, key: str) -> bytes | None:
        """What is stored under a key, None when there is nothing.

        Raises:
            StoreError: The store does not answer.
        """
        from zarr.buffer.cpu import buffer_prototype

        self.check(key)
        try:
            found = _run(self.store.get(key, prototype=buffer_prototype))
        except Exception as error:
            raise StoreError(f"{key} cannot be read: {said(error)}") from error
        return None if found is None else found.to_bytes()

    def stored_size(self, key: str) -> tuple[int, int] | None:
        """Length of what is under a key, and the bytes it takes there; None where there is nothing.

        Raises:
            StoreError: The store does not answer.
        """
        from zarr.storage import ZipStore

        try:
            if isinstance(self.store, ZipStore):
                found = self.store._zf.getinfo(key)
                return found.file_size, found.compress_size
            length = _run(self.store.getsize(key))
        except (FileNotFoundError, KeyError):
            return None
        except Exception as error:
            raise StoreError(f"the size of {key} cannot be told: {said(error)}") from error
        return length, length

    def check(self, key: str) -> None:
        """Refuse what would become much more than it is, before it is read: a zip file may promise anything.

        Raises:
            TraceFormatError: It would.
        """
        from zarr.storage import ZipStore

        if isinstance(self.store, ZipStore) and (found := self.stored_size(key)) is not None:
            try:
                check_stored(key, *found)
            except ValueError as error:
                raise TraceFormatError(f"{self.name} is damaged: {error}") from error

    def exists(self, key: str) -> bool:
        """Whether there is something under a key.

        Raises:
            StoreError: The store does not answer.
        """
        try:
            return _run(self.store.exists(key))
        except Exception as error:
            raise StoreError(f"{key} cannot be looked for: {said(error)}") from error

    def put(self, entries: Mapping[str, bytes]) -> None:
        """Store whole keys, several at a time; returns when all have arrived.

        Raises:
            StoreError: One of them could not be written.
        """
        _run(_put_all(self.store, entries))

    def is_empty(self) -> bool:
        """Whether it holds no key at all; a store that cannot tell counts as empty."""
        if not self.store.supports_listing:
            return True
        try:
            return _run(self.store.is_empty(""))
        except Exception as error:
            raise StoreError(f"{self.name} cannot be listed: {said(error)}") from error

    def clear(self) -> None:
        """Delete every key.

        Raises:
            StoreError: Some stay.
        """
        # Not `clear` for all: that of FsspecStore ends at the first folder which is gone with the one above it.
        emptied = self.store.delete_dir("") if self.store.supports_deletes else self.store.clear()
        try:
            _run(emptied)
        except Exception as error:
            raise StoreError(f"{self.name} cannot be emptied: {said(error)}") from error
        if not self.is_empty():
            raise StoreError(f"{self.name} cannot be emptied; delete it with the tools it was made with")

    def size(self) -> int | None:
        """Bytes of all keys, None where finding out would take a request for each."""
        from zarr.storage import MemoryStore, ZipStore

        if isinstance(self.store, ZipStore):
            return self.store.path.stat().st_size
        return _run(self.store.getsize_prefix("")) if isinstance(self.store, MemoryStore) else None

    def for_reading(self) -> Store:
        """The store as one that cannot be written to, as zarr and xarray want it for reading."""
        if self.store.read_only:
            return self.store
        try:
            return self.store.with_read_only(read_only=True)
        except NotImplementedError:  # a zip file that is open for writing can be read all the same
            return _read_only(self.store)


def _name_of(store: Store) -> str:
    from zarr.storage import FsspecStore, ZipStore

    if isinstance(store, FsspecStore):
        return f"{_protocols(store)[0]}://{store.path.lstrip('/')}"
    return str(store.path) if isinstance(store, ZipStore) else str(store)


def _read_only(store: Store) -> Store:
    from zarr.storage import WrapperStore

    class ReadOnly(WrapperStore):  # type: ignore[type-arg]  # Store is known to type checkers only
        @property
        def read_only(self) -> bool:
            return True

    return ReadOnly(store)


async def _put_all(store: Store, entries: Mapping[str, bytes]) -> None:
    import zarr
    from zarr.buffer.cpu import Buffer

    at_once = asyncio.Semaphore(zarr.config.get("async.concurrency") or 10)

    async def put(key: str, data: bytes) -> None:
        async with at_once:
            try:
                await store.set(key, Buffer.from_bytes(data))
            except Exception as error:
                raise StoreError(f"{key} cannot be written: {said(error)}") from error

    # All are waited for, so that after an error nothing arrives late.
    for outcome in await asyncio.gather(*(put(*entry) for entry in entries.items()), return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Wait for a coroutine on zarr-python's own event loop.

    Clients of remote stores belong to the loop that first used them, and zarr-python reads on its own. It offers no
    public way to that loop; this function has been there, the same, in every version 3.
    """
    import zarr
    from zarr.core.sync import sync

    return sync(coroutine, timeout=zarr.config.get("async.timeout"))
