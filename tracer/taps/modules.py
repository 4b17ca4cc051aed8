"""Tap on every module: what comes out of it, and on request what goes in."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from ..recording.calls import After, Before, watch
from ..recording.sites import Source
from ..recording.target import Target
from .protocol import Emit, Undo

__all__ = ["ModulesTap", "tensors_in"]

_DEEPEST = 4


class ModulesTap:
    """Records the tensors of every module that fires, and keeps the stack of running modules."""

    def attach(self, target: Target, emit: Emit) -> Undo:  # noqa: ARG002 — the roster knows the modules
        """Watch every module of every component, also those that come later."""
        return emit.follow(_Watchers(emit).attach)


class _Watchers:
    """Makes what listens to each module: it runs for every module of every step, so it has all it needs.

    Sources are numbered in the order in which modules are first called.
    """

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._sources: dict[str, Source] = {}

    def attach(self, name: str, module: nn.Module) -> Undo:
        """Watch one module."""
        selection = self._emit.selection
        keep = selection.capture.outputs and name in selection.modules
        inputs = selection.capture.inputs and name in selection.modules
        after = self._after(name, module, keep=keep)
        if _calls_nothing(module) and not inputs:
            return watch(module, after=after)
        stack, before = self._emit.stack, self._before(name, module, inputs=inputs)
        pop = functools.partial(stack.pop, name)
        with ExitStack() as undo:
            undo.callback(watch(module, before=before, raised=pop))
            undo.callback(watch(module, after=after))
            return undo.pop_all().close

    def _before(self, name: str, module: nn.Module, *, inputs: bool) -> Before:
        """Push a module on the stack, and record what goes into it if `inputs`."""
        push, sources, emit, roster = self._emit.stack.push, self._sources, self._emit, self._emit.roster
        is_root = "." not in name

        def before(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if is_root:
                roster.refresh()
            push(name)
            if name not in sources:
                self._source(name, module)
            if inputs:
                arguments = {**{str(i): value for i, value in enumerate(args)}, **kwargs}
                for index, (path, tensor) in enumerate(tensors_in(arguments)):
                    emit(sources[name], tensor, port=f"input_{path}" if index else "input")

        return emit.guard(before)

    def _after(self, name: str, module: nn.Module, *, keep: bool) -> After:
        """Record what comes out of a module."""
        pop, take, emit = self._emit.stack.pop, None, self._emit
        is_on_stack = not _calls_nothing(module)

        def after(_: tuple[Any, ...], __: dict[str, Any], output: Any) -> None:
            nonlocal take
            if emit.failed:
                return
            try:
                if is_on_stack:
                    pop(name)
                if type(output) is not Tensor:
                    self._record(name, module, output, keep=keep)
                    return
                if take is None:
                    take = emit.output_taker(self._source(name, module), keep=keep)
                take(output)
            except Exception as error:  # noqa: BLE001 — a tap's errors never reach the run
                emit.fail(error)

        return after

    def _source(self, name: str, module: nn.Module) -> Source:
        source = self._sources.get(name)
        if source is None:
            leaf = next(module.children(), None) is None
            source = self._sources[name] = Source(name, type(module).__name__, len(self._sources), leaf)
        return source

    def _record(self, name: str, module: nn.Module, output: Any, *, keep: bool) -> None:
        for index, (path, tensor) in enumerate(tensors_in(output)):
            # further outputs (skip connections, caches) are stored where they were made
            port = f"output_{path}" if index else "output"
            self._emit(self._source(name, module), tensor, port=port, keep=keep and not index)


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
