"""Tap on the pipeline's call: its arguments, and the pictures it returns."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..recording.patches import replace_attribute
from ..recording.target import Target
from .protocol import Emit, Undo
from .steps import bound_arguments, call_owner

__all__ = ["ImagesTap", "images_in"]


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
        arguments = bound_arguments(signature, pipeline, args, kwargs)
        emit.describe({"call": {name: value for name, value in arguments.items() if _is_plain(value)}})

    @emit.guard
    def after(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        if bound_arguments(signature, traced, args, kwargs).get("output_type") == "latent":
            return
        images = images_in(_returned(result))
        if images is not None:
            emit.images(images)

    return call


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(isinstance(entry, str | int | float) for entry in value)
    return value is None or isinstance(value, str | bool | int | float)


def _returned(result: Any) -> Any:
    """The pictures in a pipeline's output."""
    value = next((found for name in ("images", "frames") if (found := getattr(result, name, None)) is not None), None)
    return result[0] if value is None and isinstance(result, tuple) and result else value


def images_in(value: Any) -> NDArray[Any] | None:
    """Pictures as one array with the colours last, (image, [frame,] y, x, rgb); None where it holds no pictures.

    Args:
        value: A tensor (image, [frame,] channel, y, x), an array with the channels last, or a list of pictures.
    """
    if isinstance(value, Tensor):
        array = value.detach().float().cpu().numpy()
        array = np.moveaxis(array, -3, -1)  # (..., channel, y, x)
    elif isinstance(value, np.ndarray | list) and len(value):
        array = np.asarray([np.asarray(entry) for entry in value])
    else:
        return None
    return array if array.ndim in (4, 5) and array.shape[-1] in (1, 3, 4) and array.dtype.kind in "uf" else None
