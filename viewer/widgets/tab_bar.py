"""What is shown, and in which view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from textual import events
from textual.message import Message
from textual.strip import Strip

from diffusion_xray.tracer.info import printable
from diffusion_xray.tracer.text import number

from ..scene import Scene
from ..views.protocol import View
from .canvas import Canvas, Part

__all__ = ["TabBar"]


_WIDE = 70
"""Columns that hold the tabs and how the view draws."""
_LEAST = 8
"""Columns in which it is worth while to say the latter."""


class TabBar(Canvas):
    """Two lines: layer and step; the tabs, and how the view draws."""

    DEFAULT_CSS = "TabBar { height: 2; }"

    @dataclass
    class Chosen(Message):
        """A tab was clicked."""

        tab: str

    def parts_of(self, scene: Scene) -> tuple[object, ...]:
        """Where one is, not what was read there."""
        return scene.snapshot, scene.site, scene.step, scene.look, scene.wish, scene.view, scene.views

    def paint(self, width: int, height: int) -> Sequence[Strip]:  # noqa: ARG002 - its height is fixed
        """Two lines."""
        scene = self.scene
        assert scene is not None
        tabs: list[Part] = [" "]
        taken = sum(len(label) for label, _ in _labels(scene, width)) + 4
        how = scene.view.how(scene) if width >= _WIDE else ""
        if len(how) > width - taken:
            how = f"{how[: max(width - taken - 1, 0)]}…" if width - taken > _LEAST else ""
        for label, view in _labels(scene, width):
            tabs += [(label, "cursor" if view is scene.view else "muted")]
        return [
            self.spread(_layer(scene), [(when(scene), "accent"), " "], width),
            self.spread(tabs, [(how, "muted"), " "] if how else [], width),
        ]

    def on_click(self, event: events.Click) -> None:
        """Choose the tab that was hit."""
        at = 1
        for label, view in _labels(self.scene, self.size.width) if self.scene and event.y == 1 else []:
            at += len(label)
            if event.x < at:
                self.post_message(self.Chosen(view.id))
                return


def _labels(scene: Scene, width: int) -> list[tuple[str, View]]:
    """What each tab says; titles are cut where not all of them have room."""
    views = list(scene.views.values())
    room = max((width - 2) // max(len(views), 1) - 4, 4)
    whole = sum(len(view.title) + 4 for view in views) + 2 <= width
    return [(f" {view.key} {printable(view.title if whole else view.title[:room])} ", view) for view in views]


def when(scene: Scene) -> str:
    """The step shown, its timestep and noise level."""
    if scene.site is not None and not scene.site.stepped:
        return "outside of the loop"
    if not scene.snapshot.steps:
        return ""
    timestep, sigma = scene.snapshot.timestep[scene.step], scene.snapshot.sigma[scene.step]
    known = [f"{sign}={number(value)}" for sign, value in (("t", timestep), ("σ", sigma)) if not math.isnan(value)]
    return " ".join([f"step {scene.step}", *known])


def _layer(scene: Scene) -> list[Part]:
    site = scene.site
    if site is None:
        return [(" no layer", "muted")]
    port = "" if site.array_name == "output" else f" · {site.array_name}"
    branch = f" · {site.branch}" if site.branch else ""
    return [(f" {site.name}", "strong"), (f"  {site.module_class}{port}{branch}", "muted")]
