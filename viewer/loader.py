"""Reads from the trace for the browser: one reader at a time, recent answers kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from diffusion_xray.tracer.errors import DxrayError, TraceFormatError
from diffusion_xray.tracer.trace import Trace

from .model import Snapshot
from .reader import Reader
from .views.protocol import Request, View

__all__ = ["Answer", "Loader"]

_CACHE_BYTES: Final = 256 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What was read for a request."""

    found: Any
    """What the view's `read` returned; None when it raised."""
    error: str = ""
    """What could not be read, and why."""


class Loader:
    """A trace, for the threads that read it. Every method may take long; none touches a widget."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._lock = threading.RLock()
        self._cache: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._cached_bytes = 0

    def snapshot(self, *, refresh: bool = False) -> Snapshot:
        """What the statistics tell; `refresh` looks at the store again.

        Raises:
            TraceFormatError: The statistics cannot be read.
        """
        with self._lock:
            try:
                if refresh:
                    self.trace.refresh()
                return _snapshot(self.trace)
            except DxrayError:
                raise
            except Exception as error:  # a damaged store raises whatever its codec likes
                name = self.trace.name
                raise TraceFormatError(f"{name} is damaged: {type(error).__name__}: {error}") from error

    def read(self, view: View, request: Request, *, cancelled: Callable[[], bool]) -> Answer:
        """What a view needs beside the statistics."""
        reader = Reader(self, cancelled)
        try:
            return Answer(view.read(reader, request), reader.error)
        except Exception as error:  # noqa: BLE001 - a view of another package may raise anything
            return Answer(None, f"{type(error).__name__}: {error}")

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
    return Snapshot.of(
        trace.name,
        trace.info,
        modules=trace.modules,
        tables=list(trace.tables()),
        timestep=trace.timestep,
        sigma=trace.sigma,
        prompts=[text for prompt in trace.prompts for text in prompt.text if text],
        has_previews=bool(trace.info.preview),
    )
