"""Where an image looks: at words, at itself; and what tokens of a text look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.binding import Binding

from ..scene import Scene
from .protocol import Missing, Request, View

if TYPE_CHECKING:
    from textual.widget import Widget

    from ..reader import Reader
    from .attention_read import Offer, Seen

__all__ = ["ATTENTION"]


def _widget() -> Widget:
    from ..widgets.attention import AttentionPage

    return AttentionPage()


def _missing(scene: Scene) -> Missing | None:
    if scene.site is None:
        return Missing("There is no layer whose attention could be shown.")
    if scene.site.stepped and not scene.snapshot.steps:
        return Missing("No step is complete yet.")
    return None


def _read(reader: Reader, request: Request) -> Seen | Offer | Missing | None:
    from .attention_read import read_attention

    return read_attention(reader, request)


def _how(scene: Scene) -> str:
    return f"{scene.look.colours} · {'p1–p99' if scene.look.clipped else 'min–max'}"


_HEAD = Binding.Group("Head", compact=True)


def _key(  # noqa: PLR0917 - a table
    key: str, action: str, name: str, tooltip: str, sign: str = "", title: str = "", group: Binding.Group | None = None
) -> Binding:
    return Binding(
        key,
        action,
        title or tooltip,
        show=bool(title),
        id=f"attention.{name}",
        tooltip=tooltip,
        key_display=sign or None,
        group=group,
    )


ATTENTION = View(
    "attention",
    "Attn",
    "Where the picture looks: at words, at itself",
    _widget,
    missing=_missing,
    read=_read,
    how=_how,
    keys=(
        _key("comma", "head(-1)", "head_back", "Head before", ",", "Head before", _HEAD),
        _key("full_stop", "head(1)", "head_on", "Next head", ".", "Next head", _HEAD),
        _key("a", "heads", "heads", "Mean of the heads, largest of the heads, or one head"),
        _key("z", "spread('heads')", "mosaic", "A map for every head, or one", "", "Heads"),
        _key("A", "spread('layers')", "grid", "A map for every layer and head, or one", "", "Grid"),
        _key("L", "wide", "layers", "Mean over all layers, or this one"),
        _key("t", "reverse", "reverse", "Who looks at this place, or where it looks", "", "Turn"),
        _key("i", "places", "places", "Joint attention: look at words, or from a place"),
        _key("O", "overlay", "overlay", "How much of the picture is seen below the map"),
        _key("less_than_sign", "entry(-1)", "batch_back", "Batch entry or guidance branch before", "<"),
        _key("greater_than_sign", "entry(1)", "batch_on", "Next batch entry or guidance branch", ">"),
        _key("left_parenthesis", "frame(-1)", "frame_back", "Frame of a video before", "("),
        _key("right_parenthesis", "frame(1)", "frame_on", "Next frame of a video", ")"),
        _key("w", "go", "go", "Go to the layer or head under the cursor"),
    ),
    key="5",
)
