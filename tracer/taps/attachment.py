"""The taps of one run: attached one after another, undone in reverse, whatever happens to any of them."""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from ..capture import Selection
from ..errors import words_of
from ..plugins import TAPS, find
from ..recording.calls import innermost_call
from ..recording.recorder import Recorder
from ..recording.roster import Change, Roster
from ..recording.target import Target
from .compiled import Compiled, CompiledModules
from .protocol import Emit, ModuleStack, Tap, Undo, shield

__all__ = ["Attachment", "load_taps"]

_NAMED = 20
"""Names that are told of a change; it may be one of thousands of modules."""
_MOST_CHANGES = 100


class Attachment:
    """Attaches taps, and keeps what went wrong with them: an error of a tap never reaches the run.

    Args:
        target: What is traced.
        selection: What is captured.
        compiled: What to do with compiled modules.
    """

    def __init__(self, target: Target, selection: Selection, compiled: Compiled = "eager") -> None:
        self.stack = ModuleStack()
        self.roster = Roster(target, running=lambda: bool(self.stack.innermost), changed=self._changed)
        self.failures: list[dict[str, str]] = []
        """Names of taps that failed, and their errors."""
        self._target, self._selection, self._compiled = target, selection, compiled
        self._emits: list[Emit] = []
        _ALL.add(self)
        self._changes: list[dict[str, Any]] = []

    def attach(self, own: Sequence[Tap], last: Mapping[str, Tap], recorder: Recorder, undo: ExitStack) -> None:
        """Attach the taps of all installed packages, and others.

        Args:
            own: Those of the user.
            last: Those that come after all others, whose hooks thus enclose theirs, by name.
            recorder: Takes what they emit.
            undo: Undoes everything when it is closed.
        """
        named, failed = load_taps()
        for name, error in failed.items():
            self._failed(name, error)
        for tap in own:
            name, twins = type(tap).__name__, 1
            while name in named:
                twins += 1
                name = f"{type(tap).__name__} {twins}"
            named[name] = tap
        named |= last
        recorder.describe({"taps": list(named)})
        modules = self.roster.modules
        compiled = CompiledModules.among(modules, self._target.components.values())
        undo.enter_context(compiled.stance(self._compiled))
        recorder.describe(compiled.describe(self._compiled))
        self._selection = compiled.narrowed(self._selection, self._compiled)
        undo.callback(self.roster.watch_changes())
        for name, tap in named.items():
            emit = Emit(name, recorder, self._selection, stack=self.stack, roster=self.roster, on_failure=self._failed)
            self._emits.append(emit)
            try:
                detach = shield(modules, emit, functools.partial(tap.attach, self._target, emit))
            except Exception as error:  # noqa: BLE001 — a tap's errors never reach the run
                self._failed(name, error)
            else:
                undo.callback(self._detach, name, detach)

    def fall_silent(self) -> None:
        """Emit nothing any more: this is a forked child, and the threads and locks of the recorder are the parent's."""
        for emit in self._emits:
            emit.failed = True

    def ending(self, error: BaseException | None) -> str:
        """The run is over: tell of what was replaced and not called since, and return which module raised, if one did.

        That is the innermost module that the exception came out of; one whose exception another has caught, and
        answered with its own, is none.
        """
        try:
            self.roster.refresh(wholly=True)
            return self.roster.name_of(innermost_call(error.__traceback__)) if error is not None else ""
        except Exception:  # noqa: BLE001 — models of the user's own may refuse to be looked at
            return ""

    def _changed(self, change: Change) -> None:
        """Modules were added or replaced during the run: what is to be kept of them, and a word in the trace."""
        self._selection = self._selection.over(self.roster.modules)
        for emit in self._emits:
            emit.selection = self._selection
        step = self._emits[0].clock.last_step if self._emits else None
        named = {kind: names for kind in Change.__slots__ if (names := getattr(change, kind))}
        counts = {kind: {"count": len(names), "names": names[:_NAMED]} for kind, names in named.items()}
        if self._emits and len(self._changes) < _MOST_CHANGES:
            self._changes.append({"after_step": step, **counts})
            self._emits[0].describe({"modules_changed": list(self._changes)})

    def _failed(self, tap: str, error: Exception) -> None:
        where = f" in {self.stack.innermost}" if self.stack.innermost else ""
        self.failures.append({"tap": tap, "error": f"{type(error).__name__}: {words_of(error)}{where}"})

    def _detach(self, name: str, undo: Undo) -> None:
        try:
            undo()
        except Exception as error:  # noqa: BLE001 — the other undos must still happen
            self._failed(name, error)


def load_taps() -> tuple[dict[str, Tap], dict[str, Exception]]:
    """Make one tap of each kind installed, the built-in ones included.

    Returns:
        The taps by name, and by name the errors of those that do not load.
    """
    taps: dict[str, Tap] = {}
    failed: dict[str, Exception] = {}
    for name, entry in find(TAPS).items():
        try:
            taps[name] = entry.load()()
        except Exception as error:  # noqa: BLE001 — a broken plug-in must not take the others with it
            failed[name] = error
    return taps, failed


def _silence_all() -> None:
    for attachment in list(_ALL):
        attachment.fall_silent()


_ALL: weakref.WeakSet[Attachment] = weakref.WeakSet()
os.register_at_fork(after_in_child=_silence_all)
