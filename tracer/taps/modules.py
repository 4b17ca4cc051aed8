"""Tap on every module: what comes out of it, and on request what goes in."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from ..recording.again import Take
from ..recording.calls import After, Before, watch
from ..recording.scripted import is_scripted
from ..recording.sites import Source
from ..recording.target import Target
from .containers import MOST_TENSORS, label, placed_tensors, structure_of
from .protocol import Emit, Undo

__all__ = ["ModulesTap"]


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
        self._told: set[str] = set()
        """Modules whose first output that is no bare tensor has been described."""

    def attach(self, name: str, module: nn.Module) -> Undo:
        """Watch one module."""
        selection = self._emit.selection
        keep = selection.capture.outputs and name in selection.modules
        inputs = selection.capture.inputs and name in selection.modules
        after = self._after(name, module, keep=keep)
        if is_scripted(module) and next(module.children(), None) is not None:
            self._emit.gap(name, "TorchScript: what the modules within it do cannot be seen from Python")
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
                for index, (place, tensor) in enumerate(placed_tensors(arguments)[0][:MOST_TENSORS]):
                    port = f"input_{label(place)}" if index else "input"
                    emit(sources[name], tensor, port=port, within=place)

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
                if take is None:
                    take = emit.output_taker(self._source(name, module), keep=keep)
                if type(output) is Tensor:
                    take(output)
                else:
                    self._record(name, take, output)
            except Exception as error:  # noqa: BLE001 — a tap's errors never reach the run
                emit.fail(error)

        return after

    def _source(self, name: str, module: nn.Module) -> Source:
        source = self._sources.get(name)
        if source is None:
            leaf = next(module.children(), None) is None
            source = self._sources[name] = Source(name, type(module).__name__, len(self._sources), leaf)
        return source

    def _record(self, name: str, take: Take, output: Any) -> None:
        found, complete = placed_tensors(output)
        if not complete:
            self._emit.gap(name, f"an output that holds very much: no more than {MOST_TENSORS} tensors of it")
        if found:
            structure = None if name in self._told else structure_of(output)
            self._told.add(name)
            take(found[0][1], found[0][0], structure)
        for place, tensor in found[1:MOST_TENSORS]:
            # further outputs (skip connections, caches) are stored where they were made
            self._emit(self._sources[name], tensor, port=f"output_{label(place)}", keep=False, within=place)


def _calls_nothing(module: nn.Module) -> bool:
    """Whether a module is one of torch's own without children, so that nothing is recorded while it runs."""
    return type(module).__module__.startswith("torch.nn.") and next(module.children(), None) is None
