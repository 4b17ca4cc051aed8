"""What the attention view is asked for beside the layer and the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Wish"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What to read. It holds from layer to layer, so words are named and places are relative."""

    word: str = ""
    """The word under the cursor, the second "a" being "a#1"; "" for the one that is looked at most."""
    added: tuple[str, ...] = ()
    """Words whose attention is added to it."""
    place: tuple[float, float] = (0.5, 0.5)
    """The place of the picture under the cursor, from its upper left corner, (y, x) from 0 to 1."""
    places: bool = False
    """Where keys are image and text: look from a place of the picture, not at a word."""
    reverse: bool = False
    """Who looks at the place or the token, rather than where it looks."""
    heads: Literal["mean", "max", "single"] = "mean"
    head: int = 0
    """Any whole number: it is taken modulo the number of heads."""
    spread: Literal["", "heads", "layers"] = ""
    """One map, one for every head, or one for every layer and head."""
    wide: bool = False
    """Over all layers, or all below the one chosen where that does not attend itself."""
    entry: int | None = None
    """Of the batch, modulo its size; None for the first of the conditional branch."""
    frame: int | None = None
    """Of a video, modulo their number; None for the one in the middle."""
    item: int = 0
    """Of what is offered, where the layer does not attend."""
    round: int = 0
    """Counts up while a long answer comes in parts."""
