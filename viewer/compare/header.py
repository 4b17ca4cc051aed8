"""The line at the top: which traces, and what they have in common."""

from __future__ import annotations

from collections.abc import Sequence

from textual.strip import Strip

from ..widgets.canvas import Part
from .canvas import PairCanvas
from .state import Comparing

__all__ = ["CompareHeader", "FactsView", "tolerance_text"]


class CompareHeader(PairCanvas):
    """A ↔ B, what is the same, what differs, the tolerance."""

    DEFAULT_CSS = "CompareHeader { height: 1; background: $panel; }"

    def depends_on(self, state: Comparing) -> tuple[object, ...]:
        """The traces, and what is tolerated."""
        return state.comparison, state.facts, state.tolerance

    def paint(self, width: int, height: int) -> Sequence[Strip]:  # noqa: ARG002 - its height is fixed
        """One line."""
        state = self.state
        assert state is not None
        names = [trace.name.removesuffix(".zarr") for trace in (state.comparison.a, state.comparison.b)]
        left: list[Part] = [(" dxray ", "accent")]
        left += [(" A ", "muted"), (names[0], "strong"), ("  ↔  B ", "muted"), (names[1], "strong")]
        differ = [fact.name for fact in state.facts if not fact.same]
        same = [fact.name for fact in state.facts if fact.same and "version" not in fact.name]
        left += [("   differ: ", "muted"), (" ".join(differ) or "nothing known", "accent")]
        left += [("   same: ", "muted"), (" ".join(same) or "nothing", "muted")]
        return [self.spread(left, [("tol ", "muted"), (tolerance_text(state.tolerance), "accent"), " "], width)]


class FactsView(PairCanvas):
    """All that is known of the two runs, line by line; what differs comes first."""

    def depends_on(self, state: Comparing) -> tuple[object, ...]:
        """The facts."""
        return state.comparison, state.facts

    def paint(self, width: int, height: int) -> Sequence[Strip]:  # noqa: ARG002 - a line a fact
        """A line a fact."""
        state = self.state
        assert state is not None
        room = max((width - 28) // 2, 8)
        lines = [self.line((f" {'':24} {'A':{room}} B", "muted"))]
        for fact in sorted(state.facts, key=lambda fact: fact.same):
            a, b = (_cut(text, room - 1) for text in (fact.a, fact.b))
            name: Part = (f" {'=' if fact.same else '≠'} {fact.name:22} ", "muted" if fact.same else "accent")
            lines.append(
                self.line(name, (f"{a:{room}} ", "muted" if fact.same else "plain"), b if a != b else ("same", "muted"))
            )
        links = state.table.links
        lonely = [
            f"{side} only: {', '.join(map(str, steps))}"
            for side, steps in (("A", links.only_a), ("B", links.only_b))
            if steps
        ]
        lines.append(
            self.line(
                (f" steps linked by {links.by}: {len(links.pairs)}", "muted"), ("   ".join(["", *lonely]), "accent")
            )
        )
        pairing = state.table.pairing
        counts = f"in both {len(pairing.pairs)}, in A only {len(pairing.only_a)}, in B only {len(pairing.only_b)}"
        lines.append(self.line((f" tensors {counts}", "muted")))
        return lines


def tolerance_text(tolerance: float | None) -> str:
    """A tolerance as the header has it."""
    return "by dtype" if tolerance is None else f"{tolerance:.0e}".replace("e-0", "e-")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(width - 1, 0)]}…"
