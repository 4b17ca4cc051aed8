"""What is first wrong in a run, causes before their consequences; and magnitudes that float16 can hardly hold.

The one place that says what a fault is and where it came first: command line, API, browser and lists of traces ask
here. numpy only, no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .births import Born, birth
from .histogram import DTYPE_LIMITS
from .info import SiteInfo
from .moments import Moment, Moments
from .statistics_table import StatisticsTable

__all__ = ["NARROW", "Born", "Fault", "born_text", "faulty", "find_faults", "find_narrow"]

NARROW: Final = DTYPE_LIMITS["float16"][0] / 8
"""From this magnitude on a value is within three binades of the end of float16."""


class Fault(NamedTuple):
    """Where something is first wrong with a site's values."""

    site: SiteInfo
    step: int | None
    """None outside of the loop."""
    born: Born = Born.UNKNOWN
    """Told of a run's first fault only: what comes later may follow from it."""
    after: Moment | None = None
    """Likewise: the last finite tensor made before it."""


def faulty(table: StatisticsTable) -> NDArray[np.bool_]:
    """Where a table has values that are not finite and should be, shape (step, site).

    Masks of attention are made of −∞: of a tensor recorded as a mask, and of one that holds nothing but −∞ and 0,
    that is no fault. NaN and +∞ are.
    """
    nans, ups, downs = _unbounded(table)
    zeros, count = table.column("zeros"), table.column("count")
    masks = _is_mask(table) | ((zeros > 0) & (zeros + downs == count))
    bad: NDArray[np.bool_] = (nans + ups > 0) | ((downs > 0) & ~masks)
    return bad


def find_faults(tables: Sequence[StatisticsTable]) -> tuple[Fault, ...]:
    """The first fault of every site, in the order in which the tensors were made: the cause leads.

    Args:
        tables: All of a trace.
    """
    moments = Moments.of(tables)
    found = _first(moments, [faulty(table) for table in tables])
    if found and moments.exact:
        first = Moment(found[0].site, found[0].step)
        finite = [np.sum(_unbounded(table), axis=0) == 0 for table in tables]
        after = moments.before(moments.of_site(*first), finite)
        found[0] = Fault(*first, birth(moments, first), after)
    return tuple(found)


def find_narrow(tables: Sequence[StatisticsTable]) -> tuple[Fault, ...]:
    """Likewise the first magnitude of every site from `NARROW` on, in whatever precision the run was.

    Masks are left out, which are made of such numbers, and so are integers.
    """
    holds = []
    for table in tables:
        floats = np.array(["float" in site.torch_dtype for site in table.sites], bool)
        holds.append((np.nan_to_num(table.column("abs_max")) >= NARROW) & floats & ~_is_mask(table))
    return tuple(_first(Moments.of(tables), holds))


def born_text(fault: Fault) -> str:
    """Where a run's first fault was born, in a clause. Not yet safe for a terminal."""
    name, step = fault.site.name, fault.step or 0
    texts: dict[Born, str] = {
        Born.MODULE: f"in {name}: all that went into it was finite",
        Born.MODULE_OR_WAY: f"in {name} or on the way to it",
        Born.WAY: "on the way to it, outside of the modules recorded",
        Born.GUIDANCE: "between the denoiser, whose output was finite, and the scheduler: in guidance or your own code",
        Born.SCHEDULER: "in the scheduler's step, which was given finite tensors",
        Born.BETWEEN_STEPS: f"between steps {step - 1} and {step}: in a callback, the pipeline or your own code",
        Born.PREDICTED_X0: "in the prediction of x0 from finite latents and model output",
        Born.UNKNOWN: "unknown: what it came of was not recorded",
    }
    return texts[fault.born]


def _first(moments: Moments, holds: Sequence[NDArray[np.bool_]]) -> list[Fault]:
    """Where something first holds for each site, given for each table as (step, site)."""
    found = []
    for table, when, held in zip(moments.tables, moments.when, holds, strict=True):
        for row in np.flatnonzero(held.any(axis=0)):
            step = int(np.argmax(held[:, row]))
            key = (np.nan_to_num(when[step, row], nan=np.inf), table.component, int(row))
            found.append((key, Fault(table.sites[row], step if table.stepped else None)))
    return [fault for _, fault in sorted(found, key=lambda entry: entry[0])]


def _unbounded(table: StatisticsTable) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """How many NaN, +∞ and −∞ there are, 0 where nothing was recorded; each of shape (step, site)."""
    nans, ups, downs = (np.nan_to_num(table.column(name)) for name in ("nans", "positive_infs", "negative_infs"))
    return nans, ups, downs


def _is_mask(table: StatisticsTable) -> NDArray[np.bool_]:
    """Which sites are masks that an attention kernel was given, shape (site,)."""
    return np.array([site.port.split("_", 1)[0] == "mask" for site in table.sites], bool)
