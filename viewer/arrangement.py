"""How the layers are listed: which of them, in which order, as a tree or by their full names. No I/O, no widgets."""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from .model import Layer, Snapshot
from .order import Order, ranked

__all__ = ["Arrangement", "Row"]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the list."""

    layer: Layer
    depth: int
    score: float = math.nan
    """What the layers are sorted by."""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Which layers are listed, and how."""

    query: str = ""
    """Words as `Snapshot.matching` takes them."""
    order: Order = "called"
    flat: bool = False
    """A list of full names rather than a tree."""
    faults: bool = False
    """Only layers that hold values that are not finite, themselves or below."""
    pinned: bool = False
    """Only layers that are pinned."""

    @property
    def is_list(self) -> bool:
        """Whether full names are shown: also when layers are filtered or sorted."""
        return self.flat or bool(self.query) or self.pinned or self.order != "called"

    def __str__(self) -> str:
        words = {"largest": "largest first", "changed": "most changed first"}.get(self.order, "")
        parts = (self.faults and "faults only", self.pinned and "pinned", self.flat and "list", words)
        return " · ".join(part for part in parts if part)

    def rows(
        self, snapshot: Snapshot, statistic: str, *, unfolded: AbstractSet[str], pins: AbstractSet[str]
    ) -> Iterator[Row]:
        """The lines from the top.

        Args:
            snapshot: The trace.
            statistic: By which layers are sorted.
            unfolded: Names of the layers of the tree whose inside is shown.
            pins: Names of those that are pinned.
        """
        if self.is_list:
            yield from self._listed(snapshot, statistic, pins)
        else:
            for root in snapshot.roots:
                yield from self._visible(root, 0, unfolded)

    @property
    def why_empty(self) -> str:
        """What to say where no layer is listed."""
        if self.query:
            return "no layer holds these words"
        if self.pinned:
            return "no layer is pinned: * pins the chosen one"
        return "every value is finite" if self.faults else "no layer fired yet"

    def _visible(self, layer: Layer, depth: int, unfolded: AbstractSet[str]) -> Iterator[Row]:
        if self.faults and layer.fault is None:
            return
        yield Row(layer, depth)
        if layer.name in unfolded:
            for child in layer.children:
                yield from self._visible(child, depth + 1, unfolded)

    def _listed(self, snapshot: Snapshot, statistic: str, pins: AbstractSet[str]) -> Iterator[Row]:
        layers = [
            layer
            for layer in snapshot.matching(self.query)
            if not (self.faults and layer.own_fault is None) and not (self.pinned and layer.name not in pins)
        ]
        return (Row(layer, 0, score) for layer, score in ranked(layers, snapshot, statistic, self.order))
