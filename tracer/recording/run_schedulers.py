"""Which of all the schedulers that step while a run is traced are of that run."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final

from .settings import settings_of
from .target import Target, is_held

__all__ = ["RunSchedulers"]

_FURTHER: Final = "further scheduler"
_MOST: Final = 64
"""Schedulers whose settings are told."""


class RunSchedulers:
    """Knows the pipeline's own schedulers, and tells copies and further ones of a run from those of other runs.

    A scheduler that is no part of the pipeline is of its run when it steps in the loop, in the same thread, and was
    prepared before: a pipeline that a callback runs in between prepares its own after the loop has begun.

    Args:
        target: What is traced.
        describe: Takes attributes of the trace: how each scheduler that steps is set.
    """

    def __init__(self, target: Target, describe: Callable[[Mapping[str, Any]], None]) -> None:
        self._describe = describe
        self._own = {id(scheduler): name for name, scheduler in target.schedulers.items()}
        self._settings = {name: settings_of(scheduler) for name, scheduler in target.schedulers.items()}
        self._further = _Objects()
        self._strangers = _Objects()
        self._checked = _Objects()
        self._thread = 0
        self._in_call = target.pipeline is None

    def is_here(self) -> None:
        """The run is in this thread."""
        self._thread = threading.get_ident()

    def call_begins(self) -> None:
        """The pipeline is called."""
        self.is_here()
        self._in_call = True
        self._strangers, self._checked = _Objects(), _Objects()

    def call_ends(self) -> None:
        """It returned or raised."""
        self._in_call = False

    def prepared(self, scheduler: object, *, in_loop: bool) -> bool:
        """A scheduler's timesteps are set; whether it is known to be of this run."""
        known = self._is_known(scheduler)
        if in_loop and not known and self._thread == threading.get_ident():
            self._strangers.add(scheduler)
        return known

    def may_be_ours(self, scheduler: object) -> bool:
        """Whether a scheduler is not certainly that of another run, which may be traced as well."""
        return self._is_known(scheduler) or (self._thread == threading.get_ident() and not is_held(scheduler))

    def is_ours(self, scheduler: object, *, in_loop: bool) -> bool:
        """Whether a scheduler that may be ours is, whatever was called before."""
        return self._is_known(scheduler) or (self._in_call and in_loop and scheduler not in self._strangers)

    def steps(self, scheduler: object) -> None:
        """A scheduler of this run steps: what it is set to is told the first time in each call."""
        if scheduler in self._checked:
            return
        self._checked.add(scheduler)
        settings = settings_of(scheduler)
        name = self._own.get(id(scheduler), "")
        if not name:
            self._further.add(scheduler)
            if settings in self._settings.values():  # a copy
                return
            count = sum(known.startswith(_FURTHER) for known in self._settings)
            name = f"{_FURTHER} {count + 1}" if count else _FURTHER
        if self._settings.get(name) != settings and len(self._settings) < _MOST:
            self._settings[name] = settings
            self._describe({"scheduler_settings": dict(self._settings)})

    def _is_known(self, scheduler: object) -> bool:
        return id(scheduler) in self._own or scheduler in self._further


class _Objects:
    """Objects by their identity, which are not kept alive."""

    def __init__(self) -> None:
        self._references: dict[int, weakref.ref[object]] = {}

    def add(self, thing: object) -> None:
        self._references[id(thing)] = weakref.ref(thing)

    def __contains__(self, thing: object) -> bool:
        reference = self._references.get(id(thing))
        return reference is not None and reference() is thing
