"""The modules whose forward is running, with what they were called with."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ..recording.asking import is_a
from ..recording.attention_calls import AttentionCall, Scores, join_scores
from ..recording.covers import parameters
from ..recording.door_gate import DoorGate
from ..recording.scripted import is_scripted
from ..recording.sequence import Received
from .protocol import Emit, Undo

__all__ = ["Frame", "Frames"]


@dataclass(slots=True)
class Frame:
    """One call of a module, from its beginning to its end, also when it raises."""

    name: str
    module: nn.Module
    arguments: dict[str, Any]
    called: bool = False
    """Whether an attention kernel was called within, by this module or one below."""
    calls: int = 0
    """Attention calls recorded of this module itself."""
    scored: list[tuple[int, AttentionCall]] = field(default_factory=list)
    """Those that went through `get_attention_scores`, with their numbers."""
    values: list[Tensor] = field(default_factory=list)
    """What its value projection returned."""
    merged: bool = False
    """Whether its output projection was called after them."""
    _slices: list[Scores] = field(default_factory=list)

    @property
    def batch(self) -> int:
        """Size of the first dimension of what the module was given."""
        return next((len(value) for value in self.arguments.values() if is_a(value, Tensor) and value.dim()), 1)

    def add_scores(self, scores: Scores) -> AttentionCall | None:
        """Scores of all rows, or of a slice of them, as processors take (batch · head) in pieces; a call once whole."""
        self._slices.append(scores)
        if sum(len(piece.query) for piece in self._slices) != self.batch * scores.heads:
            return None
        pieces, self._slices = self._slices, []
        return join_scores(pieces)

    def remaining_scores(self) -> list[AttentionCall]:
        """Those that never added up to the batch the module was given: calls of their own, where heads allow it."""
        pieces, self._slices = self._slices, []
        return [join_scores([piece]) for piece in pieces if len(piece.query) % piece.heads == 0]


class Frames:
    """A stack of frames for each thread.

    Args:
        gate: Told when the first module of a thread begins to run, and when none does any more.
    """

    def __init__(self, gate: DoorGate) -> None:
        self._gate = gate
        self._local = threading.local()
        self._names: dict[type, list[str]] = {}

    @property
    def innermost(self) -> Frame | None:
        """The call that is running in this thread."""
        frames = self._frames()
        return frames[-1] if frames else None

    def of(self, name: str) -> Frame | None:
        """The call of this module that is running in this thread."""
        return next((frame for frame in reversed(self._frames()) if frame.name == name), None)

    def mark(self) -> None:
        """An attention kernel was called."""
        for frame in self._frames():
            frame.called = True

    def received(self) -> list[Received]:
        """The running modules of this thread, outermost first."""
        return [
            Received(frame.name, type(frame.module).__name__, frame.arguments, _patch(frame.module))
            for frame in self._frames()
        ]

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of what the outermost module of this thread was given."""
        frames = self._frames()
        values = frames[0].arguments.values() if frames else ()
        return tuple(tuple(value.shape) for value in values if is_a(value, Tensor))

    def attach(self, name: str, module: nn.Module, *, finished: Callable[[Frame], None], emit: Emit) -> Undo:
        """Follow the calls of a module; `finished` is told of each that returned."""
        frames, before = self._frames, functools.partial(self._before, name, module)

        def leave() -> Frame | None:
            stack = frames()
            found = None
            while stack and found is None:
                frame = stack.pop()
                found = frame if frame.module is module else None
                if not stack:
                    self._gate.leave()
            return found

        def after(*_: Any) -> None:
            frame = leave()
            if frame is not None:
                finished(frame)

        def raised() -> None:
            leave()

        return emit.watch(module, before=before, after=after, raised=raised)

    def _before(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        names = self._names.get(type(module))
        if names is None:
            names = list(parameters(module))
            if not is_scripted(module):  # these share one class
                self._names[type(module)] = names
        frame, frames = Frame(name, module, dict(zip(names, args, strict=False)) | kwargs), self._frames()
        if not frames:
            self._gate.enter()
        frames.append(frame)

    def _frames(self) -> list[Frame]:
        frames: list[Frame] | None = getattr(self._local, "frames", None)
        if frames is None:
            frames = self._local.frames = []
        return frames


def _patch(module: nn.Module) -> tuple[int, ...]:
    """The patch size in the module's configuration, the temporal one first."""
    config = getattr(module, "config", None)
    if not isinstance(config, Mapping):
        return ()
    size, frames = config.get("patch_size"), config.get("patch_size_t")
    sizes = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, list | tuple) else ()
    if not all(isinstance(side, int) for side in sizes):
        return ()
    return (frames, *sizes) if isinstance(frames, int) and len(sizes) == 2 else sizes
