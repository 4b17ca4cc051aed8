"""One thread writes the store; the traced run hands it jobs and never waits for the disk below the byte budget."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from .store import StoreWriter

__all__ = ["BackgroundWriter", "Job"]

Job = Callable[[StoreWriter], None]

DEFAULT_BUDGET = 256 << 20
"""Bytes that may wait for the disk before the run is held back."""


class BackgroundWriter:
    """Runs jobs on a `StoreWriter` in order, in a thread of its own.

    After the first failure (disk full, folder gone) it goes on accepting jobs and drops them, so that the traced run
    ends as if nothing had happened; `error` then says why the trace is incomplete.
    """

    def __init__(self, open_store: Callable[[], StoreWriter], *, budget: int = DEFAULT_BUDGET) -> None:
        self.error: Exception | None = None
        self._store = open_store()
        self._budget = budget
        self._jobs: deque[tuple[Job, int] | None] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="dxray-writer", daemon=True)
        self._thread.start()

    def submit(self, job: Job, nbytes: int = 0) -> None:
        """Queue a job that holds `nbytes` of copied data; waits while the budget is exceeded."""
        with self._changed:
            while self._waiting and self._waiting + nbytes > self._budget and self.error is None:
                self._changed.wait(1.0)
            if self.error is None:
                self._jobs.append((job, nbytes))
                self._waiting += nbytes
                self._changed.notify_all()

    def close(self, last: Job) -> None:
        """Finish all jobs, then run `last` even after a failure, with the reserved disk space released first."""
        with self._changed:
            self._jobs.append(None)
            self._changed.notify_all()
        self._thread.join()
        try:
            self._store.release_reserve()
            last(self._store)
        except Exception as error:  # noqa: BLE001 — kept, reported once by the session
            self.error = self.error or error

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs:
                    self._changed.wait()
                entry = self._jobs.popleft()
            if entry is None:
                return
            job, nbytes = entry
            if self.error is None:
                try:
                    job(self._store)
                except Exception as error:  # noqa: BLE001 — kept, reported once by the session
                    self.error = error
            with self._changed:
                self._waiting -= nbytes
                self._changed.notify_all()
