"""The taps of one run: attached one after another, undone in reverse, whatever happens to any of them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from ..capture import Selection
from ..plugins import TAPS, find
from ..recording.recorder import Recorder
from ..recording.target import Target
from .protocol import Emit, ModuleStack, Tap, Undo, shield

__all__ = ["Attachment", "load_taps"]


class Attachment:
    """Attaches taps, and keeps what went wrong with them: an error of a tap never reaches the run.

    Args:
        target: What is traced.
        modules: Its modules by name.
        selection: What is captured.
    """

    def __init__(self, target: Target, modules: Mapping[str, nn.Module], selection: Selection) -> None:
        self.stack = ModuleStack()
        self.failures: list[dict[str, str]] = []
        """Names of taps that failed, and their errors."""
        self._target, self._modules, self._selection = target, modules, selection

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
        if any(_is_compiled(module) for root in self._target.components.values() for module in root.modules()):
            undo.enter_context(torch.compiler.set_stance("force_eager"))
            recorder.describe({"compiled": "ran eagerly, as hooks do not fire in compiled modules"})
        for name, tap in named.items():
            emit = Emit(name, recorder, self._selection, self.stack, self._failed)
            try:
                detach = shield(self._modules, emit, functools.partial(tap.attach, self._target, emit))
            except Exception as error:  # noqa: BLE001 — a tap's errors never reach the run
                self._failed(name, error)
            else:
                undo.callback(self._detach, name, detach)

    def _failed(self, tap: str, error: Exception) -> None:
        where = f" in {self.stack.innermost}" if self.stack.innermost else ""
        self.failures.append({"tap": tap, "error": f"{type(error).__name__}: {error}{where}"})

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


def _is_compiled(module: Any) -> bool:
    return "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None
