"""Latents that one of two runs changed between two steps, or changed otherwise: the cause of what follows."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..info import LatentsChange
from ..layout import LATENTS
from ..trace import Trace
from .pairing import Pairing, StepLinks

__all__ = ["changed_latents"]

_SAME = 1e-3
"""Relative difference between two changes up to which they are taken for the same."""


def changed_latents(a: Trace, b: Trace, pairing: Pairing, links: StepLinks) -> Iterator[tuple[int, int]]:
    """Row and link of the latents that a step was given, where only one run changed them before, or each otherwise."""
    ours, theirs = ({(c.step, c.call): c for c in trace.info.latents_changed} for trace in (a, b))
    for row, pair in enumerate(pairing.pairs):
        if pair.a.name != LATENTS or pair.a.port != "latents" or not pair.a.stepped:
            continue
        for link, steps in enumerate(links.pairs):
            changes = ours.get((steps[0], pair.a.call)), theirs.get((steps[1], pair.b.call))
            if not _alike(*changes):
                yield row, link


def _alike(a: LatentsChange | None, b: LatentsChange | None) -> bool:
    if a is None or b is None:
        return a is b
    return math.isclose(a.max_abs, b.max_abs, rel_tol=_SAME) and math.isclose(a.relative, b.relative, rel_tol=_SAME)
