"""Prove that a trace is whole: read every chunk of every array, and say which are damaged or missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .damage import check_chunk
from .errors import DxrayError
from .info import printable
from .layout import IMAGES, PROMPTS, ROOT_ARRAYS, table_group
from .statistics_table import StatisticsTable
from .storage.archive import Archive
from .storage.library_store import Where, locate
from .trace import Trace

__all__ = ["Damage", "DataCheck", "check_data"]


@dataclass(frozen=True, slots=True, order=True)
class Damage:
    """Something that was written and cannot be read."""

    array: str
    """Path in the trace; "" of what belongs to no single array."""
    step: int | None
    """None where it is of no step, or of several."""
    reason: str


@dataclass(frozen=True, slots=True)
class DataCheck:
    """What came out of reading everything."""

    arrays: int
    nbytes: int
    """Of what was read, decoded."""
    without_checksums: tuple[str, ...]
    """Arrays whose chunks have none: a flipped bit in them may read as another value."""
    damage: tuple[Damage, ...]


def check_data(where: Where, progress: Callable[[int, int], object] | None = None) -> DataCheck:
    """Read all that the complete steps of a trace consist of.

    Each chunk is decoded, which checks its checksum. What the statistics say was captured must be there, and what was
    captured must have statistics. Steps after the last complete one are not looked at, as no reader shows them.

    Args:
        where: The trace, as `open_trace` takes it.
        progress: Told after each array how many are done, and how many there are.

    Raises:
        TraceNotFoundError: There is nothing there.
        TraceFormatError: Not even its metadata can be read.
    """
    source = locate(where)
    archive, trace = Archive(source), Trace(source)
    damage: list[Damage] = []
    nbytes, without, names = 0, [], archive.arrays()
    for done, array in enumerate(names, 1):
        steps = range(_steps(trace, damage)) if archive.is_stepped(array) and array not in ROOT_ARRAYS else [None]
        for step in steps:
            try:
                nbytes += archive.load(array, () if step is None else (step,)).nbytes
            except DxrayError as error:
                damage.append(Damage(array, step, str(error)))
        if not archive.has_checksums(array) and array not in ROOT_ARRAYS:
            without.append(array)
        if progress is not None:
            progress(done, len(names))
    unreadable = {(entry.array, entry.step) for entry in damage}
    damage += [entry for entry in _lost(archive, trace) if (entry.array, entry.step) not in unreadable]
    told = dict.fromkeys(entry.reason for entry in damage)
    damage += [Damage("", None, reason) for reason in _untold(trace) if reason not in told]
    return DataCheck(len(names), nbytes, tuple(without), tuple(damage))


def _steps(trace: Trace, damage: list[Damage]) -> int:
    """Complete steps; none where that cannot be told."""
    try:
        return trace.n_steps
    except DxrayError as error:
        if all(entry.reason != str(error) for entry in damage):
            damage.append(Damage("committed", None, str(error)))
        return 0


def _lost(archive: Archive, trace: Trace) -> Iterator[Damage]:
    """Chunks that are missing although something says that they were written."""
    try:
        tables = list(trace.tables())
    except DxrayError:  # which `_untold` tells
        tables = []
    for table in tables:
        for step in range(len(table.values)):
            yield from _lost_histograms(trace, table, step)
        for site in table.sites:
            for step, mark in enumerate(table.captured[:, site.row].tolist()):
                stored = site.stored(mark)
                if stored is not None:
                    yield from _missing(archive, stored.array, step if site.stepped else None)
    if trace.info.status == "complete":
        for array in archive.arrays():
            if array.startswith((f"{IMAGES}/", f"{PROMPTS}/")) and not archive.is_stepped(array):
                yield from _missing(archive, array, None)


def _lost_histograms(trace: Trace, table: StatisticsTable, step: int) -> Iterator[Damage]:
    """Histograms that read as empty although the tensors had elements."""
    if not table.sites:
        return
    array, when = f"{table_group(table.component, stepped=table.stepped)}/histogram", step if table.stepped else None
    try:
        empty = ~trace.histograms(table.sites, step).any(axis=1)
    except DxrayError as error:
        yield Damage(array, when, str(error))
        return
    count = int((empty & (table.column("count")[step] > 0)).sum())
    if count:
        reason = f"{printable(array)} in {trace.path} is damaged: those of {count} tensors of step {step} are missing"
        yield Damage(array, when, reason)


def _missing(archive: Archive, array: str, step: int | None) -> Iterator[Damage]:
    try:
        check_chunk(archive, array, step)
    except DxrayError as error:
        yield Damage(array, step, str(error))


def _untold(trace: Trace) -> Iterator[str]:
    """What else cannot be told of the trace: tables that contradict themselves, descriptions that are none."""

    def tables() -> object:
        return list(trace.tables())

    def attention() -> object:
        return trace.attention_modules

    def prompts() -> object:
        return trace.prompts

    for ask in (tables, attention, prompts):
        try:
            ask()
        except DxrayError as error:
            yield str(error)
