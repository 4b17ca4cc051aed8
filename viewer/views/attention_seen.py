"""What the attention view shows: maps and shares, or what is offered in their place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from diffusion_xray.tracer.attention.info import AttentionInfo
from diffusion_xray.tracer.attention.use import doubt_of

from .attention_source import Asked, Floats, Kind, Source
from .attention_wish import Wish

__all__ = ["Offer", "Seen", "Tiles", "asked_of", "cell_of", "frame_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """Layers that attend, in place of one that does not."""

    calls: tuple[AttentionInfo, ...]
    below: bool
    """Whether they lie below the layer; else they are its neighbours."""


@dataclass(frozen=True, slots=True, eq=False)
class Tiles:
    """Small maps in rows and columns."""

    rows: tuple[str, ...]
    columns: tuple[int, ...]
    """Numbers of the heads."""
    maps: tuple[tuple[Floats | None, ...], ...]
    """None where there is no such head, or it is not there yet."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Attention of one layer, or of several, at one step."""

    wish: Wish
    call: AttentionInfo
    kind: Kind
    kinds: tuple[Kind, ...]
    """All that this layer can show."""
    entry: int = 0
    """Of the batch, or of the batches of several calls."""
    entries: int = 1
    branch: str = ""
    head: int = 0
    """The number of the single head."""
    step: int = 0
    sources: tuple[Source, ...] = ()
    """The calls that are shown, one a layer."""
    layers: tuple[str, ...] = ()
    scope: str = ""
    """The pattern that the layers match; "" for one layer."""
    names: tuple[str, ...] = ()
    """Words, or tokens of the queries."""
    special: tuple[bool, ...] = ()
    chosen: tuple[int, ...] = ()
    """Places of the words chosen, that under the cursor first."""
    mass: Floats | None = None
    """The share of each word, averaged over all positions."""
    maps: Floats | None = None
    """Of all words, shape (word, y, x)."""
    map: Floats | None = None
    """Of what is chosen, shape (y, x)."""
    grid: tuple[int, ...] = ()
    frame: int = 0
    tiles: Tiles | None = None
    keys: tuple[str, ...] = ()
    row: Floats | None = None
    """Shares of the keys, or of the queries that look at a token."""
    over_steps: Floats | None = None
    """Share of what is chosen at every step; NaN where it is not known."""
    broken: tuple[int, ...] = ()
    """Steps that cannot be read."""
    picture: NDArray[np.uint8] | None = None
    """What the maps lie over, shape (y, x, 3)."""
    done: int = 0
    total: int = 0
    """How far the computation is."""
    absent: bool = False
    """Whether queries and keys were not kept at this step."""
    unread: bool = False
    """Whether they cannot be read."""
    further: bool = field(default=False)
    """Whether there is more to compute."""

    @property
    def doubt(self) -> str:
        """Why these may not be the shares that the run used; "" where they are proven to be."""
        return doubt_of([source.call.use for source in self.sources], [self.step if self.call.stepped else 0])

    @property
    def query(self) -> tuple[int, int]:
        """The cell under the cursor, (y, x)."""
        return cell_of(self.wish.place, self.grid[-2:] or (1, 1))


def cell_of(place: tuple[float, float], grid: Sequence[int]) -> tuple[int, int]:
    """The cell of a grid that holds a relative place."""
    y, x = (min(max(int(at * size), 0), size - 1) for at, size in zip(place, grid, strict=True))
    return y, x


def asked_of(source: Source, wish: Wish) -> Asked:
    """What a call is asked: for its words, or for the position under the cursor on its own grid."""
    if source.kind != "places":
        return "words", 0
    part = source.columns if wish.reverse else source.rows
    y, x = cell_of(wish.place, part.shape[-2:])
    frame = frame_of(part.shape, wish.frame)
    at = frame * math.prod(part.shape[-2:]) + y * part.shape[-1] + x
    return ("to" if wish.reverse else "from"), at


def frame_of(shape: Sequence[int], wanted: int | None) -> int:
    """The frame of a video that is wanted, else the one in the middle; 0 of a picture."""
    if len(shape) < 3:
        return 0
    return shape[0] // 2 if wanted is None else wanted % shape[0]
