"""Write a Zarr v3 store on a local disk, chunk by chunk, without a Zarr library on the way.

A stepped array is one shard file with its index at the start: appending a step is two positioned writes, the data at
the end and then 16 bytes of index. Any Zarr reader sees a complete chunk or none. Metadata goes to disk by rename, and
one consolidated document at the root makes a change of many arrays visible at once.
"""

from __future__ import annotations

import bisect
import errno
import functools
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layout import ArraySpec, item_size
from .direct import LARGE, Pace
from .encoding import blosc_options, encode
from .folder import Folder
from .open_shards import OpenShards
from .shards import Shard, write_at

__all__ = ["StoreWriter", "bulk_calls", "chunk_name"]

_RESERVE = ".reserve"
_RESERVE_BYTES = 1 << 18
"""Kept back on disk beside the size of the root's document, so that the last words fit once the disk is full."""


class StoreWriter:
    """Creates groups and arrays below `path` and writes their chunks. Not thread-safe: one thread owns it.

    Args:
        path: Folder of the store; must not exist.
        attributes: Of the root.
        durable: Wait after each write until it is on the disk, so that not even a power failure takes it back.
    """

    def __init__(self, path: Path, attributes: Mapping[str, Any], *, durable: bool = False) -> None:
        self.path = path
        self._groups: dict[str, dict[str, Any]] = {"": dict(attributes)}
        self._arrays: dict[str, ArraySpec] = {}
        self._durable = durable
        self._shards: dict[tuple[str, tuple[int, ...]], Shard] = {}
        self._open = OpenShards()
        self._poked: set[str] = set()
        self._lanes: dict[str, _Lane] = {}
        self._scratch = np.empty(0, np.uint8)
        self._pace = Pace()
        self._published: dict[str, bytes] = {}
        """The document of every node as it was written last."""
        self._consolidated: dict[str, bytes] = {}
        """The same as entries of the root's document."""
        self._order: list[tuple[str, ...]] = []
        """The paths of these nodes, each group before what is in it."""
        self._changed: set[str] = set()
        self._told = b""
        """The nodes in the root's document as it is on disk."""
        self._reserved: int | None = 0
        """Bytes kept back on disk; None where nothing is."""
        self._begin()

    def __contains__(self, path: str) -> bool:
        return path in self._arrays

    def spec(self, path: str) -> ArraySpec:
        """What is known of an array."""
        return self._arrays[path]

    def specs(self) -> list[ArraySpec]:
        """All arrays."""
        return list(self._arrays.values())

    def set_group(self, path: str, attributes: Mapping[str, Any]) -> None:
        """Create a group with the groups above it, or change its attributes; "" is the root. See `publish`."""
        self._make_parents(path)
        self._groups.setdefault(path, {}).update(attributes)
        self._changed.add(path)

    def add_array(self, spec: ArraySpec) -> None:
        """Create an array, or change its shape or attributes; visible after `publish`."""
        self._make_parents(spec.path.rpartition("/")[0])
        self._arrays[spec.path] = spec
        self._changed.add(spec.path)

    def resize(self, path: str, shape: tuple[int, ...]) -> None:
        """Change an array's shape; chunks already written stay where they are."""
        self._arrays[path] = replace(self._arrays[path], shape=shape)
        self._changed.add(path)

    def publish(self) -> None:
        """Write the metadata of all nodes that changed, and the consolidated document last."""
        for path in sorted(self._changed - {""}):
            spec = self._arrays.get(path)
            document = _json(_group_document(self._groups[path]) if spec is None else spec.metadata())
            known = self._published.get(path)
            if known != document:
                self._put(f"{path}/zarr.json", document)
                self._published[path] = document
                self._consolidated[path] = b"%b:%b" % (_json(path), document)
            if known is None:
                bisect.insort(self._order, tuple(path.split("/")))
        self._changed.clear()
        told = b",".join(map(self._consolidated.__getitem__, map("/".join, self._order)))
        root = _root_document(self._groups[""], told)
        self._keep_back(len(root))
        self._put("zarr.json", root)
        self._told = told

    def write_last_words(self, attributes: Mapping[str, Any]) -> None:
        """Change attributes of the root and nothing else, in the room that was kept back for it.

        What could not be published stays untold: its documents may be as many as the disk has no room for.
        """
        self._groups[""].update(attributes)
        self._put("zarr.json", _root_document(self._groups[""], self._told))

    def append(self, path: str, index: tuple[int, ...], chunk: NDArray[Any]) -> None:
        """Write one inner chunk of a sharded array; `index` counts chunks along each of the leading dimensions.

        See `Shard.append`.
        """
        spec = self._arrays[path]
        shard, slot = self._shard(path, spec, index)
        is_new = shard.is_new
        shard.append(slot, encode(spec, chunk), durable=self._durable)
        if is_new:
            self._files.sync(path)
        self._open.keep_or_close(shard)

    def append_all(self, chunks: Sequence[tuple[str, int, NDArray[Any], int]]) -> None:
        """`append` a step of several arrays, in one call without the interpreter's lock where that can be.

        Args:
            chunks: Array, step, contents, and the address of these where it is known, else 0.
        """
        bulk = None if self._durable or type(self).append is not StoreWriter.append else bulk_calls()
        if bulk is None:
            for path, step, chunk, _ in chunks:
                self.append(path, (step,), chunk[None])
            return
        self._open.shrink()
        batch = _Batch()
        for path, step, chunk, address in chunks:
            lane = self._lanes.get(path) or self._lanes.setdefault(path, _Lane(self._arrays[path]))
            if chunk.shape != lane.shape or chunk.dtype != lane.dtype or not chunk.flags.c_contiguous:
                self.append(path, (step,), chunk[None])
                continue
            shard = self._lane_shard(path, lane, step)
            place = address or chunk.__array_interface__["data"][0]
            batch.ready.append((place, chunk.nbytes, *lane.blosc, shard.state_address, step % lane.steps))
            batch.given.append((path, step, chunk))
            if shard not in self._open:
                batch.shards.append(shard)
                if len(batch.shards) >= self._open.batch:
                    self._append_batch(bulk, batch)
                    batch = _Batch()
        self._append_batch(bulk, batch)

    def _append_batch(self, bulk: ModuleType, batch: _Batch) -> None:
        ready, given = batch.ready, batch.given
        try:
            while ready:
                self._scratch = bulk.scratch_for(ready, self._scratch)
                done = bulk.append_all(ready, self._scratch, self._pace)
                ready, given = ready[done:], given[done:]
                if given:  # the system did not take it: try once more, in a way that tells why
                    path, step, chunk = given.pop(0)
                    self.append(path, (step,), chunk[None])
                    ready.pop(0)
        finally:
            for shard in batch.shards:
                self._open.keep_or_close(shard)

    def copy_chunks(self, source: str, target: str, wanted: Sequence[int]) -> None:
        """Append the wanted steps of an array of the loop to another one of the same chunks, byte by byte."""
        steps, chosen = self._arrays[source].chunks_per_shard[0], set(wanted)
        for (path, place), shard in list(self._shards.items()):
            if path == source:
                for slot, data in shard.chunks():
                    if place[0] * steps + slot not in chosen:
                        continue
                    other, at = self._shard(target, self._arrays[target], (place[0] * steps + slot,))
                    other.append(at, data, durable=self._durable)
                    self._open.keep_or_close(other)
                self._open.keep_or_close(shard)

    def withdraw(self, path: str, step: int | None) -> bytes | None:
        """Take an array back that holds one chunk at most, that of a step or the only one; returned as it is stored."""
        spec = self._arrays.pop(path)
        self._changed.discard(path)
        if self._published.pop(path, None) is not None:
            del self._consolidated[path]
            self._order.remove(tuple(path.split("/")))
        self._lanes.pop(path, None)
        data = self._take(f"{path}/{chunk_name((0,) * len(spec.shape))}") if step is None else None
        for key in [key for key in self._shards if key[0] == path]:
            shard = self._shards.pop(key)
            data = next((chunk for _, chunk in shard.chunks()), data)
            self._open.close(shard)
            self._files.remove(shard.name)
        self._files.remove(f"{path}/zarr.json")
        return data

    def put_encoded(self, path: str, step: int | None, data: bytes) -> None:
        """Write a chunk as it is stored: that of a step, or the only one of an array without steps."""
        spec = self._arrays[path]
        if step is None:
            self._put(f"{path}/{chunk_name((0,) * len(spec.shape))}", data)
            return
        shard, slot = self._shard(path, spec, (step,))
        shard.append(slot, data, durable=self._durable)
        self._open.keep_or_close(shard)

    def close(self) -> None:
        """Close the files that are kept open; everything is written already."""
        try:
            self._open.end()
        finally:
            self._files.close()

    def write(self, path: str, index: tuple[int, ...], chunk: NDArray[Any]) -> None:
        """Write or replace one chunk of an array without shards, by rename."""
        self._put(f"{path}/{chunk_name(index)}", encode(self._arrays[path], chunk))

    def poke(self, path: str, position: int, value: float) -> None:
        """Set one element of a raw one-dimensional array in place."""
        self.fill(path, position, position + 1, value)

    def fill(self, path: str, start: int, stop: int, value: float) -> None:
        """Set a range of elements of a raw one-dimensional array, in one write for each of its chunks."""
        spec = self._arrays[path]
        size = spec.chunk[0]
        for chunk in range(start // size, -(-stop // size)):
            first, last = max(start - chunk * size, 0), min(stop - chunk * size, size)
            self._set(f"{path}/{chunk_name((chunk,))}", spec, first, np.full(last - first, value, spec.dtype))

    def _set(self, key: str, spec: ArraySpec, within: int, values: NDArray[Any]) -> None:
        """Set some elements of a chunk."""
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
        names = [_RESERVE, *(shard.name for shard in self._shards.values())]
        gone = [name for name in names if not self._files.exists(name)]
        self._files.remove(_RESERVE)
        self._reserved = None
        if gone:
            raise FileNotFoundError(f"{self.path / gone[0]} was deleted while the trace was written")
        if not self._files.is_in_place():
            raise FileNotFoundError(f"{self.path} is another folder than the one the trace was begun in")

    def _begin(self) -> None:
        """Make the folder and the first metadata; where that fails, leave nothing that would be in the way later."""
        self._files = Folder(self.path, durable=self._durable)
        self._files.free_descriptors = self._open.close_all
        try:
            self.publish()
        except OSError:
            self.close()
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    def _take(self, key: str) -> bytes | None:
        """Contents of a file, which is deleted; None where there is none."""
        if not self._files.exists(key):
            return None
        with os.fdopen(self._files.open(key, os.O_RDONLY), "rb") as stream:
            data = stream.read()
        self._files.remove(key)
        return data

    def _keep_back(self, nbytes: int) -> None:
        """Have as much of the disk in reserve as a root document of so many bytes takes, and more for last words."""
        if self._reserved is None or nbytes + _RESERVE_BYTES <= self._reserved:
            return
        wanted = 2 * nbytes + _RESERVE_BYTES  # it grows along with the trace, and rarely
        descriptor = self._files.open(_RESERVE, os.O_WRONLY | os.O_CREAT)
        try:
            write_at(descriptor, bytes(wanted - self._reserved), self._reserved)
        except OSError as error:
            if error.errno != errno.EFBIG:  # a limit on the size of files, which says nothing of the disk
                raise
        finally:
            os.close(descriptor)
        self._reserved = wanted

    def _put(self, key: str, data: bytes | memoryview) -> None:
        """Write or replace a whole file."""
        self._files.make(key.rpartition("/")[0])
        self._files.replace(key, data)

    def _shard(self, path: str, spec: ArraySpec, index: tuple[int, ...]) -> tuple[Shard, int]:
        """The file that a chunk belongs into, and the chunk's slot in it."""
        place: list[int] = []
        slot = 0
        for axis, count in enumerate(spec.chunks_per_shard):
            outer, inner = divmod(index[axis] if axis < len(index) else 0, count)
            place.append(outer)
            slot = slot * count + inner
        key = path, tuple(place)
        shard = self._shards.get(key)
        if shard is None:
            slots = math.prod(spec.chunks_per_shard)
            large = math.prod(spec.chunk) * item_size(spec.dtype) >= LARGE
            self._files.make(path)
            name = f"{path}/{chunk_name(key[1])}"
            shard = self._shards[key] = Shard(self._files, name, slots, large=large)
            if (before := self._shards.get((path, (place[0] - 1, *place[1:])))) is not None:
                self._open.close(before)
        return shard, slot

    def _lane_shard(self, path: str, lane: _Lane, step: int) -> Shard:
        """The file that a step of an array belongs into, open."""
        outer = step // lane.steps
        if lane.shard is None or lane.outer != outer:
            lane.outer, (lane.shard, _) = outer, self._shard(path, self._arrays[path], (step,))
        if not lane.shard.is_open or lane.shard.is_large:
            lane.shard.open(direct=not self._pace.is_slow)
        return lane.shard

    def _make_parents(self, path: str) -> None:
        segments = path.split("/") if path else []
        for depth in range(1, len(segments) + 1):
            group = "/".join(segments[:depth])
            if group not in self._groups:
                self._groups[group] = {}
                self._changed.add(group)


class _Batch:
    """Chunks that are appended together, and those of their shards that do not stay open."""

    __slots__ = ("given", "ready", "shards")

    def __init__(self) -> None:
        self.ready: list[tuple[Any, ...]] = []
        self.given: list[tuple[str, int, NDArray[Any]]] = []
        self.shards: list[Shard] = []


class _Lane:
    """What does not change from one step of an array to the next, looked up once."""

    __slots__ = ("blosc", "dtype", "outer", "shape", "shard", "steps")

    def __init__(self, spec: ArraySpec) -> None:
        assert spec.shard
        self.shape, self.dtype, self.steps = spec.chunk[1:], np.dtype(spec.dtype), spec.shard[0]
        self.blosc = blosc_options(spec.codec, spec.dtype)
        self.shard: Shard | None = None
        self.outer = 0


def _group_document(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def _root_document(attributes: Mapping[str, Any], nodes: bytes) -> bytes:
    """The document of the root, with those of all other nodes as they are."""
    head = _json(_group_document(attributes)).removesuffix(b"}")
    return head + b',"consolidated_metadata":{"kind":"inline","must_understand":false,"metadata":{%b}}}' % nodes


def _json(document: Mapping[str, Any] | str) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def chunk_name(index: tuple[int, ...]) -> str:
    """Name of a chunk, or of a shard, below its array."""
    return ".".join(["c", *map(str, index)])


@functools.cache
def bulk_calls() -> ModuleType | None:
    """The module that appends in bulk, compiled or loaded; None where it cannot be."""
    try:
        from . import bulk
    except (ImportError, OSError, AttributeError):  # no numba, or a numcodecs whose library cannot be called
        return None
    return bulk
