"""The overview: everything that is known at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion_xray.tracer.histogram import Histogram

from ..reader import Reader
from .protocol import Request, View

if TYPE_CHECKING:
    from textual.widget import Widget

__all__ = ["OVERVIEW"]


def _widget() -> Widget:
    from ..widgets.overview import Overview

    return Overview()


def _read(reader: Reader, request: Request) -> Histogram | None:
    return reader.histogram(request.site, request.step)


OVERVIEW = View(
    "overview",
    "Overview",
    "Numbers, line, histogram and previews",
    _widget,
    read=_read,
    how=lambda scene: scene.look.statistic,
    key="1",
    with_previews=True,
)
