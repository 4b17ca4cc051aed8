"""Which step, and which part of the run, does a tensor belong to?

A step begins with the first denoiser call after a scheduler has stepped and lasts until the next such call. So it
may hold several denoiser calls (guidance in separate calls, ControlNet beside the UNet) and several schedulers. A
solver that evaluates the model twice (Heun, DPM2) steps its scheduler each time: these are steps of their own, told
apart by `stage`. The value of a timestep never identifies a step, as it may repeat.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Clock", "StepLog"]


@dataclass(slots=True)
class StepLog:
    """What is known of one step once it is over."""

    step: int
    timestep: float = math.nan
    sigma: float = math.nan
    stage: int = 0
    """1 for the second model evaluation of a two-stage solver, else 0."""


@dataclass(slots=True)
class Clock:
    """Counts the steps of a run from what its denoisers and schedulers do."""

    on_step_end: Callable[[StepLog], None]
    """Called once for every step, when it is certain that nothing more belongs to it."""
    has_schedulers: bool
    log: StepLog | None = None
    """The current or last step; None before the first."""
    planned: int | None = None
    """Number of steps up to the end of the current run, where it is known."""
    branch: str = ""
    """Guidance branch of the denoiser call in progress."""
    denoiser_call: int = 0
    """Which call of its denoiser within the step that is."""
    stepping: int | None = None
    """Identity of the scheduler of this run that is stepping right now."""
    in_denoiser: bool = False
    """Whether a denoiser is running, or the user says where the loop is: all that fires then is in the loop."""
    _depth: int = 0
    _stepped: list[int] = field(default_factory=list)
    _driven: bool = False
    _calls: set[str] = field(default_factory=set)
    _over: bool = False

    @property
    def last_step(self) -> int | None:
        """Index of the current or last step, None before the first."""
        return self.log.step if self.log else None

    def step_now(self) -> int | None:
        """Index of the step that a module firing now belongs to; None outside of the loop."""
        if self.log is None:
            return None
        if self.in_denoiser:
            return self.log.step
        if not self.has_schedulers or self._over:
            return None
        if self._stepped and (self.planned is None or self.log.step + 1 >= self.planned):
            return None
        return self.log.step

    def plan(self, steps: int) -> None:
        """A run of `steps` more steps begins."""
        if self._driven and self.log is not None:  # the user has begun the first of them, and numbers them
            self.planned = max(steps, self.log.step + 1)
        else:
            self.planned = steps + (0 if self.log is None else self.log.step + 1)
        self._over = False

    def run_ended(self) -> None:
        """The pipeline returned or raised: what follows is outside of the loop."""
        self._over, self._driven = True, False
        self._depth = 0
        self._moved()

    def set_step(self, step: int, timestep: float = math.nan, sigma: float = math.nan) -> None:
        """The user's own loop says where it is."""
        self._driven = True
        if self.log is None or step != self.log.step:
            self._begin(step)
        assert self.log is not None
        self.log.timestep, self.log.sigma = timestep, sigma
        self._moved()

    def denoiser_starts(self, name: str, timestep: float) -> None:
        """A denoiser is about to be called."""
        if self._depth == 0 and not self._driven and self._is_new_step(name, timestep):
            self._begin(0 if self.log is None else self.log.step + 1)
        assert self.log is not None or self._driven
        self._depth += 1
        self._over = False
        self._calls.add(name)
        if self.log and math.isnan(self.log.timestep):
            self.log.timestep = timestep
        self._moved()

    def denoiser_ends(self) -> None:
        """A denoiser returned."""
        self._depth = max(0, self._depth - 1)
        self._moved()

    def scheduler_steps(self, scheduler: int, *, own: bool, timestep: float, sigma: float, stage: int) -> bool:
        """A scheduler object is about to step; `own` tells whether it is a part of the traced pipeline.

        Returns:
            Whether this step belongs to the traced run. A foreign scheduler does when our denoiser has been called
            since the last step: some pipelines step a copy of theirs.
        """
        waiting = bool(self._calls) and not self._stepped
        if not (own or waiting):
            return False
        if not self._driven and (self.log is None or scheduler in self._stepped):
            self._begin(0 if self.log is None else self.log.step + 1)
        if not self._stepped and self.log:
            self.log.timestep = timestep if not math.isnan(timestep) else self.log.timestep
            self.log.sigma = sigma if not math.isnan(sigma) else self.log.sigma
            self.log.stage = stage
        self.has_schedulers = True
        self._stepped.append(scheduler)
        return True

    def finish(self, *, complete: bool) -> None:
        """Close the last step; after an error (`complete` false) only if all of it had happened."""
        if self.log is not None and (complete or self._stepped):
            self.on_step_end(self.log)
        self.log = None
        self._moved()

    def _is_new_step(self, name: str, timestep: float) -> bool:
        if self.log is None or self._stepped:
            return True
        if self.has_schedulers:
            return False
        same = timestep == self.log.timestep and not math.isnan(timestep)
        return name in self._calls and not same

    def _begin(self, step: int) -> None:
        if self.log is not None:
            self.on_step_end(self.log)
        self.log = StepLog(step)
        self._stepped.clear()
        self._calls.clear()
        self._moved()

    def _moved(self) -> None:
        """Keep what every module asks as a plain attribute: a property would be a call more for each of them."""
        self.in_denoiser = self.log is not None and (self._driven or self._depth > 0)
