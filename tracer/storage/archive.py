"""What a trace is stored in, opened for reading: its metadata, its arrays, its groups as xarray sees them.

A trace is untrusted. Only nodes that its metadata lists are read, their paths stay inside the store, and whatever is
wrong with a file becomes a `TraceFormatError`.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DxrayError, TraceFormatError
from ..info import printable
from ..layout import ROOT_CHUNK
from .chunk_parts import is_one_chunk, read_part
from .head import Head, stamp_of
from .integrity import check_shards
from .library_store import LibraryStore
from .plain_chunks import is_plain, read_plain
from .regular import open_regular, read_regular, stored_size
from .shards import written_chunks
from .sizes import check_read

if TYPE_CHECKING:
    import xarray
    import zarr
    from zarr.abc.store import Store

__all__ = ["Archive"]


class Archive(Head):
    """One look at a store; a store that is still growing is looked at again with a new one.

    Raises:
        TraceNotFoundError: There is nothing at `source`.
        TraceFormatError: What is there is not a trace, is damaged, or has a newer format.
    """

    def __init__(self, source: Path | LibraryStore) -> None:
        super().__init__(source)
        self._datasets: dict[str, xarray.Dataset] = {}
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._latest: tuple[str, int | None, NDArray[Any]] | None = None
        self._known: set[tuple[Path, int]] = set()
        """Chunks whose checksums were found right."""

    def load(self, array: str, place: tuple[int | slice, ...] = (), *, steps: int | None = None) -> NDArray[Any]:
        """Read an array, or the part of it at `place`, into memory.

        Args:
            array: Its path.
            place: Along the first dimensions.
            steps: How many of an array along the steps are wanted, where not all are.
        """
        self._check(array)
        if steps is not None:
            place = (slice(0, steps),)
        try:
            self._check_room(array, place)
            if steps is not None and isinstance(self._source, Path) and is_plain(node := self._nodes[array]):
                shape = [min(steps, *node["shape"][:1]), *node["shape"][1:]]
                return read_plain(self._source / array, {**node, "shape": shape}, (), self._source)
            indices = tuple(at for at in place if isinstance(at, int))
            if isinstance(self._source, Path) and indices == place and is_plain(self._nodes[array]):
                return read_plain(self._source / array, self._nodes[array], indices, self._source)
            if isinstance(self._source, Path):
                first = place[0] if place and isinstance(place[0], int) else None
                check_shards(self._source / array, self._nodes[array], first, self._source)
            selection: Any = (*place, ...)
            return np.asarray(self._open(array)[selection])
        except Exception as error:
            raise self._unreadable(array, error) from error

    def load_run(self, array: str, step: int | None, start: int, count: int) -> NDArray[Any] | None:
        """Some consecutive elements of a tensor, of one step of it or of all where it has none, in row-major order.

        In a folder no more than these are decoded. None where a step was not written, if that can be told.
        """
        self._check(array)
        if isinstance(self._source, Path) and is_one_chunk(self._nodes[array]):
            try:
                self._check_room(array, () if step is None else (step,))
                return read_part(
                    self._source / array, self._nodes[array], step, start, count, root=self._source, known=self._known
                )
            except Exception as error:
                raise self._unreadable(array, error) from error
        latest = self._latest
        if latest is None or latest[:2] != (array, step):
            latest = self._latest = array, step, self.load(array, () if step is None else (step,)).ravel()
        return latest[2][start : start + count]

    def is_written(self, array: str, step: int | None) -> bool:
        """Whether a chunk is there: the first of a step, or of an array without steps.

        Raises:
            TraceFormatError: The array, or its index, is damaged.
        """
        self._check(array)
        node = self._nodes[array]
        try:
            outer = node["chunk_grid"]["configuration"]["chunk_shape"]
            at = [0] * len(node["shape"]) if step is None else [step // outer[0], *[0] * (len(outer) - 1)]
            name = ".".join(["c", *map(str, at)])
            if isinstance(self._source, LibraryStore):
                return self._source.get(f"{array}/{name}") is not None
            file = self._source / array / name
            if step is None or node["codecs"][0]["name"] != "sharding_indexed" or not file.exists():
                return file.exists()
            slot = step % outer[0]
            with open_regular(file, self._source) as stream:
                return any(written_chunks(stream.fileno(), name, outer[0], range(slot, slot + 1)))
        except Exception as error:
            raise self._unreadable(array, error) from error

    def load_if_there(self, array: str) -> NDArray[Any] | None:
        """Read an array into memory, or None when the trace has none of this name."""
        return self.load(array) if array in self._nodes else None

    def part(self, arrays: Iterable[str]) -> Archive:
        """The same store with a few arrays alone, small enough to be sent to another process."""
        part = copy.copy(self)
        part.__dict__.pop("_store", None)
        part.attributes, part._datasets, part._arrays, part._latest = {}, {}, {}, None
        part._nodes = {name: self._nodes[name] for name in arrays if name in self._nodes}
        if isinstance(self._source, Path):
            part._source = self._source.absolute()
        return part

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name != "_store"}
        return state | {"_datasets": {}, "_arrays": {}, "_latest": None, "_known": set()}

    def dataset(self, group: str) -> xarray.Dataset:
        """The arrays of a group, lazily."""
        import xarray

        if group not in self._datasets:
            from .lazy import guarded

            self._check(group)
            try:
                self._check_coordinates(group)
                opened = xarray.open_zarr(self._store, group=group, chunks=None)
                self._datasets[group] = guarded(opened, group, str(self.path), self._check_part)
            except Exception as error:
                raise self._unreadable(group, error) from error
        return self._datasets[group]

    def tree(self) -> xarray.DataTree:
        """All groups, lazily."""
        import xarray

        from .lazy import guarded

        try:
            for group in ["", *(name for name, node in self._nodes.items() if node.get("node_type") == "group")]:
                self._check_coordinates(group)
            tree = xarray.open_datatree(self._store, engine="zarr", chunks=None)  # type: ignore[arg-type]  # a Store will do
            for node in tree.subtree:
                path = node.path.strip("/")
                node.dataset = guarded(node.to_dataset(inherit=False), path, str(self.path), self._check_part)
        except DxrayError:
            raise
        except Exception as error:
            what = printable(error)[:300]
            raise TraceFormatError(f"{self.path} cannot be read as a tree: {what}") from error
        return tree

    def pulse(self) -> tuple[object, ...] | None:
        """What changes with every step that is committed; None once the metadata has changed, or may have.

        In a folder this reads one file of 1 KiB and lists nothing.
        """
        stamp = stamp_of(self._source)
        if stamp is None or stamp != self._root_stamp or not isinstance(self._source, Path):
            return None
        try:
            return tuple(read_regular(file, self._source, most=ROOT_CHUNK) for file in self._flags(self._source))
        except OSError:
            return None

    def _flags(self, folder: Path) -> list[Path]:
        """The chunks of the flags of committed steps."""
        steps = self._nodes.get("committed", {}).get("shape", [0])[0]
        return [folder / "committed" / f"c.{chunk}" for chunk in range(-(-steps // ROOT_CHUNK))]

    def size(self) -> int | None:
        """Bytes it takes where it is; None for a remote store, which would have to be asked key by key."""
        if isinstance(self._source, LibraryStore):
            return self._source.size()
        return sum(file.stat().st_size for file in self._source.rglob("*") if file.is_file())

    def _unreadable(self, node: str, error: Exception) -> DxrayError:
        """What an error on the way means, in one line."""
        if isinstance(error, DxrayError):
            return error
        what = printable(error)[:300] or type(error).__name__
        return TraceFormatError(f"{printable(node)} in {self.path} cannot be read: {what}")

    def _check_room(self, array: str, place: tuple[int | slice, ...]) -> None:
        """Refuse a part of an array that takes more than its files account for."""
        if isinstance(self._source, LibraryStore):
            store = self._source
            check_read(self._nodes[array], place, lambda name: store.stored_size(f"{array}/{name}"), None)
            return
        folder, root = self._source / array, self._source

        def read(name: str, count: int) -> bytes:
            with open_regular(folder / name, root) as stream:
                return stream.read(count) or b""

        check_read(self._nodes[array], place, lambda name: stored_size(folder / name), read)

    def _check_part(self, array: str, place: tuple[int | slice, ...]) -> None:
        """All that is looked at before a library reads a part of an array."""
        self._check(array)
        self._check_room(array, place)
        if isinstance(self._source, Path):
            first = place[0] if place and isinstance(place[0], int) else None
            check_shards(self._source / array, self._nodes[array], first, self._source)

    def _check_coordinates(self, group: str) -> None:
        """Look at the arrays of a group which xarray reads as it opens them: those that name a dimension."""
        for name, node in self._nodes.items():
            parent, _, own = name.rpartition("/")
            if parent == group and node.get("node_type") == "array":
                self._check(name)
                if node.get("dimension_names") == [own]:
                    self._check_part(name, ())

    def _check(self, node: str) -> None:
        """Refuse what the metadata does not list, and links out of the folder."""
        root = self._source
        try:
            is_inside = not isinstance(root, Path) or (root / node).resolve().is_relative_to(root.resolve())
        except (OSError, RuntimeError, ValueError):  # links that lead to themselves, names that no file can have
            is_inside = False
        if node not in self._nodes or not is_inside:
            raise TraceFormatError(f"{self.path} holds no array {printable(node)!r}; it may be damaged")

    @functools.cached_property
    def _store(self) -> Store:
        """With the metadata at hand, which those of the files may have outgrown."""
        from zarr.storage import LocalStore

        from .snapshot import Snapshot

        if isinstance(self._source, Path):
            return Snapshot(LocalStore(self._source, read_only=True), self.attributes, self._nodes, self._source)
        return Snapshot(self._source.for_reading(), self.attributes, self._nodes, check=self._source.check)

    def _open(self, array: str) -> zarr.Array[Any]:
        """An array by the metadata at hand; opening the root instead would read those of every array again."""
        import zarr
        from zarr.storage import StorePath

        if array not in self._arrays:
            self._arrays[array] = zarr.Array.from_dict(StorePath(self._store, array), dict(self._nodes[array]))
        return self._arrays[array]
