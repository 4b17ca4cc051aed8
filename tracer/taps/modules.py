"""Tap on every module: what comes out of it, and on request what goes in."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from ..recording.sites import Source
from ..recording.target import Target
from .protocol import Emit, Undo

__all__ = ["ModulesTap", "tensors_in"]

_DEEPEST = 4


class ModulesTap:
    """Records the tensors of every module that fires, and keeps the stack of running modules."""

    def attach(self, target: Target, emit: Emit) -> Undo:
        """Hook every module of every component."""
        hooks = _Hooks(emit)
        inputs = emit.selection.modules if emit.selection.capture.inputs else frozenset()
        with ExitStack() as undo:
            for name, module in target.modules().items():
                keep = emit.selection.capture.outputs and name in emit.selection.modules
                if _calls_nothing(module) and name not in inputs:
                    undo.callback(
                        module.register_forward_hook(hooks.of_leaf(name, module, keep=keep), always_call=True).remove
                    )
                    continue
                before = hooks.before(name, module, inputs=name in inputs)
                undo.callback(module.register_forward_pre_hook(before, with_kwargs=name in inputs).remove)
                undo.callback(module.register_forward_hook(hooks.after(name, module, keep=keep)).remove)
            return undo.pop_all().close


class _Hooks:
    """Makes the hooks. They run for every module of every step, so each has all it needs, and guards itself.

    A copy of a module takes its hooks along; called for another module than their own they do nothing.
    Sources are numbered in the order in which modules are first called.
    """

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._sources: dict[str, Source] = {}

    def before(self, name: str, module: nn.Module, *, inputs: bool) -> Callable[..., None]:
        """Push a module on the stack, and record what goes into it if `inputs`."""
        push, sources, emit = self._emit.stack.push, self._sources, self._emit

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
            push(name)
            if name not in sources:
                self._add(name, module)
            if inputs:
                arguments = {**{str(i): value for i, value in enumerate(args)}, **(kwargs or {})}
                for index, (path, tensor) in enumerate(tensors_in(arguments)):
                    emit(sources[name], tensor, port=f"input_{path}" if index else "input")

        return before

    def after(self, name: str, module: nn.Module, *, keep: bool) -> Callable[..., None]:
        """Pop a module off the stack and record what comes out of it."""
        pop, take, emit = self._emit.stack.pop, None, self._emit

        def after(called: nn.Module, _: tuple[Any, ...], output: Any) -> None:
            nonlocal take
            if emit.failed or called is not module:
                return
            try:
                pop(name)
                if type(output) is Tensor and take is not None:  # nearly always
                    take(output)
                else:
                    take = take or emit.output_taker(self._sources[name], keep=keep)
                    self._record(name, take, output, keep=keep)
            except Exception as error:  # noqa: BLE001 — a tap's errors never reach the run
                emit.fail(error)

        return _guarded(after)

    def of_leaf(self, name: str, module: nn.Module, *, keep: bool) -> Callable[..., None]:
        """Record what comes out of a module that calls no other; one that raises is left on the stack."""
        push, take, emit = self._emit.stack.push, None, self._emit

        def after(called: nn.Module, _: tuple[Any, ...], output: Any) -> None:
            nonlocal take
            if emit.failed or called is not module:
                return
            try:
                if type(output) is Tensor and take is not None:
                    take(output)
                elif output is None and sys.exc_info()[0] is not None:
                    push(name)
                else:
                    if take is None:
                        self._add(name, module)
                        take = emit.output_taker(self._sources[name], keep=keep)
                    self._record(name, take, output, keep=keep)
            except Exception as error:  # noqa: BLE001 — a tap's errors never reach the run
                emit.fail(error)

        return _guarded(after)

    def _add(self, name: str, module: nn.Module) -> None:
        leaf = next(module.children(), None) is None
        self._sources[name] = Source(name, type(module).__name__, len(self._sources), leaf)

    def _record(self, name: str, take: Callable[[Tensor], None], output: Any, *, keep: bool) -> None:
        if type(output) is Tensor:
            take(output)
            return
        for index, (path, tensor) in enumerate(tensors_in(output)):
            # further outputs (skip connections, caches) are stored where they were made
            port = f"output_{path}" if index else "output"
            self._emit(self._sources[name], tensor, port=port, keep=keep and not index)


def _guarded(hook: Callable[..., None]) -> Callable[..., None]:
    """Say of a hook that no error leaves it, see `protocol.shield`."""
    hook.is_guarded = True  # type: ignore[attr-defined]
    return hook


def _calls_nothing(module: nn.Module) -> bool:
    """Whether a module is one of torch's own without children, so that nothing is recorded while it runs."""
    return type(module).__module__.startswith("torch.nn.") and next(module.children(), None) is None


def tensors_in(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """The tensors of an output, with where they sit in it: tuples, mappings, dataclasses, nested; never rebuilt."""
    if isinstance(value, Tensor):
        yield path, value
        return
    if depth >= _DEEPEST:
        return
    try:
        items = _entries(value)
    except Exception:  # noqa: BLE001 — whatever a model returns may refuse to be looked at; it holds no tensor for us then
        return
    for key, entry in items:
        yield from tensors_in(entry, f"{path}_{key}" if path else key, depth + 1)


def _entries(value: Any) -> list[tuple[str, Any]]:
    """What lies in an output, by name; nothing where it is no container."""
    if isinstance(value, Mapping):
        return [(str(key), entry) for key, entry in value.items()]
    if isinstance(value, list | tuple):
        return [(str(index), entry) for index, entry in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value)]
    return []
