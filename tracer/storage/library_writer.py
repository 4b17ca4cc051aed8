"""Write a trace into a store of zarr-python, key by key.

Most of these stores cannot append to a key or change a part of it. So there are no shards here: a chunk is a key, and
a step of an array is one `set`. Metadata and chunks are those of `StoreWriter`, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layout import ArraySpec
from .encoding import encode
from .library_store import LibraryStore
from .nodes import ROOT
from .store import StoreWriter, chunk_name

__all__ = ["LibraryWriter"]

_MOST_WAITING = 16 << 20
"""Bytes that wait to go out together. A remote store takes many keys at once in the time of one."""


class LibraryWriter(StoreWriter):
    """A `StoreWriter` whose bytes go into a store of zarr-python.

    Chunks and metadata of nodes wait, and go out together. What tells readers of them, a root document or an element
    of an array along the steps, goes after they have arrived, so the order of `StoreWriter` holds.
    """

    def __init__(self, store: LibraryStore, attributes: Mapping[str, Any]) -> None:
        self._store = store
        self._waiting: dict[str, bytes] = {}
        self._waiting_bytes = 0
        self._begun = False
        self._mirrors: dict[str, NDArray[Any]] = {}
        super().__init__(Path(store.name), attributes)

    def add_array(self, spec: ArraySpec) -> None:
        """Create an array, or change its shape or attributes; visible after `publish`."""
        super().add_array(replace(spec, shard=None))

    def append(self, path: str, index: tuple[int, ...], chunk: NDArray[Any]) -> None:
        """Write one chunk; `index` counts chunks along each of the leading dimensions."""
        spec = self._settled(path, chunk)
        index = (*index, *(0,) * (len(spec.shape) - len(index)))
        self._put(f"{path}/{chunk_name(index)}", encode(spec, chunk))

    def copy_chunks(self, source: str, target: str, wanted: Sequence[int]) -> None:
        """Write the wanted steps of an array of the loop to another one of the same chunks."""
        spec = self.spec(source)
        self._adopt_codec(spec, target)
        for step in wanted:
            name = chunk_name((step, *(0,) * (len(spec.shape) - 1)))
            data = self._waiting.get(f"{source}/{name}") or self._store.get(f"{source}/{name}")
            if data is not None:
                self._put(f"{target}/{name}", data)

    def withdraw(self, path: str, step: int | None) -> bytes | None:
        """Take an array back that holds one chunk at most; that chunk as it is stored, whose key stays unused."""
        key = self._chunk_key(path, step)
        self._nodes.remove(path)
        if (data := self._waiting.pop(key, None)) is not None:
            self._waiting_bytes -= len(data)
            return data
        return self._store.get(key)

    def put_encoded(self, path: str, step: int | None, data: bytes) -> None:
        """Write a chunk as it is stored: that of a step, or the only one of an array without steps."""
        self._put(self._chunk_key(path, step), data)

    def _set(self, key: str, spec: ArraySpec, within: int, values: NDArray[Any]) -> None:
        """Set some elements of a chunk, after everything before it has arrived."""
        known = self._mirrors.setdefault(key, np.full(spec.chunk, float(spec.fill), spec.dtype))
        known[within : within + len(values)] = values
        self._send()
        self._store.put({key: known.tobytes()})

    def release_reserve(self) -> None:
        """Nothing is kept back here."""

    def _chunk_key(self, path: str, step: int | None) -> str:
        rank = len(self.spec(path).shape)
        return f"{path}/{chunk_name((0,) * rank if step is None else (step, *(0,) * (rank - 1)))}"

    def close(self) -> None:
        """No files are open."""

    def _begin(self) -> None:
        """Stores need no folders."""
        self.publish()

    def _keep_back(self, nbytes: int) -> None:
        """There is no disk of which a part could be kept back."""

    def _put(self, key: str, data: bytes | memoryview) -> None:
        data = bytes(data)  # what is in a reused buffer must not wait there
        if key == ROOT:
            self._send()
            if self._begun and not self._store.exists(ROOT):  # half a trace must not come to life again
                raise FileNotFoundError(f"{self._store.name} was deleted while it was written")
            self._store.put({key: data})
            self._begun = True
            return
        self._waiting[key] = data
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= _MOST_WAITING:
            self._send()

    def _send(self) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, {}, 0
        if waiting:
            self._store.put(waiting)
