"""What the comparison shows: the two traces, the place, how to draw it, and what has been read for it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from diffusion_xray.tracer.comparison.divergence import Comparison, Divergence, Divergences, Evidence
from diffusion_xray.tracer.comparison.facts import Fact
from diffusion_xray.tracer.comparison.pairing import SitePair
from diffusion_xray.tracer.info import SiteInfo

from ..look import Look

__all__ = [
    "MODES",
    "SORTS",
    "TOLERANCES",
    "Comparing",
    "Found",
    "Mode",
    "Sort",
    "label_of",
    "order_of",
    "summed",
]

Mode = Literal["signed", "absolute", "relative", "wipe", "flicker"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
Sort = Literal["execution", "distance", "first", "name"]
SORTS: Final[tuple[Sort, ...]] = get_args(Sort)
TOLERANCES: Final[tuple[float | None, ...]] = (None, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""None: each layer's own, by its dtypes."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What was read of one layer at one step."""

    row: int
    link: int
    batch: int
    a: NDArray[Any] | None = None
    """One entry of the batch, shape (1, ...); None where there is no tensor."""
    b: NDArray[Any] | None = None
    divergence: Divergence | None = None
    statistics: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    error: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Comparing:
    """All that the comparison's widgets draw from."""

    comparison: Comparison
    facts: tuple[Fact, ...]
    order: NDArray[np.intp]
    """Rows of the list from the top: pairs by their place, then what only A has, then what only B has."""
    row: int = 0
    link: int = 0
    look: Look = field(default_factory=Look)
    mode: Mode = "signed"
    wipe: float = 0.5
    """Where A ends and B begins, as a share of the width."""
    flicker: bool = False
    """Whether B is the one shown, in the mode that shows both in turn."""
    tolerance: float | None = None
    sort: Sort = "execution"
    found: Found | None = None
    loading: bool = False
    done: int = 0
    """Layers whose tensors have been compared."""
    total: int = 0
    running: bool = True
    revision: int = 0
    """Counts how often the table has become more precise."""
    allowed: NDArray[np.float64] | None = None
    """`Divergences.limits` at this revision and tolerance."""
    over: int = 0
    """Layers over the tolerance. This and what follows is worked out when the numbers change, not when a key is hit."""
    first: Divergence | None = None
    """The first layer and step over it."""
    equal: bool = False
    """Whether tensors were compared, and nothing that is known of any pair differs."""
    measured: int = 0
    """Tensors that were compared as such, at every step where they can be."""
    estimated: int = 0
    """Tensors of which there are statistics alone."""
    unreadable: int = 0
    """Tensors that cannot be read at one step or more."""

    @property
    def table(self) -> Divergences:
        """The numbers."""
        return self.comparison.table

    @property
    def pair(self) -> SitePair | None:
        """The layer shown; None where only one of the traces has it, or there is none."""
        pairs = self.table.pairing.pairs
        return pairs[self.row] if 0 <= self.row < len(pairs) else None

    @property
    def lonely(self) -> tuple[str, SiteInfo] | None:
        """The site shown that only one trace has, and which one: "A" or "B"."""
        pairing = self.table.pairing
        at = self.row - len(pairing.pairs)
        if 0 <= at < len(pairing.only_a):
            return "A", pairing.only_a[at]
        at -= len(pairing.only_a)
        return ("B", pairing.only_b[at]) if 0 <= at < len(pairing.only_b) else None

    @property
    def has_tensors(self) -> bool:
        """Whether two tensors are drawn, or may be once they are read; else numbers or words stand in their place."""
        found = self.found
        return self.pair is not None and (found is None or (found.a is not None and found.b is not None))

    @property
    def steps(self) -> int:
        """How many steps are linked."""
        return len(self.table.links.pairs)

    def limits(self, row: int) -> NDArray[np.float64]:
        """The tolerance of a row at each link of two steps."""
        known = self.allowed if self.allowed is not None else self.table.limits(self.tolerance)
        limits: NDArray[np.float64] = known[row]
        return limits


def summed(state: Comparing) -> Comparing:
    """The same with what is told of the whole table."""
    table = state.table
    found = table.first_steps(state.tolerance)
    first = table.at(*map(int, found[0])) if len(found) else None
    unreadable, best = table.unreadable, table.best_evidence
    measured = int(((best == Evidence.TENSOR) & ~unreadable).sum())
    alike = not np.nan_to_num(table.relative_l2, nan=0.0).any() and not any(p.problem for p in table.pairing.pairs)
    return replace(
        state,
        allowed=table.limits(state.tolerance),
        over=len(found),
        first=first,
        equal=bool(measured) and alike,
        measured=measured,
        estimated=int(((best == Evidence.STATISTICS) & ~unreadable).sum()),
        unreadable=int(unreadable.sum()),
    )


def label_of(site: SiteInfo) -> str:
    """A site as lists have it: the first output of a module goes without its port."""
    return site.name if site.array_name == "output" else site.key


def _peaks(table: Divergences) -> NDArray[np.float64]:
    """Largest relative distance of each pair over the steps; NaN where there is none."""
    known = np.where(np.isnan(table.relative_l2), -1.0, table.relative_l2).max(axis=1, initial=-1.0)
    return np.where(known < 0, math.nan, known)


def order_of(comparison: Comparison, sort: Sort, tolerance: float | None) -> NDArray[np.intp]:
    """The rows of the list in an order; what has no number comes last, and what has no partner after that."""
    table, pairing = comparison.table, comparison.table.pairing
    count = len(pairing.pairs)
    rows = table.in_order
    if sort == "distance":
        rows = np.argsort(-np.nan_to_num(_peaks(table), nan=-1.0, posinf=np.inf), kind="stable")
    elif sort == "first":
        seen = table.first_steps(tolerance)[:, 0]
        rows = np.concatenate([seen, rows[~np.isin(rows, seen)]])
    elif sort == "name":
        rows = np.array(sorted(range(count), key=lambda row: pairing.pairs[row].a.key), np.intp)
    return np.concatenate([rows, np.arange(count, count + len(pairing.only_a) + len(pairing.only_b))]).astype(np.intp)
