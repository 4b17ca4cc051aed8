"""What the positions of an attention sequence stand for: places of an image, tokens of a text, or neither."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Kind", "Part", "kind_of", "part_labels", "parts_from_attributes", "places"]

Kind = Literal["self", "cross", "joint"]


@dataclass(frozen=True, slots=True)
class Part:
    """A run of positions of one kind."""

    kind: Literal["image", "text", "other"]
    start: int
    shape: tuple[int, ...]
    """(height, width) or (frames, height, width) of an image in row-major order, else (tokens,)."""

    @property
    def size(self) -> int:
        """Number of positions."""
        return math.prod(self.shape)

    @property
    def span(self) -> slice:
        """Its positions in the sequence."""
        return slice(self.start, self.start + self.size)


def parts_from_attributes(values: Any, length: int) -> tuple[Part, ...]:
    """Read the parts of a sequence; where they do not cover it in order, nothing is known of it."""
    unknown = (Part("other", 0, (length,)),)
    if not isinstance(values, list):
        return unknown
    parts: list[Part] = []
    for value in values:
        entry = value if isinstance(value, dict) else {}
        kind, shape = entry.get("kind"), entry.get("shape")
        ranks = (2, 3) if kind == "image" else (1,)
        if kind not in ("image", "text", "other") or not isinstance(shape, list) or len(shape) not in ranks:
            return unknown
        if any(type(size) is not int or not 0 < size <= length for size in shape):
            return unknown
        start = parts[-1].span.stop if parts else 0
        if entry.get("start", start) != start:
            return unknown
        parts.append(Part(kind, start, tuple(shape)))
    return tuple(parts) if parts and parts[-1].span.stop == length else unknown


def kind_of(queries: Sequence[Part], keys: Sequence[Part]) -> Kind:
    """Self-attention looks at its own kind of positions, cross-attention at another, joint attention at several."""
    asked, shown = {part.kind for part in queries}, {part.kind for part in keys}
    if "text" in shown and "image" in shown:
        return "joint"
    same_length = sum(part.size for part in queries) == sum(part.size for part in keys)
    return "self" if asked == shown and (same_length or "other" not in asked) else "cross"


def part_labels(parts: Sequence[Part]) -> NDArray[np.str_]:
    """The kind of every position."""
    return np.repeat([part.kind for part in parts], [part.size for part in parts])


def places(parts: Sequence[Part]) -> dict[str, NDArray[np.int64]]:
    """Where image positions lie: "y", "x", and of a video "frame"; −1 where a position is no image's."""
    images = [part for part in parts if part.kind == "image"]
    if not images:
        return {}
    axes = ("frame", "y", "x") if any(len(part.shape) == 3 for part in images) else ("y", "x")
    found = {axis: np.full(parts[-1].span.stop, -1, np.int64) for axis in axes}
    for part in images:
        for axis, index in zip(reversed(axes), reversed(np.indices(part.shape)), strict=False):
            found[axis][part.span] = index.ravel()
    return found
