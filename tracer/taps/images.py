"""Tap on the pipeline's call: its arguments, and the pictures it returns."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..recording.patches import replace_attribute
from ..recording.target import Target
from .protocol import Emit, Undo
from .steps import bound_arguments, call_owner

__all__ = ["ImagesTap", "images_in", "pictures_of"]

_NAMES = ("images", "frames", "videos")
_SINGLE = ("image", "video")
_COLOURS = (1, 3, 4)


class ImagesTap:
    """Records how the pipeline was called and what came out."""

    def attach(self, target: Target, emit: Emit) -> Undo:
        """Wrap `__call__` of the pipeline's class; other instances pass through."""
        if target.pipeline is None:
            return lambda: None
        wrap = functools.partial(_wrap, emit, target.pipeline)
        return replace_attribute(call_owner(target.pipeline), "__call__", wrap)


def _wrap(emit: Emit, traced: object, original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def call(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
        if pipeline is not traced:
            return original(pipeline, *args, **kwargs)
        before(pipeline, args, kwargs)
        result = original(pipeline, *args, **kwargs)
        after(args, kwargs, result)
        return result

    @emit.guard
    def before(pipeline: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arguments = _arguments(signature, pipeline, args, kwargs)
        emit.describe({"call": {name: value for name, value in arguments.items() if _is_plain(value)}})

    @emit.guard
    def after(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        arguments = _arguments(signature, traced, args, kwargs)
        if arguments.get("output_type") == "latent" or "latent" in str(arguments.get("output")):
            return
        for images in pictures_of(result):
            emit.images(images)

    return call


def _arguments(
    signature: inspect.Signature, pipeline: object, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The arguments of a call by name, also those that a modular pipeline takes as ``**kwargs``."""
    arguments = bound_arguments(signature, pipeline, args, kwargs)
    collected = [name for name, parameter in signature.parameters.items() if parameter.kind is parameter.VAR_KEYWORD]
    for name in collected:
        arguments |= arguments.pop(name, {})
    return arguments


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(isinstance(entry, str | int | float) for entry in value)
    return value is None or isinstance(value, str | bool | int | float)


def pictures_of(result: Any) -> list[NDArray[Any]]:
    """The pictures in what a pipeline returned, each array as `images_in` has it; several where sizes differ."""
    for value in _candidates(result):
        whole = images_in(value)
        if whole is not None and (value is not result or _can_be_bare(value, whole)):
            return [whole]
        if isinstance(value, list | tuple) and len(value) > 1:  # of several sizes
            parts = [images_in([entry]) for entry in value]
            if all(part is not None for part in parts):
                return [part for part in parts if part is not None]
    return []


def _candidates(result: Any) -> Iterator[Any]:
    """Where pictures may be: fields named after them, entries of a state or mapping, the result or its first entry."""
    values = _field(result, "values")
    if isinstance(values, Mapping):  # the state of a modular pipeline, in which "image" is what it was given
        yield from (values[name] for name in _NAMES if values.get(name) is not None)
    elif isinstance(result, Mapping):
        yield from (result[name] for name in (*_NAMES, *_SINGLE) if result.get(name) is not None)
    elif isinstance(result, Tensor | np.ndarray | list):
        yield result
    elif isinstance(result, tuple):
        yield from result[:1]
    else:
        found = (_field(result, name) for name in (*_NAMES, *_SINGLE))
        yield from (value for value in found if value is not None)


def _field(result: Any, name: str) -> Any:
    try:
        return getattr(result, name, None)
    except Exception:  # noqa: BLE001 — a property that raises
        return None


def _can_be_bare(value: Any, pictures: NDArray[Any]) -> bool:
    """Whether pictures that nothing calls so can be some: a bare tensor of four channels is more likely latents."""
    return not isinstance(value, Tensor) or pictures.shape[-1] in (1, 3)


def images_in(value: Any) -> NDArray[Any] | None:
    """Pictures as one array with the colours last, (image, [frame,] y, x, rgb); None where it holds no pictures.

    Args:
        value: A tensor ([image, [frame,]] channel, y, x), an array with the channels last, a picture of Pillow, or a
            list of any of these. Channels are also found in other places, where only one can be that of colours.
    """
    try:
        array = _as_array(value)
    except Exception:  # noqa: BLE001 — lists of different sizes, of things that are no numbers
        return None
    if array is None or array.dtype.kind not in "uf":
        return None
    if array.ndim == 3:
        array = array[None]
    return array if array.ndim in (4, 5) and array.shape[-1] in _COLOURS and array.size else None


def _as_array(value: Any) -> NDArray[Any] | None:
    """Whatever pictures are in, as an array with the colours last."""
    if isinstance(value, Tensor):
        return _colours_last(value.detach().float().cpu().numpy(), (-3, 1, -1))
    if isinstance(value, np.ndarray):
        return _colours_last(value, (-1, -3))
    if isinstance(value, list | tuple):
        parts = [_as_array(entry) for entry in value]
        found = [part for part in parts if part is not None]
        return np.stack(found) if found and len(found) == len(parts) else None
    if hasattr(value, "__array_interface__"):  # a picture of Pillow, which knows grey ones without colours
        array = np.asarray(value)
        return array[..., None] if array.ndim == 2 else array
    return None


def _colours_last(array: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    """An array with the first of these axes that can be that of the colours at the end."""
    for axis in axes:
        if -array.ndim <= axis < array.ndim >= 3 and array.shape[axis] in _COLOURS:
            return np.moveaxis(array, axis, -1)
    return array
