"""The files of a trace, opened for reading: its metadata, its arrays, its groups as xarray sees them.

A trace is untrusted. Only nodes that its metadata lists are read, their paths stay inside the store, and whatever is
wrong with a file becomes a `TraceFormatError`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import TraceFormatError, TraceNotFoundError
from .info import printable
from .layout import FORMAT_VERSION

if TYPE_CHECKING:
    import xarray
    import zarr

__all__ = ["Archive"]


class Archive:
    """One look at a store; a store that is still growing is looked at again with a new one.

    Raises:
        TraceNotFoundError: There is nothing at `path`.
        TraceFormatError: What is there is not a trace, is damaged, or has a newer format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        document = _read_root(path)
        self.attributes: Mapping[str, Any] = document["attributes"]
        """Attributes of the root."""
        version = self.attributes["format_version"]
        if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
            raise TraceFormatError(
                f"{path} has trace format {version}, this version reads up to {FORMAT_VERSION}; "
                "install a newer diffusion-xray"
            )
        nodes = _mapping(_mapping(document.get("consolidated_metadata")).get("metadata"))
        self._nodes = {name: _mapping(node) for name, node in nodes.items() if _is_inside(name)}
        self._datasets: dict[str, xarray.Dataset] = {}

    def __contains__(self, node: str) -> bool:
        return node in self._nodes

    def groups(self, parent: str) -> dict[str, Mapping[str, Any]]:
        """Attributes of every group below `parent`, by path."""
        return {
            name: _mapping(node.get("attributes"))
            for name, node in self._nodes.items()
            if name.startswith(f"{parent}/") and node.get("node_type") == "group"
        }

    def load(self, array: str, place: tuple[int, ...] = ()) -> NDArray[Any]:
        """Read an array, or the part of it at `place`, into memory."""
        self._check(array)
        try:
            selection: Any = (*place, ...)
            return np.asarray(self._root[array][selection])
        except Exception as error:
            raise TraceFormatError(f"{printable(array)} in {self.path} cannot be read: {error}") from error

    def load_if_there(self, array: str) -> NDArray[Any] | None:
        """Read an array into memory, or None when the trace has none of this name."""
        return self.load(array) if array in self._nodes else None

    def dataset(self, group: str) -> xarray.Dataset:
        """The arrays of a group, lazily."""
        import xarray

        if group not in self._datasets:
            for node in [group, *(name for name in self._nodes if name.rpartition("/")[0] == group)]:
                self._check(node)
            try:
                self._datasets[group] = xarray.open_zarr(self.path, group=group, chunks=None)
            except Exception as error:
                raise TraceFormatError(f"{printable(group)} in {self.path} cannot be read: {error}") from error
        return self._datasets[group]

    def _check(self, node: str) -> None:
        """Refuse what the metadata does not list, and links out of the store."""
        if node not in self._nodes or not (self.path / node).resolve().is_relative_to(self.path.resolve()):
            raise TraceFormatError(f"{self.path} holds no array {printable(node)!r}; it may be damaged")

    @functools.cached_property
    def _root(self) -> zarr.Group:
        import zarr

        return zarr.open_group(self.path, mode="r")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts


def _read_root(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise TraceNotFoundError(f"there is no trace at {path}; check the path, or make one with: dxray demo")
    try:
        document = json.loads((path / "zarr.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise TraceFormatError(f"{path} is not a trace: it holds no zarr.json") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise TraceFormatError(f"{path} cannot be read as a trace: {error}") from None
    if not isinstance(document, dict) or "format_version" not in _mapping(document.get("attributes")):
        raise TraceFormatError(f"{path} is a Zarr store, but not one written by diffusion-xray")
    return document
