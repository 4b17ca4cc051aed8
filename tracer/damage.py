"""What was written and is not there any more: a chunk that is lost reads as one that never was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DxrayError, TraceFormatError
from .info import printable
from .layout import MEASURED, NOT_CAPTURED
from .statistics_table import StatisticsTable
from .storage.archive import Archive

__all__ = ["check_chunk", "check_table", "reads_as_missing", "told"]


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Take what a trace says of itself for damaged where it is of another type than it should be.

    Raises:
        TraceFormatError: It is; the message names `what`.
    """
    try:
        yield
    except DxrayError:
        raise
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError, MemoryError) as error:
        reason = printable(str(error)[:200]) or type(error).__name__
        raise TraceFormatError(f"{what} is damaged: {reason}") from error


_FEWEST = len(MEASURED)
"""Statistics of a tensor; format 2 has one more."""


def check_table(
    table: StatisticsTable, group: str, archive: Archive, *, timestep: NDArray[np.float64], is_complete: bool
) -> None:
    """Make sure that a table has all that was written of it.

    What was captured has statistics, and what has statistics was captured: where one is there without the other, a
    chunk is lost. Where both read as nothing, the file tells whether there was nothing; steps without a timestep were
    left out by the user, and those before the first in which the component was called have no chunk.

    Args:
        table: As it reads.
        group: Where it lies.
        archive: The store.
        timestep: Of each complete step, NaN where there is none.
        is_complete: Whether the run has ended well, so that every table has something.

    Raises:
        TraceFormatError: Chunks are missing; the message says of which array and how many steps.
    """
    shape = (*table.captured.shape, table.values.shape[-1] if table.values.ndim else 0)
    fits = table.values.ndim == 3 and table.values.shape == shape and shape[1:] >= (len(table.sites), _FEWEST)
    if not fits:
        raise TraceFormatError(
            f"{printable(group)} in {archive.path} is damaged: it has {len(table.sites)} sites, statistics of shape "
            f"{table.values.shape} and marks of shape {table.captured.shape}"
        )
    seen, measured = table.captured != NOT_CAPTURED, np.isfinite(table.column("count"))
    lost = {"statistics": (seen & ~measured).any(axis=1), "captured": (measured & ~seen).any(axis=1)}
    empty = ~(seen | measured).any(axis=1)
    if empty.any() and table.sites:
        began = int(np.argmin(empty)) if not empty.all() else 0 if is_complete else len(empty)
        wanted = empty & (np.arange(len(empty)) >= began)
        if table.stepped:
            wanted &= np.isfinite(timestep)
        for step in np.flatnonzero(wanted).tolist():
            lost["captured"][step] |= not archive.is_written(f"{group}/captured", step if table.stepped else None)
    for name, steps in lost.items():
        if steps.any():
            count = int(steps.sum())
            when = f" of {count} step{'s' * (count > 1)}, the first {int(np.argmax(steps))}," if table.stepped else ""
            raise TraceFormatError(
                f"{printable(group)}/{name} in {archive.path} is damaged: what was written{when} is missing, so it is "
                "not known whether all values are finite"
            )


def check_chunk(archive: Archive, array: str, step: int | None) -> None:
    """Make sure that a tensor that was stored is there.

    Raises:
        TraceFormatError: Its chunk is missing.
    """
    if not archive.is_written(array, step):
        when = "" if step is None else f" of step {step}"
        raise TraceFormatError(f"{printable(array)} in {archive.path} is damaged: its chunk{when} is missing")


def reads_as_missing(values: NDArray[Any]) -> bool:
    """Whether there is nothing but the fill value, as there is where no chunk is."""
    if not values.size:
        return False
    if np.isnan(values.flat[0]):
        return bool(np.isnan(values).all())
    return not values.any()
