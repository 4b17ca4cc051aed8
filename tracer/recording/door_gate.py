"""When the doors of attention are in place: while a traced module runs, and else only where nothing is compiled.

A compiled model watches the functions it was compiled with. A door in place of one would have another model, or a
function of the user's own, compiled once more within the block, and once more after it. So in a process in which
anything was given to `torch.compile`, doors are in place only while a module runs whose attention is listened at.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence

from .patches import Place, put_back, set_aside

__all__ = ["DoorGate"]


class DoorGate:
    """The doors of one tracer. All tracers of a process open and shut at once, as they replace the same functions."""

    def __init__(self) -> None:
        self._doors: Sequence[Place] = ()
        self._inside = 0
        self._aside = False

    def guard(self, doors: Sequence[Place]) -> None:
        """Take doors that are in place from now on."""
        with _LOCK:
            self._doors = doors
            _GATES.append(self)
            _move_all()

    def enter(self) -> None:
        """A module whose attention is listened at is called, in any thread, while none is running there."""
        with _LOCK:
            self._inside += 1
            _move_all()

    def leave(self) -> None:
        """It returned, or raised."""
        with _LOCK:
            self._inside -= 1
            _move_all()

    def close(self) -> None:
        """Have the doors in place again, to be taken away."""
        with _LOCK:
            self._move(aside=False)
            _GATES[:] = [gate for gate in _GATES if gate is not self]
            _move_all()

    def _move(self, *, aside: bool) -> None:
        if aside != self._aside:
            (set_aside if aside else put_back)(self._doors)
            self._aside = aside


def _move_all() -> None:
    inside = any(gate._inside > 0 for gate in _GATES)
    aside = not inside and _anything_is_compiled()
    for gate in _GATES:
        gate._move(aside=aside)


def _anything_is_compiled() -> bool:
    """Whether `torch.compile` was given anything in this process; it keeps the backends by the function's identity."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    return bool(getattr(dynamo, "cached_backends", None))


def _begin_anew() -> None:
    global _LOCK  # noqa: PLW0603 — another thread of the parent may hold it
    _LOCK = threading.RLock()
    _GATES.clear()


_LOCK = threading.RLock()
_GATES: list[DoorGate] = []

os.register_at_fork(after_in_child=_begin_anew)
