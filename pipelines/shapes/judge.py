"""Tell from the pixels whether a picture shows what its caption says.

The judge knows the world's palette and outlines and nothing about any model. The tests hold it
to passing what `render` draws; a picture that is blurred (by an autoencoder, say) can fail although the right shape
is still the closest one, because the overlap must also reach a floor. Numpy alone, 10 to 30 ms a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from .world import BACKGROUNDS, COLOURS, IMAGE_SIZE, RELATIONS, SHAPES, Scene, coverage

__all__ = ["Verdict", "judge", "object_masks"]

_PURE_DISTANCE = 50.0
"""RGB distance up to which a pixel is that palette colour; mixes at outlines are farther from every other one."""

_FEW_PIXELS = 10
"""As many stray pixels are overlooked."""

_ENOUGH_PIXELS = 40
"""As many pixels of pure colour an object must show; the smallest star the world draws has over 80."""

_FAINT = 0.1
"""A pixel with a smaller share of the object's colour is background noise."""

_SOLID = 0.5
"""A pixel of which an object covers as much is its own."""

_FLOOR = 0.75
"""Least overlap with the best template; below it the object has no shape of the world."""

_NEAR, _FAR = 24.0, 40.0
"""The world puts centres "near" up to 20, in the middle from 28 to 36 and "far" from 44; these lie between."""

_SMALL_BELOW = 11.0
"""Radius in pixels between the world's small (up to 9.5) and big (from 12.5)."""

_HALF = 20
"""Half the side of the window in which templates are compared."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is right in a picture; with two objects, an attribute is right when it is for both."""

    background: bool
    """The asked background fills the border and most of the picture."""
    colour: bool
    """Every asked colour is there, and no other colour of the palette."""
    placement: bool
    """The object is at the asked position, or the two stand in the asked relation; right when none was asked."""
    shape: bool
    """The template that overlaps each object best has the asked shape."""
    size: bool
    """Each object that was asked to be small or big is; no part of `everything`."""
    no_foreign: bool
    """All pixels are background, an asked colour or a mix of them; no part of `everything`."""

    @property
    def everything(self) -> bool:
        """Whether background, colour, placement and shape are all right."""
        return self.background and self.colour and self.placement and self.shape


@dataclass(frozen=True, slots=True)
class _Fit:
    """The template closest to an object."""

    shape: str
    overlap: float
    x: float
    y: float
    radius: float
    box: tuple[float, float, float, float]  # left, right, top, bottom of the pixels seen, in pixels


def judge(picture: NDArray[np.uint8], scene: Scene) -> Verdict:
    """Compare a picture with the scene it should show; only the words of the scene count, not its coordinates.

    Args:
        picture: uint8 (64, 64, 3), RGB.
        scene: What was asked for.

    Raises:
        ValueError: If the picture has another shape or type.
    """
    labels, soft, strange = _seen(picture, scene)
    asked = [thing.colour for thing in scene.objects]
    fits = [_fit(mask) for mask in soft]
    found = [fit for fit in fits if fit is not None]
    complete = len(found) == len(fits)
    return Verdict(
        background=_background_right(labels, scene.background),
        colour=_colours_right(labels, asked),
        placement=complete and _placement_right(found, scene.placement),
        shape=complete and all(f.shape == t.shape and f.overlap >= _FLOOR for f, t in _pairs(found, scene)),
        size=complete and all(_size_right(f.radius, t.size) for f, t in _pairs(found, scene)),
        no_foreign=int(strange.sum()) <= _FEW_PIXELS,
    )


def object_masks(picture: NDArray[np.uint8], scene: Scene) -> NDArray[np.bool_] | None:
    """The pixels of each object of a scene, as they are in a picture of it.

    Args:
        picture: uint8 (64, 64, 3), RGB.
        scene: What the picture should show; where it shows its objects does not matter.

    Returns:
        bool (objects, 64, 64), in the order of the scene; None where an object of the asked colour and shape is not
        to be found, or another background or colour is there, so that a word would have no object.

    Raises:
        ValueError: If the picture has another shape or type.
    """
    verdict = judge(picture, scene)
    if not (verdict.background and verdict.colour and verdict.shape):
        return None
    _, soft, _ = _seen(picture, scene)
    return soft >= _SOLID


_NAMES = (*BACKGROUNDS, *COLOURS)
_PURE = np.array([*BACKGROUNDS.values(), *COLOURS.values()], np.float32)


def _pairs(fits: list[_Fit], scene: Scene) -> zip:  # type: ignore[type-arg]
    return zip(fits, scene.objects, strict=True)


def _seen(picture: NDArray[np.uint8], scene: Scene) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.bool_]]:
    """The palette's colours in a picture, what each object covers of it, and what neither explains."""
    if picture.shape != (IMAGE_SIZE, IMAGE_SIZE, 3) or picture.dtype != np.uint8:
        expected = f"uint8 ({IMAGE_SIZE}, {IMAGE_SIZE}, 3)"
        raise ValueError(f"the judge takes {expected} pictures, not {picture.dtype} {picture.shape}; convert it first")
    pixels = picture.astype(np.float32)
    labels = _labels(pixels)
    colours = [COLOURS[thing.colour] for thing in scene.objects]
    return labels, *_separate(pixels, BACKGROUNDS[_background_seen(labels)], colours)


def _labels(pixels: NDArray[np.float32]) -> NDArray[np.intp]:
    """Index into `_NAMES` of every pixel's colour, -1 where it is far from all of them, (64, 64)."""
    distance = np.linalg.norm(pixels[:, :, None] - _PURE, axis=-1)
    return np.where(distance.min(-1) <= _PURE_DISTANCE, distance.argmin(-1), -1)


def _border(labels: NDArray[np.intp]) -> NDArray[np.intp]:
    return np.concatenate([labels[0], labels[-1], labels[1:-1, 0], labels[1:-1, -1]])


def _background_seen(labels: NDArray[np.intp]) -> str:
    counts = [int((_border(labels) == index).sum()) for index in range(len(BACKGROUNDS))]
    return _NAMES[int(np.argmax(counts))]


def _background_right(labels: NDArray[np.intp], asked: str) -> bool:
    own = _NAMES.index(asked)
    return bool((_border(labels) == own).mean() >= 0.9 and (labels == own).mean() >= 0.5)


def _colours_right(labels: NDArray[np.intp], asked: list[str]) -> bool:
    counts = {name: int((labels == _NAMES.index(name)).sum()) for name in COLOURS}
    return all(n >= _ENOUGH_PIXELS if name in asked else n <= _FEW_PIXELS for name, n in counts.items())


def _separate(
    pixels: NDArray[np.float32], background: tuple[int, int, int], colours: list[tuple[int, int, int]]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Undo the drawing: how much of every pixel each object covers, and which pixels no object explains.

    An outline pixel is a mix of background and colour, hence on the line between them in RGB; it belongs to the
    object whose line is nearest, and its position on that line is the coverage.

    Returns:
        Coverage, float32 (objects, 64, 64) in [0, 1], and the strange pixels, bool (64, 64).
    """
    base = np.asarray(background, np.float32)
    rays = np.asarray(colours, np.float32) - base
    offset = pixels - base
    share = np.clip(offset @ rays.T / np.square(rays).sum(1), 0, 1)
    residual = np.linalg.norm(offset[:, :, None] - share[..., None] * rays, axis=-1)
    own = (residual.argmin(-1)[..., None] == np.arange(len(colours))) & (residual <= _PURE_DISTANCE)
    soft = np.moveaxis(np.where(own & (share >= _FAINT), share, 0).astype(np.float32), -1, 0)
    return soft * _beside(soft >= _SOLID), residual.min(-1) > _PURE_DISTANCE


def _beside(solid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels that touch a solid one, so that noise elsewhere adds nothing to an object."""
    size = solid.shape[-1]
    padded = np.pad(solid, ((0, 0), (1, 1), (1, 1)))
    beside: NDArray[np.bool_] = np.any(
        [padded[:, y : y + size, x : x + size] for y in range(3) for x in range(3)], axis=0
    )
    return beside


@cache
def _templates() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Every shape in radii 7 to 16, its centroid within a pixel of the window's centre.

    Returns:
        Coverage (templates, window pixels), its sum (templates,) and the centre and radius (templates, 3), the
        templates being sorted by shape.
    """
    shifts = np.arange(-1, 1.01, 0.5)
    drawn, parameters = [], []
    for shape in SHAPES:
        large = coverage(shape, IMAGE_SIZE / 2, IMAGE_SIZE / 2, 20.0)
        lean = [(value - IMAGE_SIZE / 2) / 20.0 for value in _centroid(large)]
        for radius in np.arange(7, 16.01, 0.5):
            for shift_x, shift_y in np.stack(np.meshgrid(shifts, shifts), -1).reshape(-1, 2):
                x, y = shift_x - lean[0] * radius, shift_y - lean[1] * radius
                mask = coverage(shape, _HALF + x, _HALF + y, float(radius))
                drawn.append(mask[: 2 * _HALF, : 2 * _HALF].ravel())
                parameters.append((x, y, radius))
    bank = np.stack(drawn)
    return bank, bank.sum(1), np.array(parameters, np.float32)


def _centroid(mask: NDArray[np.float32]) -> tuple[float, float]:
    grid = np.arange(len(mask)) + 0.5
    return float(mask.sum(0) @ grid / mask.sum()), float(mask.sum(1) @ grid / mask.sum())


def _fit(mask: NDArray[np.float32]) -> _Fit | None:
    """The template with the best overlap, sum of minima over sum of maxima; None where there is nothing to see."""
    solid = mask >= _SOLID
    if solid.sum() < _ENOUGH_PIXELS:
        return None
    bank, areas, parameters = _templates()
    left, top = (round(value) - _HALF for value in _centroid(mask))
    padded = np.pad(mask, _HALF)
    window = padded[top + _HALF :, left + _HALF :][: 2 * _HALF, : 2 * _HALF].ravel()
    shared = np.minimum(bank, window).sum(1)
    overlap = shared / (areas + mask.sum() - shared)
    best = int(overlap.argmax())
    x, y, radius = (float(value) for value in parameters[best])
    columns, rows = np.flatnonzero(solid.any(0)), np.flatnonzero(solid.any(1))
    return _Fit(
        shape=SHAPES[best // (len(bank) // len(SHAPES))],
        overlap=float(overlap[best]),
        x=left + _HALF + x,
        y=top + _HALF + y,
        radius=radius,
        box=(float(columns[0]), float(columns[-1] + 1), float(rows[0]), float(rows[-1] + 1)),
    )


def _placement_right(fits: list[_Fit], asked: str) -> bool:
    if asked in RELATIONS:
        first, second = fits if asked in ("left of", "above") else fits[::-1]
        return _precedes(first, second, horizontal=asked in ("left of", "right of"))
    column, row = _third(fits[0].x), _third(fits[0].y)
    wanted = {"left": (0, 1), "right": (2, 1), "top": (1, 0), "bottom": (1, 2), "center": (1, 1)}
    return asked == "" or (column, row) == wanted[asked]


def _third(value: float) -> int:
    return int(value > _NEAR) + int(value > _FAR)


def _precedes(first: _Fit, second: _Fit, *, horizontal: bool) -> bool:
    """Whether `first` comes before `second` along an axis that separates them.

    Either the centres differ most along that axis, or the objects do not overlap along it: the world also draws
    steep diagonals, of which "left of" and "above" are both true.
    """
    across, down = second.x - first.x, second.y - first.y
    along, other = (across, down) if horizontal else (down, across)
    end, start = (first.box[1], second.box[0]) if horizontal else (first.box[3], second.box[2])
    return along > 0 and (along >= abs(other) or end <= start)


def _size_right(radius: float, asked: str) -> bool:
    return asked == "" or (radius < _SMALL_BELOW) == (asked == "small")
