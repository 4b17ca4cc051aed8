"""Which step, and which part of the run, does a tensor belong to?

A step begins with the first denoiser call after a scheduler has stepped and lasts until the next such call. So it
may hold several denoiser calls (guidance in separate calls, ControlNet beside the UNet) and several schedulers. A
solver that evaluates the model twice (Heun, DPM2) steps its scheduler each time: these are steps of their own, told
apart by `stage`. The value of a timestep never identifies a step, as it may repeat.

A denoiser may not look like one, as it takes no timestep. What is called between a scheduler's preparation and its
first step, and again right after that step, is one all the same: so the loop's body begins. What was called after it
in that first step is in the loop as well.
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
    on_found: Callable[[str], None] = lambda _: None
    """Called with a component that has proved to be a denoiser: what it did so far in this run was in this step."""
    on_loop_end: Callable[[], None] = lambda: None
    """Called when it is certain that no scheduler steps any more in this run."""
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
    scheduler_count: int = 0
    """How many steps schedulers of the run have made."""
    depth: int = 0
    """How many denoiser calls are open: covers hand theirs on, and some denoisers call others."""
    _stepped: list[int] = field(default_factory=list)
    _driven: bool = False
    _calls: set[str] = field(default_factory=set)
    _over: bool = False
    _first: int | None = None
    """The step in which a scheduler first stepped in this run."""
    _candidates: list[str] = field(default_factory=list)
    """What was called before that, in the order of the first calls."""
    _found: set[str] = field(default_factory=set)
    _listeners: list[Callable[[], None]] = field(default_factory=list)

    @property
    def last_step(self) -> int | None:
        """Index of the current or last step, None before the first."""
        return self.log.step if self.log else None

    @property
    def schedulers_before(self) -> int:
        """How many schedulers had stepped in this step before the latest of them."""
        return max(len(self._stepped) - 1, 0)

    def when_run_begins(self, listener: Callable[[], None]) -> None:
        """Call this whenever a loop is prepared, the first of a pipeline call or a further one."""
        self._listeners.append(listener)

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

    def plan_from_here(self, steps: int) -> None:
        """The scheduler that has just stepped has `steps` steps in all from this one on."""
        if self.log is not None:
            self.planned = self.log.step + steps

    @property
    def is_beyond_plan(self) -> bool:
        """Whether there are more steps than were planned."""
        return self.log is not None and (self.planned is None or self.log.step >= self.planned)

    @property
    def awaits_schedulers(self) -> bool:
        """Whether a loop has begun, or its first scheduler may step at any time."""
        return self._first is not None or bool(self._candidates)

    @property
    def has_begun(self) -> bool:
        """Whether a scheduler has stepped in this run."""
        return self._first is not None

    def run_begins(self) -> None:
        """A pipeline is called, or a scheduler prepared: a loop follows."""
        self._loop_ended()
        self._first = None
        self._candidates.clear()
        self._over = not self._driven
        for listener in self._listeners:
            listener()

    def run_ended(self, *, complete: bool = False) -> None:
        """The pipeline returned (`complete`) or raised: what follows is outside of the loop."""
        if complete:
            self._completed()
        self._over, self._driven = True, False
        self.depth = 0
        self._moved()

    def set_step(self, step: int, timestep: float = math.nan, sigma: float = math.nan) -> None:
        """The user's own loop says where it is."""
        self._driven = True
        if self.log is None or step != self.log.step:
            self._begin(step)
        assert self.log is not None
        self.log.timestep, self.log.sigma = timestep, sigma
        self._moved()

    def is_denoiser(self, name: str) -> bool:
        """Whether a component that takes no timestep, and is about to be called, has proved to be a denoiser."""
        if name in self._found:
            return True
        if self.depth or self._driven or not self.has_schedulers:
            return False
        if self._first is None:
            self._candidates += [name] if name not in self._candidates else []
        elif self._is_after_first_step() and name in self._candidates and self.step_now() is not None:
            for other in self._candidates[self._candidates.index(name) :]:  # what came after it was in that step too
                self._find(other)
        return name in self._found

    def denoiser_starts(self, name: str, timestep: float, sigma: float = math.nan) -> None:
        """A denoiser is about to be called."""
        if self.depth == 0 and not self._driven and self._is_new_step(name, timestep, sigma):
            self._begin(0 if self.log is None else self.log.step + 1)
        assert self.log is not None or self._driven
        self.depth += 1
        self._over = False
        self._calls.add(name)
        if self.log:
            self.log.timestep = timestep if math.isnan(self.log.timestep) else self.log.timestep
            self.log.sigma = sigma if math.isnan(self.log.sigma) else self.log.sigma
        self._moved()

    def array_comes(self, run: int | None) -> None:
        """An array was recorded of a run whose modules nobody sees: it leads to the scheduler's next step.

        Args:
            run: Number of steps of the loop that has begun since the last one; None where none has.
        """
        if run is not None:
            begun = self.log is not None and not self._stepped
            self.planned = run + (0 if self.log is None else self.log.step + (not begun))
        more = self.planned is None or self.log is None or self.log.step + 1 < self.planned
        if not self._driven and more and (self.log is None or self._stepped):
            self._begin(0 if self.log is None else self.log.step + 1)

    def denoiser_ends(self) -> None:
        """A denoiser returned."""
        self.depth = max(0, self.depth - 1)
        if not self.depth:
            self.branch = ""
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
        self.has_schedulers, self._over = True, False
        if self._first is None and self.log:
            self._first = self.log.step
        self._stepped.append(scheduler)
        self.scheduler_count += 1
        return True

    def finish(self, *, complete: bool) -> None:
        """Close the last step; after an error (`complete` false) only if all of it had happened."""
        if complete:
            self._completed()
        if self.log is not None and (complete or self._stepped):
            self.on_step_end(self.log)
        self.log = None
        self._moved()

    def _completed(self) -> None:
        """A run ended well: what was done is what there was to do, also where it was broken off."""
        self._loop_ended()
        if self.log is not None and not self._over:
            self.planned = self.log.step + 1

    def _loop_ended(self) -> None:
        """No scheduler steps any more; of a loop of one step, what was called last before that is the denoiser."""
        if self._first is None or self._over or self._driven:
            return
        if self._is_after_first_step() and self._candidates and not self._calls:
            self._find(self._candidates[-1])
        if self._stepped:  # else a denoiser has been called since, and what it did is a step
            self.on_loop_end()

    def _is_after_first_step(self) -> bool:
        return self.log is not None and self.log.step == self._first and bool(self._stepped)

    def _find(self, name: str) -> None:
        self._found.add(name)
        self._calls.add(name)
        self.on_found(name)

    def _is_new_step(self, name: str, timestep: float, sigma: float) -> bool:
        if self.log is None or self._stepped:
            return True
        if self.has_schedulers:
            return False
        same = timestep == self.log.timestep or sigma == self.log.sigma  # NaN is not
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
        self.in_denoiser = self.log is not None and (self._driven or self.depth > 0)
