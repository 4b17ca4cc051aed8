"""A stored tensor as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.binding import Binding

from ..scene import Scene
from .protocol import View
from .tensors import missing_tensor, read_tensor

if TYPE_CHECKING:
    from textual.widget import Widget

__all__ = ["IMAGE"]


def _widget() -> Widget:
    from ..widgets.heatmap import HeatmapView

    return HeatmapView()


def _how(scene: Scene) -> str:
    return f"{scene.look.colours} · {'p1–p99' if scene.look.clipped else 'min–max'}"


def _walk(key: str, sign: str, change: str, name: str, tooltip: str) -> Binding:
    action = f"screen.look({change!r})"
    return Binding(key, action, tooltip, show=False, id=f"image.{name}", tooltip=tooltip, key_display=sign)


IMAGE = View(
    "image",
    "Image",
    "The tensor as a picture",
    _widget,
    missing=missing_tensor,
    read=read_tensor,
    how=_how,
    keys=(
        _walk("comma", ",", "previous_channel", "channel_back", "Channel before"),
        _walk("full_stop", ".", "next_channel", "channel_on", "Next channel"),
        _walk("less_than_sign", "<", "previous_batch", "batch_back", "Batch entry before"),
        _walk("greater_than_sign", ">", "next_batch", "batch_on", "Next batch entry"),
    ),
    key="4",
)
