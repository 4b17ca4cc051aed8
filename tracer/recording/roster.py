"""Which module stands under which name: as the run begins, and as modules are added or replaced while it goes on."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from .calls import meet_strangers, stand_for
from .covers import covers_in
from .patches import Undo
from .target import Target

__all__ = ["Change", "Follow", "Roster"]

Follow = Callable[[str, nn.Module], Undo | None]
"""Called with a module's name and the module; returns what undoes that, if there is anything to undo."""


class Change:
    """What happened to the modules of a run since they were last looked at."""

    __slots__ = ("added", "moved", "removed")

    def __init__(self) -> None:
        self.added: list[str] = []
        self.moved: list[str] = []
        """Names under which another object stands than before."""
        self.removed: list[str] = []


class Roster:
    """Keeps those who follow modules by name up to date.

    A module that is registered below a known one makes the next call of a component, or of the pipeline, look again;
    so does a stranger that is called while a known module runs, or that has become a component. Nothing is asked of
    the modules that nobody has touched.

    Args:
        target: What is traced.
        running: Whether a known module is running in this thread.
        changed: Told of every change, before those who follow are.
    """

    def __init__(self, target: Target, *, running: Callable[[], bool], changed: Callable[[Change], None]) -> None:
        self.target = target
        """With the components there are now."""
        self.modules: dict[str, nn.Module] = target.modules()
        self._running = running
        self._changed = changed
        self._followers: list[tuple[Follow, dict[str, Undo]]] = []
        self._ids = {id(module) for module in self.modules.values()}
        self._strangers: dict[int, weakref.ref[nn.Module]] = {}
        self._is_stale = False
        self._covers = ExitStack()
        self._lock = threading.RLock()

    def name_of(self, module: nn.Module | None) -> str:
        """The name under which a module stands now, "" where it does not."""
        return next((name for name, own in self.modules.items() if own is module), "")

    def watch_changes(self) -> Undo:
        """Notice modules that come in; until the returned function is called."""
        with ExitStack() as undo:
            self._look_through_covers()
            undo.callback(self._covers.close)
            undo.callback(register_module_module_registration_hook(self._registered).remove)
            undo.callback(meet_strangers(self._met))
            return undo.pop_all().close

    def follow(self, attach: Follow) -> Undo:
        """Call `attach` for every module there is, and for each that comes later; its undo when that one goes."""
        undos: dict[str, Undo] = {}
        entry = (attach, undos)
        with self._lock:
            try:
                for name, module in self.modules.items():
                    _attach(attach, name, module, undos)
            except BaseException:
                _undo_all(undos)
                raise
            self._followers.append(entry)

        def undo() -> None:
            with self._lock:
                if entry in self._followers:
                    self._followers.remove(entry)
                _undo_all(undos)

        return undo

    def refresh(self, *, wholly: bool = False) -> None:
        """Look again where something has changed; `wholly`: look whether components were replaced, too."""
        if not self._is_stale and not wholly:
            return
        with self._lock:
            current = self.target.current()
            if not self._is_stale and _same(current.components, self.target.components):
                return
            self._is_stale = False
            self._strangers.clear()
            self.target = current
            self._look_through_covers()
            self._compare(current.modules())

    def _look_through_covers(self) -> None:
        self._covers.close()
        for root in self.target.components.values():
            for cover, module in covers_in(root):
                self._covers.callback(stand_for(cover, module))

    def _compare(self, modules: dict[str, nn.Module]) -> None:
        before, self.modules = self.modules, modules
        self._ids = {id(module) for module in modules.values()}
        change = Change()
        change.removed = [name for name in before if name not in modules]
        change.added = [name for name in modules if name not in before]
        change.moved = [name for name, module in modules.items() if before.get(name, module) is not module]
        if not (change.removed or change.added or change.moved):
            return
        self._changed(change)
        for attach, undos in self._followers:
            for name in (*change.removed, *change.moved):
                if undo := undos.pop(name, None):
                    undo()
            for name in (*change.moved, *change.added):
                _attach(attach, name, modules[name], undos)

    def _registered(self, parent: nn.Module, _: str, __: nn.Module | None) -> None:
        if id(parent) in self._ids:
            self._is_stale = True

    def _met(self, module: nn.Module) -> None:
        """A module that nobody watches is called."""
        known = self._strangers.get(id(module))
        if (known is not None and known() is module) or id(module) in self._ids:
            return
        if self._is_stale or self._running() or self.target.has_become(module):
            self._is_stale = True
            self.refresh()
        if id(module) not in self._ids:
            self._strangers[id(module)] = weakref.ref(module)


def _attach(attach: Follow, name: str, module: nn.Module, undos: dict[str, Undo]) -> None:
    undo = attach(name, module)
    if undo is not None:
        undos[name] = undo


def _undo_all(undos: dict[str, Undo]) -> None:
    """Undo in reverse, whatever one of them raises."""
    with ExitStack() as stack:
        for undo in undos.values():
            stack.callback(undo)
    undos.clear()


def _same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(one[name] is other[name] for name in one)
