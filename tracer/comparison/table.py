"""What a comparison of two traces has found: a row for each pair of sites, a column for each pair of steps."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .distance import Distance, Tolerance
from .pairing import Pairing, SitePair, StepLinks
from .rounding import allowed

__all__ = ["Divergence", "Divergences", "Evidence"]


class Evidence(enum.IntEnum):
    """What a distance was taken from."""

    NOTHING = 0
    """Not seen at this step in one of the runs, or of another shape: there is no distance."""
    STATISTICS = 1
    """Statistics alone: the relative L2 distance is at least this, and may be much larger."""
    TENSOR = 2
    UNREADABLE = 3
    """Tensors are stored and one cannot be read; the distance is that of the statistics."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """One layer at one step."""

    row: int
    """Place of the pair in `Divergences.pairing`."""
    link: int
    """Place of the steps in `Divergences.links`; 0 for what fired outside of the loop."""
    pair: SitePair
    steps: tuple[int, int] | None
    """Step of A and of B; None outside of the loop."""
    evidence: Evidence
    distance: Distance
    """From statistics alone only `relative_l2` is known, as a lower bound; the rest is NaN."""
    histogram: float
    """`histogram_distance`, where there are statistics alone."""
    shape: tuple[int, ...]
    """Of both tensors at these steps."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Divergences:
    """The whole table, a row for each pair in execution order, a column for each link of two steps.

    A row that fired outside of the loop has its values in the first column. Values are set while a comparison runs.
    """

    pairing: Pairing
    links: StepLinks
    stepped: NDArray[np.bool_]
    """Shape (pair,): whether it fired in the loop."""
    rounding: NDArray[np.float64]
    """Shape (pair, link): the relative distance that the coarsest dtype on the way to both tensors explains."""
    when: NDArray[np.float64]
    """Shape (pair, link): when A's tensor was made, ascending over the whole run; NaN where that is not known."""
    half: NDArray[np.bool_]
    """Shape (pair, link): whether one of the runs alone has seen it at this step."""
    evidence: NDArray[np.uint8]
    """Shape (pair, link), as all below: an `Evidence`."""
    relative_l2: NDArray[np.float64]
    cosine: NDArray[np.float64]
    max_abs: NDArray[np.float64]
    where: NDArray[np.int64]
    over: NDArray[np.float64]
    histogram: NDArray[np.float64]
    errors: Mapping[tuple[int, int], str]
    """What could not be read, by row and column."""
    shapes: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)
    """Shape of the tensors, by row and column, where it is not the first of their site."""

    @classmethod
    def empty(cls, pairing: Pairing, links: StepLinks) -> Divergences:
        """A table without values."""
        shape = len(pairing.pairs), max(len(links.pairs), 1)
        own = [Tolerance.of(pair.a.torch_dtype, pair.b.torch_dtype).relative for pair in pairing.pairs]
        return cls(
            pairing=pairing,
            links=links,
            stepped=np.array([pair.a.stepped for pair in pairing.pairs], bool),
            rounding=np.repeat(np.array(own, np.float64)[:, None], shape[1], axis=1),
            when=np.full(shape, np.nan),
            half=np.zeros(shape, bool),
            evidence=np.zeros(shape, np.uint8),
            relative_l2=np.full(shape, np.nan),
            cosine=np.full(shape, np.nan),
            max_abs=np.full(shape, np.nan),
            where=np.zeros(shape, np.int64),
            over=np.full(shape, np.nan),
            histogram=np.full(shape, np.nan),
            errors={},
        )

    def __len__(self) -> int:
        return len(self.pairing.pairs)

    def at(self, row: int, link: int) -> Divergence:
        """One layer at one step."""
        pair = self.pairing.pairs[row]
        link = link if pair.a.stepped else 0
        distance = Distance(
            relative_l2=float(self.relative_l2[row, link]),
            cosine=float(self.cosine[row, link]),
            max_abs=float(self.max_abs[row, link]),
            where=int(self.where[row, link]),
            over=float(self.over[row, link]),
        )
        steps = self.links.pairs[link] if pair.a.stepped and self.links.pairs else None
        evidence = Evidence(int(self.evidence[row, link]))
        histogram, shape = float(self.histogram[row, link]), self.shapes.get((row, link), pair.a.shape)
        return Divergence(row, link, pair, steps, evidence, distance, histogram, shape)

    @property
    def unreadable(self) -> NDArray[np.bool_]:
        """Which tensors cannot be read at one step or more, shape (pair,)."""
        return np.asarray((self.evidence == Evidence.UNREADABLE).any(axis=1))

    @property
    def best_evidence(self) -> NDArray[np.uint8]:
        """The best `Evidence` that there is of each tensor at any step, shape (pair,)."""
        known = np.where(self.evidence == Evidence.UNREADABLE, np.uint8(Evidence.STATISTICS), self.evidence)
        best: NDArray[np.uint8] = known.max(axis=1, initial=0)
        return best

    def limits(self, tolerance: float | None = None) -> NDArray[np.float64]:
        """The largest relative L2 distance that passes, shape (pair, link).

        Args:
            tolerance: The same for all; by default what rounding explains, see `allowed`. That depends on what has
                been compared so far.
        """
        if tolerance is not None:
            return np.full(self.relative_l2.shape, tolerance)
        loop = np.nan_to_num(self.when[self.stepped], nan=np.inf).min(initial=np.inf)
        once = np.where(self.when[:, :1] < loop, 0, len(self.links.pairs))
        steps = np.where(self.stepped[:, None], np.arange(self.when.shape[1]), once)
        return allowed(self.relative_l2, self.rounding, self.when, steps)

    def is_over(self, tolerance: float | None = None) -> NDArray[np.bool_]:
        """Where the relative L2 distance is above a tolerance, shape (pair, link).

        Args:
            tolerance: See `limits`.
        """
        return np.asarray(self.relative_l2 > self.limits(tolerance))  # NaN is not

    def first_steps(self, tolerance: float | None = None) -> NDArray[np.intp]:
        """Every row over a tolerance with the link at which it first is, shape (n, 2), causes first.

        By when the tensors were made in A, over the whole run and all components.
        """
        over = self.is_over(tolerance)
        rows = np.flatnonzero(over.any(axis=1))
        links = over[rows].argmax(axis=1)
        return np.stack([rows, links], axis=1)[np.lexsort((rows, self.when[rows, links]))]

    @property
    def in_order(self) -> NDArray[np.intp]:
        """All rows by when A's tensor was first made; last those of which that is not known."""
        return np.argsort(np.fmin.reduce(self.when, axis=1, initial=np.nan), kind="stable")

    def first_over(self, tolerance: float | None = None) -> Divergence | None:
        """The first layer and step over a tolerance in the order in which tensors came to be: the cause."""
        found = self.first_steps(tolerance)
        return self.at(*map(int, found[0])) if len(found) else None

    def worst(self) -> Divergence | None:
        """The layer and step with the largest relative distance; None where there is none."""
        known = np.nan_to_num(self.relative_l2, nan=-1.0, posinf=np.inf)
        if not known.size or known.max() < 0:
            return None
        row, link = np.unravel_index(int(known.argmax()), known.shape)
        return self.at(int(row), int(link))
