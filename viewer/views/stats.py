"""All statistics of one layer over the steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..bindings import hidden
from ..scene import Scene
from .protocol import Missing, View

if TYPE_CHECKING:
    from textual.widget import Widget

__all__ = ["STATS"]


def _widget() -> Widget:
    from ..widgets.statistics import StatisticsView

    return StatisticsView()


def _missing(scene: Scene) -> Missing | None:
    if scene.site is None:
        return Missing("There is no layer to show statistics of.")
    if scene.site.stepped and not scene.snapshot.steps:
        return Missing("No step is complete yet: statistics come with each step.")
    return None


STATS = View(
    "stats",
    "Stats",
    "All statistics over the steps",
    _widget,
    missing=_missing,
    how=lambda scene: scene.look.statistic,
    keys=(
        hidden(
            "r",
            "sort",
            "Sort steps",
            id="stats.sort",
            tooltip="Steps in their order, or by the chosen statistic, largest or smallest first",
        ),
    ),
    key="2",
)
