"""The numbers of a stored tensor, exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.binding import Binding

from ..scene import Scene
from .protocol import View
from .tensors import missing_tensor, read_tensor

if TYPE_CHECKING:
    from textual.widget import Widget

__all__ = ["VALUES"]


def _widget() -> Widget:
    from ..widgets.values import ValuesView

    return ValuesView()


def _how(scene: Scene) -> str:
    return scene.site.torch_dtype if scene.site else ""


def _key(key: str, sign: str, action: str, name: str, tooltip: str) -> Binding:
    return Binding(key, action, tooltip, show=False, id=f"values.{name}", tooltip=tooltip, key_display=sign)


VALUES = View(
    "values",
    "Values",
    "The exact numbers of the tensor",
    _widget,
    missing=missing_tensor,
    read=read_tensor,
    how=_how,
    keys=(
        _key("comma", ",", "walk(-1)", "channel_back", "Plane before: channel, frame, …"),
        _key("full_stop", ".", "walk(1)", "channel_on", "Next plane: channel, frame, …"),
        _key("less_than_sign", "<", "batch(-1)", "batch_back", "Batch entry before"),
        _key("greater_than_sign", ">", "batch(1)", "batch_on", "Next batch entry"),
        _key("x", "x", "extreme", "extreme", "Go to the first value that is not finite, or to the largest magnitude"),
    ),
    key="6",
)
