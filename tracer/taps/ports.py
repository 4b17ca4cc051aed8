"""The steps of a port: a run of which torch sees the scheduler alone, and whose arrays the user records."""

from __future__ import annotations

from typing import Any

from ..recording.clock import Clock
from ..recording.target import Target

__all__ = ["PortSteps"]


class PortSteps:
    """Begins a step with the first array that is recorded after the scheduler has stepped.

    Where there is a module, its calls say so, and what is recorded belongs to the step that they began.
    """

    def __init__(self, target: Target, clock: Clock) -> None:
        self._schedulers = () if target.components else tuple(target.schedulers.values())
        self._clock = clock
        self._timesteps: Any = None

    def array_comes(self) -> None:
        """Something is about to be recorded."""
        if not self._schedulers:
            return
        scheduler, run = self._schedulers[0], None
        if getattr(scheduler, "num_inference_steps", None) is not None and scheduler.timesteps is not self._timesteps:
            self._timesteps = scheduler.timesteps  # made anew for every loop
            run = len(self._timesteps) - (getattr(scheduler, "begin_index", None) or 0)
        self._clock.array_comes(run)
