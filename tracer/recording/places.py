"""Where a trace goes: a folder, a zip file, or any other store."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from ..errors import StoreError, StoreExistsError
from ..process import lives_elsewhere
from ..storage.library_store import LibraryStore, Where, folder_of, is_url, local_path, open_url
from ..storage.library_writer import LibraryWriter
from ..storage.store import StoreWriter
from ..trace import Trace, open_trace

__all__ = ["MakeStore", "Place", "place_of"]

MakeStore = Callable[[Path, Mapping[str, Any]], StoreWriter]
"""Makes the writer of a folder from its path and head."""


class Place(Protocol):
    """Where one trace goes."""

    @property
    def path(self) -> Path | str:
        """What it is called."""
        ...

    def make_room(self, *, overwrite: bool) -> None:
        """See that nothing is there; an older trace is deleted when `overwrite` says so, and nothing else ever.

        Raises:
            StoreExistsError: The place is taken.
        """
        ...

    def writer(self, head: Mapping[str, Any]) -> StoreWriter:
        """Begin a trace with these attributes."""
        ...

    def open(self) -> Trace:
        """The trace so far, for reading."""
        ...

    def finish(self) -> None:
        """Whatever is left to do once the writer is done."""
        ...


def place_of(where: Where, make_store: MakeStore) -> Place:
    """The place a user named.

    Raises:
        StoreError: The name does not tell readers that it is a Zarr store, or leads nowhere.
        TypeError: It is no name at all.
    """
    if is_url(where):
        url = str(where)
        if not url.rstrip("/").endswith(".zarr"):
            raise StoreError(f"the trace {url!r} must end in .zarr, by which xarray knows it")
        return _StorePlace(open_url(url))
    if isinstance(where, str | PathLike):
        path = local_path(where)
        return _ZipPlace(path, make_store) if path.suffix == ".zip" else _FolderPlace(path, make_store)
    from zarr.abc.store import Store
    from zarr.storage import ZipStore

    if not isinstance(where, Store):
        raise TypeError(f"a trace goes to a path, a URL or a Zarr store, not to {where!r}")
    if where.read_only:
        raise StoreError(f"{where} is open for reading only, so no trace can go there")
    if (folder := folder_of(where)) is not None:
        return _FolderPlace(folder, make_store)
    try:
        store = LibraryStore(where)
    except Exception as error:
        raise StoreError(f"cannot write a trace at {where}: {error}") from error
    return _ZipPlace(where.path, make_store, store) if isinstance(where, ZipStore) else _StorePlace(store)


class _FolderPlace:
    def __init__(self, path: Path, make_store: MakeStore) -> None:
        if path.suffix != ".zarr":
            raise StoreError(
                f"the trace {str(path)!r} must end in .zarr, by which xarray knows it; try {path.stem}.zarr"
            )
        self.path = path
        self._make_store = make_store

    def make_room(self, *, overwrite: bool) -> None:
        if self.path.exists():
            seen = _identity(self.path)
            _check_replaceable(self.path, self.path, overwrite=overwrite)
            _take_away(self.path, seen)

    def writer(self, head: Mapping[str, Any]) -> StoreWriter:
        return self._make_store(self.path, head)

    def open(self) -> Trace:
        return open_trace(self.path)

    def finish(self) -> None:
        """Everything is where it belongs."""


class _StorePlace:
    def __init__(self, store: LibraryStore) -> None:
        self.path = store.name
        self._store = store

    def make_room(self, *, overwrite: bool) -> None:
        if self._store.exists("zarr.json") or not self._store.is_empty():
            _check_replaceable(self._store, self.path, overwrite=overwrite)
            self._store.clear()

    def writer(self, head: Mapping[str, Any]) -> StoreWriter:
        return LibraryWriter(self._store, head)

    def open(self) -> Trace:
        return Trace(self._store)

    def finish(self) -> None:
        """Everything is where it belongs."""


class _ZipPlace:
    """A zip file, recorded as a folder beside it and packed at the end.

    Nothing in a zip file can be replaced, and it cannot be opened before it has been closed: a process that is killed
    would leave nothing, and nobody could look at a run that goes on. The folder is a trace like any other.
    """

    def __init__(self, path: Path, make_store: MakeStore, store: LibraryStore | None = None) -> None:
        self.path = path
        self._folder = _FolderPlace(path.with_name(f"{path.stem.removesuffix('.zarr')}.recording.zarr"), make_store)
        self._store = store

    def make_room(self, *, overwrite: bool) -> None:
        self._folder.make_room(overwrite=overwrite)
        if self._store is None:
            if self.path.exists():
                _check_replaceable(self.path, self.path, overwrite=overwrite)
                self.path.unlink()
        elif not self._store.is_empty():
            _check_replaceable(self._store, self.path, overwrite=overwrite)
            self._store.clear()

    def writer(self, head: Mapping[str, Any]) -> StoreWriter:
        return self._folder.writer(head)

    def open(self) -> Trace:
        if self._folder.path.exists():
            return self._folder.open()
        return open_trace(self.path) if self._store is None else Trace(self._store)

    def finish(self) -> None:
        """Pack the folder, and delete it when all of it is in the file."""
        folder = self._folder.path
        if folder.is_symlink():
            raise StoreError(f"{folder}, from where {self.path} is packed, was replaced while it was written")
        files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
        if "zarr.json" not in files:
            raise StoreError(f"{folder}, from where {self.path} is packed, was deleted while it was written")
        try:
            if self._store is not None:
                for key, file in files.items():
                    self._store.put({key: file.read_bytes()})
            else:
                _pack(files, self.path)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be packed, what was recorded is in {folder}: {error}") from error
        shutil.rmtree(folder)


def _pack(files: Mapping[str, Path], path: Path) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as packed:  # chunks are compressed already
            for key, file in files.items():
                packed.write(file, key)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _check_replaceable(source: Path | LibraryStore, name: Path | str, *, overwrite: bool) -> None:
    try:
        trace = open_trace(source) if isinstance(source, Path) else Trace(source)
    except Exception as error:
        raise StoreExistsError(f"{name} exists and is not a trace, so it stays; choose another path") from error
    if not overwrite:
        raise StoreExistsError(f"{name} holds a trace already; choose another path or pass overwrite=True")
    process = trace.info.process
    if trace.info.status == "recording" and lives_elsewhere(process):
        raise StoreExistsError(
            f"{name} is being written by process {process['pid']}, which still runs; "
            "choose another path, or end that process first"
        )


def _take_away(path: Path, seen: tuple[int, int]) -> None:
    """Delete the folder that was looked at, and none that another process has put in its place since.

    It is renamed first, which only one of several processes can do.
    """
    if path.is_symlink():
        raise StoreExistsError(f"{path} is a link, so it stays; name the folder that it leads to")
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    path.rename(aside)
    if _identity(aside) != seen:
        aside.rename(path)
        raise StoreExistsError(f"{path} was replaced by another process a moment ago; choose another path")
    shutil.rmtree(aside)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
