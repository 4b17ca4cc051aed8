"""How to draw, and what the keys change of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from diffusion_xray.tracer.layout import MEASURED

from .palette import MAPS

__all__ = ["CHANGES", "Look"]

_ORDER: Final = ("std", "mean", "abs_max", *(name for name in MEASURED if name not in {"std", "mean", "abs_max"}))


@dataclass(frozen=True, slots=True)
class Look:
    """How to draw."""

    statistic: str = "std"
    colours: str = "viridis"
    clipped: bool = False
    """Range from the 1st to the 99th percentile rather than from the smallest to the largest value."""
    log: bool = False
    """Counts of histograms on a logarithmic scale."""
    ridge: bool = False
    """Histograms over the steps as lines of bars rather than as colours."""
    channel: int = 0
    """Any whole number: it is taken modulo the number of channels, so that walking goes round."""
    batch: int = 0
    """Likewise."""
    shade: bool = False
    """Shades of grey characters rather than colours, for a terminal with few of them."""


def _after(value: str, values: tuple[str, ...]) -> str:
    return values[(values.index(value) + 1) % len(values)]


CHANGES: Final[Mapping[str, Callable[[Look], Look]]] = {
    "next_channel": lambda look: replace(look, channel=look.channel + 1),
    "previous_channel": lambda look: replace(look, channel=look.channel - 1),
    "next_batch": lambda look: replace(look, batch=look.batch + 1),
    "previous_batch": lambda look: replace(look, batch=look.batch - 1),
    "next_colours": lambda look: replace(look, colours=_after(look.colours, MAPS)),
    "next_statistic": lambda look: replace(look, statistic=_after(look.statistic, _ORDER)),
    "range": lambda look: replace(look, clipped=not look.clipped),
    "log": lambda look: replace(look, log=not look.log),
    "ridge": lambda look: replace(look, ridge=not look.ridge),
}
"""What the action `look` of the screen can be told to change."""
