"""Finding a place by a few words: "step 31", "t=519", "attn2", "mid attn2 step 3"."""

from __future__ import annotations

import re
from typing import Final

import numpy as np
from numpy.typing import NDArray

from diffusion_xray.tracer.capture import matches
from diffusion_xray.tracer.errors import SiteNotFoundError, near_matches

from .model import Layer, Snapshot

__all__ = ["find_place"]

_NUMBER: Final = r"(-?\d+(?:\.\d*)?(?:e-?\d+)?)"
_STEP: Final = re.compile(r"(?:^|\s)step\s*=?\s*(-?\d+)(?=\s|$)|^\s*(-?\d+)\s*$")
_TIMESTEP: Final = re.compile(rf"(?:^|\s)t\s*=\s*{_NUMBER}(?=\s|$)")
_SIGMA: Final = re.compile(rf"(?:^|\s)(?:σ|sigma)\s*=\s*{_NUMBER}(?=\s|$)")


def find_place(text: str, snapshot: Snapshot) -> tuple[Layer | None, int | None]:
    """The layer and the step that words name; None for what they do not mention.

    A step is found by its number, negative from the end, or as the nearest to a timestep or noise level. What remains
    are words of a layer's name: the layer of that very name, else one that ends so, else the first that holds them;
    or a glob, which need not begin at the component.

    Raises:
        SiteNotFoundError: There is no such step or layer.
    """
    step, rest = None, text
    for pattern, series in ((_STEP, None), (_TIMESTEP, snapshot.timestep), (_SIGMA, snapshot.sigma)):
        found = pattern.search(rest)
        if found:
            value = next(group for group in found.groups() if group is not None)
            step = _numbered(int(value), snapshot) if series is None else _nearest(float(value), series, snapshot)
            rest = f"{rest[: found.start()]} {rest[found.end() :]}"
    return _layer(rest.strip(), snapshot) if rest.strip() else None, step


def _numbered(step: int, snapshot: Snapshot) -> int:
    at = step if step >= 0 else snapshot.steps + step
    if not 0 <= at < snapshot.steps:
        raise SiteNotFoundError(f"no step {step} in {snapshot.title}; it has {snapshot.steps}, from 0")
    return at


def _nearest(value: float, series: NDArray[np.float64], snapshot: Snapshot) -> int:
    known = np.isfinite(series)
    if not known.any():
        raise SiteNotFoundError(f"no step of {snapshot.title} has such a number; go by its index: step 3")
    return int(np.argmin(np.where(known, np.abs(series - value), np.inf)))


def _layer(words: str, snapshot: Snapshot) -> Layer:
    fired = [layer for layer in snapshot.layers.values() if layer.module is not None]
    for layer in fired:
        if layer.name == words:
            return layer
    if "*" in words:
        fits = [matches(pattern) for pattern in (words, f"**.{words}")]
        matching = [layer for layer in fired if any(fit(layer.name) for fit in fits)]
    else:
        matching = snapshot.matching(words)
    ending = (layer for layer in matching if layer.name.endswith(words.rsplit(maxsplit=1)[-1]))
    best = next(ending, next(iter(matching), None))
    if best is None:
        raise SiteNotFoundError(f"{words!r} names no layer or step.{near_matches(words, snapshot.layers)}")
    return best
