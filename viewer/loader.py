"""Reads from the trace for the browser: one reader at a time, recent answers kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from diffusion_xray.tracer.errors import DxrayError, TraceFormatError
from diffusion_xray.tracer.histogram import Histogram
from diffusion_xray.tracer.info import SiteInfo
from diffusion_xray.tracer.trace import Trace

from .model import Snapshot
from .scene import Detail, Tab

__all__ = ["Loader"]

_CACHE_BYTES: Final = 256 * 2**20
_MOST_HISTOGRAMS: Final = 64
"""Steps that the histogram over steps samples at most: each is a read."""


class Loader:
    """A trace, for the threads that read it. Every method may take long and may raise; none touches a widget."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._lock = threading.Lock()
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
                    self._trace.refresh()
                return _snapshot(self._trace)
            except DxrayError:
                raise
            except Exception as error:  # a damaged store raises whatever its codec likes
                name = self._trace.name
                raise TraceFormatError(f"{name} is damaged: {type(error).__name__}: {error}") from error

    def detail(self, site: SiteInfo | None, step: int, tab: Tab, *, cancelled: Callable[[], bool]) -> Detail:
        """What a tab needs beside the statistics; a part that cannot be read is left out and named in `error`."""
        detail = Detail()
        parts: list[Callable[[], dict[str, Any]]] = []
        if tab == "overview":
            parts.append(lambda: {"preview": self._picture("preview", step)})
            parts.append(lambda: {"preview_x0": self._picture("preview_x0", step)})
        if site is not None and tab in {"overview", "hist"}:
            parts.append(lambda: {"histogram": self._histogram(site, step)})
        if site is not None and tab == "hist":
            parts.append(lambda: {"over_steps": self._over_steps(site, cancelled)})
        if site is not None and site.array and tab == "image":
            parts.append(lambda: {"tensor": self._tensor(site, step)})
        for part in parts:
            if cancelled():
                break
            try:
                detail = replace(detail, **part())
            except Exception as error:  # noqa: BLE001 - a damaged chunk raises whatever its codec likes
                detail = replace(detail, error=f"{type(error).__name__}: {error}")
        return detail

    def _histogram(self, site: SiteInfo, step: int) -> Histogram | None:
        if site.stepped and step >= len(self._trace):
            return None
        key = ("histogram", site.key, step if site.stepped else 0)
        counts: NDArray[Any] = self._once(key, lambda: self._trace.histogram(site, step).counts)
        return Histogram(counts)

    def _over_steps(self, site: SiteInfo, cancelled: Callable[[], bool]) -> tuple[tuple[int, Histogram], ...]:
        steps = len(self._trace)
        if not site.stepped or not steps:
            return ()
        found = []
        for step in np.unique(np.linspace(0, steps - 1, min(steps, _MOST_HISTOGRAMS)).astype(int)):
            if cancelled():
                break
            histogram = self._histogram(site, int(step))
            if histogram is not None:
                found.append((int(step), histogram))
        return tuple(found)

    def _tensor(self, site: SiteInfo, step: int) -> NDArray[Any] | None:
        if site.stepped and step >= len(self._trace):
            return None
        tensor: NDArray[Any] = self._once(
            ("tensor", site.key, step if site.stepped else 0), lambda: self._trace.tensor(site, step)
        )
        return tensor

    def _picture(self, name: str, step: int) -> NDArray[np.uint8] | None:
        if step >= len(self._trace):
            return None
        frames = self._once((name, step), lambda: self._trace.step_array(name, step))
        if frames is None or frames.ndim < 4 or frames.shape[-1] != 3 or not len(frames):
            return None
        first: NDArray[np.uint8] = frames.reshape(-1, *frames.shape[-3:])[0].astype(np.uint8)
        return first

    def _once(self, key: tuple[Any, ...], read: Callable[[], NDArray[Any] | None]) -> Any:
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
            value = read()
            self._cache[key] = value
            self._cached_bytes += value.nbytes if value is not None else 0
            while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
                _, dropped = self._cache.popitem(last=False)
                self._cached_bytes -= dropped.nbytes if dropped is not None else 0
            return value


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
