"""What a page draws, with the numbers behind it, for whoever takes it out of the browser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from diffusion_xray.tracer.text import number

if TYPE_CHECKING:
    from .selection import Selection

__all__ = ["Sheet", "Taken", "Takes", "Tile"]


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """One map."""

    values: NDArray[Any]
    """Shape (row, column); or (row, column, 3) for colours from 0 to 1, not finite where there is none."""
    span: tuple[float, float] = (0.0, 1.0)
    """Values of the first and the last colour; NaN where nothing is finite."""
    label: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """One map, or several side by side."""

    tiles: tuple[Tile, ...]
    caption: str
    """What it is, without the colours."""
    across: int = 1
    """Maps in a line."""
    note: str = ""
    """In place of the colour bar, where the maps have no range in common or are colours."""
    header: tuple[str, ...] = ()
    """Names of the columns, where they have any."""
    lines: tuple[str, ...] = ()
    """Labels of whole lines of maps, in place of those of each."""
    unit: Callable[[float], str] = number
    """How the ends of the colour bar are written."""
    below: NDArray[np.uint8] | None = None
    """A picture that each map lies over, shape (y, x, 3)."""
    opacity: float = 1.0
    """Of the maps over the picture."""


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """What a page shows where that is no plane of the tensor."""

    draw: Callable[[Selection], Sheet] | None = None
    """May take long and may raise; None where the page shows the plane of the tensor, or nothing yet."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Endings of files that cannot be made of it, with the reason of each."""
    numbers: bool = False
    """Whether there are numbers beside those of the tensor, which the NPY file then holds."""
    name: str = ""
    """Added to the names of files."""
    python: str = ""
    """Code that makes it; `trace` is the open trace. "" for that of the tensor."""


@runtime_checkable
class Takes(Protocol):
    """A page that knows what it shows."""

    def taken(self) -> Taken | None:
        """What is on show now; None for the plane of the tensor."""
        ...
