"""When each tensor of a run was made, in one order over all components: what came first, and what right before."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .info import SiteInfo
from .layout import LATENTS, NOT_CAPTURED, PROMPTS, RECORDS, SEQUENCE
from .statistics_table import StatisticsTable

__all__ = ["Moment", "Moments"]

_DERIVED = frozenset({LATENTS, PROMPTS, RECORDS})
"""Components whose tensors came out of modules of others."""


class Moment(NamedTuple):
    """One tensor of a run."""

    site: SiteInfo
    step: int | None
    """None outside of the loop."""


@dataclass(frozen=True, eq=False)
class Moments:
    """When the tensors of some tables were made."""

    tables: tuple[StatisticsTable, ...]
    when: tuple[NDArray[np.float64], ...]
    """For each table, shape (step, site): ascending over all of them, NaN where nothing was recorded."""
    exact: bool
    """Whether the run itself has counted; a trace of format 1 has not, and its order is what its rows suggest."""

    @classmethod
    def of(cls, tables: Sequence[StatisticsTable]) -> Moments:
        """Read the sequence that the run has counted; where it is not there for all, make do without."""
        counted = [table.column(SEQUENCE) for table in tables]
        seen = [table.captured != NOT_CAPTURED for table in tables]
        exact = all(np.isfinite(numbers[mask]).all() for numbers, mask in zip(counted, seen, strict=True))
        order = counted if exact else _suggested(tables)
        when = (np.where(mask, numbers, np.nan) for numbers, mask in zip(order, seen, strict=True))
        return cls(tuple(tables), tuple(when), exact)

    def of_table(self, table: StatisticsTable) -> NDArray[np.float64]:
        """When the tensors of one of the tables were made, shape (step, site)."""
        return self.when[self._places[table.component, table.stepped]]

    def of_site(self, site: SiteInfo, step: int | None) -> float:
        """When a site's tensor of a step was made; NaN where it was not recorded."""
        at = self._places.get((site.name.split(".", 1)[0], site.stepped))
        if at is None or site.row >= self.when[at].shape[1]:
            return float("nan")
        row, index = self.when[at][:, site.row], (step or 0) if site.stepped else 0
        return float(row[index]) if index < len(row) else float("nan")

    def before(self, moment: float, counts: Sequence[NDArray[np.bool_]] | None = None) -> Moment | None:
        """The last tensor made before a moment.

        Args:
            moment: As in `when`.
            counts: For each table, shape (step, site): which tensors to look at; all when None.
        """
        best, found = -np.inf, None
        for at, (table, when) in enumerate(zip(self.tables, self.when, strict=True)):
            usable = when < moment if counts is None else (when < moment) & counts[at]
            if usable.any():
                step, row = divmod(int(np.where(usable, when, -np.inf).argmax()), when.shape[1])
                if when[step, row] > best:
                    best, found = when[step, row], Moment(table.sites[row], step if table.stepped else None)
        return found

    @functools.cached_property
    def _places(self) -> dict[tuple[str, bool], int]:
        return {(table.component, table.stepped): at for at, table in enumerate(self.tables)}


def _suggested(tables: Sequence[StatisticsTable]) -> list[NDArray[np.float64]]:
    """The order as well as it can be told from sites alone.

    Before the loop, step by step, after it; there the components in the order in which they were first called, each
    followed by what is derived of it; last the rows, which stand in the order in which they first came to be. What a
    step began with goes before the rest of it.
    """
    starts = sorted(
        min(site.order for site in table.sites) for table in tables if table.sites and table.component not in _DERIVED
    )
    loop = min((site.order for table in tables if table.stepped for site in table.sites), default=0)
    keys = [_keys(table, np.array(starts, np.int64), loop) for table in tables]
    if not keys:
        return []
    everything = np.concatenate([key.reshape(-1, key.shape[2]) for key in keys])
    rank = np.empty(len(everything))
    rank[np.lexsort(everything.T[::-1])] = np.arange(len(everything))
    ends = np.cumsum([key.shape[0] * key.shape[1] for key in keys])[:-1]
    return [part.reshape(key.shape[:2]) for part, key in zip(np.split(rank, ends), keys, strict=True)]


def _keys(table: StatisticsTable, starts: NDArray[np.int64], loop: int) -> NDArray[np.int64]:
    """What to sort by, most important first; shape (step, site, key)."""
    steps, sites = table.captured.shape
    order = np.array([site.order for site in table.sites], np.int64)
    owner = np.searchsorted(starts, order, side="right")
    derived = np.full(sites, table.component in _DERIVED, np.int64)
    if table.stepped and table.component == LATENTS:
        begins = np.array([site.port == "latents" for site in table.sites], bool)
        owner[begins] = -1
    before = (order < loop) | (table.component == PROMPTS)
    phase = np.full(sites, 1) if table.stepped else np.where(before, 0, 2)
    at = np.arange(steps)[:, None].repeat(sites, axis=1)
    rest = [np.broadcast_to(key, (steps, sites)) for key in (phase, owner, derived, np.arange(sites))]
    return np.stack([rest[0], at, *rest[1:]], axis=2).astype(np.int64)
