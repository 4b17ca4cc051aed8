"""A screen that has a trace read in the background. Threads read, messages bring what they found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from textual import work
from textual.message import Message
from textual.screen import Screen
from textual.timer import Timer
from textual.worker import get_current_worker

from ..loader import Answer, Loader
from ..model import Snapshot
from ..views.protocol import Request, View

__all__ = ["FeedScreen"]

_DEBOUNCE: Final = 0.04
_POLL_FIRST: Final = 1.0
_POLL_MOST: Final = 5.0
_PRELOADED: Final = (1, -1, 2, -2)


class FeedScreen(Screen[None]):
    """Reads details of a selection, and looks for new steps of a run that is being written."""

    @dataclass
    class Read(Message):
        """An answer of the loader."""

        view: View | None
        """None where only previews were asked for."""
        request: Request
        answer: Answer

    @dataclass
    class Refreshed(Message):
        """The store was looked at again; `snapshot` is None when that failed."""

        snapshot: Snapshot | None

    def __init__(self, loader: Loader) -> None:
        super().__init__()
        self._loader = loader
        self._debounce: Timer | None = None
        self._pause = _POLL_FIRST

    def on_unmount(self) -> None:
        """Let go of readers that are still busy."""
        self.workers.cancel_node(self)

    def read_soon(self, view: View | None, request: Request) -> None:
        """Read previews and what a view needs, unless something else is asked for within a moment; then post `Read`."""
        if self._debounce is not None:
            self._debounce.stop()
        self._debounce = self.set_timer(_DEBOUNCE, lambda: self._read(view, request))

    def look_again(self, *, busy: bool) -> None:
        """Look at the store after a pause, a longer one each time unless it was `busy`; then post `Refreshed`."""
        self._pause = _POLL_FIRST if busy else min(self._pause * 1.5, _POLL_MOST)
        self.set_timer(self._pause, self._poll)

    def reload(self) -> None:
        """Look at the store now; then post `Refreshed`."""
        self._poll()

    @work(thread=True, exclusive=True, group="load")
    def _read(self, view: View | None, request: Request) -> None:
        worker = get_current_worker()
        answer = self._loader.read(view, request, cancelled=lambda: worker.is_cancelled)
        if worker.is_cancelled:
            return
        self.post_message(self.Read(view, request, answer))
        for by in _PRELOADED:
            if 0 <= request.step + by < request.steps and not worker.is_cancelled:
                nearby = replace(request, step=request.step + by)
                self._loader.read(view, nearby, cancelled=lambda: worker.is_cancelled)

    @work(thread=True, exclusive=True, group="poll")
    def _poll(self) -> None:
        try:
            snapshot = self._loader.snapshot(refresh=True)
        except Exception:  # noqa: BLE001 - the writer may be in the middle of a file; the next look tells
            snapshot = None
        if not get_current_worker().is_cancelled:
            self.post_message(self.Refreshed(snapshot))
