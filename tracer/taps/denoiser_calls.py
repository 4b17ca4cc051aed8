"""What a call of a denoiser tells: which denoiser it is, and the time it is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..recording.asking import is_a
from ..recording.covers import chain, parameters, time_parameters
from ..recording.target import Target

__all__ = ["ReadTime", "callers", "no_time", "number_of"]

ReadTime = Callable[[tuple[Any, ...], dict[str, Any]], tuple[float, ...]]
"""Finds timestep and sigma among the arguments of a denoiser call."""


def no_time(*_: Any) -> tuple[float, float]:
    """The time of a denoiser that takes none."""
    return math.nan, math.nan


def callers(target: Target) -> dict[int, tuple[str, ReadTime]]:
    """Every module that may be called for a denoiser, by identity: its name and the way to its timestep.

    Covers hand calls on.
    """
    found = {}
    for name, root in target.denoisers().items():
        modules = chain(root)
        read = _time_reader(next((module for module in modules if time_parameters(module)), root))
        found.update({id(module): (name, read) for module in modules})
    return found


def _time_reader(module: nn.Module) -> ReadTime:
    """A function that finds timestep and sigma among the arguments of a denoiser call; NaN where there is none."""
    known, names = time_parameters(module), list(parameters(module))
    places = [(name, names.index(name) if name else 0) for name in (known.timestep, known.sigma)]

    def read(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[float, ...]:
        return tuple(
            number_of(kwargs[name] if name in kwargs else args[at] if name and at < len(args) else None)
            for name, at in places
        )

    return read


def number_of(value: Any) -> float:
    """A timestep as a number; NaN where it is none."""
    if is_a(value, Tensor):
        return float(value.detach().flatten()[0]) if value.numel() else math.nan
    return float(value) if is_a(value, int) or is_a(value, float) else math.nan
