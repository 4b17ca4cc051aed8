"""Write a Zarr v3 store on a local disk, chunk by chunk, without a Zarr library on the way.

A stepped array is one shard file with its index at the start: appending a step is two positioned writes, the data at
the end and then 16 bytes of index. Any Zarr reader sees a complete chunk or none. Metadata goes to disk by rename, and
one consolidated document at the root makes a change of many arrays visible at once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layout import ArraySpec
from .checksum import extend_address
from .encoding import encode, settled
from .folder import Folder
from .lanes import Lanes, bulk_calls
from .nodes import ROOT, Nodes
from .reserve import RESERVE, Reserve
from .shard_files import ShardFiles, chunk_name
from .shards import write_at

__all__ = ["StoreWriter", "bulk_calls", "chunk_name"]


class StoreWriter:
    """Creates groups and arrays below `path` and writes their chunks. Not thread-safe: one thread owns it.

    Args:
        path: Folder of the store; must not exist.
        attributes: Of the root.
        durable: Wait after each write until it is on the disk, so that not even a power failure takes it back.
    """

    def __init__(self, path: Path, attributes: Mapping[str, Any], *, durable: bool = False) -> None:
        self.path = path
        self._nodes = Nodes(attributes)
        self._durable = durable
        self._poked: set[str] = set()
        self._begin()

    def __contains__(self, path: str) -> bool:
        return path in self._nodes.arrays

    def spec(self, path: str) -> ArraySpec:
        """What is known of an array."""
        return self._nodes.arrays[path]

    def specs(self) -> list[ArraySpec]:
        """All arrays."""
        return list(self._nodes.arrays.values())

    @property
    def has_untold(self) -> bool:
        """Whether readers would see more of groups and arrays after `publish` than they do now."""
        return self._nodes.has_untold

    def set_group(self, path: str, attributes: Mapping[str, Any]) -> None:
        """Create a group with the groups above it, or change its attributes; "" is the root. See `publish`."""
        self._nodes.set_group(path, attributes)

    def add_array(self, spec: ArraySpec) -> None:
        """Create an array, or change its shape or attributes; visible after `publish`."""
        if spec.has_checksums and extend_address() is None:
            spec = replace(spec, has_checksums=False)
        self._nodes.add_array(spec)

    def resize(self, path: str, shape: tuple[int, ...]) -> None:
        """Change an array's shape; chunks already written stay where they are."""
        self._nodes.resize(path, shape)

    def publish(self) -> None:
        """Write the metadata of all nodes that changed, and the consolidated document last."""
        self._nodes.publish(self._put, self._keep_back)

    def write_last_words(self, attributes: Mapping[str, Any]) -> None:
        """Change attributes of the root and nothing else, in the room that was kept back for it.

        What could not be published stays untold: its documents may be as many as the disk has no room for.
        """
        self._put(ROOT, self._nodes.last_words(attributes))

    def append(self, path: str, index: tuple[int, ...], chunk: NDArray[Any]) -> None:
        """Write one inner chunk of a sharded array; `index` counts chunks along each of the leading dimensions.

        See `Shard.append`.
        """
        spec = self._settled(path, chunk)
        self._shards.append(spec, index, encode(spec, chunk))

    def append_all(self, chunks: Sequence[tuple[str, int, NDArray[Any], int]]) -> None:
        """`append` a step of several arrays, in one call without the interpreter's lock where that can be.

        Args:
            chunks: Array, step, contents, and the address of these where it is known, else 0.
        """
        bulk = None if self._durable or type(self).append is not StoreWriter.append else bulk_calls()
        if bulk is not None:
            self._lanes.append_all(chunks, bulk)
            return
        for path, step, chunk, _ in chunks:
            self.append(path, (step,), chunk[None])

    def copy_chunks(self, source: str, target: str, wanted: Sequence[int]) -> None:
        """Append the wanted steps of an array of the loop to another one of the same chunks, byte by byte."""
        self._adopt_codec(self.spec(source), target)
        self._shards.copy(self.spec(source), self.spec(target), wanted)

    def withdraw(self, path: str, step: int | None) -> bytes | None:
        """Take an array back that holds one chunk at most, that of a step or the only one; returned as it is stored."""
        spec = self._nodes.remove(path)
        self._lanes.forget(path)
        data = self._take(f"{path}/{chunk_name((0,) * len(spec.shape))}") if step is None else self._shards.take(path)
        self._files.remove(f"{path}/zarr.json")
        return data

    def put_encoded(self, path: str, step: int | None, data: bytes) -> None:
        """Write a chunk as it is stored: that of a step, or the only one of an array without steps."""
        spec = self.spec(path)
        if step is None:
            self._put(f"{path}/{chunk_name((0,) * len(spec.shape))}", data)
        else:
            self._shards.append(spec, (step,), data)

    def close(self) -> None:
        """Close the files that are kept open; everything is written already."""
        try:
            self._shards.open.end()
        finally:
            self._files.close()

    def write(self, path: str, index: tuple[int, ...], chunk: NDArray[Any]) -> None:
        """Write or replace one chunk of an array without shards, by rename."""
        key, spec = f"{path}/{chunk_name(index)}", self._settled(path, chunk)
        self._put(key, encode(spec, chunk))
        if not spec.has_checksums:
            self._poked.add(key)  # elements of it can be set from now on

    def poke(self, path: str, position: int, value: float) -> None:
        """Set one element of a raw one-dimensional array in place."""
        self.fill(path, position, position + 1, value)

    def fill(self, path: str, start: int, stop: int, value: float) -> None:
        """Set a range of elements of a raw one-dimensional array, in one write for each of its chunks."""
        spec = self.spec(path)
        size = spec.chunk[0]
        for chunk in range(start // size, -(-stop // size)):
            first, last = max(start - chunk * size, 0), min(stop - chunk * size, size)
            self._set(f"{path}/{chunk_name((chunk,))}", spec, first, np.full(last - first, value, spec.dtype))

    def _set(self, key: str, spec: ArraySpec, within: int, values: NDArray[Any]) -> None:
        """Set some elements of a chunk, which has no checksum that would have to change with them."""
        assert not spec.has_checksums
        if key not in self._poked:
            whole = np.full(spec.chunk, float(spec.fill), spec.dtype)
            whole[within : within + len(values)] = values
            self._put(key, whole.tobytes())
            self._poked.add(key)
            return
        descriptor = self._files.open(key, os.O_WRONLY)
        try:
            write_at(descriptor, values.tobytes(), within * values.itemsize)
            if self._durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def release_reserve(self) -> None:
        """Give the disk back what was kept for the last words, at the end of every trace.

        Raises:
            FileNotFoundError: Someone deleted the trace, or a part of it, while it was written.
        """
        gone = [name for name in (RESERVE, *self._shards.names()) if not self._files.exists(name)]
        self._reserve.release()
        if gone:
            raise FileNotFoundError(f"{self.path / gone[0]} was deleted while the trace was written")
        if not self._files.is_in_place():
            raise FileNotFoundError(f"{self.path} is another folder than the one the trace was begun in")

    def _begin(self) -> None:
        """Make the folder and the first metadata; where that fails, leave nothing that would be in the way later."""
        self._files = Folder(self.path, durable=self._durable)
        self._shards = ShardFiles(self._files, durable=self._durable)
        self._lanes = Lanes(self._settled, self._shards)
        self._reserve = Reserve(self._files)
        self._files.free_descriptors = self._shards.open.close_all
        try:
            self.publish()
        except OSError:
            self.close()
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    def _settled(self, path: str, chunk: NDArray[Any]) -> ArraySpec:
        """What is known of an array, its codec too: "auto" is decided by this chunk, the first."""
        spec = self._nodes.arrays[path]
        if spec.codec == "auto":
            spec = settled(spec, chunk)
            self._nodes.add_array(spec)
        return spec

    def _adopt_codec(self, source: ArraySpec, target: str) -> None:
        """Chunks are about to be moved as they are."""
        self._nodes.add_array(replace(self.spec(target), codec=source.codec, has_checksums=source.has_checksums))

    def _take(self, key: str) -> bytes | None:
        """Contents of a file, which is deleted; None where there is none."""
        if not self._files.exists(key):
            return None
        with os.fdopen(self._files.open(key, os.O_RDONLY), "rb") as stream:
            data = stream.read()
        self._files.remove(key)
        return data

    def _keep_back(self, nbytes: int) -> None:
        """A root document of so many bytes is about to be written; it must fit at the end, too."""
        self._reserve.hold(nbytes)

    def _put(self, key: str, data: bytes | memoryview) -> None:
        """Write or replace a whole file."""
        self._files.make(key.rpartition("/")[0])
        self._files.replace(key, data)
