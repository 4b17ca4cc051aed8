"""Tap on every module: what comes out of it, and on request what goes in."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from ..sites import Source
from ..target import Target
from .protocol import Emit, Undo

__all__ = ["ModulesTap", "tensors_in"]

_DEEPEST = 4


class ModulesTap:
    """Records the tensors of every module that fires, and keeps the stack of running modules."""

    def attach(self, target: Target, emit: Emit) -> Undo:
        """Hook every module of every component."""
        listener = _Listener(emit)
        with ExitStack() as undo:
            for name, module in target.modules().items():
                keep = emit.selection.capture.outputs and name in emit.selection.modules
                before, after = functools.partial(listener.before, name), functools.partial(listener.after, name, keep)
                undo.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
                undo.callback(module.register_forward_hook(after).remove)
            return undo.pop_all().close


class _Listener:
    """The hooks, and the order in which modules were first called."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._sources: dict[str, Source] = {}

    def before(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._emit.stack.push(name)
        if name not in self._sources:
            leaf = next(module.children(), None) is None
            self._sources[name] = Source(name, type(module).__name__, len(self._sources), leaf)
        selection = self._emit.selection
        if selection.capture.inputs and name in selection.modules:
            self._record(name, "input", {**{str(i): value for i, value in enumerate(args)}, **kwargs}, keep=True)

    def after(self, name: str, keep: bool, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:  # noqa: FBT001
        self._emit.stack.pop(name)
        self._record(name, "output", output, keep=keep)

    def _record(self, name: str, port: str, value: Any, *, keep: bool) -> None:
        if type(value) is Tensor:  # nearly always
            self._emit(self._sources[name], value, port=port, keep=keep)
            return
        for index, (path, tensor) in enumerate(tensors_in(value)):
            shown = port if index == 0 else f"{port}_{path}"
            # further outputs (skip connections, caches) are stored where they were made
            self._emit(self._sources[name], tensor, port=shown, keep=keep and (index == 0 or port == "input"))


def tensors_in(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """The tensors of an output, with where they sit in it: tuples, mappings, dataclasses, nested; never rebuilt."""
    if isinstance(value, Tensor):
        yield path, value
        return
    if depth >= _DEEPEST:
        return
    if isinstance(value, Mapping):
        items = [(str(key), entry) for key, entry in value.items()]
    elif isinstance(value, list | tuple):
        items = [(str(index), entry) for index, entry in enumerate(value)]
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    else:
        return
    for key, entry in items:
        yield from tensors_in(entry, f"{path}_{key}" if path else key, depth + 1)
