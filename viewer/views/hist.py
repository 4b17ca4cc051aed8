"""How the values are spread, now and over the steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusion_xray.tracer.histogram import Histogram

from ..bindings import hidden
from ..reader import Reader
from ..scene import Scene
from .protocol import Missing, Request, View

if TYPE_CHECKING:
    from textual.widget import Widget

__all__ = ["HIST", "Spread"]


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """Histograms of one layer."""

    histogram: Histogram | None = None
    over_steps: tuple[tuple[int, Histogram], ...] = ()
    """Those of several steps, each with its step."""


def _widget() -> Widget:
    from ..widgets.histogram import HistogramView

    return HistogramView()


def _missing(scene: Scene) -> Missing | None:
    return Missing("There is no layer to take a histogram of.") if scene.site is None else None


def _read(reader: Reader, request: Request) -> Spread:
    if request.site is None:
        return Spread()
    return Spread(reader.histogram(request.site, request.step), reader.over_steps(request.site))


def _how(scene: Scene) -> str:
    look = scene.look
    words = (
        "ridge" if look.ridge else "heat",
        "p1–p99" if look.clipped else "min–max",
        "log" if look.log else "linear",
    )
    return " · ".join(words)


HIST = View(
    "hist",
    "Hist",
    "Histogram now, and over the steps",
    _widget,
    missing=_missing,
    read=_read,
    how=_how,
    keys=(
        hidden(
            "v",
            "screen.look('ridge')",
            "Ridge or heat",
            id="hist.ridge",
            tooltip="Histograms over the steps as bars, or as colours",
        ),
    ),
    key="3",
)
