"""Whether two traces agree: the layers that do not, the first and the worst of them, and what could not be compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ComparisonError, TraceFormatError
from ..info import SiteInfo
from .divergence import Comparison, Divergence, Evidence
from .facts import Fact, facts
from .pairing import Idle, SitePair
from .report import entry_of
from .uncompared import Uncompared, uncompared

__all__ = ["Parting", "Verdict"]


@dataclass(frozen=True, slots=True)
class Parting:
    """A tensor that the two runs do not agree about."""

    pair: SitePair
    tolerance: float
    first: Divergence | None
    """At the first step over the tolerance; None where the shapes differ, so that there is no distance."""
    worst: Divergence | None
    """At the step of the largest distance."""


@dataclass(frozen=True)
class Verdict:
    """What a comparison that has run to its end says.

    Args:
        comparison: Two traces.
        tolerance: Largest relative L2 distance that passes; by default what rounding explains.
        names: Names given for modules that should have brought layers together, and did not.
        insisted: Whether such a name is an error even where something diverges: it was typed, and not one of many in a
            file, which may name a part that only one of the runs has called.
    """

    comparison: Comparison
    tolerance: float | None = None
    names: tuple[Idle, ...] = ()
    insisted: bool = True

    @property
    def only_a(self) -> tuple[SiteInfo, ...]:
        """What would have been compared if B had it."""
        return self.comparison.table.pairing.only_a

    @property
    def only_b(self) -> tuple[SiteInfo, ...]:
        """What would have been compared if A had it."""
        return self.comparison.table.pairing.only_b

    @cached_property
    def partings(self) -> tuple[Parting, ...]:
        """The tensors that diverge, by when they first do: the cause leads, and what follows from it comes after."""
        return tuple(parting for _, parting in sorted(self._partings(), key=lambda it: it[0]))

    @cached_property
    def uncompared(self) -> Uncompared:
        """What no distance is known of."""
        return uncompared(self.comparison, only_a=self.only_a, only_b=self.only_b, names=self.names)

    @cached_property
    def first(self) -> Divergence | None:
        """The first layer and step in order of execution: the cause."""
        return self.comparison.table.first_over(self.tolerance)

    @property
    def evidence(self) -> NDArray[np.uint8]:
        """The best `Evidence` that there is of each tensor at any step, shape (pair,)."""
        return self.comparison.table.best_evidence

    @cached_property
    def differing_facts(self) -> tuple[Fact, ...]:
        """What is known to differ between the two runs themselves."""
        return tuple(fact for fact in facts(self.comparison.a, self.comparison.b) if not fact.same)

    def check(self) -> None:
        """Make sure that where nothing diverges everything has been compared.

        Raises:
            ComparisonError: No layer, or no step, of one trace belongs to one of the other; a name was given that
                brings nothing together; or nothing diverges, and something was not compared.
            TraceFormatError: A tensor cannot be read.
        """
        table, a, b = self.comparison.table, self.comparison.a, self.comparison.b
        if not len(table):
            raise ComparisonError(
                f"no layer of {a.name} is called the same in {b.name}; say what it is called there, "
                'with --rename "unet.**=transformer.**" or --map names.json'
            )
        if table.stepped.any() and not table.links.pairs and (a.n_steps or b.n_steps):
            raise ComparisonError(
                f"no step of {a.name} belongs to one of {b.name} by {table.links.by}; link them in another way"
            )
        if self.names and (self.insisted or not self.partings):
            raise ComparisonError(self.uncompared.reasons[0])
        if self.partings:
            return
        if table.errors:
            (row, link), error = next(iter(table.errors.items()))
            at = table.at(row, link)
            step = f" at step {at.steps[0]}" if at.steps else ""
            raise TraceFormatError(
                f"{int(table.unreadable.sum())} of {len(table)} tensors cannot be read, "
                f"the first {at.pair.a.key}{step}: {error}"
            )
        if not self.evidence.any():
            raise ComparisonError(f"nothing was recorded in both {a.name} and {b.name} that could be compared")
        if reasons := self.uncompared.reasons:
            raise ComparisonError(
                f"whether the runs agree is not known: {'; '.join(reasons)}. Choose what to compare with --glob and "
                "--link, or say what layers are called with --rename"
            )

    def document(self) -> dict[str, Any]:
        """All of it as JSON, for programs."""
        comparison, table = self.comparison, self.comparison.table
        return {
            "a": str(comparison.a.path),
            "b": str(comparison.b.path),
            "diverges": bool(self.partings),
            "tolerance": self.tolerance,
            "first": self.first and entry_of(self.first),
            "layers": [
                {
                    "site": parting.pair.a.key,
                    "site_b": parting.pair.b.key,
                    "tolerance": parting.tolerance,
                    "problem": parting.pair.problem,
                    "first": parting.first and entry_of(parting.first),
                    "worst": parting.worst and entry_of(parting.worst),
                }
                for parting in self.partings
            ],
            "compared": {
                "tensors": len(table),
                **{f"from_{kind.name.lower()}": int((self.evidence == kind).sum()) for kind in Evidence if kind < 3},
            },
            "steps": {
                "linked_by": table.links.by,
                "pairs": table.links.pairs,
                "only_a": table.links.only_a,
                "only_b": table.links.only_b,
            },
            "uncompared": dataclasses.asdict(self.uncompared),
            "only_a": [site.key for site in self.only_a],
            "only_b": [site.key for site in self.only_b],
            "differs": {fact.name: {"a": fact.a, "b": fact.b} for fact in self.differing_facts},
            "unreadable": [
                {"site": table.pairing.pairs[row].a.key, "link": link, "error": error}
                for (row, link), error in table.errors.items()
            ],
        }

    def _partings(self) -> Iterator[tuple[tuple[float, int], Parting]]:
        """Each with when it first diverges."""
        table = self.comparison.table
        limits = table.limits(self.tolerance)
        links = {int(row): int(link) for row, link in table.first_steps(self.tolerance)}
        for row, pair in enumerate(table.pairing.pairs):
            if pair.problem:  # from the first time on
                made = np.nan_to_num(table.when[row], nan=np.inf)
                yield (float(made.min()), row), Parting(pair, float(limits[row, made.argmin()]), None, None)
            elif row in links:
                link = links[row]
                worst = int(np.nan_to_num(table.relative_l2[row], nan=-1.0, posinf=np.inf).argmax())
                found = Parting(pair, float(limits[row, link]), table.at(row, link), table.at(row, worst))
                yield (float(table.when[row, link]), row), found
