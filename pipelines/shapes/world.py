"""The world the embedded model knows: captioned pictures of coloured shapes.

A `Scene` is a plain description; `render` draws it and returns the exact mask of every object, so each word of a
caption has ground truth. Captions follow one small grammar::

    a [small|big] COLOUR SHAPE on BACKGROUND
    a [small|big] COLOUR SHAPE at the left|right|top|bottom|center on BACKGROUND
    a [small|big] COLOUR SHAPE left of|right of|above|below a [small|big] COLOUR SHAPE on BACKGROUND

The articles may be left out. The two objects of a scene always differ in colour and never overlap.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["BACKGROUNDS", "COLOURS", "IMAGE_SIZE", "SHAPES", "Object", "Scene", "is_held_out", "render", "sample_scene"]

IMAGE_SIZE = 64
"""Height and width of every picture, in pixels."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 38, 38),
    "green": (34, 160, 60),
    "blue": (40, 80, 225),
    "yellow": (245, 205, 30),
    "purple": (150, 50, 190),
    "cyan": (40, 200, 215),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {"white": (255, 255, 255), "black": (0, 0, 0), "gray": (128, 128, 128)}
SHAPES = ("circle", "square", "triangle", "star", "ring")
SIZES = ("", "small", "big")
POSITIONS = ("", "left", "right", "top", "bottom", "center")
RELATIONS = ("left of", "right of", "above", "below")

_RADII = {"": (8.0, 14.5), "small": (8.0, 9.5), "big": (12.5, 14.5)}
_HELD_OUT_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Object:
    """One coloured shape; `x`, `y` and `radius` are in pixels, y pointing down."""

    colour: str
    shape: str
    size: str
    x: float
    y: float
    radius: float

    @property
    def words(self) -> str:
        """How a caption names it."""
        return " ".join(word for word in (self.size, self.colour, self.shape) if word)


@dataclass(frozen=True, slots=True)
class Scene:
    """One or two objects on a background.

    `placement` is a position (one object; "" when unsaid) or a relation of the first object to the second.
    """

    objects: tuple[Object, ...]
    placement: str
    background: str

    def caption(self, *, articles: bool = True) -> str:
        """The sentence that describes the scene."""
        article = "a " if articles else ""
        first, *rest = (article + thing.words for thing in self.objects)
        if rest:
            place = f" {self.placement} {rest[0]}"
        else:
            place = f" at the {self.placement}" if self.placement else ""
        return f"{first}{place} on {self.background}"


def is_held_out(scene: Scene) -> bool:
    """Whether this caption belongs to the tenth of all captions that training never shows."""
    return zlib.crc32(scene.caption().encode()) % 1000 < 1000 * _HELD_OUT_SHARE


def sample_scene(rng: np.random.Generator, *, objects: int | None = None) -> Scene:
    """Draw a scene; `objects` is 1 or 2, or None for either with equal chance."""
    count = objects or int(rng.integers(1, 3))
    colours = rng.permutation(list(COLOURS))[:count]
    background = str(rng.choice(list(BACKGROUNDS)))
    placement = str(rng.choice(POSITIONS if count == 1 else RELATIONS))
    things = []
    for index in range(count):
        size = str(rng.choice(SIZES))
        radius = float(rng.uniform(*_RADII[size]))
        x, y = _place(rng, placement, index, radius)
        things.append(Object(str(colours[index]), str(rng.choice(SHAPES)), size, x, y, radius))
    return Scene(tuple(things), placement, background)


def _place(rng: np.random.Generator, placement: str, index: int, radius: float) -> tuple[float, float]:
    low, high, middle = radius + 1.5, IMAGE_SIZE - radius - 1.5, IMAGE_SIZE / 2

    def between(start: float, stop: float) -> float:
        return float(rng.uniform(start, stop)) if stop > start else (start + stop) / 2

    if placement in RELATIONS:
        first_half = (placement in ("left of", "above")) == (index == 0)
        along = between(low, middle - radius - 0.5) if first_half else between(middle + radius + 0.5, high)
        across = between(max(low, 20.0), min(high, 44.0))
        return (along, across) if placement in ("left of", "right of") else (across, along)
    near, far, centre = between(low, 20.0), between(44.0, high), between(28.0, 36.0)
    other = between(28.0, 36.0)
    spots = {"left": (near, other), "right": (far, other), "top": (other, near), "bottom": (other, far)}
    spots |= {"center": (centre, other), "": (between(low, high), between(low, high))}
    return spots[placement]


def render(scene: Scene) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Draw a scene.

    Returns:
        The picture, uint8 (64, 64, 3), and the coverage of each object, float32 (objects, 64, 64) in [0, 1].
    """
    picture = np.empty((IMAGE_SIZE, IMAGE_SIZE, 3), np.float32)
    picture[:] = BACKGROUNDS[scene.background]
    masks = np.stack([coverage(thing.shape, thing.x, thing.y, thing.radius) for thing in scene.objects])
    for thing, mask in zip(scene.objects, masks, strict=True):
        picture += mask[..., None] * (np.asarray(COLOURS[thing.colour], np.float32) - picture)
    return picture.round().astype(np.uint8), masks


_GRID = np.arange(IMAGE_SIZE, dtype=np.float64) + 0.5


def coverage(shape: str, x: float, y: float, radius: float) -> NDArray[np.float32]:
    """Anti-aliased coverage (64, 64) of one shape: half a pixel of ramp on either side of its outline."""
    across: NDArray[np.float64] = np.asarray(_GRID - x, np.float64)[None, :]
    down: NDArray[np.float64] = np.asarray(_GRID - y, np.float64)[:, None]
    distance = _signed_distance(shape, across, down, radius)
    return np.clip(0.5 - distance, 0.0, 1.0).astype(np.float32)


def _signed_distance(shape: str, x: NDArray[np.float64], y: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """Distance to the outline in pixels, negative inside. Sizes are set so that all shapes look equally large."""
    distance: NDArray[np.float64]
    length = np.hypot(x, y)
    if shape == "circle":
        distance = length - 0.95 * radius
    elif shape == "square":
        distance = np.maximum(np.abs(x), np.abs(y)) - 0.85 * radius
    elif shape == "ring":
        distance = np.abs(length - 0.75 * radius) - 0.25 * radius
    elif shape == "triangle":  # three half-planes, shifted so that the box is centred
        low = y - 0.15 * radius
        side = np.abs(x) * np.cos(np.pi / 6) - low * np.sin(np.pi / 6)
        distance = np.maximum(side, low - 0.25 * radius) - 0.55 * radius
    elif shape == "star":  # fold the plane onto half a point, then one half-plane: outer tip to inner corner
        angle = np.arctan2(x, -y)
        fold = np.abs((angle + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
        tip, notch = 1.1 * radius, 0.5 * radius
        edge = np.array([notch * np.cos(np.pi / 5) - tip, notch * np.sin(np.pi / 5)])
        normal = np.array([edge[1], -edge[0]]) / np.hypot(*edge)
        distance = (length * np.cos(fold) - tip) * normal[0] + length * np.sin(fold) * normal[1]
    else:
        raise ValueError(f"unknown shape {shape!r}; the world knows {', '.join(SHAPES)}")
    return distance
