"""The doors of attention: the few functions that every attention call goes through, listened at while tracing.

A door is replaced by a function that calls the original with unchanged arguments, returns its result, and then tells
what the kernel was given. Doors call each other (a backend of diffusers calls `scaled_dot_product_attention`), so a
call is told by the innermost one that understands it: that is what the kernel really received.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from types import ModuleType
from typing import Any

from torch import nn
from torch.overrides import _get_current_function_mode_stack, has_torch_function

from .attention_calls import (
    AttentionCall,
    Reader,
    Scores,
    dispatched,
    eager,
    interface,
    memory_efficient,
    scaled_dot_product,
    scores,
)
from .door_gate import DoorGate
from .patches import Undo, as_it_was, lies_below, replace_attribute, stand_ins

__all__ = ["open_doors"]

_KERNEL = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
"""Parameters of `scaled_dot_product_attention`, which is a builtin and does not tell them."""
_LIBRARIES = ("torch", "diffusers", "transformers", "xformers", "flash_attn", "sageattention")
"""Their functions compute softmax(query · keyᵀ · scale + mask) · value, and nobody acts on the softmax meanwhile."""


def open_doors(
    modules: Iterable[nn.Module], listener: Callable[[AttentionCall | Scores], None], gate: DoorGate | None = None
) -> Undo:
    """Listen at every door there is now.

    Args:
        modules: The traced ones; methods of their classes are doors too.
        listener: Told of each call, after it returned, in the thread that made it. It must not raise.
        gate: Keeps the doors out of the way of compiled models; without it they are in place until the end.

    Returns:
        A function that puts every replaced object back, in reverse.
    """
    keeper = _Doorkeeper(listener)
    with ExitStack() as undo:
        undo.callback(_forget_copies, keeper)  # last of all: what was imported meanwhile may hold a replacement
        doors = list(_doors(modules))
        keeper.kernel_names = [(owner, name) for owner, name, reader in doors if reader is scaled_dot_product]
        for owner, name, reader in doors:
            undo.callback(replace_attribute(owner, name, functools.partial(keeper.replacement, name, reader)))
        if gate is not None:
            gate.guard([(owner, name) for owner, name, _ in doors])
            undo.callback(gate.close)
        undo.callback(keeper.close)
        return undo.pop_all().close


class _Doorkeeper:
    """Tells the listener of every call once."""

    def __init__(self, listener: Callable[[AttentionCall | Scores], None]) -> None:
        self.replacements: dict[int, tuple[Any, Any]] = {}
        """Each replacement and the function it stands for, by the replacement's identity."""
        self.kernel_names: list[tuple[Any, Any]] = []
        """Where torch's own kernel was found: the dict of a module, and the name in it."""
        self._listener = listener
        self._local = threading.local()
        self._open = True

    def close(self) -> None:
        """Be silent, should anything still hold a replacement."""
        self._open = False

    def replacement(self, name: Any, reader: Reader, original: Any) -> Callable[..., Any]:
        """What stands in for a door."""
        names, called = _parameters(original), str(getattr(name, "value", name))
        known, function = _foreign(original), lies_below(original.__wrapped__)
        is_kernel = reader is scaled_dot_product

        @functools.wraps(original)
        def door(*args: Any, **kwargs: Any) -> Any:
            before, foreign = self._told, known
            if is_kernel and has_torch_function((*args, *kwargs.values())):
                foreign = foreign or _interceptor(args)
                with as_it_was(self.kernel_names, function):  # which they compare with what they are given
                    result = original(*args, **kwargs)
            else:
                result = original(*args, **kwargs)
            if self._open and self._told == before:
                given = dict(zip(names, args, strict=False)) | kwargs
                self._tell(lambda: reader(called, result, **given), foreign)
            return result

        self.replacements[id(door)] = (door, function)
        return door

    def _tell(self, read: Callable[[], AttentionCall | Scores | None], foreign: str) -> None:
        try:
            told = read()
            told = replace(told, foreign=foreign) if told is not None and foreign else told
        except Exception:  # noqa: BLE001 — a call of another kind; the run must not notice
            return
        if told is not None:
            self._local.told = self._told + 1
            self._listener(told)

    @property
    def _told(self) -> int:
        """How many calls of this thread the listener has been told of."""
        return getattr(self._local, "told", 0)


def _parameters(function: Callable[..., Any]) -> list[str]:
    """Names of the parameters that can be given by position."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a builtin
        return list(_KERNEL)
    return [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]


def _foreign(function: Callable[..., Any]) -> str:
    """The name of a function that is of none of the known libraries, else ""."""
    module = str(getattr(function, "__module__", None) or "torch")  # a builtin's
    return "" if module.split(".", 1)[0] in _LIBRARIES else f"{module}.{getattr(function, '__qualname__', '')}"


def _interceptor(arguments: tuple[Any, ...]) -> str:
    """What is given calls of torch in place of torch, and may return something else; "" where it is torch's own."""
    modes = [type(mode) for mode in _get_current_function_mode_stack()]  # type: ignore[no-untyped-call]
    kinds = [type(argument) for argument in arguments if has_torch_function((argument,)) and not modes]
    found = (kind for kind in (*modes, *kinds) if kind.__module__.split(".", 1)[0] != "torch")
    return next((f"{kind.__module__}.{kind.__qualname__}" for kind in found), "")


def _doors(modules: Iterable[nn.Module]) -> Iterator[tuple[type | dict[Any, Any], Any, Reader]]:
    """Every place that holds a door: the owner, the name in it, and the reader of its calls."""
    kernel = lies_below(nn.functional.scaled_dot_product_attention)
    known = stand_ins(kernel)
    yield vars(nn.functional), "scaled_dot_product_attention", scaled_dot_product
    for module in _loaded_modules():
        for name, value in list(vars(module).items()):
            if id(value) in known:  # imported by name
                yield vars(module), name, scaled_dot_product
            elif name == "eager_attention_forward" and callable(value):
                yield vars(module), name, eager
            elif name == "ALL_ATTENTION_FUNCTIONS" and isinstance(getattr(value, "_local_mapping", None), dict):
                yield from ((value._local_mapping, key, interface) for key in list(value._local_mapping))
    diffusers = sys.modules.get("diffusers.models.attention_dispatch")
    if diffusers is not None:
        backends = diffusers._AttentionBackendRegistry._backends
        yield from ((backends, backend, dispatched) for backend in list(backends))
    transformers = sys.modules.get("transformers.modeling_utils")
    if transformers is not None:
        functions = transformers.AttentionInterface._global_mapping
        yield from ((functions, key, interface) for key in list(functions))
    xformers = sys.modules.get("xformers.ops")
    if xformers is not None and hasattr(xformers, "memory_efficient_attention"):
        yield vars(xformers), "memory_efficient_attention", memory_efficient
    kinds = {kind for module in modules for kind in type(module).__mro__ if "get_attention_scores" in vars(kind)}
    yield from ((kind, "get_attention_scores", scores) for kind in sorted(kinds, key=lambda kind: kind.__qualname__))


def _loaded_modules() -> Iterator[ModuleType]:
    """Every loaded Python module except those of torch, each once."""
    seen: set[int] = set()
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and not name.startswith("torch") and id(module) not in seen:
            seen.add(id(module))
            yield module


def _forget_copies(keeper: _Doorkeeper) -> None:
    """Take replacements out of modules that were loaded while tracing and imported them by name."""
    for module in _loaded_modules():
        for name, value in list(vars(module).items()):
            known = keeper.replacements.get(id(value))
            if known is not None and known[0] is value:
                vars(module)[name] = known[1]
