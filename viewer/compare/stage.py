"""The part of the comparison that holds the selection and what is known, and hands both to the widgets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from textual import on

from diffusion_xray.tracer.comparison.facts import facts
from diffusion_xray.tracer.info import printable

from ..look import Look
from .canvas import PairCanvas
from .draw import LABELS
from .header import tolerance_text
from .opening import ComparisonOpening
from .reading import ReadingScreen
from .state import Comparing, order_of, summed

__all__ = ["CompareStage"]

_TELLING: Final = frozenset({"comparison", "revision", "tolerance"})
"""Fields of the state on which what is told of the whole table depends."""


class CompareStage(ReadingScreen):
    """Knows of its widgets only that they are `PairCanvas`, and the frames around them."""

    def __init__(self, opening: ComparisonOpening, *, shade: bool = False) -> None:
        super().__init__()
        comparison = opening.comparison
        self._names = opening.names
        self._untouched = not opening.layer and opening.step is None
        """Whether to go to the first difference once all is compared."""
        self._over = -1
        """Which of those over the tolerance was gone to last."""
        self._told = ""
        self.state = Comparing(
            comparison,
            opening.facts,
            order_of(comparison, "execution", None),
            look=Look(shade=shade),
            loading=True,
            total=int(comparison.comparable.any(axis=1).sum()),
        )
        pairs = comparison.table.pairing.pairs
        first = comparison.table.first_over(None)
        in_loop = next((at for at, pair in enumerate(pairs) if pair.a.stepped), 0)
        row, link = (first.row, first.link) if first else (in_loop, 0)
        if opening.layer:
            row = next((at for at, pair in enumerate(pairs) if pair.a.name == opening.layer), row)
        if opening.step is not None:
            link = self._link_of(opening.step)
        self.state = summed(replace(self.state, row=row, link=min(link, max(self.state.steps - 1, 0))))

    def go_to(self, row: int, link: int | None = None) -> None:
        """Show a row of the list, and a linked step."""
        last = max(self.state.steps - 1, 0)
        at = self.state.link if link is None else min(max(link, 0), last)
        self._untouched = False
        self.change(row=row, link=at, loading=True)
        self.ask()

    def ask(self) -> None:
        """Have what is selected read."""
        if self.state.pair is None or (self.state.pair.a.stepped and not self.state.steps):
            self.change(found=None, loading=False)
        else:
            self.read_soon(self.state.comparison, self.state.row, self.state.link, self.state.look.batch)

    def change(self, **changes: Any) -> None:
        """Show another state."""
        self.state = replace(self.state, **changes)
        if not changes.keys().isdisjoint(_TELLING):
            self.state = summed(self.state)
        self.show()

    def show(self) -> None:
        """Hand the state to the widgets, and say in their frames what they hold."""
        if not self.is_mounted:
            return
        state = self.state
        for canvas in self.query(PairCanvas):
            canvas.state = state
        layers = self.query_one("#compare-layers")
        layers.border_title = f"divergence by layer · {state.sort} order (s)"
        layers.border_subtitle = self._verdict()
        for side, trace in (("a", state.comparison.a), ("b", state.comparison.b)):
            self.query_one(f"#pane-{side}").border_title = f"{side.upper()} {_plain(trace.name)}"
        difference = self.query_one("#pane-difference")
        label = LABELS[state.mode] if state.has_tensors else "no tensor"
        difference.border_title = _plain(f"X {state.mode}: {label}")
        difference.border_subtitle = "← → move the edge" if state.mode == "wipe" and state.has_tensors else ""

    @on(ReadingScreen.Progressed)
    def _progressed(self, message: ReadingScreen.Progressed) -> None:
        if message.comparison is not self.state.comparison:
            return
        changes: dict[str, Any] = {"done": message.done, "running": message.running}
        if self.state.sort != "execution":
            changes["order"] = order_of(self.state.comparison, self.state.sort, self.state.tolerance)
        self.change(revision=self.state.revision + 1, **changes)
        first = self.state.first
        if self._untouched and not message.running and first is not None:
            self.go_to(first.row, first.link if first.steps else None)

    @on(ReadingScreen.Read)
    def _arrived(self, message: ReadingScreen.Read) -> None:
        state, found = self.state, message.found
        if message.comparison is not state.comparison or (found.row, found.link) != (state.row, state.link):
            return
        if found.error and found.error != self._told:
            self._told = found.error
            self.notify(printable(found.error), title="Not readable", severity="error", markup=False)
        news = {"revision": state.revision + 1} if message.is_news else {}
        self.change(found=found, loading=False, **news)

    @on(ReadingScreen.Compared)
    def _compared(self, message: ReadingScreen.Compared) -> None:
        comparison = message.comparison
        if comparison is None:
            self.notify(printable(message.error), title="Not comparable", severity="error", markup=False)
            return
        pair, old = self.state.pair, self.state.table.links
        step = old.pairs[self.state.link][0] if old.pairs else 0
        keys = [other.a.key for other in comparison.table.pairing.pairs]
        row = keys.index(pair.a.key) if pair is not None and pair.a.key in keys else 0
        self._over = -1
        self.change(
            comparison=comparison,
            facts=facts(comparison.a, comparison.b),
            order=order_of(comparison, self.state.sort, self.state.tolerance),
            row=row,
            found=None,
            loading=True,
            done=0,
            total=int(comparison.comparable.any(axis=1).sum()),
            running=True,
        )
        self.change(link=self._link_of(step))
        self.ask()
        self.compare_all(comparison)

    def _verdict(self) -> str:
        state = self.state
        unreadable = [f"{state.unreadable} unreadable"] if state.unreadable else []
        if state.equal and not state.running:
            total = len(state.table)
            count = f"{total}" if state.measured == total else f"{state.measured} of {total}"
            rest = [f"{state.estimated} from statistics"] if state.estimated else []
            return " · ".join([f"no difference in {count} tensors", *rest, *unreadable])
        over = f"{state.over or 'none'} of {len(state.table)} over tolerance ({tolerance_text(state.tolerance)})"
        return " · ".join([over, *unreadable])

    def _link_of(self, step: int) -> int:
        """The link of the step of A that is nearest."""
        pairs = self.state.table.links.pairs
        step = step if step >= 0 else self.state.comparison.a.n_steps + step
        return min(range(len(pairs)), key=lambda link: abs(pairs[link][0] - step), default=0)


def _plain(text: str) -> str:
    """Text for a border, where "[" would begin markup."""
    return printable(text).replace("[", "\\[")
