"""Tensors that the writer had no memory for: each costs its own record, and the trace says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from ..info import SiteInfo
from ..layout import HAS_STATISTICS, NOT_CAPTURED

__all__ = ["Losses"]

_REASON = "there was no memory to write it"


class Losses:
    """What was marked as kept when it was copied, and could not be written. The writer's thread owns it.

    Args:
        on_gap: Called with a site, a step and a reason for each.
    """

    def __init__(self, on_gap: Callable[[str, int | None, str], None] | None = None) -> None:
        self._on_gap = on_gap
        self._lost: dict[tuple[str, int | None], int] = {}

    def note(self, array: str, step: int | None, *, is_measured: bool) -> None:
        """A tensor could not be written into its array at a step; its statistics may be known all the same."""
        self._lost[array, step] = HAS_STATISTICS if is_measured else NOT_CAPTURED

    def marks(self, sites: Sequence[SiteInfo], marks: Mapping[int, int], step: int | None) -> Iterator[tuple[int, int]]:
        """Rows whose tensors are lost, those of others that are read from the same array too, and what to mark them."""
        if not self._lost:
            return
        for row, mark in list(marks.items()):
            stored = sites[row].stored(mark)
            instead = None if stored is None else self._lost.get((stored.array, step))
            if instead is not None:
                if self._on_gap is not None:
                    self._on_gap(sites[row].key, step, _REASON)
                yield row, instead
