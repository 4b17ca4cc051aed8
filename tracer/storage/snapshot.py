"""A store as it was at one moment: its metadata as they were read then, its chunks as they are.

A trace may grow while it is read. Its arrays get longer, and new ones come; whoever opened one array before that and
another one after it would hold two lengths of one dimension.
"""

from __future__ import annotations

import json
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import WrapperStore

from ..errors import TraceFormatError
from ..info import printable
from .passing import check_passing
from .regular import check_inside

__all__ = ["Snapshot"]

_DOCUMENT = "zarr.json"


class Snapshot(WrapperStore[Store]):
    """A store that tells of the nodes it is given, and of no others; for reading alone.

    Args:
        store: Has the chunks.
        attributes: Of the root.
        nodes: Metadata of all other groups and arrays, by path; None for those of the store itself.
        folder: Where it is, if it is in one: links may not lead out of it.
        check: Raises where a key cannot be read for its size.
    """

    def __init__(
        self,
        store: Store,
        attributes: Mapping[str, Any] | None = None,
        nodes: Mapping[str, Any] | None = None,
        folder: Path | None = None,
        check: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(store)
        self._attributes, self._nodes, self._folder = attributes or {}, nodes, folder
        self._sizes = check

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The document of a node as it was; any other value as it is."""
        prototype = prototype or default_buffer_prototype()
        if self._nodes is None or not self._is_document(key) or byte_range is not None:
            if self._folder is not None and not _is_readable(self._folder / key, self._folder):
                return None
            if self._sizes is not None:
                self._sizes(key)
            found = await self._store.get(key, prototype, byte_range)
            node = None if self._nodes is None or found is None else self._nodes.get(key.rpartition("/")[0])
            if found is not None and node is not None and node.get("node_type") == "array":
                start = getattr(byte_range, "start", getattr(byte_range, "offset", None))
                check_passing(node, found.to_bytes(), start, is_whole=byte_range is None)
            return found
        document = self._document(key)
        return None if document is None else prototype.buffer.from_bytes(json.dumps(document).encode())

    async def exists(self, key: str) -> bool:
        """Whether there is such a node, or value."""
        if self._nodes is None or not self._is_document(key):
            return await self._store.exists(key)
        return self._document(key) is not None

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Nodes and values below a path."""
        async for name in self._store.list_dir(prefix):
            if self._nodes is None or f"{prefix.strip('/')}/{name}".strip("/") in self._nodes or "." in name:
                yield name

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        for key, prototype, byte_range in requests:
            yield key, await self.get(key, prototype, byte_range)

    def _with_store(self, store: Store) -> Snapshot:
        return type(self)(store, self._attributes, self._nodes, self._folder, self._sizes)

    def __eq__(self, value: object) -> bool:
        return isinstance(value, Snapshot) and self._store == value._store and self._nodes is value._nodes

    __hash__ = None  # type: ignore[assignment]

    def __getstate__(self) -> dict[str, Any]:
        """Without the nodes: an array that is sent to another process has its own."""
        return {"_store": self._store, "_attributes": {}, "_nodes": None, "_folder": self._folder, "_sizes": None}

    @staticmethod
    def _is_document(key: str) -> bool:
        return key.rpartition("/")[2] == _DOCUMENT

    def _document(self, key: str) -> Mapping[str, Any] | None:
        assert self._nodes is not None
        path = key.rpartition("/")[0]
        if path:
            found = self._nodes.get(path)
            return found if isinstance(found, Mapping) and found else None
        consolidated = {"kind": "inline", "must_understand": False, "metadata": self._nodes}
        root = {"zarr_format": 3, "node_type": "group", "attributes": self._attributes}
        return root | {"consolidated_metadata": consolidated}


def _is_readable(path: Path, folder: Path) -> bool:
    """Whether there is a file.

    Raises:
        TraceFormatError: It is no regular one, or leads out of the trace.
    """
    try:
        check_inside(path, folder)
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    except OSError as error:
        raise TraceFormatError(f"{printable(path)} cannot be read: {error}") from error
    if not stat.S_ISREG(mode):
        raise TraceFormatError(f"{printable(path)} cannot be read: it is no regular file")
    return True
