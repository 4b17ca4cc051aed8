"""Two traces side by side: which site of one belongs to which of the other, and which step to which."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import ComparisonError
from ..info import SiteInfo
from ..trace import StatisticsTable, Trace
from .naming import Cut, Fused, Names, Naming, Target

__all__ = ["LINKS", "Idle", "Link", "Pairing", "SitePair", "StepLinks", "link_steps", "pair_sites"]

Link = Literal["index", "timestep", "sigma"]
LINKS: Final[tuple[Link, ...]] = get_args(Link)

_NEIGHBOURS: Final = 8


@dataclass(frozen=True, slots=True)
class SitePair:
    """A place that both traces have seen.

    Of a layer that is fused in one of them, a part is a place of its own: its site has the part's shape, and a port
    that names the part.
    """

    a: SiteInfo
    b: SiteInfo
    cut_a: Cut | None = None
    """What of A's tensor it is; None for all of it."""
    cut_b: Cut | None = None
    whole_a: tuple[int, ...] = ()
    """Shape of the tensor that is cut."""
    whole_b: tuple[int, ...] = ()

    @property
    def is_cut(self) -> bool:
        """Whether it is a part, so that the statistics of the tensor tell nothing of it."""
        return self.cut_a is not None or self.cut_b is not None

    def _shapes(self, site: SiteInfo) -> set[tuple[int, ...]]:
        return {site.shape} if self.is_cut else {site.shape, *(stored.shape for stored in site.arrays)}

    @property
    def problem(self) -> str:
        """Why their tensors cannot be compared; "" where they can."""
        for side, cut, whole in (("A", self.cut_a, self.whole_a), ("B", self.cut_b, self.whole_b)):
            if cut is not None and cut.shape_of(whole) is None:
                return f"no slice {cut} of axis {cut.axis} in {_size(whole)}, in {side}"
        if not self._shapes(self.a) & self._shapes(self.b):
            return f"shapes differ: {_size(self.a.shape)} in A, {_size(self.b.shape)} in B"
        return ""


@dataclass(frozen=True, slots=True)
class Idle:
    """A rule that has brought no two tensors together."""

    rule: str
    to: str
    fired: bool
    """Whether one of the traces holds what it names: a module that runs in one of them alone, or a name misspelt."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """All sites of two traces, those of A in the order in which their tensors come to be.

    A module thus comes after the modules inside it: of several that differ, the first is the cause.
    """

    pairs: tuple[SitePair, ...]
    only_a: tuple[SiteInfo, ...]
    only_b: tuple[SiteInfo, ...]
    idle: tuple[Idle, ...] = ()
    """Of the names that were given."""

    def only(self, fits: Callable[[str], bool]) -> Pairing:
        """The same of some modules alone, by their names; what is paired goes by that in A."""
        return replace(
            self,
            pairs=tuple(pair for pair in self.pairs if fits(pair.a.name)),
            only_a=tuple(site for site in self.only_a if fits(site.name)),
            only_b=tuple(site for site in self.only_b if fits(site.name)),
        )


@dataclass(frozen=True, slots=True)
class StepLinks:
    """Which complete step of A belongs to which of B. What has no partner is listed, none is made up."""

    by: Link
    pairs: tuple[tuple[int, int], ...]
    only_a: tuple[int, ...]
    only_b: tuple[int, ...]
    tolerance: float = 0.0
    """Largest difference of two timesteps or noise levels that were taken for the same."""


def pair_sites(a: Trace, b: Trace, names: Names | None = None) -> Pairing:
    """Pair sites by module, port and call.

    Args:
        a: The trace whose order counts.
        b: The other one.
        names: What modules of A are called in B where that is something else: paths or globs ("unet.**":
            "transformer.**", wildcards standing for the same text on both sides; a path goes before globs), or a
            function of the path that returns None for what shall be left out.

    Raises:
        ComparisonError: The two globs of a rule have not the same wildcards.
    """
    naming = Naming(names)
    theirs = {(site.name, site.port, site.call, site.stepped): site for site in _in_order(b)}
    pairs: list[SitePair] = []
    only_a, taken, used = [], set(), set()
    for site in _in_order(a):
        before = len(pairs)
        for target in _targets_of(site, naming):
            key = target.name, site.port, site.call, site.stepped
            if key in theirs and (key not in taken or isinstance(naming.rules.get(target.rule), Fused)):
                taken.add(key)
                used.add(target.rule)
                pairs.append(_pair(site, theirs[key], target))
        if len(pairs) == before:
            only_a.append(site)
    idle = [rule for rule in naming.rules if rule not in used]
    return Pairing(
        tuple(pairs),
        tuple(only_a),
        tuple(site for key, site in theirs.items() if key not in taken),
        tuple(_idle(rule, naming, a, b) for rule in idle),
    )


def link_steps(a: Trace, b: Trace, by: Link = "index", tolerance: float | None = None) -> StepLinks:
    """Link the steps of two traces.

    By timestep or noise level the nearest are linked first, each to one other, equally near ones in their order; the
    second evaluations of two-stage solvers, which repeat a timestep, so find one another.

    Args:
        a: One trace.
        b: The other one.
        by: "index", "timestep" or "sigma".
        tolerance: How far apart two steps may be and still be linked; by default half of the smallest distance
            between two different steps of either run.

    Raises:
        ComparisonError: There is no such way to link.
    """
    if by not in LINKS:
        raise ComparisonError(f"steps cannot be linked by {by!r}; choose from {', '.join(LINKS)}")
    if by == "index":
        pairs, within = [(step, step) for step in range(min(a.n_steps, b.n_steps))], 0.0
    else:
        ours, theirs = (getattr(trace, by) for trace in (a, b))
        within = min(_gap(ours), _gap(theirs)) / 2 if tolerance is None else tolerance
        pairs = _nearest(ours, theirs, within if np.isfinite(within) else 0.0)
    left, right = {step for step, _ in pairs}, {step for _, step in pairs}
    return StepLinks(
        by,
        tuple(pairs),
        tuple(step for step in range(a.n_steps) if step not in left),
        tuple(step for step in range(b.n_steps) if step not in right),
        within,
    )


def _targets_of(site: SiteInfo, naming: Naming) -> tuple[Target, ...]:
    """What a tensor is in B. Layers that are fused have one input, so that only their outputs are cut."""
    targets = naming.targets(site.name)
    if site.port.startswith("output") or not targets:
        return targets
    whole = targets[0]
    return (Target(whole.name, None, None, whole.rule),)


def _pair(ours: SiteInfo, theirs: SiteInfo, target: Target) -> SitePair:
    left, right = _cut(ours, target.of_a), _cut(theirs, target.of_b)
    return SitePair(left, right, target.of_a, target.of_b, ours.shape, theirs.shape)


def _cut(site: SiteInfo, cut: Cut | None) -> SiteInfo:
    if cut is None:
        return site
    return replace(site, port=f"{site.port}{cut}", shape=cut.shape_of(site.shape) or site.shape)


def _idle(rule: str, naming: Naming, a: Trace, b: Trace) -> Idle:
    to = naming.rules[rule]
    names = (to,) if isinstance(to, str) else to.to
    matched = [name for name in a.modules if any(target.rule == rule for target in naming.targets(name))]
    return Idle(rule, ", ".join(names), bool(matched) or any(name in b.modules for name in names))


def _in_order(trace: Trace) -> Iterator[SiteInfo]:
    """Every site: before the loop, in it, after it; in each the components in call order, then as they came to be."""
    tables = [table for table in trace.tables() if table.sites]
    loop = min((_start(table) for table in tables if table.stepped), default=0)

    def when(table: StatisticsTable) -> tuple[int, int]:
        start = _start(table)
        return (1 if table.stepped else 0 if start < loop else 2), start

    for table in sorted(tables, key=when):
        yield from table.sites


def _start(table: StatisticsTable) -> int:
    return min(site.order for site in table.sites)


def _gap(values: NDArray[np.float64]) -> float:
    """Smallest distance between two different values."""
    different = np.unique(values[np.isfinite(values)])
    return float(np.diff(different).min()) if different.size > 1 else float("inf")


def _nearest(a: NDArray[np.float64], b: NDArray[np.float64], within: float) -> list[tuple[int, int]]:
    """Pairs of indices of values that are no further apart than `within`, the nearest first taken."""
    order = [int(index) for index in np.argsort(b, kind="stable") if np.isfinite(b[index])]
    ordered = [float(b[index]) for index in order]
    candidates = []
    for index, value in enumerate(a.tolist()):
        if np.isfinite(value):
            near = range(
                max(bisect.bisect_left(ordered, value) - _NEIGHBOURS, 0),
                min(bisect.bisect_right(ordered, value) + _NEIGHBOURS, len(order)),
            )
            candidates += [(abs(ordered[place] - value), index, order[place]) for place in near]
    left, right, pairs = set(), set(), []
    for distance, ours, theirs in sorted(candidates):
        if distance <= within and ours not in left and theirs not in right:
            left.add(ours)
            right.add(theirs)
            pairs.append((ours, theirs))
    return sorted(pairs)


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
