"""Where an image looks: at words, at itself; and what tokens of a text look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.binding import Binding

from ..bindings import hidden
from ..scene import Scene
from .protocol import Missing, Request, View

if TYPE_CHECKING:
    from textual.widget import Widget

    from ..reader import Reader
    from .attention_seen import Offer, Seen

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
_KEYS = (
    Binding(
        "comma",
        "head(-1)",
        "Head before",
        id="attention.head_back",
        tooltip="Head before",
        key_display=",",
        group=_HEAD,
    ),
    Binding(
        "full_stop", "head(1)", "Next head", id="attention.head_on", tooltip="Next head", key_display=".", group=_HEAD
    ),
    hidden("a", "heads", "Mean of the heads, largest of the heads, or one head", id="attention.heads"),
    Binding("z", "spread('heads')", "Heads", id="attention.mosaic", tooltip="A map for every head, or one"),
    Binding("A", "spread('layers')", "Grid", id="attention.grid", tooltip="A map for every layer and head, or one"),
    hidden("L", "wide", "Mean over all layers, or this one", id="attention.layers"),
    Binding("t", "reverse", "Turn", id="attention.reverse", tooltip="Who looks at this place, or where it looks"),
    hidden("i", "places", "Joint attention: look at words, or from a place", id="attention.places"),
    hidden("O", "overlay", "How much of the picture is seen below the map", id="attention.overlay"),
    hidden(
        "less_than_sign",
        "entry(-1)",
        "Batch entry or guidance branch before",
        id="attention.batch_back",
        display="<",
    ),
    hidden(
        "greater_than_sign", "entry(1)", "Next batch entry or guidance branch", id="attention.batch_on", display=">"
    ),
    hidden("left_parenthesis", "frame(-1)", "Frame of a video before", id="attention.frame_back", display="("),
    hidden("right_parenthesis", "frame(1)", "Next frame of a video", id="attention.frame_on", display=")"),
    hidden("w", "go", "Go to the layer or head under the cursor", id="attention.go"),
)

ATTENTION = View(
    "attention",
    "Attn",
    "Where the picture looks: at words, at itself",
    _widget,
    missing=_missing,
    read=_read,
    how=_how,
    keys=_KEYS,
    key="5",
)
