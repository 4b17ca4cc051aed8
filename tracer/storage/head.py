"""The head of a trace: what its root document says of it, of its groups and of its arrays. No chunk is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..errors import StoreError, TraceFormatError, TraceNotFoundError
from ..info import printable
from ..layout import FORMAT_VERSION
from .checksum import CHECKSUM
from .integrity import reason_against
from .library_store import LibraryStore
from .regular import read_regular
from .sizes import check_depth

__all__ = ["Head", "stamp_of"]


class Head:
    """The root document of a store as it was at one look.

    Raises:
        TraceNotFoundError: There is nothing at `source`.
        TraceFormatError: What is there is not a trace, is damaged, or has a newer format.
    """

    def __init__(self, source: Path | LibraryStore) -> None:
        self.path: Path | str = source if isinstance(source, Path) else source.name
        """Where the trace is; what is no path has a name to print."""
        self._source = source
        self._root_stamp = stamp_of(source)
        document = _read_root(source)
        self.attributes: Mapping[str, Any] = document["attributes"]
        """Attributes of the root."""
        version = self.attributes["format_version"]
        if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
            raise TraceFormatError(
                f"{self.path} has trace format {version}, this version reads up to {FORMAT_VERSION}; "
                "install a newer diffusion-xray"
            )
        nodes = _mapping(_mapping(document.get("consolidated_metadata")).get("metadata"))
        self._nodes = {name: _mapping(node) for name, node in nodes.items() if _is_inside(name)}
        for name, node in self._nodes.items():
            if node.get("node_type") == "array" and (reason := reason_against(name, node)):
                raise TraceFormatError(f"{printable(name)} in {self.path} is damaged: {reason}")

    def __contains__(self, node: str) -> bool:
        return node in self._nodes

    def groups(self, parent: str) -> dict[str, Mapping[str, Any]]:
        """Attributes of every group below `parent`, by path."""
        return {
            name: _mapping(node.get("attributes"))
            for name, node in self._nodes.items()
            if name.startswith(f"{parent}/") and node.get("node_type") == "group"
        }

    def groups_with(self, attribute: str) -> dict[str, Mapping[str, Any]]:
        """Attributes of every group that has this one, by path."""
        return {
            name: attributes
            for name, node in self._nodes.items()
            if node.get("node_type") == "group" and attribute in (attributes := _mapping(node.get("attributes")))
        }

    def group(self, path: str) -> Mapping[str, Any]:
        """Attributes of one group; empty where there is none."""
        return _mapping(self._nodes.get(path, {}).get("attributes"))

    def arrays(self) -> list[str]:
        """Paths of all arrays."""
        return [name for name, node in self._nodes.items() if node.get("node_type") == "array"]

    def is_stepped(self, array: str) -> bool:
        """Whether the first dimension of an array are the steps."""
        names = self._nodes[array].get("dimension_names")
        return isinstance(names, list) and names[:1] == ["step"]

    def has_checksums(self, array: str) -> bool:
        """Whether each chunk of an array ends in one."""
        try:
            codecs = self._nodes[array]["codecs"]
            if codecs[0]["name"] == "sharding_indexed":
                codecs = codecs[0]["configuration"]["codecs"]
            return bool(codecs[-1]["name"] == CHECKSUM)
        except (LookupError, TypeError):
            return False

    def shape_of(self, array: str) -> tuple[int, ...]:
        """Shape of an array as its metadata have it; () of what is not there."""
        shape = self._nodes.get(array, {}).get("shape")
        return tuple(shape) if isinstance(shape, list) else ()

    def dtype_of(self, array: str) -> np.dtype[Any]:
        """Type of an array's elements as its metadata have it; float32 where that is nothing known."""
        try:
            return np.dtype(str(self._nodes[array]["data_type"]))
        except (LookupError, TypeError):
            return np.dtype(np.float32)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts


def stamp_of(source: Path | LibraryStore) -> tuple[int, ...] | None:
    """What tells the root's metadata from that of a moment before; None where only reading it would tell."""
    if not isinstance(source, Path):
        return None
    try:
        status = (source / "zarr.json").stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read_root(source: Path | LibraryStore) -> dict[str, Any]:
    name = source if isinstance(source, Path) else source.name
    try:
        text = _root_of_folder(source) if isinstance(source, Path) else _root_of_store(source)
        document = json.loads(text)
        check_depth(document)
    except (OSError, ValueError, RecursionError, MemoryError) as error:  # numbers of thousands of digits, too
        if isinstance(error, TraceNotFoundError):
            raise
        raise TraceFormatError(f"{name} cannot be read as a trace: {error}") from None
    if not isinstance(document, dict) or "format_version" not in _mapping(document.get("attributes")):
        raise TraceFormatError(f"{name} is a Zarr store, but not one written by diffusion-xray")
    return document


def _root_of_folder(path: Path) -> bytes:
    if not path.exists():
        raise _not_found(path)
    try:
        return read_regular(path / "zarr.json", path)
    except (FileNotFoundError, NotADirectoryError):
        raise TraceFormatError(f"{path} is not a trace: it holds no zarr.json") from None


def _root_of_store(store: LibraryStore) -> bytes:
    document = store.get("zarr.json")
    if document is not None:
        return document
    try:
        empty = store.is_empty()
    except StoreError:  # many a web server has no listing
        empty = True
    if empty:
        raise _not_found(store.name)
    raise TraceFormatError(f"{store.name} is not a trace: it holds no zarr.json at its top")


def _not_found(name: Path | str) -> TraceNotFoundError:
    return TraceNotFoundError(f"there is no trace at {name}; check the path, or make one with: dxray demo")
