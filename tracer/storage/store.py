"""Write a Zarr v3 store on a local disk, chunk by chunk, without a Zarr library on the way.

A stepped array is one shard file with its index at the start: appending a step is two positioned writes, the data at
the end and then 16 bytes of index. Any Zarr reader sees a complete chunk or none. Metadata goes to disk by rename, and
one consolidated document at the root makes a change of many arrays visible at once.
"""

from __future__ import annotations

import bisect
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
from .shards import Shard, write_at

__all__ = ["StoreWriter", "bulk_calls", "chunk_name"]

_MOST_OPEN = 256
"""Files kept open between two steps; finding one again costs as much as writing 100 KB."""
_RESERVE = ".reserve"
_RESERVE_BYTES = 1 << 18
"""Kept back on disk, so that the reason can still be written once the disk is full."""


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
        self._open: set[Shard] = set()
        self._poked: set[Path] = set()
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
        nodes = map(self._consolidated.__getitem__, map("/".join, self._order))
        head = _json(_group_document(self._groups[""])).removesuffix(b"}")
        consolidated = b',"consolidated_metadata":{"kind":"inline","must_understand":false,"metadata":{%b}}}'
        self._put("zarr.json", head + consolidated % b",".join(nodes))

    def append(self, path: str, index: tuple[int, ...], chunk: NDArray[Any]) -> None:
        """Write one inner chunk of a sharded array; `index` counts chunks along each of the leading dimensions.

        See `Shard.append`.
        """
        spec = self._arrays[path]
        shard, slot = self._shard(path, spec, index)
        is_new = shard.is_new
        shard.append(slot, encode(spec, chunk), durable=self._durable)
        if is_new and self._durable:
            _sync_folder(shard.file.parent)
        self._close_or_keep(shard)

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
        ready, given, shards = [], [], []
        for path, step, chunk, address in chunks:
            lane = self._lanes.get(path) or self._lanes.setdefault(path, _Lane(self._arrays[path]))
            if chunk.shape != lane.shape or chunk.dtype != lane.dtype or not chunk.flags.c_contiguous:
                self.append(path, (step,), chunk[None])
                continue
            shard = self._lane_shard(path, lane, step)
            place = address or chunk.__array_interface__["data"][0]
            ready.append((place, chunk.nbytes, *lane.blosc, shard.state_address, step % lane.steps))
            given.append((path, step, chunk))
            if shard not in self._open:
                shards.append(shard)
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
            for shard in shards:
                self._close_or_keep(shard)

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
                    self._close_or_keep(other)
                self._close_or_keep(shard)

    def close(self) -> None:
        """Close the files that are kept open; everything is written already."""
        for shard in self._open:
            shard.close()
        self._open.clear()

    def write(self, path: str, index: tuple[int, ...], chunk: NDArray[Any]) -> None:
        """Write or replace one chunk of an array without shards, by rename."""
        self._put(f"{path}/{chunk_name(index)}", encode(self._arrays[path], chunk))

    def poke(self, path: str, position: int, value: float) -> None:
        """Set one element of a raw one-dimensional array in place."""
        spec = self._arrays[path]
        chunk, within = divmod(position, spec.chunk[0])
        file = self._chunk_file(path, (chunk,))
        if file not in self._poked:
            self._write_bytes(file, np.full(spec.chunk, float(spec.fill), spec.dtype).tobytes())
            self._poked.add(file)
        with file.open("r+b") as stream:
            stream.seek(within * np.dtype(spec.dtype).itemsize)
            stream.write(np.asarray(value, spec.dtype).tobytes())
            if self._durable:
                stream.flush()
                os.fsync(stream.fileno())

    def release_reserve(self) -> None:
        """Give the disk back what was kept for the last words, at the end of every trace.

        Raises:
            FileNotFoundError: Someone deleted the trace, or a part of it, while it was written.
        """
        reserve = self.path / _RESERVE
        gone = [file for file in (reserve, *(shard.file for shard in self._shards.values())) if not file.exists()]
        reserve.unlink(missing_ok=True)
        if gone:
            raise FileNotFoundError(f"{gone[0]} was deleted while the trace was written")

    def _begin(self) -> None:
        """Make the folder and the first metadata; where that fails, leave nothing that would be in the way later."""
        self.path.mkdir(parents=True)
        try:
            (self.path / _RESERVE).write_bytes(bytes(_RESERVE_BYTES))
            self.publish()
        except OSError:
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    def _put(self, key: str, data: bytes | memoryview) -> None:
        """Write or replace a whole file."""
        path, _, name = key.rpartition("/")
        self._write_bytes(self._folder(path) / name, data)

    def _close_or_keep(self, shard: Shard) -> None:
        if shard not in self._open:
            if len(self._open) < _MOST_OPEN:
                self._open.add(shard)
            else:
                shard.close()

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
            shard = self._shards[key] = Shard(self._chunk_file(*key), slots, large=large)
            if (before := self._shards.get((path, (place[0] - 1, *place[1:])))) in self._open:
                self._open.remove(before)
                before.close()
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

    def _chunk_file(self, path: str, index: tuple[int, ...]) -> Path:
        return self._folder(path) / chunk_name(index)

    def _folder(self, path: str) -> Path:
        """The folder of a node, made where missing; a trace that was deleted in mid-run is not brought to life."""
        folder = self.path / path
        if not folder.exists():
            self.path.stat()
            folder.mkdir(parents=True, exist_ok=True)
            if self._durable:
                for made in [folder, *folder.parents][: len(Path(path).parts) + 1]:
                    _sync_folder(made)
        return folder

    def _write_bytes(self, file: Path, data: bytes | memoryview) -> None:
        """Replace a file in one move."""
        partial = f"{file}.partial"
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                write_at(descriptor, data, 0)
                if self._durable:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(partial, file)  # noqa: PTH105 — thousands of files, and pathlib takes its time
        except OSError:
            Path(partial).unlink(missing_ok=True)
            raise
        if self._durable:
            _sync_folder(file.parent)


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


def _sync_folder(folder: Path) -> None:
    """Have the names of the files in a folder on the disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
