"""The groups and arrays of a store, and the documents that tell of them."""

from __future__ import annotations

import bisect
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..layout import ArraySpec

__all__ = ["ROOT", "Nodes"]

ROOT = "zarr.json"
"""The root's document, which holds those of all other nodes."""


class Nodes:
    """What a store consists of, and how much of that has been told.

    Args:
        attributes: Of the root.
    """

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self.arrays: dict[str, ArraySpec] = {}
        self._groups: dict[str, dict[str, Any]] = {"": dict(attributes)}
        self._published: dict[str, bytes] = {}
        """The document of every node as it was written last."""
        self._consolidated: dict[str, bytes] = {}
        """The same as entries of the root's document."""
        self._order: list[tuple[str, ...]] = []
        """The paths of these nodes, each group before what is in it."""
        self._changed: set[str] = set()
        self._told = b""
        """The nodes in the root's document as it was written last."""

    @property
    def has_untold(self) -> bool:
        """Whether anything changed since the documents were written."""
        return bool(self._changed)

    def set_group(self, path: str, attributes: Mapping[str, Any]) -> None:
        """Add a group with the groups above it, or change its attributes; "" is the root."""
        self._add_groups(path)
        self._groups.setdefault(path, {}).update(attributes)
        self._changed.add(path)

    def add_array(self, spec: ArraySpec) -> None:
        """Add an array, or change what is said of it."""
        self._add_groups(spec.path.rpartition("/")[0])
        self.arrays[spec.path] = spec
        self._changed.add(spec.path)

    def resize(self, path: str, shape: tuple[int, ...]) -> None:
        """Change an array's shape."""
        self.arrays[path] = replace(self.arrays[path], shape=shape)
        self._changed.add(path)

    def remove(self, path: str) -> ArraySpec:
        """Take an array out; it is gone from the root's document with the next one."""
        spec = self.arrays.pop(path)
        self._changed.discard(path)
        if self._published.pop(path, None) is not None:
            del self._consolidated[path]
            self._order.remove(tuple(path.split("/")))
        return spec

    def publish(self, put: Callable[[str, bytes], None], make_room: Callable[[int], None]) -> None:
        """Write the documents of all nodes that changed, and the root's last.

        Args:
            put: Writes or replaces a file.
            make_room: Told before the root's document is written how many bytes it has.
        """
        for path in sorted(self._changed - {""}):
            spec = self.arrays.get(path)
            if spec is not None and spec.codec == "auto":  # told before it has a chunk
                spec = self.arrays[path] = replace(spec, codec="lz4")
            document = _json(_group_document(self._groups[path]) if spec is None else spec.metadata())
            known = self._published.get(path)
            if known != document:
                put(f"{path}/zarr.json", document)
                self._published[path] = document
                self._consolidated[path] = b"%b:%b" % (_json(path), document)
            if known is None:
                bisect.insort(self._order, tuple(path.split("/")))
        self._changed.clear()
        told = b",".join(map(self._consolidated.__getitem__, map("/".join, self._order)))
        root = _root_document(self._groups[""], told)
        make_room(len(root))
        put(ROOT, root)
        self._told = told

    def last_words(self, attributes: Mapping[str, Any]) -> bytes:
        """The root's document as it was written last, with other attributes."""
        self._groups[""].update(attributes)
        return _root_document(self._groups[""], self._told)

    def _add_groups(self, path: str) -> None:
        segments = path.split("/") if path else []
        for depth in range(1, len(segments) + 1):
            group = "/".join(segments[:depth])
            if group not in self._groups:
                self._groups[group] = {}
                self._changed.add(group)


def _group_document(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def _root_document(attributes: Mapping[str, Any], nodes: bytes) -> bytes:
    """The document of the root, with those of all other nodes as they are."""
    head = _json(_group_document(attributes)).removesuffix(b"}")
    return head + b',"consolidated_metadata":{"kind":"inline","must_understand":false,"metadata":{%b}}}' % nodes


def _json(document: Mapping[str, Any] | str) -> bytes:
    told = json.dumps(document, separators=(",", ":"))
    if "\\ud" in told:  # halves of surrogate pairs, which not every reader takes, or emoji
        told = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    return told.encode("utf-8", "replace")
