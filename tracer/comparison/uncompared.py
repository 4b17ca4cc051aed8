"""What a comparison could not compare, and why: where nothing else differs, it cannot say that two runs agree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ..info import SiteInfo
from .divergence import Comparison
from .pairing import Idle
from .table import Evidence

__all__ = ["Uncompared", "names_without_effect", "uncompared"]

_NAMED: Final = 3
"""Of many of a kind, so many are named."""


@dataclass(frozen=True, slots=True)
class Uncompared:
    """What of two traces no distance is known of, though one of them holds it."""

    names: tuple[Idle, ...]
    """Names that were given and brought nothing together."""
    components_a: tuple[str, ...]
    """Components of A of which not one tensor has a partner."""
    components_b: tuple[str, ...]
    steps_a: tuple[int, ...]
    """Steps of A without a partner, where they were to be linked one by one."""
    steps_b: tuple[int, ...]
    without_evidence: tuple[str, ...]
    """Tensors that have a partner, and neither values nor statistics to compare it with."""
    seen_once: tuple[str, ...]
    """Tensors that one run alone has seen at a step that both have."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Each kind in a clause; nothing where everything was compared. Not yet safe for a terminal."""
        return tuple(self._reasons())

    def _reasons(self) -> Iterator[str]:
        if self.names:
            yield names_without_effect(self.names)
        for side, components in (("A", self.components_a), ("B", self.components_b)):
            if components:
                yield f"{_listed('component', components)} of {side} {_verb(components, 'was', 'were')} not compared"
        for side, steps in (("A", self.steps_a), ("B", self.steps_b)):
            if steps:
                yield f"{_listed('step', list(map(str, steps)))} of {side} {_verb(steps, 'has', 'have')} no partner"
        if self.without_evidence:
            yield f"nothing is known of {_listed('tensor', self.without_evidence)} that could be compared"
        if self.seen_once:
            verb = _verb(self.seen_once, "was", "were")
            yield f"{_listed('tensor', self.seen_once)} {verb} seen in one run alone at some steps"


def names_without_effect(names: Sequence[Idle]) -> str:
    """That these bring no layers together, in a clause. Not yet safe for a terminal."""
    rules = [f'"{idle.rule}={idle.to}"' for idle in names]
    return f"{_listed('name', rules)} {_verb(rules, 'brings', 'bring')} no layers together: see dxray ls"


def uncompared(
    comparison: Comparison, *, only_a: Sequence[SiteInfo], only_b: Sequence[SiteInfo], names: Sequence[Idle]
) -> Uncompared:
    """Find it, once a comparison has run to its end.

    Args:
        comparison: Two traces.
        only_a: What was to be compared and only A has.
        only_b: Likewise of B.
        names: Those that brought nothing together and should have.
    """
    table = comparison.table
    pairs, links = table.pairing.pairs, table.links
    by_index = links.by == "index" and bool(table.stepped.any())
    fits = np.array([not pair.problem for pair in pairs], bool)
    empty = fits & (table.evidence == Evidence.NOTHING).all(axis=1)
    once = fits & ~empty & table.half.any(axis=1)
    return Uncompared(
        names=tuple(names),
        components_a=_missing(only_a, (pair.a for pair in pairs)),
        components_b=_missing(only_b, (pair.b for pair in pairs)),
        steps_a=links.only_a if by_index else (),
        steps_b=links.only_b if by_index else (),
        without_evidence=tuple(pairs[row].a.key for row in np.flatnonzero(empty)),
        seen_once=tuple(pairs[row].a.key for row in np.flatnonzero(once)),
    )


def _missing(alone: Iterable[SiteInfo], paired: Iterable[SiteInfo]) -> tuple[str, ...]:
    known = {site.name.split(".", 1)[0] for site in paired}
    return tuple(dict.fromkeys(name for site in alone if (name := site.name.split(".", 1)[0]) not in known))


def _listed(thing: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{thing}{'' if len(names) == 1 else 's'} {', '.join(names[:_NAMED])}{more}"


def _verb(things: Sequence[object], one: str, many: str) -> str:
    return one if len(things) == 1 else many
