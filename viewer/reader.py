"""What a view reads with, in a thread: the trace, recent answers kept. What cannot be read is noted, not raised."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from diffusion_xray.tracer.histogram import Histogram
from diffusion_xray.tracer.info import SiteInfo
from diffusion_xray.tracer.trace import Trace

from .previews import Previews

if TYPE_CHECKING:
    from .loader import Loader

__all__ = ["Reader"]

_MOST_HISTOGRAMS: Final = 64
"""Steps that the histogram over steps samples at most: each is a read."""


class Reader:
    """Answers one request. Each method is None where the trace holds nothing, or nothing that can be read.

    Args:
        loader: The trace, and what was read of it lately.
        cancelled: Whether the answer is still wanted; long work should look at it now and then.
    """

    def __init__(self, loader: Loader, cancelled: Callable[[], bool]) -> None:
        self._loader = loader
        self.cancelled = cancelled
        self.error = ""
        """What could not be read, the last of it."""

    @property
    def trace(self) -> Trace:
        """The trace itself, for what is not here; use it inside of `once`, as readers share it."""
        return self._loader.trace

    def once(self, key: tuple[Any, ...], read: Callable[[], Any]) -> Any:
        """What `read` returns, or returned lately under this key; None, and a note of the error, when it raises."""
        try:
            return self._loader.once(key, read)
        except Exception as error:  # noqa: BLE001 - a damaged chunk raises whatever its codec likes
            self.error = f"{type(error).__name__}: {error}"
            return None

    def tensor(self, site: SiteInfo | None, step: int) -> NDArray[Any] | None:
        """The stored tensor of a site at a step, in its own dtype."""
        if site is None or not site.array or not self._is_there(site, step):
            return None
        key = ("tensor", site.key, step if site.stepped else 0)
        tensor: NDArray[Any] | None = self.once(key, lambda: self.trace.tensor(site, step))
        return np.abs(tensor) if tensor is not None and tensor.dtype.kind == "c" else tensor

    def histogram(self, site: SiteInfo | None, step: int) -> Histogram | None:
        """The histogram of a site at a step."""
        if site is None or not self._is_there(site, step):
            return None
        key = ("histogram", site.key, step if site.stepped else 0)
        counts = self.once(key, lambda: self.trace.histogram(site, step).counts)
        return None if counts is None else Histogram(counts)

    def over_steps(self, site: SiteInfo) -> tuple[tuple[int, Histogram], ...]:
        """The histograms of steps from first to last, each with its step; of some steps where there are many."""
        steps = self.trace.n_steps if site.stepped else 0
        found = []
        for step in np.unique(np.linspace(0, steps - 1, min(steps, _MOST_HISTOGRAMS)).astype(int)):
            if self.cancelled():
                break
            histogram = self.histogram(site, int(step))
            if histogram is not None:
                found.append((int(step), histogram))
        return tuple(found)

    def previews(self, step: int) -> Previews:
        """What a step looks like."""
        return Previews(self.picture("preview", step), self.picture("preview_x0", step))

    def picture(self, name: str, step: int) -> NDArray[np.uint8] | None:
        """The first picture of a step: "preview" or "preview_x0". Shape (y, x, 3)."""
        if not 0 <= step < self.trace.n_steps:
            return None
        frames = self.once((name, step), lambda: self.trace.step_array(name, step))
        if frames is None or frames.ndim < 4 or frames.shape[-1] != 3 or not len(frames):
            return None
        first: NDArray[np.uint8] = frames.reshape(-1, *frames.shape[-3:])[0].astype(np.uint8)
        return first

    def _is_there(self, site: SiteInfo, step: int) -> bool:
        return not site.stepped or 0 <= step < self.trace.n_steps
