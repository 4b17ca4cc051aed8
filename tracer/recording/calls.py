"""Watch calls of modules: what goes in, and what leaves them once every hook has had its say.

A forward hook is no way to see that: it is not the last one as soon as the user adds one, it does not fire where a
class has a `__call__` of its own, and copies of a model take it along. So ``nn.Module.__call__`` itself is replaced
while anything is watched, and such classes' own likewise. The replacement looks the module up; for one that nobody
watches that costs some 0.3 microseconds, and nothing is left in any module.
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

    __slots__ = ("after", "before", "is_shared", "module", "owner", "raised")

    def __init__(self, module: nn.Module) -> None:
        self.module = module  # held, so that its identity is not another's as long as it is watched
        self.owner = _owner(type(module))
        self.is_shared = False
        """Whether another module stands for it too."""
        self.before: tuple[Before, ...] = ()
        self.after: tuple[After, ...] = ()
        self.raised: tuple[Callable[[], None], ...] = ()

    @property
    def is_idle(self) -> bool:
        return not (self.before or self.after or self.raised)


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
        known = _WATCHED.get(id(module))
        if known is None:
            known = _Watch(module)
            _open(known.owner)
            _WATCHED[id(module)] = known
        if before is not None:
            known.before = (before, *known.before) if first else (*known.before, before)
        if after is not None:
            known.after = (*known.after, after)
        if raised is not None:
            known.raised = (*known.raised, raised)
    return functools.partial(_unwatch, known, before, after, raised)


def stand_for(cover: nn.Module, module: nn.Module) -> Undo:
    """Count calls of a cover as calls of a module that it calls in a way that cannot be seen.

    `torch.compile` keeps the method it was given: the covered module's calls do not pass by the class. A call that is
    seen of both is told once, as that of the cover.
    """
    with _LOCK:
        known = _WATCHED.get(id(module))
        if known is None or id(cover) in _WATCHED:
            return lambda: None
        known.is_shared = True
        owner = _owner(type(cover))
        _open(owner)
        _WATCHED[id(cover)] = known
        _COVERS[id(cover)] = owner

    def undo() -> None:
        with _LOCK:
            if _COVERS.pop(id(cover), None) is not None:
                _WATCHED.pop(id(cover), None)
                _shut(owner)

    return undo


def meet_strangers(met: Callable[[nn.Module], None]) -> Undo:
    """Have a function called with every module that is called and that nobody watches; it may watch it. Must not raise."""
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
        if not known or traces() is not None:
            return original(self, *args, **kwargs)
        if known.owner is not owner and _COVERS.get(id(self)) is not owner:  # the class above speaks for it
            return original(self, *args, **kwargs)
        if known.is_shared and not _enter(known):
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
            if known.is_shared:
                _leave(known)
        for after in known.after:
            after(args, kwargs, output)
        return output

    return __call__


def _meet(module: nn.Module) -> _Watch | None:
    for met in tuple(_STRANGERS):
        met(module)
    return _WATCHED.get(id(module))


def _enter(known: _Watch) -> bool:
    """Whether a call of a module that others stand for is not one that is told already."""
    inside: set[int] = _LOCAL.__dict__.setdefault("inside", set())
    if id(known) in inside:
        return False
    inside.add(id(known))
    return True


def _leave(known: _Watch) -> None:
    _LOCAL.inside.discard(id(known))


def _unwatch(known: _Watch, before: Before | None, after: After | None, raised: Callable[[], None] | None) -> None:
    with _LOCK:
        known.before = _without(known.before, before)
        known.after = _without(known.after, after)
        known.raised = _without(known.raised, raised)
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
    for module, name in _HOLDERS:
        holder = vars(sys.modules.get(module, object))
        if holder.get(name) is door.replacement:
            setattr(sys.modules[module], name, door.original)


def _put(owner: type, call: Callable[..., Any]) -> None:
    setattr(owner, "__call__", call)  # noqa: B010 — a type checker takes it for a method of `type`


def _forget_all() -> None:
    """In a forked child nothing is watched: the threads that would take it in are the parent's."""
    global _LOCK  # noqa: PLW0603 — another thread of the parent may hold it
    _LOCK = threading.RLock()
    _WATCHED.clear()
    _COVERS.clear()
    _STRANGERS.clear()


_WATCHED: dict[int, _Watch] = {}
"""By the identity of a module, or of what stands for it."""
_COVERS: dict[int, type] = {}
"""Of what stands for another: the class whose `__call__` its calls reach first."""
_STRANGERS: list[Callable[[nn.Module], None]] = []
_DOORS: dict[type, _Door] = {}
_HOLDERS = (("torch._dynamo.utils", "unpatched_nn_module_call"), ("torch.fx._symbolic_trace", "_orig_module_call"))
"""Names under which torch keeps the original when it imports these modules, which may be while it is replaced."""
_LOCK = threading.RLock()
_LOCAL = threading.local()
_CODE = next(c for c in _seen.__code__.co_consts if getattr(c, "co_name", "") == "__call__")
"""Of every replacement."""

os.register_at_fork(after_in_child=_forget_all)
