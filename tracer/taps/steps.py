"""Drives the clock: denoiser calls, scheduler steps, guidance contexts, and where a pipeline's run begins and ends."""

from __future__ import annotations

import functools
import inspect
import math
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from ..recording.patches import replace_attribute
from ..recording.scripted import parameter_names
from ..recording.target import Target, is_held, timestep_parameter
from ..schedule import noise_level
from .containers import tensors_in
from .protocol import Emit, Undo

__all__ = ["StepsTap", "bound_arguments", "call_owner", "scheduler_classes"]

_BRANCHES = {
    "cond": "conditional",
    "uncond": "unconditional",
    "pred_cond": "conditional",
    "pred_uncond": "unconditional",
}


class StepsTap:
    """Tells the clock what it needs to know. Attached last: its hooks run before and after those of all other taps."""

    def __init__(self) -> None:
        self._driver: _Driver | None = None

    def attach(self, target: Target, emit: Emit) -> Undo:
        """Hook the denoisers, and wrap `step` of the schedulers' classes and the pipeline's call."""
        driver = self._driver = _Driver(target, emit)
        with ExitStack() as undo:
            for name, module in target.denoisers().items():
                before = functools.partial(driver.denoiser_starts, name, _timestep_reader(module))
                handle = module.register_forward_pre_hook(before, with_kwargs=True, prepend=True)
                undo.callback(handle.remove)
                handle = module.register_forward_hook(driver.denoiser_ends, always_call=True)
                undo.callback(handle.remove)
            for owner in scheduler_classes(target):
                undo.callback(replace_attribute(owner, "step", driver.wrap_step))
            cache = sys.modules.get("diffusers.models.cache_utils")
            if cache is not None:
                undo.callback(replace_attribute(cache.CacheMixin, "cache_context", driver.wrap_cache_context))
            if target.pipeline is not None:
                undo.callback(replace_attribute(call_owner(target.pipeline), "__call__", driver.wrap_call))
            return undo.pop_all().close

    def latents_are(self, latents: Tensor) -> None:
        """What a loop without a scheduler works on; a denoiser's batch that is larger holds branches of guidance."""
        if self._driver is not None:
            self._driver.note_batches(latents)


class _Driver:
    def __init__(self, target: Target, emit: Emit) -> None:
        self._target = target
        self._emit = emit
        self._schedulers = {id(scheduler) for scheduler in target.schedulers.values()}
        self._denoisers = {id(module) for module in target.denoisers().values()}
        self._contexts: dict[int, str] = {}
        self._batches: dict[str, int] = {}
        self._guidance: dict[str, Any] = {}
        self._planned = False
        self._thread = 0

    def denoiser_starts(
        self,
        name: str,
        timestep: Callable[..., float],
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        clock = self._emit.clock
        if not self._planned:
            self._planned = True
            steps = _planned_steps(self._target)
            if steps is not None:
                clock.plan(steps)
        self._thread = threading.get_ident()
        context = self._contexts.pop(id(module), "")
        clock.branch = _BRANCHES.get(context, context)
        if clock.branch:
            self._note_guidance(name, "calls", clock.branch)
        batch = next((tensor.shape[0] for _, tensor in tensors_in((args, kwargs)) if tensor.dim() > 1), 0)
        self._batches[name] = batch
        clock.denoiser_starts(name, timestep(args, kwargs))

    def denoiser_ends(self, *_: Any) -> None:
        self._emit.clock.denoiser_ends()
        self._emit.clock.branch = ""

    def wrap_step(self, original: Callable[..., Any]) -> Callable[..., Any]:
        before = self._emit.guard(functools.partial(self._before_step, inspect.signature(original)))
        clock = self._emit.clock

        @functools.wraps(original)
        def step(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
            before(scheduler, args, kwargs)
            try:
                return original(scheduler, *args, **kwargs)
            finally:
                if clock.stepping == id(scheduler):
                    clock.stepping = None

        return step

    def wrap_cache_context(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def cache_context(module: Any, name: str, *args: Any, **kwargs: Any) -> Any:
            if id(module) in self._denoisers:
                self._contexts[id(module)] = str(name)
            return original(module, name, *args, **kwargs)

        return cache_context

    def wrap_call(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
            if pipeline is not self._target.pipeline:
                return original(pipeline, *args, **kwargs)
            self._planned = False
            try:
                return original(pipeline, *args, **kwargs)
            finally:
                self._emit.clock.run_ended()

        return call

    def _before_step(
        self, signature: inspect.Signature, scheduler: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        arguments = bound_arguments(signature, scheduler, args, kwargs)
        timestep = _number(arguments.get("timestep"))
        level = None if math.isnan(timestep) else noise_level(scheduler, arguments["timestep"])
        clock = self._emit.clock
        own = id(scheduler) in self._schedulers
        if not own and (self._thread != threading.get_ident() or is_held(scheduler)):
            return  # that of another run, which may be traced as well
        accepted = clock.scheduler_steps(
            id(scheduler),
            own=own,
            timestep=timestep,
            sigma=math.nan if level is None else level.sigma,
            stage=level.stage if level else 0,
        )
        if accepted:
            clock.stepping = id(scheduler)
        sample = arguments.get("sample")
        if accepted and isinstance(sample, Tensor):
            self.note_batches(sample)

    def note_batches(self, sample: Tensor) -> None:
        """Say how guidance is laid out where a denoiser's batch is a multiple of that of the latents."""
        for name, batch in self._batches.items():
            parts = batch // sample.shape[0] if sample.dim() > 1 and sample.shape[0] else 1
            if parts == 2:
                self._note_guidance(name, "batch", "unconditional", "conditional")
            elif parts > 2:
                self._note_guidance(name, "batch", *(f"part {part}" for part in range(parts)))

    def _note_guidance(self, name: str, kind: str, *branches: str) -> None:
        """Say once how a denoiser's guidance is laid out: the parts of its batch, or its calls in a step."""
        known: list[str] = self._guidance.setdefault(name, {}).setdefault(kind, [])
        fresh = [branch for branch in branches if branch not in known]
        if fresh:
            known.extend(fresh)
            self._emit.describe({"guidance": {key: dict(value) for key, value in self._guidance.items()}})


def scheduler_classes(target: Target) -> list[type]:
    """The classes whose own `step` must be wrapped: those of the target's schedulers and all that are loaded.

    Some pipelines step a copy of their scheduler, or one they made themselves.
    """
    owners = {owner for scheduler in target.schedulers.values() if (owner := _owner(type(scheduler), "step"))}
    mixin = sys.modules.get("diffusers.schedulers.scheduling_utils")
    if mixin is not None:
        owners |= {kind for kind in _subclasses(mixin.SchedulerMixin) if "step" in kind.__dict__}
    return sorted(owners, key=lambda owner: owner.__qualname__)


def call_owner(pipeline: object) -> type:
    """The class that defines the pipeline's `__call__`."""
    owner = _owner(type(pipeline), "__call__")
    assert owner is not None, "a pipeline is callable"
    return owner


def bound_arguments(
    signature: inspect.Signature, self: object, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The arguments of a call by name."""
    return signature.bind_partial(self, *args, **kwargs).arguments


def _owner(kind: type, name: str) -> type | None:
    return next((base for base in kind.__mro__ if name in base.__dict__), None)


def _subclasses(kind: type) -> Iterator[type]:
    children: list[type] = type.__subclasses__(kind)
    for child in children:
        yield child
        yield from _subclasses(child)


def _planned_steps(target: Target) -> int | None:
    """How many steps the run in progress will take, where the pipeline or its scheduler knows."""
    known = getattr(target.pipeline, "_num_timesteps", None)
    if isinstance(known, int):
        return known
    for scheduler in target.schedulers.values():
        if getattr(scheduler, "num_inference_steps", None) is not None:
            return len(scheduler.timesteps) - (getattr(scheduler, "begin_index", None) or 0)
    return None


def _timestep_reader(module: nn.Module) -> Callable[..., float]:
    """A function that finds the timestep among the arguments of a denoiser call; NaN where there is none."""
    name = timestep_parameter(module)
    names = parameter_names(module)
    position = names.index(name) if name in names else None

    def read(args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
        if position is None:
            return math.nan
        return _number(kwargs[name] if name in kwargs else args[position] if position < len(args) else None)

    return read


def _number(value: Any) -> float:
    if isinstance(value, Tensor):
        return float(value.detach().flatten()[0]) if value.numel() else math.nan
    return float(value) if isinstance(value, int | float) else math.nan
