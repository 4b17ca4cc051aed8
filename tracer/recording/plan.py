"""How many steps the run in progress will take: those really iterated, as far as pipeline and scheduler tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .clock import Clock
from .latent_changes import place_in_schedule
from .target import Target

__all__ = ["Plan"]


@dataclass(slots=True)
class Plan:
    """Keeps `Clock.planned` up to date.

    Pipelines of diffusers say how many timesteps they iterate over. Where one does not, or goes on beyond what it
    said, the scheduler's position among its timesteps tells at each step how many are left, wherever the loop began.
    """

    target: Target
    clock: Clock
    _told: bool = False
    """Whether the pipeline says how many steps there are."""
    _begun: bool = False

    def run_begins(self) -> None:
        """A loop is prepared."""
        self._begun = False

    def denoiser_starts(self) -> None:
        """A denoiser is called, the first of a loop perhaps."""
        if self._begun:
            return
        self._begun = True
        told = getattr(self.target.pipeline, "_num_timesteps", None)
        self._told = isinstance(told, int)
        if isinstance(told, int):
            self.clock.plan(told)
            return
        for scheduler in self.target.schedulers.values():
            if getattr(scheduler, "num_inference_steps", None) is not None:
                self.clock.plan(len(scheduler.timesteps) - (getattr(scheduler, "begin_index", None) or 0))
                return

    def scheduler_steps(self, scheduler: Any, timestep: float) -> None:
        """A scheduler of the run is about to step; the first of a step tells how far it is."""
        if self.clock.schedulers_before or (self._told and not self.clock.is_beyond_plan):
            return
        place, timesteps = place_in_schedule(scheduler, timestep), getattr(scheduler, "timesteps", None)
        if place is not None and timesteps is not None and place < len(timesteps):
            self.clock.plan_from_here(len(timesteps) - place)
