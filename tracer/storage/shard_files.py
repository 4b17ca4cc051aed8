"""The shard files of a store: which chunk goes into which of them, and which are open."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..layout import ArraySpec, item_size
from .direct import LARGE
from .folder import Folder
from .open_shards import OpenShards
from .shards import Shard

__all__ = ["ShardFiles", "chunk_name"]


class ShardFiles:
    """Finds and makes the shards of the arrays in one folder.

    Args:
        files: The folder.
        durable: Wait until what is appended is on the disk.
    """

    def __init__(self, files: Folder, *, durable: bool = False) -> None:
        self.open = OpenShards()
        self._files = files
        self._durable = durable
        self._shards: dict[tuple[str, tuple[int, ...]], Shard] = {}

    def names(self) -> list[str]:
        """Of all files that were made."""
        return [shard.name for shard in self._shards.values()]

    def find(self, spec: ArraySpec, index: tuple[int, ...]) -> tuple[Shard, int]:
        """The shard that a chunk belongs into, and the chunk's slot in it; the shard before it is closed."""
        place: list[int] = []
        slot = 0
        for axis, count in enumerate(spec.chunks_per_shard):
            outer, inner = divmod(index[axis] if axis < len(index) else 0, count)
            place.append(outer)
            slot = slot * count + inner
        key = spec.path, tuple(place)
        shard = self._shards.get(key)
        if shard is None:
            slots = math.prod(spec.chunks_per_shard)
            large = math.prod(spec.chunk) * item_size(spec.dtype) >= LARGE
            self._files.make(spec.path)
            name = f"{spec.path}/{chunk_name(key[1])}"
            shard = self._shards[key] = Shard(self._files, name, slots, large=large)
            if (before := self._shards.get((spec.path, (place[0] - 1, *place[1:])))) is not None:
                self.open.close(before)
        return shard, slot

    def append(self, spec: ArraySpec, index: tuple[int, ...], data: bytes | memoryview) -> None:
        """Write an encoded chunk; `index` counts chunks along each of the leading dimensions. See `Shard.append`."""
        shard, slot = self.find(spec, index)
        is_new = shard.is_new
        shard.append(slot, data, durable=self._durable)
        if is_new:
            self._files.sync(spec.path)
        self.open.keep_or_close(shard)

    def copy(self, source: ArraySpec, target: ArraySpec, wanted: Sequence[int]) -> None:
        """Append the wanted steps of one array to another of the same chunks, byte by byte."""
        steps, chosen = source.chunks_per_shard[0], set(wanted)
        for (path, place), shard in list(self._shards.items()):
            if path == source.path:
                for slot, data in shard.chunks():
                    step = place[0] * steps + slot
                    if step in chosen:
                        self.append(target, (step,), data)
                self.open.keep_or_close(shard)

    def take(self, path: str) -> bytes | None:
        """Delete the shards of an array that hold one chunk at most; that chunk, None where there is none."""
        data = None
        for key in [key for key in self._shards if key[0] == path]:
            shard = self._shards.pop(key)
            data = next((chunk for _, chunk in shard.chunks()), data)
            self.open.close(shard)
            self._files.remove(shard.name)
        return data


def chunk_name(index: tuple[int, ...]) -> str:
    """Name of a chunk, or of a shard, below its array."""
    return ".".join(["c", *map(str, index)])
