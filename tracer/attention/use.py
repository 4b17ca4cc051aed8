"""Whether a recomputed map is the one that the run used: what was found while recording, read from the trace."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..info import printable

__all__ = ["Use", "Verdict", "doubt_of", "read_use", "said", "steps_text"]

Verdict = Literal["proven", "edited", "unknown"]
Ranges = tuple[tuple[int, int], ...]
"""First and last of steps without a gap."""


@dataclass(frozen=True, slots=True)
class Use:
    """Of one attention call."""

    by_kernel: bool = True
    """Whether softmax and product are one function, so that nothing could come between them."""
    proven: Ranges = ()
    """Steps (0 outside of the loop) whose result is that of the map, on a sample of its rows."""
    edited: Ranges = ()
    """Steps whose result is not that of the map."""
    deviation: float = math.nan
    """‖map · values − result‖ / ‖map · values‖, the largest of the edited steps."""
    reason: str = ""
    """Why it cannot be told, where it is known why."""

    def at(self, step: int) -> Verdict:
        """Whether the map of a step is the one that was used."""
        if self.by_kernel:
            return "proven"
        if _holds(self.edited, step):
            return "edited"
        return "proven" if _holds(self.proven, step) else "unknown"


def read_use(entry: Mapping[str, Any]) -> Use:
    """Read it from the description of a call, of which nothing is believed that does not fit.

    A trace of a version that did not compare says nothing: then it is not known of the one door that hands shares out.
    """
    used = entry.get("used")
    if not isinstance(used, Mapping):
        return Use(by_kernel=entry.get("door") != "get_attention_scores" and used is None)
    deviation = used.get("deviation")
    return Use(
        by_kernel=False,
        proven=_ranges(used.get("proven")),
        edited=_ranges(used.get("edited")),
        deviation=float(deviation) if isinstance(deviation, int | float) else math.nan,
        reason=printable(str(used.get("why") or "")),
    )


def doubt_of(uses: Sequence[Use], steps: Iterable[int], own: Sequence[frozenset[int] | None] | None = None) -> str:
    """What is to be said beside a map of these calls at these steps; "" where all of them were used.

    Args:
        uses: Of one call, or of those that a map is the mean of.
        steps: Those shown that have a map; 0 outside of the loop.
        own: The steps that each of them is of; None for all.
    """
    steps = list(steps)
    verdicts = [
        (use, step, use.at(step))
        for use, has in zip(uses, own or [None] * len(uses), strict=True)
        for step in steps
        if has is None or step in has
    ]
    parts = []
    edited = [(use, step) for use, step, verdict in verdicts if verdict == "edited"]
    if edited:
        largest = max((use.deviation for use, _ in edited if not math.isnan(use.deviation)), default=math.nan)
        off = "" if math.isnan(largest) else f", off by {100 * largest:.2g} %"
        where = _where(edited, len(uses), steps)
        parts.append(f"edited after the softmax{where}: the result is not these shares times the values{off}")
    unknown = [(use, step) for use, step, verdict in verdicts if verdict == "unknown"]
    if unknown:
        reasons = sorted({use.reason for use, _ in unknown if use.reason})
        why = f": {reasons[0]}" if reasons else ""
        parts.append(f"not proven to be what the run used{_where(unknown, len(uses), steps)}{why}")
    return "; ".join(parts)


def said(doubt: str) -> dict[str, str]:
    """A doubt as an attribute of an array; none where there is none."""
    return {"doubt": doubt} if doubt else {}


def steps_text(steps: Iterable[int]) -> str:
    """Numbers of steps, "0–3, 7"."""
    found: list[list[int]] = []
    for step in sorted(set(steps)):
        if found and found[-1][1] == step - 1:
            found[-1][1] = step
        else:
            found.append([step, step])
    return ", ".join(f"{first}–{last}" if last > first else str(first) for first, last in found)


def _where(found: Sequence[tuple[Use, int]], calls: int, steps: Sequence[int]) -> str:
    """In which of several layers and at which of several steps."""
    own = {id(use) for use, _ in found}
    layers = f" in {len(own)} of {calls} layers" if len(own) < calls else ""
    at = {step for _, step in found}
    if len(at) == len(set(steps)):
        return layers
    return f"{layers} at step{'s' * (len(at) > 1)} {steps_text(at)}"


def _holds(ranges: Ranges, step: int) -> bool:
    return any(first <= step <= last for first, last in ranges)


def _ranges(found: Any) -> Ranges:
    pairs = found if isinstance(found, list) else []
    return tuple(
        (pair[0], pair[1])
        for pair in pairs
        if isinstance(pair, list) and len(pair) == 2 and all(type(number) is int for number in pair)
    )
