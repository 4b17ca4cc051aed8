"""What could not be recorded, grouped: however much it is, the list stays complete and short."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Gaps"]

_MOST_GROUPS = 1000
"""Gaps listed by site; those of further sites are counted by their reason alone."""
_MOST_RANGES = 50
"""Runs of steps listed of one gap; where there are more, only their number is told."""


@dataclass(slots=True)
class _Group:
    count: int = 0
    steps: int = 0
    ranges: list[list[int]] | None = field(default_factory=list)
    latest: int | None = None

    def add(self, step: int | None, count: int) -> None:
        self.count += count
        if step is None or step == self.latest:
            return
        self.steps += 1
        ranges, self.latest = self.ranges, step
        if ranges and ranges[-1][1] == step - 1:
            ranges[-1][1] = step
        elif ranges is not None:
            ranges.append([step, step])
            if len(ranges) > _MOST_RANGES:
                self.ranges = None


class Gaps:
    """Collects them by site and reason."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], _Group] = {}

    def add(self, site: str, step: int | None, reason: str, count: int = 1) -> None:
        """Note that something is missing.

        Args:
            site: Where it was seen; "" where that says nothing.
            step: When; None outside of the loop. Steps ascend.
            reason: Why, in words that are the same for all of a kind.
            count: Tensors that are missing.
        """
        group = self._groups.get((site, reason))
        if group is None:
            place = ("" if len(self._groups) >= _MOST_GROUPS else site), reason
            group = self._groups.setdefault(place, _Group())
        group.add(step, count)

    def to_attributes(self) -> list[dict[str, Any]]:
        """The form in which a trace has them, see docs/format.md."""
        return [
            {"site": site, "reason": reason, "count": group.count}
            | ({"steps": group.steps if group.ranges is None else group.ranges} if group.steps else {})
            for (site, reason), group in self._groups.items()
        ]
