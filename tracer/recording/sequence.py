"""What the tokens of an attention call are: image in a grid, text, or something else.

Nothing here guesses by a single number: it asks what the enclosing modules were called with, and where that leaves a
doubt the answer is "other".
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from .asking import is_a

__all__ = ["Part", "Received", "sequence_parts"]

_TEXT = re.compile(r"context|encoder_hidden_states(_t5|_2)?")
"""Arguments of a denoiser that hold embeddings of prompts."""
_ELSEWHERE = re.compile(r"mask|cond|encoder|control|rotary|embed|_ids|residual|temb")
"""Arguments that may have the shape of a picture and are not what the module works on."""
_REFINER = re.compile(r"context|text|caption|txt|token_refiner")
"""Modules of a denoiser that work on the prompt alone."""
_OVER_FRAMES = re.compile(r"(?<!Spatio)Temporal|AnimateDiff")
"""Classes whose tokens are the frames of one place."""
_FRAMES_FIRST = re.compile(r"CogVideoX|ConsisID")
"""Denoisers that take videos as (batch, frame, channel, height, width)."""
_IMAGE_FIRST = re.compile(r"SD3|HunyuanVideo|HunyuanImage|HiDreamImage|JoyImage|Mochi|MotifVideo")
_TEXT_FIRST = re.compile(
    r"Flux|Chroma|Bria|LongCatImage|OvisImage|QwenImage|CogVideoX|ConsisID|CogView|AuraFlow|EasyAnimate|GlmImage|"
    r"UNet2DCondition|Kandinsky3UNet"
)
"""Denoisers by the order in which their joint sequences hold text and image, as their sources have it."""
_REGISTERS_FIRST = re.compile(r"AuraFlow")
"""Denoisers that put tokens of their own, which they have learnt, before those of the text."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some consecutive tokens of a sequence."""

    kind: Literal["image", "text", "other"]
    shape: tuple[int, ...]
    """Image: (height, width) or (frames, height, width), its tokens in row-major order; else (tokens,)."""

    @property
    def tokens(self) -> int:
        """How many."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Received:
    """A module whose forward is running, and what it was called with."""

    name: str
    kind: str
    """Its class."""
    arguments: Mapping[str, Any]
    patch: tuple[int, ...] = ()
    """(height, width) or (frames, height, width) of a patch, where its configuration says so."""


def sequence_parts(
    enclosing: Sequence[Received], *, batch: int, queries: int, keys: int, nth: int, prompted: bool
) -> tuple[list[Part], list[Part]]:
    """What the queries and the keys of one call are.

    Args:
        enclosing: The running modules, outermost first; the last one made the call.
        batch: Size of the query's first dimension.
        queries: Number of query tokens.
        keys: Number of key tokens.
        nth: How many calls the same module has made before within this forward.
        prompted: Whether there are text encoders at all, so that embeddings given to the denoiser are of text.

    Returns:
        The parts of the queries and of the keys, in order; each list covers its sequence.
    """
    sequence = _Sequence(enclosing, batch, prompted=prompted)
    query = sequence.own(queries)
    given = _context(enclosing[-1].arguments)
    crosses = given is not None and given == keys
    if keys == queries and not crosses and not nth:
        return query, query
    return query, sequence.context(keys, nth=nth)


class _Sequence:
    """What the enclosing modules say about sequences of the current call."""

    def __init__(self, enclosing: Sequence[Received], batch: int, *, prompted: bool) -> None:
        self._enclosing = enclosing
        self._batch = batch
        self._prompted = prompted
        self._root = enclosing[0]
        self._texts = _text_lengths(self._root) if prompted else set()

    def own(self, length: int) -> list[Part]:
        """The module's own sequence."""
        ids = self._root.arguments.get("input_ids")
        if is_a(ids, Tensor) and ids.dim() == 2 and ids.shape[1] == length:
            return [Part("text", (length,))]
        image = self._image(length)
        refines = any(_REFINER.search(module.name) for module in self._enclosing[1:])
        if length in self._texts and (image is None or refines):
            return [Part("text", (length,))]
        return image or self._joint(length) or [Part("other", (length,))]

    def context(self, length: int, *, nth: int) -> list[Part]:
        """What the module looks at."""
        arguments = self._enclosing[-1].arguments
        with_images = is_a(arguments.get("encoder_hidden_states"), tuple) or any(
            name.startswith("ip_") and value is not None for name, value in arguments.items()
        )
        if nth and with_images:  # image prompts follow the text
            return [Part("other", (length,))]
        pictures = [
            value.shape[1]
            for name, value in self._root.arguments.items()
            if "image" in name and is_a(value, Tensor) and value.dim() == 3
        ]
        if length in pictures:
            return [Part("other", (length,))]
        if length in self._texts:
            return [Part("text", (length,))]
        return self._joint(length) or self._image(length) or [Part("other", (length,))]

    def _joint(self, length: int) -> list[Part] | None:
        """Text and image in one sequence, in the order of the denoiser's class."""
        if _REGISTERS_FIRST.match(self._root.kind):
            return self._after_registers(length)
        for text in sorted(self._texts, reverse=True):
            image = self._image(length - text) if text < length else None
            if image is None:
                continue
            if _IMAGE_FIRST.match(self._root.kind):
                return [*image, Part("text", (text,))]
            if _TEXT_FIRST.match(self._root.kind):
                return [Part("text", (text,)), *image]
        return None

    def _after_registers(self, length: int) -> list[Part] | None:
        """What is left when text and image, in patches as the denoiser's configuration has them, are taken away."""
        image, texts = _in_patches(self._root), sorted(self._texts)
        if image is None or len(texts) != 1 or (registers := length - texts[0] - image.tokens) < 1:
            return None
        return [Part("other", (registers,)), Part("text", (texts[0],)), image]

    def _image(self, length: int) -> list[Part] | None:
        """The grid of the nearest enclosing module whose picture has as many pixels or patches."""
        if length < 1:
            return None
        for module in reversed(self._enclosing):
            if _OVER_FRAMES.search(module.kind):
                return None
            for grid in _grids(module, length, self._batch):
                return grid
        return None


def _context(arguments: Mapping[str, Any]) -> int | None:
    """Number of tokens that a module was given to look at."""
    given = arguments.get("encoder_hidden_states")
    given = given[0] if is_a(given, tuple) and given else given
    return given.shape[1] if is_a(given, Tensor) and given.dim() == 3 else None


def _text_lengths(root: Received) -> set[int]:
    """Numbers of text tokens: of each prompt embedding given to a denoiser, and of all one after the other."""
    given = [value for name, value in root.arguments.items() if _TEXT.fullmatch(name) and is_a(value, Tensor)]
    found = [text.shape[-2] for text in given if text.dim() == 3 or (text.dim() == 4 and text.shape[1] == 1)]
    return {*found, sum(found)} - {0}


def _in_patches(root: Received) -> Part | None:
    """The picture that a denoiser was given, in patches of its configuration."""
    latents = root.arguments.get("hidden_states")
    if not (is_a(latents, Tensor) and latents.dim() == 4 and len(root.patch) == 2):
        return None
    (height, width), (down, right) = latents.shape[2:], root.patch
    return Part("image", (height // down, width // right)) if not height % down and not width % right else None


def _grids(module: Received, length: int, batch: int) -> Iterator[list[Part]]:
    """Ways to see `length` tokens as a picture that a module was given."""
    arguments = module.arguments
    for name, value in arguments.items():
        if is_a(value, Tensor) and value.dim() in (4, 5) and not _ELSEWHERE.search(name):
            shape = _grid(module, tuple(value.shape), length, batch)
            if shape:
                yield [Part("image", shape)]
    ids = arguments.get("img_ids")
    if is_a(ids, Tensor) and ids.shape[-2:-1] == (length,) and ids.shape[-1] in (3, 4):
        yield from filter(None, [_from_ids((ids[0] if ids.dim() == 3 else ids).tolist())])
    shapes = arguments.get("img_shapes")
    if is_a(shapes, list) and shapes:
        first = shapes[0] if is_a(shapes[0], list) else shapes
        parts = [Part("image", tuple(map(int, shape[1:] if shape[0] == 1 else shape))) for shape in first]
        if sum(part.tokens for part in parts) == length:
            yield parts
    height, width, frames = (arguments.get(name) for name in ("height", "width", "num_frames"))
    if is_a(height, int) and is_a(width, int):
        if height * width == length:
            yield [Part("image", (height, width))]
        elif is_a(frames, int) and frames * height * width == length:
            yield [Part("image", (frames, height, width))]


def _grid(module: Received, shape: tuple[int, ...], length: int, batch: int) -> tuple[int, ...] | None:
    """A picture (batch, channel, height, width) or video with frames as a grid of `length` tokens."""
    if len(shape) == 4:
        return _planar(shape[2:], length, module.patch) if batch <= shape[0] else None
    frames = shape[1] if _FRAMES_FIRST.match(module.kind) else shape[2]
    if len(module.patch) == 3 and frames % module.patch[0] == 0:
        frames //= module.patch[0]
    if batch <= shape[0] and frames and length % frames == 0:
        plane = _planar(shape[3:], length // frames, module.patch)
        return (frames, *plane) if plane else None
    if batch == shape[0] * frames:  # each frame for itself
        return _planar(shape[3:], length, module.patch)
    return None


def _planar(pixels: tuple[int, ...], length: int, patch: tuple[int, ...]) -> tuple[int, int] | None:
    """A plane of pixels in square patches (or those of the configuration) as a grid of `length` tokens."""
    height, width = pixels
    side = math.isqrt(height * width // length)
    for down, right in ((side, side), patch[-2:]) if len(patch) > 1 else ((side, side),):
        if down and right and height % down == width % right == 0 and height // down * (width // right) == length:
            return height // down, width // right
    return None


def _from_ids(ids: list[list[float]]) -> list[Part] | None:
    """Packed latents by the (picture, y, x, …) of each token: a part for each picture, if rows follow each other."""
    parts: list[Part] = []
    start = 0
    while start < len(ids):
        end = next((i for i in range(start, len(ids)) if ids[i][0] != ids[start][0]), len(ids))
        run = [(int(entry[1]), int(entry[2])) for entry in ids[start:end]]
        (top, left), (bottom, right) = run[0], run[-1]
        if run != [(y, x) for y in range(top, bottom + 1) for x in range(left, right + 1)]:
            return None
        parts.append(Part("image", (bottom - top + 1, right - left + 1)))
        start = end
    return parts
