"""Drives the clock: denoiser calls, scheduler steps, guidance contexts, and where a pipeline's run begins and ends."""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from ..recording.calls import watch
from ..recording.patches import replace_attribute
from ..recording.plan import Plan
from ..recording.run_schedulers import RunSchedulers
from ..recording.target import Target
from ..schedule import noise_level
from .denoiser_calls import ReadTime, callers, no_time, number_of
from .guidance import Guidance
from .protocol import Emit, Undo

__all__ = ["StepsTap", "bound_arguments", "call_arguments", "call_owner", "scheduler_classes"]


class StepsTap:
    """Tells the clock what it needs to know. Attached last: its hooks run before and after those of all other taps."""

    def __init__(self) -> None:
        self._driver: _Driver | None = None

    def attach(self, target: Target, emit: Emit) -> Undo:
        """Hook the components, and wrap what the schedulers' classes and the pipeline's do."""
        driver = self._driver = _Driver(target, emit)
        with ExitStack() as undo:
            undo.callback(emit.follow(driver.attach))
            for owner in scheduler_classes(target):
                undo.callback(replace_attribute(owner, "step", driver.wrap_step))
            for owner in scheduler_classes(target, "set_timesteps"):
                undo.callback(replace_attribute(owner, "set_timesteps", driver.wrap_preparation))
            cache = sys.modules.get("diffusers.models.cache_utils")
            if cache is not None:
                undo.callback(replace_attribute(cache.CacheMixin, "cache_context", driver.wrap_cache_context))
            if target.pipeline is not None:
                undo.callback(replace_attribute(call_owner(target.pipeline), "__call__", driver.wrap_call))
            undo.callback(driver.guidance.close)
            return undo.pop_all().close

    def latents_are(self, latents: Tensor, model_output: Tensor | None = None) -> None:
        """What a loop without a scheduler works on; a denoiser's batch that is larger holds branches of guidance."""
        if self._driver is not None:
            self._driver.guidance.latents_are(latents, model_output)


class _Driver:
    def __init__(self, target: Target, emit: Emit) -> None:
        self._target = target
        self._emit = emit
        self._schedulers = RunSchedulers(target, emit.describe)
        self._plan = Plan(target, emit.clock)
        self._callers = callers(target)
        self._contexts: dict[str, str] = {}
        self.guidance = Guidance(emit)
        self._open: list[str] = []
        emit.when_moved(self._moved)

    def attach(self, name: str, module: nn.Module) -> Undo | None:
        """Watch a component, or what it hands its calls on to, before and after all other taps."""
        target, guard = self._emit.roster.target, self._emit.guard
        if target is not self._target:  # parts of the pipeline were replaced
            self._target = self._plan.target = target
            self._callers = callers(target)
        if known := self._callers.get(id(module)):
            before, ends = (
                guard(functools.partial(self.denoiser_starts, *known)),
                guard(functools.partial(self.denoiser_ends, known[0])),
            )
        elif "." not in name:
            before = guard(functools.partial(self.component_starts, name, module))
            ends = guard(functools.partial(self.component_ends, name))
        else:
            return None
        return watch(module, before=before, after=ends, raised=functools.partial(ends, (), {}, None), first=True)

    def denoiser_starts(self, name: str, read: ReadTime, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        clock = self._emit.clock
        self._emit.roster.refresh()  # before the step begins: what changed belongs to none
        self._plan.denoiser_starts()
        self._schedulers.is_here()
        outermost = not clock.depth  # a cover hands its call on
        clock.denoiser_starts(name, *read(args, kwargs))
        if outermost:
            context = self._contexts.pop(name, "")
            clock.branch = self.guidance.denoiser_starts(name, clock.last_step or 0, context, args, kwargs)

    def denoiser_ends(self, name: str, _: tuple[Any, ...], __: Mapping[str, Any], output: Any) -> None:
        self._emit.clock.denoiser_ends()
        if not self._emit.clock.depth:
            self.guidance.denoiser_ends(name, output)

    def component_starts(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A component that takes no timestep is called: it may be a denoiser all the same."""
        self._schedulers.is_here()
        if self._emit.clock.is_denoiser(name):
            self._callers[id(module)] = (name, no_time)
            self._open.append(name)
            self.denoiser_starts(name, no_time, args, kwargs)
        else:
            self.guidance.component_starts(name, args, kwargs)

    def component_ends(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        if self._open[-1:] == [name]:
            self._open.pop()
            self.denoiser_ends(name, args, kwargs, output)

    def wrap_step(self, original: Callable[..., Any]) -> Callable[..., Any]:
        before = self._emit.guard(functools.partial(self._before_step, inspect.signature(original)))
        clock = self._emit.clock

        @functools.wraps(original)
        def step(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
            within = clock.stepping == id(scheduler)  # the step of a class within that of one derived from it
            if within:
                clock.stepping = None
            else:
                before(scheduler, args, kwargs)
            try:
                return original(scheduler, *args, **kwargs)
            finally:
                if within:
                    clock.stepping = id(scheduler)
                elif clock.stepping == id(scheduler):
                    clock.stepping = None

        return step

    def wrap_preparation(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @self._emit.guard
        def before(scheduler: Any) -> None:
            if self._schedulers.prepared(scheduler, in_loop=self._emit.clock.has_begun):
                self._run_begins()

        @functools.wraps(original)
        def set_timesteps(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
            before(scheduler)
            return original(scheduler, *args, **kwargs)

        return set_timesteps

    def wrap_cache_context(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def cache_context(module: Any, name: str, *args: Any, **kwargs: Any) -> Any:
            if (denoiser := self._callers.get(id(module))) is not None:
                self._contexts[denoiser[0]] = str(name)
            return original(module, name, *args, **kwargs)

        return cache_context

    def wrap_call(self, original: Callable[..., Any]) -> Callable[..., Any]:
        begins = self._emit.guard(functools.partial(self._call_begins, inspect.signature(original)))
        ends = self._emit.guard(self._call_ends)

        @functools.wraps(original)
        def call(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
            if pipeline is not self._target.pipeline:
                return original(pipeline, *args, **kwargs)
            begins(args, kwargs)
            complete = False
            try:
                result = original(pipeline, *args, **kwargs)
                complete = True
                return result
            finally:
                ends(complete=complete)

        return call

    def _call_begins(self, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._emit.roster.refresh(wholly=True)
        self._schedulers.call_begins()
        self._run_begins()
        self.guidance.run_begins(call_arguments(signature, self._target.pipeline, args, kwargs))

    def _call_ends(self, *, complete: bool) -> None:
        self._open.clear()
        self._schedulers.call_ends()
        self._emit.clock.run_ended(complete=complete)

    def _run_begins(self) -> None:
        self._plan.run_begins()
        self._emit.clock.run_begins()

    def _before_step(
        self, signature: inspect.Signature, scheduler: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        arguments = bound_arguments(signature, scheduler, args, kwargs)
        clock, timestep = self._emit.clock, number_of(arguments.get("timestep"))
        if not self._schedulers.may_be_ours(scheduler):
            return
        ours = self._schedulers.is_ours(scheduler, in_loop=clock.awaits_schedulers)
        level = None if math.isnan(timestep) else noise_level(scheduler, arguments["timestep"])
        accepted = clock.scheduler_steps(
            id(scheduler),
            own=ours,
            timestep=timestep,
            sigma=math.nan if level is None else level.sigma,
            stage=level.stage if level else 0,
        )
        if not accepted:
            return
        clock.stepping = id(scheduler)
        self._schedulers.steps(scheduler)
        self._plan.scheduler_steps(scheduler, timestep)
        sample, output = arguments.get("sample"), arguments.get("model_output")
        if isinstance(sample, Tensor):
            self.guidance.latents_are(sample, output if isinstance(output, Tensor) else None)

    def _moved(self, name: str, into_loop: bool) -> None:  # noqa: FBT001 — as it is called
        """A component has proved to be a denoiser, for which what it was given before counts."""
        if into_loop:
            self.guidance.is_denoiser(name, self._emit.clock.last_step or 0)


def scheduler_classes(target: Target, method: str = "step") -> list[type]:
    """The classes whose own `step` must be wrapped: those of the target's schedulers and all that are loaded.

    Some pipelines step a copy of their scheduler, or one they made themselves.
    """
    owners = {owner for scheduler in target.schedulers.values() if (owner := _owner(type(scheduler), method))}
    mixin = sys.modules.get("diffusers.schedulers.scheduling_utils")
    if mixin is not None:
        owners |= {kind for kind in _subclasses(mixin.SchedulerMixin) if method in kind.__dict__}
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


def call_arguments(
    signature: inspect.Signature, pipeline: object, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The arguments of a pipeline's call by name, with defaults, those that it takes by any name included."""
    bound = signature.bind_partial(pipeline, *args, **kwargs)
    bound.apply_defaults()
    arguments = dict(bound.arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments |= arguments.pop(parameter.name, {})
    return arguments


def _owner(kind: type, name: str) -> type | None:
    return next((base for base in kind.__mro__ if name in base.__dict__), None)


def _subclasses(kind: type) -> Iterator[type]:
    children: list[type] = type.__subclasses__(kind)
    for child in children:
        yield child
        yield from _subclasses(child)
