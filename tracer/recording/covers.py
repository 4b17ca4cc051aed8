"""Modules that hold another one and hand all calls on to it: compiled, data-parallel, with adapters.

A cover of torch or peft is looked through in names, so that traces of a covered and a plain model compare. Any other
wrapper keeps its place in the names, as nobody knows what else it does.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..layout import as_text
from .scripted import is_scripted, script_parameters

__all__ = ["TimeParameters", "chain", "covers_in", "named_modules", "parameters", "time_parameters"]

_TIMESTEPS = ("timestep", "timesteps", "t", "timestep_ratio", "r", "noise_level")
_SIGMAS = ("sigma", "sigmas")
"""Parameters by which a denoiser is told the time: as a timestep, or in the manner of k-diffusion as a noise level."""

_COVERS = {
    ("torch._dynamo.eval_frame", "OptimizedModule"): "_orig_mod",
    ("torch.nn.parallel.data_parallel", "DataParallel"): "module",
    ("torch.nn.parallel.distributed", "DistributedDataParallel"): "module",
}
"""Child that holds what is covered, by the cover's very class: a class derived from it may do more."""
_COVER_PACKAGES = {"peft.peft_model": "base_model", "peft.tuners": "model"}
"""The same, of all classes of a package."""
_ANYTHING = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


def chain(module: nn.Module) -> list[nn.Module]:
    """A module and those that it hands its calls on to: the covers known, and whatever takes any arguments for one."""
    found = [module]
    while (inner := _covered(module) or _only_child(module)) is not None and inner not in found:
        module = inner
        found.append(module)
    return found


def covers_in(root: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Every cover that is looked through in names, with what is beneath it."""
    for module in root.modules():
        if _covered(module) is not None:
            yield module, _beneath(module)


def named_modules(root: nn.Module, path: str, seen: set[int]) -> Iterator[tuple[str, nn.Module]]:
    """Every module by its path below `path`, in which covers have no part.

    Args:
        root: The outermost.
        path: What it is called.
        seen: Identities of modules that have a name already; those found are added.
    """
    root = _beneath(root)
    if id(root) in seen:
        return
    seen.add(id(root))
    yield path, root
    if is_scripted(root):  # what is within it is never called from Python
        return
    for name, child in root.named_children():
        yield from named_modules(child, f"{path}.{as_text(name)}", seen)


@dataclass(frozen=True, slots=True)
class TimeParameters:
    """What a denoiser's forward calls the time, "" for what it does not take."""

    timestep: str
    sigma: str

    def __bool__(self) -> bool:
        return bool(self.timestep or self.sigma)


def time_parameters(module: nn.Module) -> TimeParameters:
    """How a module takes the time, if it does and so is a denoiser."""
    names = parameters(module)
    return TimeParameters(*(next(filter(names.__contains__, known), "") for known in (_TIMESTEPS, _SIGMAS)))


def parameters(module: nn.Module) -> dict[str, inspect.Parameter]:
    """Those of a module's forward by name, in order, without self; none where it does not tell them."""
    try:
        if is_scripted(module):
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
            return {name: inspect.Parameter(name, kind) for name in script_parameters(module)}
        return dict(_parameters(type(module).forward))
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return {}


@functools.lru_cache(maxsize=1024)  # a network has hundreds of modules, of a few classes
def _parameters(forward: Callable[..., Any]) -> tuple[tuple[str, inspect.Parameter], ...]:
    return tuple(inspect.signature(forward).parameters.items())[1:]


def _beneath(module: nn.Module) -> nn.Module:
    """What a module is a cover of, through several; itself where it is none."""
    while (inner := _covered(module)) is not None:
        module = inner
    return module


def _covered(module: nn.Module) -> nn.Module | None:
    kind = type(module)
    packages = (child for package, child in _COVER_PACKAGES.items() if f"{kind.__module__}.".startswith(f"{package}."))
    child = _COVERS.get((kind.__module__, kind.__qualname__)) or next(packages, None)
    if child is None:
        return None
    children = dict(module.named_children())
    return children[child] if list(children) == [child] else None


def _only_child(module: nn.Module) -> nn.Module | None:
    """The one module within another whose forward names no argument of its own."""
    given, children = parameters(module).values(), list(module.children())
    takes_anything = bool(given) and all(parameter.kind in _ANYTHING for parameter in given)
    return children[0] if takes_anything and len(children) == 1 else None
