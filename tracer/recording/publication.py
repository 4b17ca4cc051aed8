"""When the store's metadata is written, and the steps that wait for it.

A document at the root tells of every array, so it takes the longer to write the more of them there are. Where each
step brings new ones (another shape, a module not called before), writing it after every step would take time that
grows with the square of the steps. So most of the time must be left for other work; a step is complete, but is not
committed, while anything is not told yet: a site that came up in it, or a description without which it would be read
by an older one.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..storage.store import StoreWriter
from .writer import BackgroundWriter, Job

__all__ = ["Publication"]

_PAUSE = 10
"""How many times as long as it took to publish nothing is published again."""


class Publication:
    """Publishes a store and commits its steps; all of it in the writer's thread.

    Args:
        writer: Whose thread that is.
        clock: Seconds, which never go back.
    """

    def __init__(self, writer: BackgroundWriter, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._writer = writer
        self._clock = clock
        self._waiting: list[Job] = []
        self._next = 0.0
        """Not to be published before."""

    def publish(self, store: StoreWriter) -> None:
        """Write all metadata that changed, then commit the steps that wait for it."""
        begun = self._clock()
        store.publish()
        ended = self._clock()
        self._next = ended + _PAUSE * (ended - begun)
        waiting, self._waiting = self._waiting, []
        for commit in waiting:
            commit(store)

    def commit(self, commit: Job, store: StoreWriter) -> None:
        """Commit a step; where something came up in it, once that is published, which may be a little later.

        Args:
            commit: Does it.
            store: Where.
        """
        if not self._waiting and not store.has_untold:
            commit(store)
            return
        self._waiting.append(commit)
        if (left := self._next - self._clock()) <= 0:
            self.publish(store)
        else:
            self._writer.postpone(self.publish, left)
