"""One thread writes the store; the traced run hands it jobs and never waits for the disk below the byte budget."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from torch import Tensor

from .buffers import BufferPool
from .store import StoreWriter

__all__ = ["DEFAULT_BUDGET", "BackgroundWriter", "Job"]

Job = Callable[[StoreWriter], None]

DEFAULT_BUDGET = 256 << 20
"""Bytes that may be on their way to the disk, spare buffers included."""


class BackgroundWriter:
    """Runs jobs on a `StoreWriter` in order, in a thread of its own.

    After the first failure (disk full, folder gone) it goes on accepting jobs and drops them, so that the traced run
    ends as if nothing had happened; `error` then says why the trace is incomplete.
    """

    def __init__(self, open_store: Callable[[], StoreWriter], *, budget: int = DEFAULT_BUDGET) -> None:
        self.error: Exception | None = None
        self._store = open_store()
        self._pool = BufferPool(budget)
        self._jobs: queue.SimpleQueue[tuple[Job, int, Tensor | None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="dxray-writer", daemon=True)
        self._thread.start()

    def buffer(self, tensor: Tensor, *, wait: bool) -> Tensor | None:
        """Memory for a copy of `tensor`, to be handed back with `submit`.

        Args:
            tensor: What is to be copied.
            wait: Wait for the disk while the budget is spent.

        Returns:
            None when the budget is spent and `wait` is false, or the writer has failed.
        """
        return self._pool.take(tensor, wait=wait)

    def submit(self, job: Job, nbytes: int = 0, *, buffer: Tensor | None = None) -> None:
        """Queue a job.

        Args:
            job: Called in the writer's thread.
            nbytes: Memory it holds; waits while the budget is exceeded.
            buffer: What it reads of `buffer`; given back after it.
        """
        if buffer is not None or not nbytes or self._pool.claim(nbytes, wait=True):
            self._jobs.put((job, nbytes, buffer))

    def close(self, last: Job) -> None:
        """Finish all jobs, then run `last` even after a failure, with the reserved disk space released first."""
        self._jobs.put(None)
        self._thread.join()
        self._pool.close()
        try:
            self._store.release_reserve()
            last(self._store)
        except Exception as error:  # noqa: BLE001 — kept, reported once by the session
            self.error = self.error or error

    def _work(self) -> None:
        while (entry := self._jobs.get()) is not None:
            job, nbytes, buffer = entry
            if self.error is None:
                try:
                    job(self._store)
                except Exception as error:  # noqa: BLE001 — kept, reported once by the session
                    self.error = error
                    self._pool.close()
            if buffer is not None:
                self._pool.give(buffer)
            else:
                self._pool.release(nbytes)
