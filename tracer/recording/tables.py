"""The statistics of one component on their way to the store: one row per site, one block of rows per step."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..info import SiteInfo
from ..layout import HISTOGRAM_BINS, NOT_CAPTURED, SEQUENCE, SITE_BLOCK, STATISTICS, ArraySpec, table_group, table_specs
from ..storage.store import StoreWriter
from ..stored import Stored
from .losses import Losses
from .statistics import Place
from .writer import Job

__all__ = ["Rows", "Table"]

_NOT_FINITE = slice(STATISTICS.index("nans"), STATISTICS.index("negative_infs") + 1)
_MOST_SPARE = 2
"""Steps' worth of rows kept for reuse."""


class _Block(NamedTuple):
    """Rows of `SITE_BLOCK` sites."""

    statistics: NDArray[np.float64]
    histogram: NDArray[np.uint32]
    captured: NDArray[np.uint16]


class Rows:
    """What is known of a component's sites in one step, in blocks that never move: the writer fills some of it."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self.places: list[Place] = []
        """Where the statistics of each site belong."""
        self.marks: dict[int, int] = {}
        """What is kept of each site in this step."""
        self.sequence: dict[int, int] = {}
        """When the tensor of each site was made in this step, see `layout.SEQUENCE`."""
        self._aliases: list[tuple[int, int]] = []
        self._stale: list[NDArray[np.bool_]] = []

    def make_room(self, sites: int) -> None:
        """Have a row for each of the first `sites` sites."""
        while len(self._blocks) * SITE_BLOCK < sites:
            statistics = np.full((SITE_BLOCK, len(STATISTICS)), np.nan)
            histogram = np.zeros((SITE_BLOCK, HISTOGRAM_BINS), np.uint32)
            self._blocks.append(_Block(statistics, histogram, np.zeros(SITE_BLOCK, np.uint16)))
            self.places += map(Place, statistics, histogram)

    def alias(self, row: int, same: int) -> None:
        """The tensor of `row` is that of the row `same`, whose statistics may not be there yet."""
        self._aliases.append((row, same))

    def aliases(self) -> list[tuple[int, int]]:
        """Rows whose tensor is that of another row."""
        return list(self._aliases)

    def settle(self) -> None:
        """Fill in marks and aliases, and empty what an earlier step left. Everything else must have been filled."""
        for row, captured in self.marks.items():
            self._blocks[row // SITE_BLOCK].captured[row % SITE_BLOCK] = captured
        for block, marked in zip(self._blocks, self._stale, strict=False):
            left = marked & (block.captured == NOT_CAPTURED)
            block.statistics[left], block.histogram[left] = np.nan, 0
        self._stale = []
        for row, same in self._aliases:
            place, known = self.places[row], self.places[same]
            place.row[:], place.histogram[:] = known.row, known.histogram
        self._aliases.clear()
        self._number()

    def _number(self) -> None:
        """Fill in the sequence, last of all, as nothing else that fills a row knows of it."""
        rows = np.fromiter(self.sequence, np.intp, len(self.sequence))
        numbers = np.fromiter(self.sequence.values(), np.float64, len(self.sequence))
        for at, block in enumerate(self._blocks):
            here = rows // SITE_BLOCK == at
            block.statistics[rows[here] % SITE_BLOCK, STATISTICS.index(SEQUENCE)] = numbers[here]

    def snapshot(self) -> Rows:
        """The rows marked so far, in the same memory; what is marked later does not count."""
        other = Rows()
        other.places = self.places
        other._blocks = [block._replace(captured=block.captured.copy()) for block in self._blocks]
        other._aliases = self._aliases.copy()
        other.marks, other.sequence = self.marks.copy(), self.sequence.copy()
        return other

    def clear(self) -> None:
        """Be ready for another step in the same memory, which is warm."""
        self._stale = [block.captured != NOT_CAPTURED for block in self._blocks]
        self.marks.clear()
        self.sequence.clear()
        for block in self._blocks:
            block.captured.fill(NOT_CAPTURED)

    def chunks(self) -> Iterator[tuple[str, int, NDArray[Any]]]:
        """Array, place along the sites, and contents of every chunk."""
        for at, block in enumerate(self._blocks):
            for name, part in block._asdict().items():
                yield name, at, part

    @property
    def hold_fault(self) -> bool:
        """Whether a value that is not finite was counted in any of them."""
        return any((block.statistics[:, _NOT_FINITE] > 0).any() for block in self._blocks)  # NaN, of no tensor, is not

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return sum(part.nbytes for block in self._blocks for part in block)


@dataclass(slots=True)
class Table:
    """The table of one component, of what fires inside the loop (`stepped`) or outside of it."""

    component: str
    stepped: bool
    born: int = -1
    """How many steps schedulers had made when it was; -1 where that does not matter."""
    sites: list[SiteInfo] = field(default_factory=list)
    changed: bool = True
    """Whether sites were added or changed since `declare`."""
    saw_fault: bool = False
    """Whether a value that is not finite was in any row written. The writer knows; final once it is done."""
    losses: Losses = field(default_factory=Losses)
    """Tensors that could not be written."""
    rows: Rows = field(default_factory=Rows)
    """The current step's."""
    _entries: list[dict[str, Any]] = field(default_factory=list)
    """What is written of each site. Never changed once made, as the writer may be reading it."""
    _labelled: int = 0
    """Sites whose labels are written."""
    _spare: deque[Rows] = field(default_factory=lambda: deque(maxlen=_MOST_SPARE))

    @property
    def group(self) -> str:
        """Group of the store that holds it."""
        return table_group(self.component, stepped=self.stepped)

    def add(self, site: SiteInfo) -> None:
        """Append a row."""
        self.sites.append(site)
        self._entries.append(site.to_attributes())
        self.rows.make_room(len(self.sites))
        self.changed = True

    def replace(self, site: SiteInfo) -> None:
        """Change what is said of a row."""
        self.sites[site.row], self._entries[site.row] = site, site.to_attributes()
        self.changed = True

    def add_array(self, row: int, stored: Stored) -> int:
        """Note a further array of a row's tensors, and return its number; the first is the row's `array`."""
        site = self.sites[row]
        if not site.array:
            first = replace(site, array=stored.array, shape=stored.shape, dims=stored.dims)
            self.replace(replace(first, torch_dtype=stored.torch_dtype))
            return 0
        self.sites[row] = replace(site, variants=(*site.variants, stored))
        entry = self._entries[row]
        self._entries[row] = entry | {"variants": [*entry["variants"], stored.to_attributes()]}
        self.changed = True
        return len(site.variants) + 1

    def move_array(self, row: int, number: int, stored: Stored) -> None:
        """Put an array in the place of another one of the row's."""
        site = self.sites[row]
        if not number:
            self.replace(replace(site, array=stored.array, dims=stored.dims))
        else:
            variants = list(site.variants)
            variants[number - 1] = stored
            self.replace(replace(site, variants=tuple(variants)))

    def declare(self, steps: int) -> Job:
        """A job that brings the table's arrays, coordinates and list of sites up to date."""
        self.changed = False
        group, count = self.group, len(self.sites)
        specs = table_specs(group, steps=steps if self.stepped else None, sites=count, attributes={})
        attributes = {"component": self.component, "stepped": self.stepped}
        attributes |= {"sites": self._entries.copy()}
        labels = [site.key for site in self.sites] if count > self._labelled else []
        self._labelled = count

        def job(store: StoreWriter) -> None:
            store.set_group(group, attributes)
            for spec in specs:
                store.add_array(spec)
            if labels:
                _write_labels(store, f"{group}/site", labels, chunk=SITE_BLOCK)
                _write_labels(store, f"{group}/statistic", list(STATISTICS), chunk=len(STATISTICS))

        return job

    def flush(self, step: int | None) -> tuple[Job, int]:
        """A job that writes the current rows, and the bytes it holds; a new step starts with empty rows."""
        if step is None:  # rows outside of the loop stay, as later calls add to them
            return functools.partial(self._write, self.rows.snapshot(), None), 0
        rows, self.rows = self.rows, self._spare.popleft() if self._spare else Rows()
        self.rows.make_room(len(self.sites))

        def job(store: StoreWriter) -> None:
            self._write(rows, step, store)
            rows.clear()
            self._spare.append(rows)

        return job, rows.nbytes

    def _write(self, rows: Rows, step: int | None, store: StoreWriter) -> None:
        for row, mark in self.losses.marks(self.sites, rows.marks, step):
            rows.marks[row] = mark
        rows.settle()
        self.saw_fault = self.saw_fault or rows.hold_fault
        for name, block, chunk in rows.chunks():
            if step is None:
                store.write(f"{self.group}/{name}", (block, *(0,) * (chunk.ndim - 1)), chunk)
            else:
                store.append(f"{self.group}/{name}", (step, block), chunk[None])


def _write_labels(store: StoreWriter, path: str, labels: list[str], *, chunk: int) -> None:
    """A coordinate of text; its chunks keep their size as it grows, so that a reader of the old shape can read on."""
    dim = path.rpartition("/")[2]
    store.add_array(ArraySpec(path, "string", (len(labels),), (dim,), (chunk,), None, "raw", ""))
    for start in range(0, len(labels), chunk):
        store.write(path, (start // chunk,), np.array(labels[start : start + chunk], dtype=object))
