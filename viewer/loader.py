"""Reads from the trace for the browser: one reader at a time, recent answers kept."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from diffusion_xray.tracer.batches import batches_of
from diffusion_xray.tracer.errors import DxrayError, TraceFormatError
from diffusion_xray.tracer.process import is_gone
from diffusion_xray.tracer.prompts import prompts_by_step
from diffusion_xray.tracer.trace import Trace

from .model import Snapshot
from .previews import Previews
from .reader import Reader
from .views.protocol import Request, View

__all__ = ["Answer", "Loader"]

_CACHE_BYTES: Final = 256 * 2**20
_LONG: Final = 120.0
"""Seconds without a new step after which a run is said to be quiet."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What was read for a request."""

    found: Any
    """What the view's `read` returned; None when it raised."""
    error: str = ""
    """What could not be read, and why."""
    previews: Previews = field(default_factory=Previews)
    """Of the step."""


class Loader:
    """A trace, for the threads that read it. Every method may take long; none touches a widget."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._lock = threading.RLock()
        self._cache: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._cached_bytes = 0
        self._latest: Snapshot | None = None

    def snapshot(self, *, refresh: bool = False) -> Snapshot:
        """What the statistics tell; `refresh` looks at the store again, and returns the same object if nothing is new.

        Raises:
            TraceFormatError: The statistics cannot be read.
        """
        with self._lock:
            try:
                fresh = not refresh or self.trace.refresh()
                if fresh or self._latest is None:
                    self._latest = _snapshot(self.trace)
                self._latest = self._at_this_moment(self._latest)
            except DxrayError:
                raise
            except Exception as error:  # a damaged store raises whatever its codec likes
                name = self.trace.name
                raise TraceFormatError(f"{name} is damaged: {type(error).__name__}: {error}") from error
            return self._latest

    def _at_this_moment(self, snapshot: Snapshot) -> Snapshot:
        """The same, with what is known of the writer; the same object where nothing changed."""
        if snapshot.info.status != "recording":
            return snapshot
        gone, quiet = is_gone(snapshot.info.process), self._quiet()
        quiet = quiet // 60 * 60 if quiet >= _LONG else 0.0
        if (gone, quiet) == (snapshot.writer_gone, snapshot.quiet):
            return snapshot
        return replace(snapshot, writer_gone=gone, quiet=quiet)

    def _quiet(self) -> float:
        """Seconds since the trace was written to; 0 where only asking a remote store would tell."""
        path = self.trace.path
        if not isinstance(path, Path):
            return 0.0
        try:
            files = [path / "zarr.json", *(path / "committed").iterdir()]
            return max(time.time() - max(file.stat().st_mtime for file in files), 0.0)
        except OSError:
            return 0.0

    def read(self, view: View | None, request: Request, *, cancelled: Callable[[], bool]) -> Answer:
        """What the step looks like, and what a view needs beside the statistics; no `view` needs nothing."""
        reader = Reader(self, cancelled)
        previews = reader.previews(request.step)
        if view is None:
            return Answer(None, reader.error, previews)
        try:
            return Answer(view.read(reader, request), reader.error, previews)
        except Exception as error:  # noqa: BLE001 - a view of another package may raise anything
            return Answer(None, f"{type(error).__name__}: {error}", previews)

    def once(self, key: tuple[Any, ...], read: Callable[[], Any]) -> Any:
        """What `read` returns, or returned lately under this key. One thread reads at a time."""
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
            value = read()
            self._cache[key] = value
            self._cached_bytes += _nbytes(value)
            while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
                _, dropped = self._cache.popitem(last=False)
                self._cached_bytes -= _nbytes(dropped)
            return value


def _nbytes(value: Any) -> int:
    return int(getattr(value, "nbytes", 0))


def _snapshot(trace: Trace) -> Snapshot:
    batches = trace.info.batches
    return Snapshot.of(
        trace.name,
        trace.info,
        modules=trace.modules,
        tables=list(trace.tables()),
        timestep=trace.timestep,
        sigma=trace.sigma,
        prompts=prompts_by_step(trace.prompts, [batches_of(batches, name) or () for name in batches]),
        has_previews=trace.info.preview.get("method", "none") != "none",
    )
