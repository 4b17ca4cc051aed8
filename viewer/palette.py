"""Colour maps as small tables: anchors, interpolated to 256 colours in linear steps."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["DIVERGING", "FAINT", "FAULT", "INK", "MAPS", "PAPER", "colour_map", "luminance"]

FAULT: Final = (255, 0, 200)
"""Colour of a value that is not finite: in none of the maps."""
PAPER: Final = (18, 19, 23)
INK: Final = (232, 232, 228)
FAINT: Final = (150, 152, 158)
"""Colours of a picture to keep: its ground, its writing, and what is less important of that."""

_ANCHORS: Final[Mapping[str, tuple[str, ...]]] = {
    "viridis": (
        "440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725",
    ),
    "inferno": (
        "000004", "1b0c41", "4a0c6b", "781c6d", "a52c60", "cf4446", "ed6925", "fb9b06", "f7d13d", "fcffa4",
    ),
    "gray": ("060606", "fafafa"),
    "coolwarm": ("3b4cc0", "6788ee", "9abbff", "dddddd", "f7a789", "e26952", "b40426"),
}  # fmt: skip

MAPS: Final = tuple(_ANCHORS)
DIVERGING: Final = frozenset({"coolwarm"})
"""Maps whose middle stands for zero. All others grow in luminance, so they stay readable without colour."""


@functools.cache
def colour_map(name: str) -> NDArray[np.uint8]:
    """The table of a map, shape (256, 3).

    Raises:
        KeyError: There is no such map.
    """
    anchors = np.array([[int(code[at : at + 2], 16) for at in (0, 2, 4)] for code in _ANCHORS[name]], dtype=np.float64)
    places = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(places, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)]
    table: NDArray[np.uint8] = np.stack(channels, axis=1).round().astype(np.uint8)
    table.setflags(write=False)
    return table


def luminance(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Perceived brightness of colours from 0 to 1 (Rec. 709 weights), shape (...)."""
    weighted: NDArray[np.float64] = rgb.astype(np.float64) @ np.array([0.2126, 0.7152, 0.0722]) / 255
    return weighted
