"""One thread writes the store; the traced run hands it jobs and never waits for the disk below the byte budget."""

from __future__ import annotations

import contextlib
import gc
import queue
import threading
import time
from collections.abc import Callable, Sequence

from ..errors import StoreError
from ..storage.store import StoreWriter
from .buffers import Buffer, BufferPool

__all__ = ["DEFAULT_BUDGET", "BackgroundWriter", "Job"]

Job = Callable[[StoreWriter], None]
_Entry = tuple[Job, int, Sequence[Buffer]]

DEFAULT_BUDGET = 256 << 20
"""Bytes that may be on their way to the disk, spare buffers included."""


_BATCH = 32
"""Jobs handed over at once."""


class BackgroundWriter:
    """Runs jobs on a `StoreWriter` in order, in a thread of its own.

    After the first failure (disk full, folder gone) it goes on accepting jobs and drops them, so that the traced run
    ends as if nothing had happened; `error` then says why the trace is incomplete. `pool` has the memory for copies.
    Whatever becomes of a job, what it holds is given back.
    """

    def __init__(self, open_store: Callable[[], StoreWriter], *, budget: int = DEFAULT_BUDGET) -> None:
        self.error: Exception | None = None
        self.feed: Callable[[], None] | None = None
        """Submits what its owner has gathered so far; called before anything is sent."""
        self._batch: list[_Entry] = []
        self._later: tuple[Job, float] | None = None
        """A job, and when it is to be run."""
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[list[_Entry] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="dxray-writer", daemon=True)
        self.pool = BufferPool(budget, before_wait=self.send, is_served=self._thread.is_alive)
        self._store = open_store()
        try:
            self._thread.start()
        except BaseException:
            self._store.close()
            raise

    def submit(self, job: Job, nbytes: int = 0, *, buffers: Sequence[Buffer] = ()) -> None:
        """Queue a job. It may wait for others: a thread woken for every tensor would disturb the run.

        Args:
            job: Called in the writer's thread.
            nbytes: Memory it holds; waits while the budget is exceeded.
            buffers: What it reads of the `pool`; given back after it.
        """
        if nbytes and not self.pool.claim(nbytes, wait=True):
            return
        with self._lock:
            self._batch.append((job, nbytes, buffers))
            full = len(self._batch) >= _BATCH
        if full or self.pool.line:  # one who waits has sent what was there before, and not this
            self._hand_over()

    def postpone(self, job: Job, seconds: float) -> None:
        """Run a job so many seconds from now, or drop it for a later one; called by jobs. It is not run after the last.

        Args:
            job: As in `submit`.
            seconds: More than 0.
        """
        self._later = job, time.monotonic() + seconds

    def send(self) -> None:
        """Hand what is queued to the thread, here and by whoever feeds it."""
        if self.feed is not None:
            self.feed()
        self._hand_over()

    def close(self, last: Job) -> None:
        """Finish all jobs, release the reserved disk space and run `last`; again if it is the first thing to fail."""
        self.send()
        self._queue.put(None)
        self._thread.join()
        self.pool.close()
        self._drop_the_rest()
        try:
            self._attempt(lambda store: store.release_reserve())
            failed_before = self.error is not None
            self._attempt(last)
            if self.error is not None and not failed_before:
                self._attempt(last)  # which now writes down why
        finally:
            self._attempt(lambda store: store.close())

    def _hand_over(self) -> None:
        with self._lock:
            if self._batch:
                self._queue.put(self._batch)
                self._batch = []

    def _attempt(self, job: Job) -> None:
        try:
            try:
                job(self._store)
            except MemoryError:  # what there was none for may be small, and others may have given theirs back
                gc.collect()
                job(self._store)
        except Exception as error:  # noqa: BLE001 — kept, reported once by the session
            self.error = self.error or error
            self.pool.close()

    def _work(self) -> None:
        try:
            while (batch := self._next()) is not None:
                for job, nbytes, buffers in batch:
                    try:
                        if self.error is None:
                            self._attempt(job)
                    finally:
                        self._give_back(nbytes, buffers)
        except BaseException as error:  # noqa: BLE001 — a job that ends its thread; nobody is left to raise it to
            self.error = self.error or StoreError(f"the thread that writes was ended by {error!r}")
        finally:
            self.pool.close()  # from here on nothing comes back by itself

    def _next(self) -> Sequence[_Entry] | None:
        """What is to be done next; None at the end."""
        if self._later is None:
            return self._queue.get()
        job, due = self._later
        try:
            return self._queue.get(timeout=max(0.0, due - time.monotonic()))
        except queue.Empty:
            self._later = None
            return [(job, 0, ())]

    def _give_back(self, nbytes: int, buffers: Sequence[Buffer]) -> None:
        self.pool.give(buffers)
        if nbytes:
            self.pool.release(nbytes)

    def _drop_the_rest(self) -> None:
        """Give back what came too late for the thread, or was in its queue when it ended."""
        self._hand_over()
        with contextlib.suppress(queue.Empty):
            while True:
                for _, nbytes, buffers in self._queue.get_nowait() or ():
                    self._give_back(nbytes, buffers)
