"""Files of shards that stay open between steps, without taking the descriptors that the run itself needs."""

from __future__ import annotations

import threading
import weakref

from .shards import Shard

__all__ = ["OpenShards", "descriptor_share"]

_MOST = 256
"""Files kept open between two steps; finding one again costs as much as writing 100 KB."""
_PART = 4
"""The run keeps all but one part in so many of the descriptors that its process may have."""
_UNLIMITED = _MOST * _PART

_stores: weakref.WeakSet[OpenShards] = weakref.WeakSet()
_lock = threading.Lock()


class OpenShards:
    """The open shards of one store. All stores of a process together hold no more than `descriptor_share`.

    Three quarters of a store's part stay open between steps, the rest is for files that are open for one batch.
    """

    def __init__(self) -> None:
        self._open: dict[Shard, int] = {}
        self._descriptors = 0
        with _lock:
            _stores.add(self)

    def __contains__(self, shard: Shard) -> bool:
        return shard in self._open

    @property
    def batch(self) -> int:
        """How many files that do not stay open may be open at once."""
        return max(self._part // 8, 1)  # each may have two descriptors

    def keep_or_close(self, shard: Shard) -> None:
        """A batch is done with a shard."""
        if shard in self._open:
            return
        needed = 2 if shard.is_large else 1
        if self._descriptors + needed <= self._part * 3 // 4:
            self._open[shard] = needed
            self._descriptors += needed
        else:
            shard.close()

    def shrink(self) -> None:
        """Close what is too much since another store was opened."""
        while self._descriptors > self._part * 3 // 4:
            self.close(next(reversed(self._open)))

    def close(self, shard: Shard) -> None:
        """Close one that will not be needed soon."""
        self._descriptors -= self._open.pop(shard, 0)
        shard.close()

    def close_all(self) -> None:
        """Close all; they open again when they are needed."""
        while self._open:
            self.close(next(iter(self._open)))

    def end(self) -> None:
        """Nothing is opened any more."""
        try:
            self.close_all()
        finally:
            with _lock:
                _stores.discard(self)

    @property
    def _part(self) -> int:
        return descriptor_share() // max(len(_stores), 1)


def descriptor_share() -> int:
    """Descriptors that traces may hold open in this process: at most a quarter of what it may have."""
    try:
        import resource
    except ImportError:  # Windows
        return _MOST
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return min(_MOST, (_UNLIMITED if limit == resource.RLIM_INFINITY else limit) // _PART)
