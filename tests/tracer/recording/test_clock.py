"""The clock alone: sequences of what denoisers and schedulers do, and the steps that follow from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from diffusion_xray.tracer.recording.clock import Clock, StepLog

OWN, COPY, FOREIGN = 1, 2, 3


class Run:
    """A clock, the steps it has ended, and short words for what can happen."""

    def __init__(self, *, schedulers: bool = True) -> None:
        self.ended: list[StepLog] = []
        self.clock = Clock(lambda log: self.ended.append(replace(log)), has_schedulers=schedulers)

    def call(self, timestep: float = math.nan, name: str = "unet", during: Callable[[], object] | None = None) -> int:
        """A denoiser is called, and returns; the step it belongs to."""
        self.clock.denoiser_starts(name, timestep)
        step = self.clock.step_now()
        assert step is not None
        if during:
            during()
        self.clock.denoiser_ends()
        return step

    def step(
        self, timestep: float = math.nan, scheduler: int = OWN, *, sigma: float = math.nan, stage: int = 0
    ) -> bool:
        """A scheduler steps; whether it counts."""
        own = scheduler == OWN
        return self.clock.scheduler_steps(scheduler, own=own, timestep=timestep, sigma=sigma, stage=stage)

    @property
    def steps(self) -> list[int]:
        """Indices of the steps that have ended."""
        return [log.step for log in self.ended]

    @property
    def timesteps(self) -> list[float]:
        """Their timesteps."""
        return [log.timestep for log in self.ended]


def test_one_call_and_one_scheduler_step_make_a_step() -> None:
    """The plain loop: steps are counted from 0, and each ends when the next begins."""
    run = Run()
    assert run.clock.step_now() is None
    for index, timestep in enumerate((900.0, 500.0, 100.0)):
        assert run.call(timestep) == index
        assert run.step(timestep, sigma=timestep / 10)
        assert run.steps == list(range(index))
    run.clock.finish(complete=True)
    assert run.timesteps == [900, 500, 100]
    assert [log.sigma for log in run.ended] == [90, 50, 10]


def test_two_calls_with_one_scheduler_step_are_one_step() -> None:
    """Guidance in separate calls does not advance the clock, also with repeated or unknown timesteps."""
    run = Run()
    for index in range(2):
        assert [run.call(5.0), run.call(5.0), run.call()] == [index] * 3
        run.step(5.0)
    run.clock.finish(complete=True)
    assert run.steps == [0, 1]


def test_two_denoisers_share_a_step() -> None:
    """A ControlNet beside the UNet belongs to the same step, and so does a denoiser called inside another."""
    run = Run()
    assert run.call(9.0, "controlnet") == run.call(9.0, "unet") == 0
    run.step(9.0)
    inner: list[int] = []
    assert run.call(8.0, "unet", during=lambda: inner.append(run.call(7.0, "controlnet"))) == 1
    assert inner == [1]
    run.step(8.0)
    run.clock.finish(complete=True)
    assert run.timesteps == [9, 8]


def test_repeated_timesteps_are_steps_of_their_own() -> None:
    """The value of a timestep never identifies a step; a second-order solver uses it twice."""
    run = Run()
    for timestep, stage in ((9.0, 0), (5.0, 1), (5.0, 0), (1.0, 1)):
        run.call(timestep)
        run.step(timestep, stage=stage)
    run.clock.finish(complete=True)
    assert run.timesteps == [9, 5, 5, 1]
    assert [log.stage for log in run.ended] == [0, 1, 0, 1]


def test_two_schedulers_within_a_step() -> None:
    """Two schedulers of the pipeline that step after one call share the step, and the first gives its timestep."""
    run = Run()
    for timestep in (9.0, 8.0):
        run.call(timestep)
        assert run.step(timestep, 1)
        assert run.clock.scheduler_steps(7, own=True, timestep=-1.0, sigma=math.nan, stage=0)
    run.clock.finish(complete=True)
    assert run.timesteps == [9, 8]


def test_a_copy_of_the_scheduler_counts_a_foreign_one_does_not() -> None:
    """A scheduler that is no part of the pipeline counts only after our denoiser was called."""
    run = Run()
    assert not run.step(1.0, FOREIGN)
    run.call(9.0)
    assert run.step(9.0, COPY)
    assert not run.step(1.0, FOREIGN)
    run.call(8.0)
    assert run.step(8.0, COPY)
    run.clock.finish(complete=True)
    assert run.timesteps == [9, 8]


def test_a_scheduler_may_step_without_a_denoiser() -> None:
    """A scheduler of the pipeline that steps alone makes steps too, and one that steps twice after a call makes two."""
    run = Run()
    for timestep in (9.0, 8.0):
        assert run.step(timestep)
    run.call(7.0)
    run.step(7.0)
    run.step(6.0)
    run.clock.finish(complete=True)
    assert run.timesteps == [9, 8, 7, 6]


def test_without_schedulers_a_changed_timestep_is_a_step() -> None:
    """A hand-written loop is counted by its calls; a repeated timestep is the second half of guidance."""
    run = Run(schedulers=False)
    assert [run.call(timestep) for timestep in (9.0, 9.0, 8.0, 7.0, 7.0)] == [0, 0, 1, 2, 2]
    assert run.clock.step_now() is None, "between calls nobody knows whether the loop goes on"
    run.clock.finish(complete=True)
    assert run.timesteps == [9, 8, 7]


def test_without_timesteps_every_call_is_a_step() -> None:
    """Where a model takes no timestep, each of its calls counts, but another model's call does not."""
    run = Run(schedulers=False)
    assert [run.call(), run.call(), run.call(name="other"), run.call()] == [0, 1, 1, 2]


def test_a_scheduler_found_late_takes_over() -> None:
    """A loop that turns out to step a scheduler of its own is counted by it from then on."""
    run = Run(schedulers=False)
    for index in range(3):
        assert [run.call(9.0 - index), run.call(9.0 - index)] == [index] * 2
        assert run.step(9.0 - index, COPY)
    run.clock.finish(complete=True)
    assert run.steps == [0, 1, 2]


def test_the_users_own_count() -> None:
    """`set_step` rules alone: calls do not advance it, and what fires anywhere in the loop belongs to it."""
    run = Run(schedulers=False)
    run.clock.set_step(0, 9.0, 0.9)
    assert [run.call(1.0), run.call(2.0), run.clock.step_now()] == [0, 0, 0]
    run.clock.set_step(0, 9.5, 0.95)
    run.clock.set_step(4, 5.0)
    assert run.call(3.0) == 4
    run.step(3.0)
    assert run.clock.last_step == 4
    run.clock.finish(complete=True)
    assert run.steps == [0, 4]
    assert run.ended[0].timestep == 9.5
    assert run.ended[0].sigma == 0.95


def test_after_the_planned_steps_the_loop_is_over() -> None:
    """Once the last planned step is done, the decoder is outside of the loop; a second run counts on."""
    run = Run()
    for first in (0, 2):
        run.clock.plan(2)
        assert run.clock.planned == first + 2
        assert run.call(9.0) == first
        run.step(9.0)
        assert run.clock.step_now() == first, "the safety checker of a step in mid-loop"
        run.call(8.0)
        run.step(8.0)
        assert run.clock.step_now() is None
        assert run.clock.last_step == first + 1
    run.clock.finish(complete=True)
    assert run.steps == [0, 1, 2, 3]


def test_after_the_run_nothing_is_in_the_loop() -> None:
    """When the pipeline has returned, what fires is outside, also if the number of steps was never known."""
    run = Run()
    run.call(9.0)
    assert run.clock.step_now() == 0, "between the call and the scheduler"
    run.clock.run_ended()
    assert run.clock.step_now() is None
    run.step(9.0)
    assert run.call(8.0) == 1, "a new run"
    run.step(8.0)
    assert run.clock.step_now() is None, "where nobody knows how many steps there are, a scheduler step may be the last"


def test_a_call_that_raised_does_not_stay_open() -> None:
    """When a run ends inside a denoiser, the next run is not taken for a part of that call."""
    run = Run()
    run.clock.denoiser_starts("unet", 9.0)
    run.clock.run_ended()
    assert run.clock.step_now() is None
    run.step(9.0)
    assert run.call(8.0) == 1


def test_an_error_drops_the_step_it_broke() -> None:
    """After an error the last step ends only if its scheduler had stepped; a good end always ends it."""
    for stepped, complete, steps in ((False, False, [0]), (True, False, [0, 1]), (False, True, [0, 1])):
        run = Run()
        run.call(9.0)
        run.step(9.0)
        run.call(8.0)
        if stepped:
            run.step(8.0)
        run.clock.finish(complete=complete)
        assert run.steps == steps
        assert run.clock.last_step is None
    run.clock.finish(complete=True)
    assert run.steps == [0, 1], "a step ends once"


def test_nothing_happened() -> None:
    """A run without any call has no steps."""
    run = Run()
    run.clock.finish(complete=True)
    assert run.ended == []


def test_what_is_called_again_after_the_first_step_begins_the_next() -> None:
    """It has proved to be a denoiser, and all that came after it in the first step; what came before has not."""
    found: list[str] = []
    run = Run()
    run.clock.on_found = found.append
    run.clock.run_begins()
    assert not any(map(run.clock.is_denoiser, ("encoder", "control", "unet")))
    run.step(9.0)
    assert not run.clock.is_denoiser("viewer"), "first seen after the step"
    run.clock.planned = 3
    assert not found
    assert run.clock.is_denoiser("control")
    assert found == ["control", "unet"]
    assert run.call(name="control") == run.call(name="unet") == 1
    run.step(8.0)
    assert not run.clock.is_denoiser("encoder"), "too late to tell"
    run.clock.finish(complete=True)
    assert run.timesteps == [9, 8]


def test_what_ran_before_the_loop_was_prepared_is_no_candidate() -> None:
    """A text encoder that is called again in the next chunk of a film is not what the scheduler steps from."""
    run = Run()
    run.clock.run_begins()
    run.clock.is_denoiser("encoder")
    run.clock.run_begins()
    run.call(9.0)
    run.step(9.0)
    run.clock.planned = 5
    assert not run.clock.is_denoiser("encoder")


def test_after_the_loop_nothing_proves_to_be_a_denoiser() -> None:
    """Where the planned steps are done, what is called again is on the other side of the loop."""
    run = Run()
    run.clock.run_begins()
    run.clock.is_denoiser("encoder")
    run.clock.plan(1)
    run.call(9.0)
    run.step(9.0)
    assert not run.clock.is_denoiser("encoder")


def test_the_end_of_a_loop_is_told_once() -> None:
    """When the next is prepared, the call returns, or all is over; never while it may go on, nor without a loop."""
    ends: list[int | None] = []
    run = Run()
    run.clock.on_loop_end = lambda: ends.append(run.clock.last_step)
    run.clock.run_begins()
    assert not ends
    for index in range(2):
        run.call(9.0)
        run.step(9.0)
        run.clock.run_begins()
        assert ends == list(range(index + 1))
    run.call(9.0)
    run.step(9.0)
    run.clock.run_ended(complete=True)
    run.clock.finish(complete=True)
    assert ends == [0, 1, 2]


def test_a_prepared_loop_has_not_begun() -> None:
    """Between two loops of one call nothing is in either, also where the first was broken off."""
    run = Run()
    run.clock.plan(4)
    run.call(9.0)
    run.step(9.0)
    assert run.clock.step_now() == 0
    run.clock.run_begins()
    assert run.clock.step_now() is None
    assert run.call(8.0) == 1


def test_a_run_that_ended_well_had_no_more_steps() -> None:
    """Planned becomes done, but not where the run raised."""
    for complete, planned in ((True, 1), (False, 4)):
        run = Run()
        run.clock.plan(4)
        run.call(9.0)
        run.step(9.0)
        run.clock.run_ended(complete=complete)
        run.clock.finish(complete=True)
        assert run.clock.planned == planned


def test_calls_within_a_call_keep_the_branch() -> None:
    """A cover hands its call on: the branch lasts until the outermost returns."""
    run = Run()
    run.clock.branch = "conditional"
    run.call(9.0, during=lambda: run.call(9.0))
    assert not run.clock.branch
    run.clock.branch = "conditional"
    branches: list[str] = []

    def within() -> None:
        run.call(9.0)
        branches.append(run.clock.branch)

    run.call(9.0, during=within)
    assert branches == ["conditional"]


def test_a_noise_level_counts_as_a_timestep_does() -> None:
    """A loop of one's own may be counted by sigma: the same again is the second half of guidance."""
    run = Run(schedulers=False)
    for sigma, step in ((10.0, 0), (10.0, 0), (3.0, 1)):
        run.clock.denoiser_starts("unet", math.nan, sigma)
        assert run.clock.last_step == step
        run.clock.denoiser_ends()
    run.clock.finish(complete=True)
    assert [log.sigma for log in run.ended] == [10, 3]
    assert all(math.isnan(log.timestep) for log in run.ended)
