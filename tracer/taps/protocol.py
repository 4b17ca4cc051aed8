"""What a tap is, and what it is given: the plug-in point of the tracer."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ..capture import Selection
from ..layout import as_text
from ..recording.calls import After, Before, watch
from ..recording.clock import Clock
from ..recording.patches import Undo
from ..recording.provenance import Provenance
from ..recording.recorder import Recorder
from ..recording.roster import Follow, Roster
from ..recording.sites import Source
from ..recording.target import Target

__all__ = ["Emit", "ModuleStack", "Tap", "Undo", "shield"]


class Tap(Protocol):
    """Listens to one kind of event of a run.

    A third-party package offers one through the entry point group ``diffusion_xray.taps``; the entry point is called
    without arguments and returns the tap.
    """

    def attach(self, target: Target, emit: Emit) -> Undo:
        """Start listening.

        Args:
            target: The pipeline and its parts.
            emit: Takes what was seen.

        Returns:
            A function that undoes everything this call did. It is called once, whatever happened to the run.
        """
        ...


class ModuleStack:
    """The modules that are running, outermost first; one stack per thread. What calls no other is not on it."""

    def __init__(self) -> None:
        self._local = threading.local()

    def push(self, name: str) -> None:
        """A module is called."""
        self._names().append(name)

    def pop(self, name: str) -> None:
        """A module's forward returned or raised."""
        names = self._names()
        while names and names.pop() != name:
            pass

    @property
    def innermost(self) -> str:
        """The module that is running in this thread, "" when none is."""
        names = self._names()
        return names[-1] if names else ""

    def _names(self) -> list[str]:
        names: list[str] | None = getattr(self._local, "names", None)
        if names is None:
            names = self._local.names = []
        return names


class Emit:
    """Hands what one tap sees to the recorder, and keeps the tap's errors away from the run."""

    def __init__(
        self,
        tap: str,
        recorder: Recorder,
        selection: Selection,
        *,
        stack: ModuleStack,
        roster: Roster,
        on_failure: Callable[[str, Exception], None],
    ) -> None:
        self.selection = selection
        self.stack = stack
        self.roster = roster
        """Which module stands under which name now."""
        self.failed = False
        self.output_taker = recorder.output_taker
        """Makes a function that emits what comes out of a module; faster where it does in every step alike."""
        self._tap = tap
        self._recorder = recorder
        self._on_failure = on_failure

    @property
    def clock(self) -> Clock:
        """Which step is it?"""
        return self._recorder.clock

    @property
    def provenance(self) -> Provenance:
        """Which texts the embeddings of this run came from."""
        return self._recorder.provenance

    def __call__(
        self,
        source: Source | str,
        tensor: Tensor,
        *,
        port: str = "output",
        keep: bool = True,
        dims: Sequence[str] | None = None,
        in_last_step: bool = False,
        from_start: bool = False,
        within: tuple[str | int, ...] = (),
    ) -> None:
        """Record a tensor at the current step: statistics always, the tensor itself when `keep`.

        Args:
            source: Who emits it; a dotted name such as "mytap.norm" makes a component of its own.
            tensor: Copied before this returns; what happens to it later does not matter.
            port: Which of the source's tensors.
            keep: Store the tensor too.
            dims: Dimension names, by rank when None.
            in_last_step: Count it to the last step even when the loop is over.
            from_start: It is what the step began with: made before everything else of the step, though seen later.
            within: Keys and indices that lead to it in what its source returned.
        """
        source = Source(as_text(source), leaf=False) if isinstance(source, str) else source  # "a.b" may come after "a"
        self._recorder.record(
            source,
            tensor,
            port=port,
            keep=keep,
            dims=dims,
            in_last_step=in_last_step,
            from_start=from_start,
            within=within,
        )

    def gap(self, site: str, reason: str) -> None:
        """Say that something of a site cannot be recorded now; `reason` in the same words for all of a kind."""
        self._recorder.gap(site, reason)

    def array(self, path: str, array: NDArray[Any], dims: Sequence[str]) -> None:
        """Store an array outside of the steps, without statistics; objects are stored as text."""
        self._recorder.write_array(path, np.asarray(array), dims)

    def images(self, images: NDArray[Any]) -> None:
        """Store pictures that a run returned, (image, [frame,] y, x, rgb), uint8 or floats in [0, 1]."""
        self._recorder.write_images(images)

    def describe(self, attributes: Mapping[str, Any], *, group: str = "") -> None:
        """Set attributes of the trace, or of one of its groups; values must be JSON."""
        self._recorder.describe(attributes, group=group)

    def when_moved(self, listener: Callable[[str, bool], None]) -> None:
        """Call this with a component whose records have proved to belong into the loop (true) or out of it."""
        self._recorder.when_moved(self.guard(listener))

    def follow(self, attach: Follow) -> Undo:
        """Call `attach` with name and module for every module there is, and for those that come in during the run.

        Args:
            attach: Returns what undoes it, or None. It is undone when another module stands under that name, too.
        """
        return self.roster.follow(attach)

    def watch(
        self,
        module: nn.Module,
        *,
        before: Before | None = None,
        after: After | None = None,
        raised: Callable[[], None] | None = None,
    ) -> Undo:
        """Listen to every call of a module: see what its caller gives, and what its caller gets, whatever hooks it has.

        Args:
            module: The module.
            before: Called with the arguments, a tuple and a mapping, before the call.
            after: Called with the arguments and the result, after all hooks of the module.
            raised: Called where the call raised.
        """
        guarded = (None if listener is None else self.guard(listener) for listener in (before, after, raised))
        before, after, raised = guarded
        return watch(module, before=before, after=after, raised=raised)

    def guard(self, function: Callable[..., Any], *, only: nn.Module | None = None) -> Callable[..., None]:
        """Make a callback harmless: its result is dropped, its first error silences the tap and is reported.

        Args:
            function: The callback.
            only: Of a hook: the module it is for. A copy of that module, which takes the hook along, does not count.
        """

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> None:
            if self.failed or (only is not None and args[0] is not only):
                return
            try:
                function(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 — a tap's errors never reach the run
                self.fail(error)

        return guarded

    def fail(self, error: Exception) -> None:
        """Silence the tap, and report why."""
        self.failed = True
        self.report(self._tap, error)

    def report(self, what: str, error: Exception) -> None:
        """Say that a part of a tap failed, and let the rest go on."""
        self._on_failure(what, error)


def shield(modules: Mapping[str, nn.Module], emit: Emit, attach: Callable[[], Undo]) -> Undo:
    """Attach a tap and guard every hook it registered, so that not even a careless one can disturb the run.

    What a failed attach leaves in the modules is removed.
    """
    registries = [
        (hooks, module) for module in modules.values() for hooks in (module._forward_pre_hooks, module._forward_hooks)
    ]
    before = [set(hooks) for hooks, _ in registries]
    try:
        undo = attach()
    except Exception:
        for (hooks, _), known in zip(registries, before, strict=True):
            for key in hooks.keys() - known:
                del hooks[key]
        raise
    for (hooks, module), known in zip(registries, before, strict=True):
        for key in hooks.keys() - known:
            if not getattr(hooks[key], "is_guarded", False):  # a tap that guards its hooks itself saves a call
                hooks[key] = emit.guard(hooks[key], only=module)
    return undo
