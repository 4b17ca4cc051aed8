"""The statistics of a component, read into memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .info import SiteInfo
from .layout import STATISTICS

__all__ = ["StatisticsTable"]


@dataclass(frozen=True, slots=True)
class StatisticsTable:
    """Statistics of every site of one component, in memory."""

    component: str
    stepped: bool
    sites: tuple[SiteInfo, ...]
    values: NDArray[np.float64]
    """Shape (step, site, statistic), NaN where nothing was recorded; one step where there is no loop.

    The statistics are those of `layout.STATISTICS`; format 1 lacks the last.
    """
    captured: NDArray[np.unsignedinteger]
    """Shape (step, site): 0 nothing, 1 statistics, 2 + k statistics and tensor, in the k-th array of the site."""

    def column(self, statistic: str) -> NDArray[np.float64]:
        """One statistic of every site, shape (step, site); NaN where the trace is of a format without it."""
        at = STATISTICS.index(statistic)
        if at >= self.values.shape[2]:
            return np.full(self.values.shape[:2], np.nan)
        column: NDArray[np.float64] = self.values[:, :, at]
        return column
