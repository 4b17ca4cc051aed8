"""Were the latents that a step was given those that the step before had returned?

Callbacks, the blend of inpainting, and loops of a user's own may change them in between. Nobody sees that in the
layers, and the first of them would be blamed.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .device import own_copy

__all__ = ["LatentChanges", "place_in_schedule"]

_MOST_CHANGES = 256


@dataclass(slots=True)
class _Returned:
    """The latents that a step ended with."""

    place: int
    tensor: weakref.ref[Tensor]
    version: int
    values: Tensor
    """A copy, as a change may be made in place."""


@dataclass(slots=True)
class LatentChanges:
    """Compares what each step of a scheduler begins with to what the one before ended with.

    Args:
        tell: Called with an attribute of the trace whenever there is something new.
    """

    tell: Callable[[Mapping[str, Any]], None]
    _places: dict[Hashable, int | None] = field(default_factory=dict)
    """Which step each scheduler last made."""
    _returned: dict[Hashable, _Returned] = field(default_factory=dict)
    _changes: list[dict[str, Any]] = field(default_factory=list)

    def forget(self) -> None:
        """Another run begins, with latents of its own."""
        self._returned.clear()
        self._places.clear()

    def given(self, scheduler: Hashable, place: int | None, latents: Tensor, *, step: int, call: int = 0) -> None:
        """A step begins.

        Args:
            scheduler: Which one steps.
            place: Which of its steps. Latents are compared with those of the place before only: one scheduler may
                step several, such as the views of a panorama, in turn.
            latents: What it was given.
            step: Step of the trace.
            call: Which of the schedulers that step in it.
        """
        before = self._returned.get(scheduler)
        if before is None or place is None or before.place + 1 != place or _is_same(before, latents):
            return
        if len(self._changes) < _MOST_CHANGES:
            self._changes.append({"step": step, "call": call, **_difference(before.values, latents)})
            self.tell({"latents_changed": list(self._changes)})

    def returned(self, scheduler: Hashable, place: int | None, latents: Tensor) -> None:
        """A step ended with these latents."""
        several = place is None or self._places.get(scheduler) == place
        self._places[scheduler] = place
        if several or place is None:
            self._returned.pop(scheduler, None)  # whose the next ones are cannot be told
            return
        version = -1 if latents.is_inference() else latents._version  # such tensors do not count their versions
        if (values := own_copy(latents)) is None:
            self._returned.pop(scheduler, None)
            return
        self._returned[scheduler] = _Returned(place, weakref.ref(latents), version, values)


def place_in_schedule(scheduler: Any, timestep: float) -> int | None:
    """Which of its steps a scheduler is about to make; None where it does not tell."""
    for name in ("step_index", "counter", "begin_index"):
        place = getattr(scheduler, name, None)
        if isinstance(place, int):
            return place
    timesteps = getattr(scheduler, "timesteps", None)
    if not isinstance(timesteps, Tensor) or timesteps.dim() != 1:
        return None
    places = [index for index, value in enumerate(timesteps.tolist()) if value == timestep]
    return places[0] if len(places) == 1 else None


def _is_same(before: _Returned, latents: Tensor) -> bool:
    if before.tensor() is latents and not latents.is_inference() and latents._version == before.version:
        return True
    known = before.values
    if known.shape != latents.shape:
        return False
    known = known.to(latents.device, latents.dtype)  # a change of precision is none of the latents
    if torch.equal(known, latents):
        return True
    return latents.is_floating_point() and bool(torch.isclose(known, latents, rtol=0, atol=0, equal_nan=True).all())


def _difference(known: Tensor, latents: Tensor) -> dict[str, float | None]:
    """As JSON, which has no numbers that are not finite."""
    if known.shape != latents.shape:
        return {"max_abs": None, "relative": None}
    ours, theirs = (tensor if tensor.is_complex() else tensor.float() for tensor in (known, latents.detach()))
    ours = ours.to(theirs.device)
    numbers = float((theirs - ours).abs().max()), float((theirs - ours).norm() / ours.norm())
    return dict(zip(("max_abs", "relative"), (n if math.isfinite(n) else None for n in numbers), strict=True))
