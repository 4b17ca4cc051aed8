"""What an attention kernel was given, read from a trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..damage import check_chunk
from ..errors import TraceFormatError
from ..info import SiteInfo, printable
from ..layout import HAS_TENSOR, NOT_CAPTURED
from ..storage.archive import Archive

__all__ = ["Given", "Inputs"]

Given = tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]
"""Query and key, shape (head, position, head_dim), as many heads of either; mask (head or 1, query or 1, key or 1)."""


class Inputs:
    """Reads what a kernel was given, some heads at a time. Can be sent to another process.

    Args:
        archive: The store.
        sites: Where its queries, its keys and its mask are, if it has one.
        masked: What was captured of its mask at each step; None where there is no mask.
        steps: Those that lie there; None for all.
        kept: Whether the query was stored at each step, as a missing one is lost then; None if not known.

    Raises:
        TraceFormatError: An array has another shape than its site.
    """

    def __init__(
        self,
        archive: Archive,
        sites: tuple[SiteInfo, SiteInfo, SiteInfo | None],
        masked: NDArray[Any] | None,
        steps: frozenset[int] | None = None,
        *,
        kept: NDArray[np.bool_] | None = None,
    ) -> None:
        self._kept = kept
        self._query, self._key, self._mask = sites
        self._masked, self._steps = masked, steps
        there = [site for site in sites if site]
        for site in there:
            if archive.shape_of(site.array)[site.stepped :] != site.shape:
                raise TraceFormatError(
                    f"{printable(site.array)} in {archive.path} has not the shape {site.shape} of its site"
                )
        self._archive = archive.part(site.array for site in there)
        self._latest: tuple[tuple[Any, ...], Given | None] = (), None

    def of(self, step: int, entry: int, heads: Sequence[int]) -> Given | None:
        """What heads of one entry of the batch were given at a step (any outside of the loop); None if not there.

        The latest answer is kept, for going through a map in blocks.

        Raises:
            TraceFormatError: An array is damaged, or has another shape than its site.
        """
        asked = (step, entry, *heads)
        latest, given = self._latest
        if latest != asked:
            given = self._read(step, entry, heads)
            self._latest = asked, given
        return given

    def _read(self, step: int, entry: int, heads: Sequence[int]) -> Given | None:
        if self._steps is not None and step not in self._steps:
            return None
        group = self._query.shape[1] // self._key.shape[1]
        query = self._heads(self._query, step, entry, heads)
        key = self._heads(self._key, step, entry, [head // group for head in heads])
        if query is None or key is None or (query.size and np.isnan(query.flat[0]) and np.isnan(query).all()):
            self._check_lost(step, (self._query, self._key))
            return None
        there = NOT_CAPTURED if self._masked is None else int(self._masked[step])
        if self._mask is None or there == NOT_CAPTURED:  # the kernel was given none at this step
            return query, key, None
        sizes = self._mask.shape
        mask = self._heads(self._mask, step, min(entry, sizes[0] - 1), heads if sizes[1] > 1 else [0])
        if mask is None and there >= HAS_TENSOR:
            self._check_lost(step, (self._mask,))
        return None if mask is None or there < HAS_TENSOR else (query, key, mask)

    def _check_lost(self, step: int, sites: Sequence[SiteInfo]) -> None:
        """Make sure that what reads as missing was never written."""
        at = step if self._query.stepped else 0
        if self._kept is not None and at < len(self._kept) and self._kept[at]:
            for site in sites:
                check_chunk(self._archive, site.array, step if site.stepped else None)

    def _heads(self, site: SiteInfo, step: int, entry: int, heads: Sequence[int]) -> NDArray[Any] | None:
        """Heads of one entry, shape (head, position, dim); neighbours are read at once."""
        _, count, positions, dim = site.shape
        size, found = positions * dim, []
        for first, length in _neighbours(heads):
            start = (entry * count + first) * size
            run = self._archive.load_run(site.array, step if site.stepped else None, start, length * size)
            if run is None:
                return None
            if run.dtype.kind not in "fb":
                raise TraceFormatError(f"{printable(site.array)} in {self._archive.path} holds {run.dtype}, not floats")
            found.append(run.reshape(length, positions, dim))
        return np.concatenate(found) if len(found) != 1 else found[0]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_latest": ((), None)}


def _neighbours(heads: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Runs of ascending heads: the first, and how many."""
    start = 0
    for at in range(1, len(heads) + 1):
        if at == len(heads) or heads[at] != heads[at - 1] + 1:
            yield heads[start], at - start
            start = at
