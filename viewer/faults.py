"""Places to look at first: values that are not finite, and magnitudes that float16 can hardly hold. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from diffusion_xray.tracer.histogram import DTYPE_LIMITS
from diffusion_xray.tracer.info import SiteInfo
from diffusion_xray.tracer.layout import PROMPTS, STATISTICS
from diffusion_xray.tracer.trace import StatisticsTable

__all__ = ["FAULT_COLUMNS", "NARROW", "OUTSIDE", "Fault", "fault_text", "find_faults", "find_narrow"]

OUTSIDE: Final = -1
"""In place of a step, for what fired outside of the denoising loop."""
FAULT_COLUMNS: Final = [STATISTICS.index(name) for name in ("nans", "positive_infs", "negative_infs")]
NARROW: Final = DTYPE_LIMITS["float16"][0] / 8
"""From this magnitude on a value is within three binades of the end of float16."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Where something is first wrong with a site's values."""

    site: SiteInfo
    step: int
    """`OUTSIDE` for what fired outside of the loop."""


def fault_text(step: int | None) -> str:
    """A layer's first fault as the tree shows it."""
    return "" if step is None else "✗" if step == OUTSIDE else f"✗{step}"


def find_faults(tables: Sequence[StatisticsTable]) -> tuple[Fault, ...]:
    """The first value of every site that is not finite: by step, then in the order in which tensors came into being."""
    return _first(tables, lambda table: np.nan_to_num(table.values[:, :, FAULT_COLUMNS]).sum(axis=2) > 0)


def find_narrow(tables: Sequence[StatisticsTable]) -> tuple[Fault, ...]:
    """Likewise the first magnitude of every site from `NARROW` on, in whatever precision the run was.

    Masks are left out, which are made of such numbers, and so are integers.
    """
    largest = STATISTICS.index("abs_max")

    def holds(table: StatisticsTable) -> NDArray[np.bool_]:
        counts = [site.port != "mask" and "float" in site.torch_dtype for site in table.sites]
        found: NDArray[np.bool_] = (np.nan_to_num(table.values[:, :, largest]) >= NARROW) & np.array(counts, dtype=bool)
        return found

    return _first(tables, holds)


def _first(
    tables: Sequence[StatisticsTable], holds: Callable[[StatisticsTable], NDArray[np.bool_]]
) -> tuple[Fault, ...]:
    """Where something first holds for each site; `holds` tells for every (step, site)."""
    found = []
    loop = min((site.order for table in tables if table.stepped for site in table.sites), default=0)
    for table in tables:
        bad = holds(table)
        start = min((site.order for site in table.sites), default=0)
        before = table.component == PROMPTS or start < loop
        phase = 1 if table.stepped else 0 if before else 2
        for row in np.flatnonzero(bad.any(axis=0)):
            step = int(np.argmax(bad[:, row])) if table.stepped else OUTSIDE
            found.append(((phase, step, start, int(row)), Fault(table.sites[row], step)))
    return tuple(fault for _, fault in sorted(found, key=lambda entry: entry[0]))
