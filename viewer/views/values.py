"""The numbers of a stored tensor, exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..bindings import hidden
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
    dtype = scene.site.torch_dtype if scene.site else ""
    return f"|{dtype}|" if dtype.startswith("complex") else dtype


VALUES = View(
    "values",
    "Values",
    "The exact numbers of the tensor",
    _widget,
    missing=missing_tensor,
    read=read_tensor,
    how=_how,
    keys=(
        hidden("comma", "walk(-1)", "Plane before: channel, frame, …", id="values.channel_back", display=","),
        hidden("full_stop", "walk(1)", "Next plane: channel, frame, …", id="values.channel_on", display="."),
        hidden("less_than_sign", "batch(-1)", "Batch entry before", id="values.batch_back", display="<"),
        hidden("greater_than_sign", "batch(1)", "Next batch entry", id="values.batch_on", display=">"),
        hidden(
            "x", "extreme", "Go to the first value that is not finite, or to the largest magnitude", id="values.extreme"
        ),
    ),
    key="6",
)
