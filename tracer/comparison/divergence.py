"""Where two traces part: every layer at every step, from tensors where both hold them, else from statistics.

::

    comparison = Comparison(open_trace("fp32.zarr"), open_trace("fp16.zarr"))
    for rows in comparison.run():
        ...                                   # rows that have become more precise; may be left at any time
    print(comparison.table.first_over())      # the first layer and step over the tolerance
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..info import SiteInfo, printable
from ..layout import HAS_TENSOR, MEASURED, NOT_CAPTURED, SITE_BLOCK
from ..moments import Moments
from ..trace import StatisticsTable, Trace
from .distance import Distance, Tolerance, histogram_distance, least_distance, measure
from .naming import Names
from .pairing import Link, SitePair, link_steps, pair_sites
from .rounding import coarsest_on_the_way
from .table import Divergence, Divergences, Evidence

__all__ = ["Comparison", "Divergence", "Divergences", "Evidence"]

_PART: Final = 1 << 22
"""Elements of one tensor in memory at a time, where it lies in a folder."""


@dataclass(repr=False, eq=False)
class Comparison:
    """Two traces, and what is known of their differences so far.

    Made from statistics alone, at once; `run` then reads what tensors there are, a pair of parts at a time. May be
    used by several threads.

    Args:
        a: The trace that counts: distances are in units of its tensors.
        b: The other one.
        names: See `pair_sites`.
        by: See `link_steps`.
        step_tolerance: Likewise.
        only: Which modules of A to look at, by name; all when None.

    Raises:
        ComparisonError: See `pair_sites` and `link_steps`.
        TraceFormatError: Statistics cannot be read.
    """

    a: Trace
    b: Trace
    names: Names | None = None
    by: Link = "index"
    step_tolerance: float | None = None
    only: Callable[[str], bool] | None = None
    """Which modules of A to look at; all when None."""
    table: Divergences = field(init=False)
    comparable: NDArray[np.bool_] = field(init=False)
    """Shape (pair, link): whether both hold the tensor."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        pairing = pair_sites(self.a, self.b, self.names)
        pairing = pairing if self.only is None else pairing.only(self.only)
        links = link_steps(self.a, self.b, self.by, self.step_tolerance)
        self.table = Divergences.empty(pairing, links)
        self.comparable = np.zeros(self.table.evidence.shape, bool)
        self._tables = [{(table.component, table.stepped): table for table in t.tables()} for t in (self.a, self.b)]
        moments = [Moments.of(tuple(tables.values())) for tables in self._tables]
        self._when = dict(zip(self._tables[0], moments[0].when, strict=True))
        self._ways = [
            dict(zip(tables, coarsest_on_the_way(known), strict=True))
            for tables, known in zip(self._tables, moments, strict=True)
        ]
        for key, rows in itertools.groupby(range(len(pairing.pairs)), lambda row: _table_key(pairing.pairs[row])):
            self._from_statistics(key, list(rows))

    def __repr__(self) -> str:  # Textual puts that of every argument into the description of a worker
        return f"<Comparison of {printable(self.a.name)} and {printable(self.b.name)}, {len(self.table)} tensors>"

    def run(self, cancelled: Callable[[], bool] = lambda: False) -> Iterator[Sequence[int]]:
        """Compare tensors layer by layer, then the histograms of what has none; yields the rows that changed.

        Args:
            cancelled: Asked before every tensor; where it says so, this ends.
        """
        done: dict[tuple[object, ...], int] = {}
        for row in range(len(self.table)):
            links = np.flatnonzero(self.comparable[row])
            if not links.size:
                continue
            pair = self.table.pairing.pairs[row]
            places = (*_arrays(pair), pair.cut_a, pair.cut_b)
            first = done.setdefault(places, row)  # several modules may return one tensor
            for link in map(int, links):
                if cancelled():
                    return
                if first != row and self.comparable[first, link] and (first, link) not in self.table.errors:
                    self._copy(first, row, link)
                else:
                    self.look(row, link)
            yield [row]
        yield from self._histograms(cancelled)

    def look(self, row: int, link: int, tolerance: Tolerance | None = None) -> Divergence:
        """Compare the tensors of one layer at one step, where both are stored, and keep it in the table."""
        pair = self.table.pairing.pairs[row]
        link = link if pair.a.stepped else 0
        if self.comparable[row, link]:
            try:
                found = measure(self._parts(row, link), tolerance or self.tolerance(row, link))
                is_complex = pair.a.torch_dtype.startswith("complex")
                self._keep(row, link, replace(found, where=found.where // 2) if is_complex else found)
            except Exception as error:  # noqa: BLE001 - a damaged chunk raises whatever its codec likes
                self.table.evidence[row, link] = Evidence.UNREADABLE
                assert isinstance(self.table.errors, dict)
                self.table.errors[row, link] = f"{type(error).__name__}: {error}"
        return self.table.at(row, link)

    def entry(self, row: int, link: int, batch: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
        """One entry of the batch of both tensors, shape (1, ...): the rest of a large tensor is not read.

        A tensor without a batch, of rank 0 or 1, comes whole.
        """
        pair = self.table.pairing.pairs[row]
        shape = self.table.at(row, link).shape
        lead, rest = (shape[0], shape[1:]) if len(shape) > 1 else (1, shape)
        count = math.prod(rest)
        if pair.is_cut:
            at = slice(batch % max(lead, 1), batch % max(lead, 1) + 1)
            whole_a, whole_b = self._whole_cut(pair, link)
            return (whole_a[at], whole_b[at]) if len(shape) > 1 else (whole_a, whole_b)
        start = batch % max(lead, 1) * count
        found = [
            self._elements(trace, site, step, start, count).reshape((1, *rest) if len(shape) > 1 else shape)
            for trace, site, step in self._sides(pair, link)
        ]
        one, other = (np.abs(values) if values.dtype.kind == "c" else values for values in found)
        return one, other

    def statistics(self, row: int, link: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The rows of both statistics tables."""
        pair = self.table.pairing.pairs[row]
        found = []
        if pair.is_cut:
            nothing = np.full(len(MEASURED), np.nan)
            return nothing, nothing
        for tables, (_, site, step) in zip(self._tables, self._sides(pair, link), strict=True):
            values = tables[_component(site), site.stepped].values
            lost = np.full(len(MEASURED), np.nan)
            found.append(values[step, site.row, : len(MEASURED)] if step < len(values) else lost)
        return found[0], found[1]

    def tolerance(self, row: int, link: int) -> Tolerance:
        """By what elements are counted as over: the relative part that of the coarsest dtype on the way."""
        pair = self.table.pairing.pairs[row]
        own = Tolerance.of(pair.a.torch_dtype, pair.b.torch_dtype)
        return Tolerance(float(self.table.rounding[row, link]), own.absolute)

    def _from_statistics(self, key: tuple[str, str, bool], rows: list[int]) -> None:
        component_a, component_b, stepped = key
        tables = (self._tables[0][component_a, stepped], self._tables[1][component_b, stepped])
        pairs = [self.table.pairing.pairs[row] for row in rows]
        steps = np.array(self.table.links.pairs if stepped else [(0, 0)], int).reshape(-1, 2)
        if not len(steps):
            return
        ours, theirs = (
            (table, np.ix_(steps[:, side], np.array([(pair.a, pair.b)[side].row for pair in pairs])))
            for side, table in enumerate(tables)
        )
        self._note_the_way(key, rows, steps, ours[1], theirs[1])
        least = least_distance(ours[0].values[ours[1]], theirs[0].values[theirs[1]]).T
        whole = np.array([not pair.is_cut for pair in pairs])[:, None]  # of a part the statistics tell nothing
        counts = (table.column("count")[where] for table, where in (ours, theirs))
        fits = np.array([not pair.problem for pair in pairs])[:, None] & (np.equal(*counts).T | ~whole)
        least = np.where(fits & whole, least, np.nan)
        place = slice(rows[0], rows[-1] + 1), slice(0, len(steps))
        self.table.relative_l2[place] = least
        self.table.evidence[place] = np.where(np.isnan(least), Evidence.NOTHING, Evidence.STATISTICS)
        stored = np.array([bool(pair.a.array and pair.b.array) for pair in pairs])[:, None] & fits
        captured = _captured(*ours).T, _captured(*theirs).T
        self.comparable[place] = (captured[0] >= HAS_TENSOR) & (captured[1] >= HAS_TENSOR) & stored
        self.table.half[place] = (captured[0] != NOT_CAPTURED) != (captured[1] != NOT_CAPTURED)
        for at, pair in enumerate(pairs):
            if pair.a.variants or pair.b.variants:
                self._match_shapes(rows[at], pair, captured[0][at], captured[1][at])

    def _note_the_way(
        self, key: tuple[str, str, bool], rows: list[int], steps: NDArray[np.int_], ours: Any, theirs: Any
    ) -> None:
        """When the tensors of A were made, and the coarsest dtype that those of either run have come through."""
        place = slice(rows[0], rows[-1] + 1), slice(0, len(steps))
        component_a, component_b, stepped = key
        self.table.when[place] = self._when[component_a, stepped][ours].T
        own = self.table.rounding[place]
        sides = zip(self._ways, (component_a, component_b), (ours, theirs), strict=True)
        ways = [known[component, stepped][at].T for known, component, at in sides]
        self.table.rounding[place] = np.where(own == 0, 0.0, np.fmax(own, np.fmax(*ways)))  # whole numbers agree or not

    def _match_shapes(
        self, row: int, pair: SitePair, ours: NDArray[np.unsignedinteger], theirs: NDArray[np.unsignedinteger]
    ) -> None:
        """Of tensors whose shape changes: only those of one shape are compared; `ours`, `theirs`: as captured.

        A part is known of the first shape only.
        """
        if pair.is_cut:
            self.comparable[row, : len(ours)] &= (ours == HAS_TENSOR) & (theirs == HAS_TENSOR)
            return
        for link in range(len(ours)):
            own, other = pair.a.stored(int(ours[link])), pair.b.stored(int(theirs[link]))
            if own is not None and other is not None and own.shape == other.shape:
                self.table.shapes[row, link] = own.shape
            else:
                self.comparable[row, link] = False
            if own is not None and other is not None and own.shape != other.shape:
                self.table.evidence[row, link], self.table.relative_l2[row, link] = Evidence.NOTHING, np.nan

    def _histograms(self, cancelled: Callable[[], bool]) -> Iterator[Sequence[int]]:
        """A block of rows at a time, as many as the trace reads at once."""
        wanted = (self.table.evidence == Evidence.STATISTICS).any(axis=1) & ~self.comparable.any(axis=1)

        def block(row: int) -> tuple[object, ...]:
            pair = self.table.pairing.pairs[row]
            return (*_table_key(pair), pair.a.row // SITE_BLOCK, pair.b.row // SITE_BLOCK)

        for _, group in itertools.groupby(map(int, np.flatnonzero(wanted)), block):
            rows = list(group)
            pairs = [self.table.pairing.pairs[row] for row in rows]
            for link in range(self.table.evidence.shape[1] if pairs[0].a.stepped else 1):
                if cancelled():
                    return
                (trace_a, _, step_a), (trace_b, _, step_b) = self._sides(pairs[0], link)
                try:
                    with self._lock:
                        counts_a = trace_a.histograms([pair.a for pair in pairs], step_a)
                        counts_b = trace_b.histograms([pair.b for pair in pairs], step_b)
                except Exception:  # noqa: BLE001, S112 - a damaged chunk; the distance from moments stays
                    continue
                self.table.histogram[rows, link] = histogram_distance(counts_a, counts_b)
            yield rows

    def _parts(self, row: int, link: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        pair = self.table.pairing.pairs[row]
        if pair.is_cut:
            ours, theirs = self._whole_cut(pair, link)
            yield _parts_of(ours), _parts_of(theirs)
            return
        total = math.prod(self.table.at(row, link).shape)
        for start in range(0, total, _PART):
            count = min(_PART, total - start)
            ours, theirs = (
                self._elements(trace, site, step, start, count) for trace, site, step in self._sides(pair, link)
            )
            yield _parts_of(ours), _parts_of(theirs)

    def _whole_cut(self, pair: SitePair, link: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Both tensors, of which one or both are a part of what is stored: the whole is read, and the part taken."""
        found = []
        cuts = (pair.cut_a, pair.whole_a), (pair.cut_b, pair.whole_b)
        for (cut, shape), (trace, site, step) in zip(cuts, self._sides(pair, link), strict=True):
            whole = self._elements(trace, site, step, 0, math.prod(shape)).reshape(shape)
            found.append(whole if cut is None else cut.of(whole))
        return found[0], found[1]

    def _elements(self, trace: Trace, site: SiteInfo, step: int, start: int, count: int) -> NDArray[Any]:
        with self._lock:
            found = trace.elements(site, step, start, count)
        if found is None:
            raise OSError(f"step {step} of {site.key} is missing")
        return found

    def _sides(self, pair: SitePair, link: int) -> tuple[tuple[Trace, SiteInfo, int], tuple[Trace, SiteInfo, int]]:
        ours, theirs = self.table.links.pairs[link] if pair.a.stepped else (0, 0)
        return (self.a, pair.a, ours), (self.b, pair.b, theirs)

    def _keep(self, row: int, link: int, found: Distance) -> None:
        table = self.table
        table.relative_l2[row, link] = found.relative_l2
        table.cosine[row, link] = found.cosine
        table.max_abs[row, link] = found.max_abs
        table.where[row, link] = found.where
        table.over[row, link] = found.over
        table.evidence[row, link] = Evidence.TENSOR

    def _copy(self, source: int, row: int, link: int) -> None:
        found = self.table.at(source, link)
        self._keep(row, link, found.distance)


def _component(site: SiteInfo) -> str:
    return site.name.split(".", 1)[0]


def _parts_of(values: NDArray[Any]) -> NDArray[Any]:
    """Complex numbers as one row of real and imaginary parts, which are as far apart as they are."""
    return values.view(values.real.dtype) if values.dtype.kind == "c" else values


def _arrays(pair: SitePair) -> tuple[str, ...]:
    """What several modules that return one tensor have in common."""
    return (*(stored.array for stored in pair.a.arrays), "", *(stored.array for stored in pair.b.arrays))


def _table_key(pair: SitePair) -> tuple[str, str, bool]:
    return _component(pair.a), _component(pair.b), pair.a.stepped


def _captured(table: StatisticsTable, place: Any) -> NDArray[np.unsignedinteger]:
    captured: NDArray[np.unsignedinteger] = table.captured[place]
    return captured
