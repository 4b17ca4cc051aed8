"""Latents that something changed between two steps: told by value, and never where nothing was changed."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from diffusion_xray.tracer import Tracer, open_trace
from diffusion_xray.tracer.comparison.divergence import Comparison
from diffusion_xray.tracer.comparison.facts import facts
from diffusion_xray.tracer.description import describe_in_lines
from diffusion_xray.tracer.info import LatentsChange
from diffusion_xray.tracer.recording.latent_changes import LatentChanges, place_in_schedule

from ..loops import Blind, Pipeline, ddim

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers' own


class Watched:
    """What is told of a row of steps."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.changes = LatentChanges(lambda attributes: self.told.append(attributes["latents_changed"][-1]))

    def step(self, place: int | None, given: Tensor, returned: Tensor, scheduler: str = "ddim") -> None:
        """A step of a scheduler."""
        self.changes.given(scheduler, place, given, step=place or 0)
        self.changes.returned(scheduler, place, returned)


ONES = torch.ones(1, 4, 2, 2)


@pytest.mark.parametrize(
    "same",
    [
        lambda x: x,
        lambda x: x.clone(),
        lambda x: x.half(),
        lambda x: x.double(),
        lambda x: x.clone().requires_grad_(),
    ],
)
def test_the_same_latents_are_no_change(same: Callable[[Tensor], Tensor]) -> None:
    """Nor are they in a copy or in another precision."""
    watched = Watched()
    latents = torch.randn(1, 4, 2, 2)
    watched.step(0, ONES, latents)
    watched.step(1, same(latents), ONES)
    assert not watched.told


def test_latents_that_are_not_finite_are_no_change() -> None:
    """NaN is not equal to itself, and nobody changed it."""
    watched = Watched()
    watched.step(0, ONES, ONES * torch.nan)
    watched.step(1, ONES * torch.nan, ONES)
    assert not watched.told


def test_a_change_in_place_is_seen() -> None:
    """The object is the one that was returned, and holds other values now."""
    watched = Watched()
    latents = ONES.clone()
    watched.step(0, ONES, latents)
    latents[:, :2] = 3
    watched.step(1, latents, ONES)
    assert watched.told == [{"step": 1, "call": 0, "max_abs": 2.0, "relative": pytest.approx(2**0.5)}]


@pytest.mark.parametrize("changed", [torch.ones(1, 4, 4, 4), ONES * torch.inf])
def test_a_change_without_a_difference_is_a_change(changed: Tensor) -> None:
    """Of another shape, or no longer finite: said without a number, which JSON would not have."""
    watched = Watched()
    watched.step(0, ONES, ONES)
    watched.step(1, changed, ONES)
    assert watched.told == [{"step": 1, "call": 0, "max_abs": None, "relative": None}]


def test_views_that_are_stepped_in_turn_are_not_compared() -> None:
    """One scheduler steps several pictures at each place: which belongs to which cannot be told."""
    watched = Watched()
    for place in range(3):
        for view in range(3):
            watched.step(place, ONES * (view + place), ONES * (view + place + 0.5))
    assert not watched.told


def test_another_loop_has_latents_of_its_own() -> None:
    """Neither a new run nor a jump back in the schedule is a change of latents."""
    watched = Watched()
    watched.step(0, ONES, ONES)
    watched.changes.forget()
    watched.step(1, ONES * 2, ONES)
    watched.step(0, ONES * 3, ONES)
    watched.step(None, ONES * 4, ONES)
    assert not watched.told


@pytest.mark.parametrize(
    "name",
    [
        "DDIMScheduler",
        "PNDMScheduler",
        "HeunDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "FlowMatchEulerDiscreteScheduler",
    ],
)
def test_every_place_of_a_schedule_is_known(name: str) -> None:
    """They follow one another, so that a change is seen before any step; repeated timesteps are no hindrance."""
    scheduler = getattr(diffusers, name)()
    scheduler.set_timesteps(5)
    latents, places = torch.randn(1, 4, 2, 2), []
    for timestep in scheduler.timesteps:
        places.append(place_in_schedule(scheduler, float(timestep)))
        latents = scheduler.step(latents * 0.1, timestep, latents).prev_sample
    assert places == list(range(len(scheduler.timesteps)))


def trace_of(path: Path, change: Callable[[int, Tensor], Tensor | None]) -> Any:
    """The trace of a loop with a callback."""

    def loop(pipe: Any) -> Any:
        return pipe.denoise(pipe.unet, after=change)

    pipeline = Pipeline(loop, unet=Blind(), scheduler=ddim())
    with Tracer(pipeline, path, capture="all") as tracer:
        pipeline()
    return open_trace(tracer.path)


def first_of(a: Any, b: Any) -> tuple[str, tuple[int, int] | None]:
    """Where two traces part."""
    comparison = Comparison(a, b)
    for _ in comparison.run():
        pass
    first = comparison.table.first_over()
    assert first is not None
    return first.pair.a.key, first.steps


def test_what_a_callback_changed_is_told_and_comes_before_the_layers(tmp_path: Path) -> None:
    """In `info`, among the facts of a comparison, and as the first place where the runs part, either way round."""
    plain = trace_of(tmp_path / "a.zarr", lambda *_: None)
    changed = trace_of(tmp_path / "b.zarr", lambda index, x: x * 1.5 if index == 1 else None)
    assert not plain.info.latents_changed
    (change,) = changed.info.latents_changed
    before, after = changed.steps["next_latents"][1], changed.steps["latents"][2]
    assert (change.step, change.call) == (2, 0)
    assert change.max_abs == pytest.approx(float(abs(after - before).max()))
    assert change.relative == pytest.approx(0.5)
    assert dict(describe_in_lines(changed))["latents"] == f"changed before step 2, by {change.max_abs:.3g}"
    assert first_of(plain, changed) == first_of(changed, plain) == ("latents:latents", (2, 2))
    told = {fact.name: (fact.a, fact.b) for fact in facts(plain, changed)}["latents changed"]
    assert told == ("", f"before step 2, by {change.max_abs:.3g}")


def test_a_layer_that_differs_is_not_blamed_on_a_change_that_both_made(tmp_path: Path) -> None:
    """Both runs change their latents alike; where a weight differs, the layer is the first."""

    def run(name: str, weight: float) -> Any:
        def change(index: int, x: Tensor) -> Tensor:
            with torch.no_grad():
                pipeline.components["unet"].conv.weight[0, 0, 0, 0] = weight if index == 1 else 0.1
            return x * 1.5

        pipeline = Pipeline(lambda pipe: pipe.denoise(pipe.unet, after=change), unet=Blind(), scheduler=ddim())
        with torch.no_grad():
            pipeline.components["unet"].conv.weight[0, 0, 0, 0] = 0.1
        with Tracer(pipeline, tmp_path / name, capture="all") as tracer:
            pipeline()
        return tracer.trace

    a, b = run("a.zarr", 0.1), run("b.zarr", 0.9)
    assert len(a.info.latents_changed) == 3
    assert first_of(a, b) == ("unet.conv:output", (2, 2))


def test_a_trace_that_lies_about_changes_is_read() -> None:
    """What a stored trace says is checked: no step, no change; no number, none."""
    assert LatentsChange.from_attributes({"step": "two"}) is None
    found = LatentsChange.from_attributes({"step": 2, "max_abs": "much", "relative": None})
    assert found is not None
    assert found.max_abs != found.max_abs
