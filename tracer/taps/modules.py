"""Tap on every module: what comes out of it, and on request what goes in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from ..recording.again import Take
from ..recording.scripted import is_scripted
from ..recording.sites import Source
from ..recording.target import Target
from .containers import MOST_TENSORS, label, placed_tensors, structure_of
from .protocol import Emit, Undo

__all__ = ["ModulesTap"]


class ModulesTap:
    """Records the tensors of every module that fires, and keeps the stack of running modules."""

    def attach(self, target: Target, emit: Emit) -> Undo:
        """Hook every module of every component."""
        hooks = _Hooks(emit)
        inputs = emit.selection.modules if emit.selection.capture.inputs else frozenset()
        with ExitStack() as undo:
            for name, module in target.modules().items():
                keep = emit.selection.capture.outputs and name in emit.selection.modules
                if is_scripted(module) and next(module.children(), None) is not None:
                    emit.gap(name, "TorchScript: what the modules within it do cannot be seen from Python")
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
        self._told: set[str] = set()
        """Modules whose first output that is no bare tensor has been described."""

    def before(self, name: str, module: nn.Module, *, inputs: bool) -> Callable[..., None]:
        """Push a module on the stack, and record what goes into it if `inputs`."""
        push, sources, emit = self._emit.stack.push, self._sources, self._emit

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
            push(name)
            if name not in sources:
                self._add(name, module)
            if inputs:
                arguments = {**{str(at): value for at, value in enumerate(args)}, **(kwargs or {})}
                for index, (place, tensor) in enumerate(placed_tensors(arguments)[0][:MOST_TENSORS]):
                    port = f"input_{label(place)}" if index else "input"
                    emit(sources[name], tensor, port=port, within=place)

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
                    self._record(name, take, output)
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
                    self._record(name, take, output)
            except Exception as error:  # noqa: BLE001 — a tap's errors never reach the run
                emit.fail(error)

        return _guarded(after)

    def _add(self, name: str, module: nn.Module) -> None:
        leaf = next(module.children(), None) is None
        self._sources[name] = Source(name, type(module).__name__, len(self._sources), leaf)

    def _record(self, name: str, take: Take, output: Any) -> None:
        if type(output) is Tensor:
            take(output)
            return
        source = self._sources[name]
        found, complete = placed_tensors(output)
        if not complete:
            self._emit.gap(name, f"an output that holds very much: no more than {MOST_TENSORS} tensors of it")
        if found:
            structure = None if name in self._told else structure_of(output)
            self._told.add(name)
            take(found[0][1], found[0][0], structure)
        for place, tensor in found[1:MOST_TENSORS]:
            # further outputs (skip connections, caches) are stored where they were made
            self._emit(source, tensor, port=f"output_{label(place)}", keep=False, within=place)


def _guarded(hook: Callable[..., None]) -> Callable[..., None]:
    """Say of a hook that no error leaves it, see `protocol.shield`."""
    hook.is_guarded = True  # type: ignore[attr-defined]
    return hook


def _calls_nothing(module: nn.Module) -> bool:
    """Whether a module is one of torch's own without children, so that nothing is recorded while it runs."""
    return type(module).__module__.startswith("torch.nn.") and next(module.children(), None) is None
