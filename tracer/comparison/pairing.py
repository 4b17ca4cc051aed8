"""Two traces side by side: which site of one belongs to which of the other, and which step to which."""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import ComparisonError
from ..info import SiteInfo
from ..trace import StatisticsTable, Trace

__all__ = ["LINKS", "Link", "Names", "Pairing", "SitePair", "StepLinks", "link_steps", "pair_sites"]

Link = Literal["index", "timestep", "sigma"]
LINKS: Final[tuple[Link, ...]] = get_args(Link)
Names = Mapping[str, str] | Callable[[str], str | None]
"""How modules of A are called in B: paths or globs, or a function of the path; None leaves a module out."""

_NEIGHBOURS: Final = 8
_WILDCARDS: Final = {"**.": r"((?:.+\.)?)", ".**": r"((?:\..+)?)", "**": r"(.*)", "*": r"([^.]*)", "?": r"([^.])"}
_PIECES: Final = re.compile(r"(\*\*\.|\.\*\*|\*\*|\*|\?)")


@dataclass(frozen=True, slots=True)
class SitePair:
    """A place that both traces have seen."""

    a: SiteInfo
    b: SiteInfo

    @property
    def problem(self) -> str:
        """Why their tensors cannot be compared; "" where they can."""
        ours, theirs = ({site.shape, *(stored.shape for stored in site.arrays)} for site in (self.a, self.b))
        if not ours & theirs:
            return f"shapes differ: {_size(self.a.shape)} in A, {_size(self.b.shape)} in B"
        return ""


@dataclass(frozen=True, slots=True)
class Pairing:
    """All sites of two traces, those of A in the order in which their tensors come to be.

    A module thus comes after the modules inside it: of several that differ, the first is the cause.
    """

    pairs: tuple[SitePair, ...]
    only_a: tuple[SiteInfo, ...]
    only_b: tuple[SiteInfo, ...]


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
    rename = _renaming(names)
    theirs = {(site.name, site.port, site.call, site.stepped): site for site in _in_order(b)}
    pairs, only_a = [], []
    for site in _in_order(a):
        name = rename(site.name)
        partner = None if name is None else theirs.pop((name, site.port, site.call, site.stepped), None)
        if partner is None:
            only_a.append(site)
        else:
            pairs.append(SitePair(site, partner))
    return Pairing(tuple(pairs), tuple(only_a), tuple(theirs.values()))


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
        pairs, within = [(step, step) for step in range(min(len(a), len(b)))], 0.0
    else:
        ours, theirs = (getattr(trace, by) for trace in (a, b))
        within = min(_gap(ours), _gap(theirs)) / 2 if tolerance is None else tolerance
        pairs = _nearest(ours, theirs, within if np.isfinite(within) else 0.0)
    left, right = {step for step, _ in pairs}, {step for _, step in pairs}
    return StepLinks(
        by,
        tuple(pairs),
        tuple(step for step in range(len(a)) if step not in left),
        tuple(step for step in range(len(b)) if step not in right),
        within,
    )


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


def _renaming(names: Names | None) -> Callable[[str], str | None]:
    if names is None:
        return lambda name: name
    if callable(names):
        return names
    rules = [_rule(pattern, target) for pattern, target in names.items() if _PIECES.search(pattern)]

    def rename(name: str) -> str | None:
        if name in names:
            return names[name]
        return next((found for rule in rules if (found := rule(name)) is not None), name)

    return rename


def _rule(pattern: str, target: str) -> Callable[[str], str | None]:
    """A path of B for each path of A that a glob matches; each wildcard stands for the same text in both."""
    pieces, filled = _PIECES.split(pattern), _PIECES.split(target)
    if pieces[1::2] != filled[1::2]:
        raise ComparisonError(f"{pattern!r} and {target!r} have not the same wildcards in the same order")
    compiled = re.compile("".join(_WILDCARDS.get(piece, re.escape(piece)) for piece in pieces))

    def rename(name: str) -> str | None:
        match = compiled.fullmatch(name)
        if match is None:
            return None
        texts = iter(match.groups())
        return "".join(next(texts) if place % 2 else piece for place, piece in enumerate(filled))

    return rename


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
