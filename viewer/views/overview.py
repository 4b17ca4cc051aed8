"""The overview: everything that is known at a glance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diffusion_xray.tracer.histogram import Histogram

from ..reader import Reader
from .protocol import Request, View

if TYPE_CHECKING:
    from textual.widget import Widget

__all__ = ["OVERVIEW", "Glance"]


@dataclass(frozen=True, slots=True, eq=False)
class Glance:
    """What was read for one layer at one step; None is what the trace does not hold."""

    histogram: Histogram | None = None
    preview: NDArray[np.uint8] | None = None
    """Decoded latents, shape (y, x, 3)."""
    preview_x0: NDArray[np.uint8] | None = None
    """The same of the picture that the model predicts."""


def _widget() -> Widget:
    from ..widgets.overview import OverviewPage

    return OverviewPage()


def _read(reader: Reader, request: Request) -> Glance:
    preview = reader.picture("preview", request.step)
    predicted = reader.picture("preview_x0", request.step)
    return Glance(reader.histogram(request.site, request.step), preview, predicted)


OVERVIEW = View(
    "overview",
    "Overview",
    "Numbers, line, histogram and preview",
    _widget,
    read=_read,
    how=lambda scene: scene.look.statistic,
    key="1",
)
