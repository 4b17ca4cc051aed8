"""The statistics tables of a trace as labelled arrays of xarray."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from .info import SiteInfo
from .layout import MEASURED, STATISTICS
from .statistics_table import StatisticsTable

if TYPE_CHECKING:
    import xarray

__all__ = ["OUTSIDE", "array_of_all", "array_of_table"]

OUTSIDE: Final = -1
"""The step under which an array of everything has what fired outside of the loop."""

_COLUMNS: Final = [STATISTICS.index(name) for name in MEASURED]

Loop = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Timestep and sigma of each complete step."""


def array_of_table(table: StatisticsTable, loop: Loop) -> xarray.DataArray:
    """One table, dimensions (step, site, statistic), without `step` where it is of what fired outside of the loop."""
    array = _labelled(table.values[..., _COLUMNS], table.sites, np.arange(len(table.values)), table.component)
    return _timed(array, loop) if table.stepped else array.isel(step=0, drop=True)


def array_of_all(tables: Sequence[StatisticsTable], sites: Sequence[SiteInfo], loop: Loop) -> xarray.DataArray:
    """Sites of several tables, dimensions (step, site, statistic).

    A tensor made outside of the loop has no step. Its row stands at step `OUTSIDE`, which comes before the first and
    is there where such rows are, so that no step of the loop tells of anything that did not happen in it.

    Args:
        tables: All that the sites are in.
        sites: Which, in the order wanted.
        loop: Of the steps that the tables have.
    """
    by_key = {(table.component, table.stepped): table for table in tables}
    count = len(loop[0])
    before = int(not all(site.stepped for site in sites))
    values = np.full((before + count, len(sites), len(MEASURED)), np.nan)
    for place, site in enumerate(sites):
        rows = by_key[site.name.split(".", 1)[0], site.stepped].values[:, site.row, _COLUMNS]
        if site.stepped:
            values[before:, place] = rows
        else:
            values[0, place] = rows[0]
    array = _labelled(values, sites, np.arange(-before, count), "statistics").assign_coords(
        component=("site", _text(site.name.split(".", 1)[0] for site in sites)),
        in_loop=("site", np.array([site.stepped for site in sites], bool)),
    )
    gap = np.full(before, np.nan)
    return _timed(array, (np.append(gap, loop[0]), np.append(gap, loop[1])))


def _labelled(
    values: NDArray[np.float64], sites: Sequence[SiteInfo], steps: NDArray[np.int_], name: str
) -> xarray.DataArray:
    import xarray

    coordinates = {"step": steps, "site": _text(site.key for site in sites), "statistic": _text(MEASURED)}
    return xarray.DataArray(values, dims=("step", "site", "statistic"), coords=coordinates, name=name)


def _timed(array: xarray.DataArray, loop: Loop) -> xarray.DataArray:
    return array.assign_coords(timestep=("step", loop[0]), sigma=("step", loop[1]))


def _text(labels: Iterable[str]) -> NDArray[Any]:
    """Labels of any length: Zarr has no name yet for those of a fixed one."""
    return np.array(list(labels), object)
