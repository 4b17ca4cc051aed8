"""Watch calls of modules: what goes in, and what leaves them once every hook has had its say.

A forward hook is no way to see that: it is not the last one as soon as the user adds one, it does not fire where a
class has a `__call__` of its own, and copies of a model take it along. So ``nn.Module.__call__`` itself is replaced
while anything is watched, and such classes' own likewise. The replacement looks the module up; for one that nobody
watches that costs some 0.3 microseconds, as much again where strangers are met, and nothing is left in any module.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch import nn

from .patches import Undo

__all__ = ["After", "Before", "innermost_call", "meet_strangers", "stand_for", "watch"]

Before = Callable[[tuple[Any, ...], dict[str, Any]], None]
"""Called with the arguments of a call, as the caller gave them."""
After = Callable[[tuple[Any, ...], dict[str, Any], Any], None]
"""Called with the arguments and what the caller is about to get."""


class _Watch:
    """Who listens to the calls of one module."""

    __slots__ = ("after", "before", "covers", "module", "owner", "raised")

    def __init__(self, module: nn.Module) -> None:
        self.module = module  # held, so that its identity is not another's as long as it is watched
        self.owner = _owner(type(module))
        self.covers: tuple[nn.Module, ...] = ()
        """Modules that stand for it."""
        self.before: tuple[Before, ...] = ()
        self.after: tuple[After, ...] = ()
        self.raised: tuple[Callable[[], None], ...] = ()

    def is_entered_by(self, called: nn.Module, owner: type) -> bool:
        """Whether a call that has reached the `__call__` of a class is one to tell of, and not a part of one."""
        if owner is not (self.owner if called is self.module else _STAND_INS.get(id(called))):
            return False  # another class, below, has told of it already
        if not self.covers:
            return True
        inside = _INSIDE.watches()
        if id(self) in inside:
            return False
        inside.add(id(self))
        return True

    @property
    def is_idle(self) -> bool:
        return not (self.before or self.after or self.raised or self.covers)


def watch(
    module: nn.Module,
    *,
    before: Before | None = None,
    after: After | None = None,
    raised: Callable[[], None] | None = None,
    first: bool = False,
) -> Undo:
    """Listen to every call of a module, whatever its hooks and its class do. Callbacks must not raise.

    Args:
        module: The very object; a copy of it does not count.
        before: Called before everything else.
        after: Called last, in the order in which listeners came.
        raised: Called instead of `after` where the call raised.
        first: Call `before` before those of others.

    Returns:
        A function that ends it; called again it does nothing.
    """
    with _LOCK:
        known = _known(module)
        if before is not None:
            known.before = (before, *known.before) if first else (*known.before, before)
        if after is not None:
            known.after = (*known.after, after)
        if raised is not None:
            known.raised = (*known.raised, raised)
    return functools.partial(_unwatch, known, before, after, raised)


def stand_for(cover: nn.Module, module: nn.Module) -> Undo:
    """Count calls of a cover as calls of the module beneath it, for those who watch that.

    `torch.compile` keeps the method it was given, so the covered module's own calls do not pass by its class. A call
    that is seen of both is told once, as that of the cover, whose result the caller gets.
    """
    with _LOCK:
        if id(cover) in _WATCHED:
            return lambda: None
        known = _known(module)
        known.covers = (*known.covers, cover)
        owner = _owner(type(cover))
        _open(owner)
        _WATCHED[id(cover)] = known
        _STAND_INS[id(cover)] = owner

    def undo() -> None:
        with _LOCK:
            if cover in known.covers:
                known.covers = tuple(other for other in known.covers if other is not cover)
                del _WATCHED[id(cover)], _STAND_INS[id(cover)]
                _shut(owner)
                _drop_if_idle(known)

    return undo


def meet_strangers(met: Callable[[nn.Module], None]) -> Undo:
    """Have a function called with every module that is called and that nobody watches. It must not raise.

    It may watch the module: this very call is then seen.
    """
    with _LOCK:
        _STRANGERS.append(met)
        _open(nn.Module)

    def undo() -> None:
        with _LOCK:
            if met in _STRANGERS:
                _STRANGERS.remove(met)
                _shut(nn.Module)

    return undo


def innermost_call(traceback: TracebackType | None) -> nn.Module | None:
    """The watched module whose call raised, from the traceback: the deepest one the exception passed through."""
    found = None
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code is _CODE:
            module = frame.f_locals.get("self")
            known = _WATCHED.get(id(module))
            found = known.module if known is not None else found
        traceback = traceback.tb_next
    return found


class _Inside(threading.local):
    """Which modules, of those that others stand for, are being called in this thread."""

    def watches(self) -> set[int]:
        found: set[int] = self.__dict__.setdefault("found", set())
        return found


class _Door:
    """The `__call__` of a class while it is replaced."""

    def __init__(self, owner: type) -> None:
        self.original = vars(owner)["__call__"]
        self.replacement = _seen(self.original, owner)
        self.users = 0


def _seen(original: Callable[..., Any], owner: type) -> Callable[..., Any]:
    """What stands in for a class's `__call__`.

    Compilers and `torch.jit.trace` see the original through it.
    """
    get, compiles, traces = _WATCHED.get, torch.compiler.is_dynamo_compiling, torch._C._get_tracing_state

    @functools.wraps(original)
    def __call__(self: nn.Module, /, *args: Any, **kwargs: Any) -> Any:  # noqa: N807 — the name it has in tracebacks
        if compiles():
            return original(self, *args, **kwargs)
        known = get(id(self)) or (_STRANGERS and _meet(self))
        if not known or traces() is not None or not known.is_entered_by(self, owner):
            return original(self, *args, **kwargs)
        try:
            for before in known.before:
                before(args, kwargs)
            output = original(self, *args, **kwargs)
        except BaseException:
            for raised in known.raised:
                raised()
            raise
        finally:
            if known.covers:
                _INSIDE.watches().discard(id(known))
        for after in known.after:
            after(args, kwargs, output)
        return output

    return __call__


def _meet(module: nn.Module) -> _Watch | None:
    for met in tuple(_STRANGERS):
        met(module)
    return _WATCHED.get(id(module))


def _known(module: nn.Module) -> _Watch:
    known = _WATCHED.get(id(module))
    if known is None:
        known = _WATCHED[id(module)] = _Watch(module)
        _open(known.owner)
    return known


def _unwatch(known: _Watch, before: Before | None, after: After | None, raised: Callable[[], None] | None) -> None:
    with _LOCK:
        known.before = _without(known.before, before)
        known.after = _without(known.after, after)
        known.raised = _without(known.raised, raised)
        _drop_if_idle(known)


def _drop_if_idle(known: _Watch) -> None:
    if known.is_idle and _WATCHED.get(id(known.module)) is known:
        del _WATCHED[id(known.module)]
        _shut(known.owner)


def _without(listeners: tuple[Any, ...], gone: Any) -> tuple[Any, ...]:
    return tuple(listener for listener in listeners if listener is not gone)


def _owner(kind: type) -> type:
    """The class whose `__call__` a call of an instance reaches first."""
    return next(base for base in kind.__mro__ if "__call__" in vars(base))


def _open(owner: type) -> None:
    door = _DOORS.get(owner)
    if door is None:
        door = _DOORS[owner] = _Door(owner)
    if vars(owner)["__call__"] is door.original:
        _put(owner, door.replacement)
        _tell_torch(door.original, door.replacement)
    door.users += 1


def _shut(owner: type) -> None:
    """Put a class's own `__call__` back with its last user, unless someone else has replaced ours meanwhile."""
    door = _DOORS.get(owner)
    if door is None:
        return
    door.users -= 1
    if door.users:
        return
    if vars(owner)["__call__"] is door.replacement:
        _put(owner, door.original)
        del _DOORS[owner]
    _tell_torch(door.replacement, door.original)


def _tell_torch(before: Callable[..., Any], now: Callable[..., Any]) -> None:
    """Let torch take `now` for the plain `__call__`, where it keeps that: else what is compiled would be again."""
    for module, name in _HOLDERS:
        holder = sys.modules.get(module)
        if holder is not None and vars(holder).get(name) is before:
            setattr(holder, name, now)


def _put(owner: type, call: Callable[..., Any]) -> None:
    setattr(owner, "__call__", call)  # noqa: B010 — a type checker takes it for a method of `type`


def _forget_all() -> None:
    """In a forked child nothing is watched: the threads that would take it in are the parent's."""
    global _LOCK  # noqa: PLW0603 — another thread of the parent may hold it
    _LOCK = threading.RLock()
    _WATCHED.clear()
    _STAND_INS.clear()
    _STRANGERS.clear()


_WATCHED: dict[int, _Watch] = {}
"""By the identity of a module, or of what stands for it."""
_STAND_INS: dict[int, type] = {}
"""Of what stands for another: the class whose `__call__` its calls reach first."""
_STRANGERS: list[Callable[[nn.Module], None]] = []
_DOORS: dict[type, _Door] = {}
_HOLDERS = (
    ("torch._dynamo.utils", "unpatched_nn_module_call"),
    ("torch._dynamo.variables.nn_module", "unpatched_nn_module_call"),
    ("torch.fx._symbolic_trace", "_orig_module_call"),
)
"""Names under which torch keeps the plain `__call__`, from when it imports these modules; that may be at any time."""
_LOCK = threading.RLock()
_INSIDE = _Inside()
_CODE = next(c for c in _seen.__code__.co_consts if getattr(c, "co_name", "") == "__call__")
"""Of every replacement."""

os.register_at_fork(after_in_child=_forget_all)
