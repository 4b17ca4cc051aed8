"""A step of many arrays appended at once, where that can be without the interpreter's lock."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layout import ArraySpec
from .direct import Pace
from .encoding import blosc_options, encode
from .shard_files import ShardFiles
from .shards import Shard

__all__ = ["Lanes", "bulk_calls"]


class Lanes:
    """Appends to the arrays of one store, each of which has a lane: what does not change from step to step.

    Args:
        look_up: What is known of an array, told a chunk of it that is about to be written.
        shards: The files.
    """

    def __init__(self, look_up: Callable[[str, NDArray[Any]], ArraySpec], shards: ShardFiles) -> None:
        self._look_up = look_up
        self._shards = shards
        self._lanes: dict[str, _Lane] = {}
        self._scratch = np.empty(0, np.uint8)
        self._pace = Pace()

    def append_all(self, chunks: Sequence[tuple[str, int, NDArray[Any], int]], bulk: ModuleType) -> None:
        """Append a step of several arrays.

        Args:
            chunks: Array, step, contents, and the address of these where it is known, else 0.
            bulk: What `bulk_calls` returned.
        """
        open_shards = self._shards.open
        open_shards.shrink()
        batch = _Batch()
        for path, step, chunk, address in chunks:
            lane = self._lanes.get(path) or self._lanes.setdefault(path, _Lane(self._look_up(path, chunk)))
            if chunk.shape != lane.shape or chunk.dtype != lane.dtype or not chunk.flags.c_contiguous:
                self._append_one(path, step, chunk)
                continue
            shard = self._open_shard(lane, step, chunk)
            place = address or chunk.__array_interface__["data"][0]
            batch.ready.append((place, chunk.nbytes, *lane.encoding, shard.state_address, step % lane.steps))
            batch.given.append((path, step, chunk))
            if shard not in open_shards:
                batch.shards.append(shard)
                if len(batch.shards) >= open_shards.batch:
                    self._append_batch(bulk, batch)
                    batch = _Batch()
        self._append_batch(bulk, batch)

    def forget(self, path: str) -> None:
        """An array is gone."""
        self._lanes.pop(path, None)

    def _append_batch(self, bulk: ModuleType, batch: _Batch) -> None:
        ready, given = batch.ready, batch.given
        try:
            while ready:
                self._scratch = bulk.scratch_for(ready, self._scratch)
                done = bulk.append_all(ready, self._scratch, self._pace)
                ready, given = ready[done:], given[done:]
                if given:  # the system did not take it: try once more, in a way that tells why
                    path, step, chunk = given.pop(0)
                    self._append_one(path, step, chunk)
                    ready.pop(0)
        finally:
            for shard in batch.shards:
                self._shards.open.keep_or_close(shard)

    def _append_one(self, path: str, step: int, chunk: NDArray[Any]) -> None:
        spec = self._look_up(path, chunk)
        self._shards.append(spec, (step,), encode(spec, chunk[None]))

    def _open_shard(self, lane: _Lane, step: int, chunk: NDArray[Any]) -> Shard:
        """The file that a step of an array belongs into, open."""
        outer = step // lane.steps
        if lane.shard is None or lane.outer != outer:
            lane.outer, (lane.shard, _) = outer, self._shards.find(self._look_up(lane.path, chunk), (step,))
        if not lane.shard.is_open or lane.shard.is_large:
            lane.shard.open(direct=not self._pace.is_slow)
        return lane.shard


class _Batch:
    """Chunks that are appended together, and those of their shards that do not stay open."""

    __slots__ = ("given", "ready", "shards")

    def __init__(self) -> None:
        self.ready: list[tuple[Any, ...]] = []
        self.given: list[tuple[str, int, NDArray[Any]]] = []
        self.shards: list[Shard] = []


class _Lane:
    """What does not change from one step of an array to the next, looked up once."""

    __slots__ = ("dtype", "encoding", "outer", "path", "shape", "shard", "steps")

    def __init__(self, spec: ArraySpec) -> None:
        assert spec.shard
        self.path, self.shape, self.dtype, self.steps = spec.path, spec.chunk[1:], np.dtype(spec.dtype), spec.shard[0]
        self.encoding = (*blosc_options(spec.codec, spec.dtype), spec.has_checksums)
        self.shard: Shard | None = None
        self.outer = 0


@functools.cache
def bulk_calls() -> ModuleType | None:
    """The module that appends in bulk, compiled or loaded; None where it cannot be."""
    try:
        from . import bulk
    except Exception:  # noqa: BLE001 — no numba, one that does not fit, or a numcodecs whose library cannot be called
        return None
    return bulk
