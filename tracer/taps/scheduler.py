"""Tap on the scheduler: the latents before and after each step, the model output, the predicted x0."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import Tensor

from ..layout import LATENTS
from ..recording.latent_changes import LatentChanges, place_in_schedule
from ..recording.patches import replace_attribute
from ..recording.sites import Source
from ..recording.target import Target
from ..schedule import noise_level, predict_x0
from .denoiser_calls import number_of
from .protocol import Emit, Undo
from .steps import bound_arguments, scheduler_classes

__all__ = ["LOOP", "SchedulerTap", "given_x0"]

LOOP = Source(LATENTS, "Scheduler")
"""What passes through the denoising loop itself."""


class SchedulerTap:
    """Records what each scheduler step of the run was given and what it returned."""

    def attach(self, target: Target, emit: Emit) -> Undo:
        """Wrap `step` of every scheduler class; calls that are not of this run pass through."""
        changes = LatentChanges(emit.describe)
        emit.clock.when_run_begins(changes.forget)
        with ExitStack() as undo:
            for owner in scheduler_classes(target):
                undo.callback(replace_attribute(owner, "step", functools.partial(_wrap, emit, changes)))
            return undo.pop_all().close


def _wrap(emit: Emit, changes: LatentChanges, original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def step(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
        if emit.clock.stepping != id(scheduler):
            return original(scheduler, *args, **kwargs)
        given: dict[str, Any] = {}
        before(given, scheduler, args, kwargs)
        result = original(scheduler, *args, **kwargs)
        after(given, scheduler, result)
        return result

    @emit.guard
    def before(given: dict[str, Any], scheduler: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arguments = bound_arguments(signature, scheduler, args, kwargs)
        sample, output = arguments.get("sample"), arguments.get("model_output")
        if isinstance(sample, Tensor):
            place = place_in_schedule(scheduler, number_of(arguments.get("timestep")))
            step, call = emit.clock.last_step or 0, emit.clock.schedulers_before
            changes.given(id(scheduler), place, sample, step=step, call=call)
            given["place"] = place
            _emit(emit, "latents", sample)
        if isinstance(output, Tensor):
            _emit(emit, "model_output", output)
        level = noise_level(scheduler, arguments.get("timestep", 0))
        if level and isinstance(sample, Tensor) and isinstance(output, Tensor):
            given["x0"] = predict_x0(scheduler, level, output.detach(), sample.detach())

    @emit.guard
    def after(given: dict[str, Any], scheduler: Any, result: Any) -> None:
        following = result[0] if isinstance(result, tuple) else getattr(result, "prev_sample", None)
        if isinstance(following, Tensor):
            _emit(emit, "next_latents", following)
            changes.returned(id(scheduler), given.get("place"), following)
        predicted = given_x0(scheduler, result)
        x0 = given.get("x0") if predicted is None else predicted
        if isinstance(x0, Tensor):
            _emit(emit, "x0", x0)

    return step


def _emit(emit: Emit, port: str, tensor: Tensor) -> None:
    keep, begins = emit.selection.capture.latents, port == "latents"
    emit(LOOP, tensor, port=port, keep=keep, in_last_step=True, from_start=begins)


def given_x0(scheduler: Any, result: Any) -> Tensor | None:
    """The x0 that the scheduler itself returns, as a field or as the second entry of a plain tuple."""
    for name in ("pred_original_sample", "denoised"):
        field = getattr(result, name, None)
        if isinstance(field, Tensor):
            return field
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Tensor):
        module = sys.modules.get(type(scheduler).__module__)
        outputs = [kind for kind in vars(module).values() if dataclasses.is_dataclass(kind)]
        names = {field.name for kind in outputs for field in dataclasses.fields(kind)}
        if names & {"pred_original_sample", "denoised"}:
            return result[1]
    return None
