"""What a run did, seen with torch's own hooks and without this project: every output, every step of a scheduler.

A run is watched before any tracer is entered. Its events, in the order in which they happened, are then told apart by
step: a step begins with the first call of a denoiser after a scheduler has stepped, and a loop is over when its last
step is.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Attended", "Call", "Enough", "Kept", "Stepped", "Watched", "named_modules", "watch"]

Array = np.ndarray[Any, Any]
Kept = tuple[int | None, int]
"""The step (None outside of the loop) and the number of a call within it."""


class Enough(Exception):  # noqa: N818 — nothing is wrong
    """The first step of a scheduler has been reached, and no more was asked for."""


@dataclass(slots=True)
class Call:
    """A module returned."""

    name: str
    tensors: list[Array]
    """Those of its output, the first one first."""
    at: Kept = (None, 0)


@dataclass(slots=True)
class Begun:
    """A denoiser is about to run."""

    name: str


@dataclass(slots=True)
class Prepared:
    """A scheduler was told how many steps to make: a loop follows."""


@dataclass(slots=True)
class Stepped:
    """A scheduler has stepped."""

    scheduler: int
    timestep: float
    sigma: float
    latents: Array
    model_output: Array
    next_latents: Array
    x0: Array | None
    """Where the scheduler says it itself."""
    at: Kept = (None, 0)


@dataclass(slots=True)
class Attended:
    """A module called torch's attention: what it gave, and how many calls of it came before."""

    name: str
    query: Array
    key: Array
    mask: Array | None
    scale: float
    at: Kept = (None, 0)


@dataclass(slots=True)
class Watched:
    """The events of a run, and the token ids that each text encoder was given."""

    events: list[Any] = field(default_factory=list)
    token_ids: list[tuple[str, Array]] = field(default_factory=list)

    @property
    def calls(self) -> list[Call]:
        """Of modules, in the order in which they returned."""
        return [event for event in self.events if isinstance(event, Call)]

    @property
    def steps(self) -> list[Stepped]:
        """Of schedulers."""
        return [event for event in self.events if isinstance(event, Stepped)]

    @property
    def attended(self) -> list[Attended]:
        """Calls of torch's attention."""
        return [event for event in self.events if isinstance(event, Attended)]

    def place(self) -> Watched:
        """Give every event its step and its number within the step."""
        step, stepped, counts = -1, set[int](), dict[Any, int]()
        for event, over in zip(self.events, self._loop_is_over(), strict=True):
            if isinstance(event, Prepared):
                stepped = {-1}
            elif isinstance(event, Begun) and not over and (step < 0 or stepped):
                step, stepped = step + 1, set()
            elif isinstance(event, Stepped):
                if event.scheduler in stepped or step < 0:
                    step, stepped = step + 1, set()
                event.at = step, len(stepped)
                stepped.add(event.scheduler)
            elif isinstance(event, Call | Attended):
                at = None if over else step
                key = type(event), event.name, at
                event.at = at, counts.get(key, 0)
                counts[key] = event.at[1] + 1
        return self

    def _loop_is_over(self) -> list[bool]:
        """Whether each event is outside of every loop: before its first denoiser, or after its last step."""
        outside = [True] * len(self.events)
        start: int | None = None
        last: int | None = None
        for at, event in enumerate([*self.events, Prepared()]):
            if isinstance(event, Prepared):
                if start is not None and last is not None:
                    outside[start : last + 1] = [False] * (last + 1 - start)
                start = last = None
            elif isinstance(event, Begun) and start is None:
                start = at
            elif isinstance(event, Stepped):
                last = at
        return outside


def named_modules(pipeline: Any) -> dict[str, nn.Module]:
    """Every module of a pipeline by its path, each once."""
    found: dict[int, tuple[str, nn.Module]] = {}
    for name, part in pipeline.components.items():
        if isinstance(part, nn.Module):
            for path, module in part.named_modules():
                found.setdefault(id(module), (f"{name}.{path}".rstrip("."), module))
    return dict(found.values())


def watch(pipeline: Any, denoisers: tuple[str, ...], undo: ExitStack, *, stop: bool = False) -> Watched:
    """Watch a pipeline until `undo` is closed.

    Args:
        pipeline: Of diffusers.
        denoisers: Names of the components that predict.
        undo: Takes what ends it.
        stop: Raise `Enough` at the first step of a scheduler.
    """
    seen = Watched()
    running: list[str] = []
    for name, module in named_modules(pipeline).items():
        undo.callback(
            module.register_forward_pre_hook(_before(seen, running, name, denoisers), with_kwargs=True).remove
        )
        undo.callback(module.register_forward_hook(_after(seen, running, name), with_kwargs=True).remove)
        _watch_own_call(seen, name, module, undo)
    for kind in {type(part) for part in pipeline.components.values() if hasattr(part, "step")}:
        _replace(kind, "step", functools.partial(_watched_step, seen, stop), undo)
        if hasattr(kind, "set_timesteps"):
            _replace(kind, "set_timesteps", functools.partial(_watched_preparation, seen), undo)
    _replace(torch.nn.functional, "scaled_dot_product_attention", functools.partial(_attend, seen, running), undo)
    return seen


def _before(seen: Watched, running: list[str], name: str, denoisers: tuple[str, ...]) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name in denoisers:
            seen.events.append(Begun(name))
        ids = kwargs.get("input_ids", args[0] if args else None)
        if "." not in name and isinstance(ids, Tensor) and ids.dtype == torch.int64 and ids.dim() == 2:
            seen.token_ids.append((name, _array(ids)))
        running.append(name)

    return hook


def _after(seen: Watched, running: list[str], name: str) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        running.pop()
        seen.events.append(Call(name, [_array(tensor) for tensor in _tensors(output)]))

    return hook


def _watch_own_call(seen: Watched, name: str, module: nn.Module, undo: ExitStack) -> None:
    """Hooks do not fire where a class has a `__call__` of its own, as the processors of IP-Adapter do."""
    owner = next(base for base in type(module).__mro__ if "__call__" in vars(base))
    if owner is nn.Module:
        return

    def watched(original: Any) -> Any:
        @functools.wraps(original)
        def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            output = original(self, *args, **kwargs)
            if self is module:
                seen.events.append(Call(name, [_array(tensor) for tensor in _tensors(output)]))
            return output

        return call

    _replace(owner, "__call__", watched, undo)


def _watched_step(seen: Watched, stop: bool, original: Any) -> Any:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def step(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
        if stop:
            raise Enough
        given = signature.bind(scheduler, *args, **kwargs).arguments
        latents, output = _array(given["sample"]), _array(given["model_output"])
        result = original(scheduler, *args, **kwargs)
        following = result[0] if isinstance(result, tuple) else result.prev_sample
        x0 = getattr(result, "pred_original_sample", getattr(result, "denoised", None))
        seen.events.append(
            Stepped(
                id(scheduler),
                float(given["timestep"]),
                _sigma(scheduler, given["timestep"]),
                latents,
                output,
                _array(following),
                _array(x0) if isinstance(x0, Tensor) else None,
            )
        )
        return result

    return step


def _sigma(scheduler: Any, timestep: Any) -> float:
    """The level of the step just made, from the schedule that the scheduler holds."""
    if isinstance(sigmas := getattr(scheduler, "sigmas", None), Tensor) and hasattr(scheduler, "step_index"):
        return float(sigmas[scheduler.step_index - 1])
    if isinstance(alphas := getattr(scheduler, "alphas_cumprod", None), Tensor):
        signal = float(alphas[int(timestep)])
        return math.sqrt((1 - signal) / signal)
    return math.nan


def _watched_preparation(seen: Watched, original: Any) -> Any:
    @functools.wraps(original)
    def set_timesteps(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
        seen.events.append(Prepared())
        return original(scheduler, *args, **kwargs)

    return set_timesteps


def _attend(seen: Watched, running: list[str], original: Any) -> Any:
    @functools.wraps(original)
    def attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        mask = kwargs.get("attn_mask", args[0] if args else None)
        scale = kwargs.get("scale") or 1 / math.sqrt(query.shape[-1])
        if running and query.dim() == 4 and query.shape[1] == key.shape[1]:
            kept = None if mask is None else _array(mask)
            seen.events.append(Attended(running[-1], _array(query), _array(key), kept, scale))
        torch.nn.functional.scaled_dot_product_attention = original  # modes of torch compare with it
        try:
            result: Tensor = original(query, key, value, *args, **kwargs)
        finally:
            torch.nn.functional.scaled_dot_product_attention = attention
        return result

    return attention


def _replace(owner: Any, name: str, wrap: Any, undo: ExitStack) -> None:
    """Put a wrapped function where a class or module has it, or a class inherits it."""
    own, original = vars(owner).get(name), getattr(owner, name)
    setattr(owner, name, wrap(original))
    undo.callback(lambda: delattr(owner, name) if own is None else setattr(owner, name, own))


def _tensors(value: Any, depth: int = 4) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif depth:
        children: Any = ()
        if isinstance(value, Mapping):
            children = value.values()
        elif isinstance(value, list | tuple):
            children = value
        elif dataclasses.is_dataclass(value):
            children = [getattr(value, entry.name) for entry in dataclasses.fields(value)]
        for child in children:
            yield from _tensors(child, depth - 1)


def _array(tensor: Tensor) -> Array:
    """A copy, floats of less than 32 bits widened."""
    tensor = tensor.detach().clone()
    return (tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor).numpy()
