"""The statistics of one component on their way to the store: one row per site, one block of rows per step."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .info import SiteInfo
from .layout import HISTOGRAM_BINS, SITE_BLOCK, STATISTICS, ArraySpec, blocks, table_group, table_specs
from .statistics import Statistics
from .store import StoreWriter
from .writer import Job

__all__ = ["Table"]


@dataclass(slots=True)
class _Rows:
    """Rows that have not been handed to the writer yet, in whole blocks of sites."""

    statistics: NDArray[np.float64]
    histogram: NDArray[np.uint32]
    captured: NDArray[np.uint8]

    @classmethod
    def empty(cls, sites: int) -> _Rows:
        capacity = blocks(max(sites, 1)) * SITE_BLOCK
        statistics = np.full((capacity, len(STATISTICS)), np.nan)
        return cls(statistics, np.zeros((capacity, HISTOGRAM_BINS), np.uint32), np.zeros(capacity, np.uint8))

    def parts(self) -> dict[str, NDArray[Any]]:
        return {"statistics": self.statistics, "histogram": self.histogram, "captured": self.captured}

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts().values())

    def copy_into(self, other: _Rows) -> _Rows:
        for old, new in zip(self.parts().values(), other.parts().values(), strict=True):
            new[: len(old)] = old
        return other


@dataclass(slots=True)
class Table:
    """The table of one component, of what fires inside the loop (`stepped`) or outside of it."""

    component: str
    stepped: bool
    sites: list[SiteInfo] = field(default_factory=list)
    changed: bool = True
    """Whether sites were added or changed since `declare`."""
    _rows: _Rows = field(default_factory=lambda: _Rows.empty(0))

    @property
    def group(self) -> str:
        """Group of the store that holds it."""
        return table_group(self.component, stepped=self.stepped)

    def add(self, site: SiteInfo) -> None:
        """Append a row."""
        self.sites.append(site)
        if len(self.sites) > len(self._rows.captured):
            self._rows = self._rows.copy_into(_Rows.empty(len(self.sites)))
        self.changed = True

    def replace(self, site: SiteInfo) -> None:
        """Change what is said of a row."""
        self.sites[site.row] = site
        self.changed = True

    def set(self, row: int, statistics: Statistics, captured: int) -> None:
        """Fill a row for the current step."""
        self._rows.statistics[row] = statistics.row()
        self._rows.histogram[row] = statistics.histogram
        self._rows.captured[row] = captured

    def declare(self, steps: int) -> Job:
        """A job that brings the table's arrays, coordinates and list of sites up to date."""
        self.changed = False
        group, count = self.group, len(self.sites)
        specs = table_specs(group, steps=steps if self.stepped else None, sites=count, attributes={})
        attributes = {"component": self.component, "stepped": self.stepped}
        attributes |= {"sites": [site.to_attributes() for site in self.sites]}
        labels = [site.key for site in self.sites]

        def job(store: StoreWriter) -> None:
            store.set_group(group, attributes)
            for spec in specs:
                store.add_array(spec)
            _write_labels(store, f"{group}/site", labels, chunk=SITE_BLOCK)
            _write_labels(store, f"{group}/statistic", list(STATISTICS), chunk=len(STATISTICS))

        return job

    def flush(self, step: int | None) -> tuple[Job, int]:
        """A job that writes the current rows, and the bytes it holds; a new step starts with empty rows."""
        rows = self._rows
        self._rows = _Rows.empty(len(self.sites))
        if step is None:  # rows outside of the loop stay, as later calls add to them
            rows.copy_into(self._rows)
        return functools.partial(_write_rows, self.group, rows, len(self.sites), step), rows.nbytes


def _write_labels(store: StoreWriter, path: str, labels: list[str], *, chunk: int) -> None:
    """A coordinate of text; its chunks keep their size as it grows, so that a reader of the old shape can read on."""
    dim = path.rpartition("/")[2]
    store.add_array(ArraySpec(path, "string", (len(labels),), (dim,), (chunk,), None, "raw", ""))
    for start in range(0, len(labels), chunk):
        store.write(path, (start // chunk,), np.array(labels[start : start + chunk], dtype=object))


def _write_rows(group: str, rows: _Rows, sites: int, step: int | None, store: StoreWriter) -> None:
    for name, block, chunk in _chunks(rows, sites):
        if step is None:
            store.write(f"{group}/{name}", (block, *(0,) * (chunk.ndim - 1)), chunk)
        else:
            store.append(f"{group}/{name}", (step, block), chunk[None])


def _chunks(rows: _Rows, sites: int) -> Iterator[tuple[str, int, NDArray[Any]]]:
    for name, part in rows.parts().items():
        for block in range(blocks(sites)):
            yield name, block, part[block * SITE_BLOCK : (block + 1) * SITE_BLOCK]
