"""A screen that has two traces compared in the background. Threads read, messages bring what they found."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from textual import work
from textual.message import Message
from textual.screen import Screen
from textual.timer import Timer
from textual.worker import get_current_worker

from diffusion_xray.tracer.comparison.divergence import Comparison
from diffusion_xray.tracer.errors import DxrayError

from .reporting import write_report
from .state import Found

__all__ = ["ReadingScreen"]

_DEBOUNCE: Final = 0.04
_TELL_EVERY: Final = 0.15
"""Seconds between two messages of a comparison that goes on."""


class ReadingScreen(Screen[None]):
    """Reads a layer at a step, and compares all the others meanwhile."""

    @dataclass
    class Progressed(Message):
        """More layers have been compared."""

        comparison: Comparison
        done: int
        running: bool

        def can_replace(self, message: Message) -> bool:
            """Only the last of many counts."""
            return isinstance(message, ReadingScreen.Progressed) and message.comparison is self.comparison

    @dataclass
    class Read(Message):
        """What was asked for has been read, or a first part of it."""

        comparison: Comparison
        found: Found
        is_news: bool
        """Whether the table has become more precise by it."""

    @dataclass
    class Compared(Message):
        """Two traces were laid side by side anew; `comparison` is None where that failed."""

        comparison: Comparison | None
        error: str

    @dataclass
    class Reported(Message):
        """A report was written; `path` is None where it was not."""

        path: Path | None
        error: str = ""

    _debounce: Timer | None = None

    def on_unmount(self) -> None:
        """Let go of readers that are still busy."""
        self.workers.cancel_node(self)

    def read_soon(self, comparison: Comparison, row: int, link: int, batch: int) -> None:
        """Read a layer at a step, unless another is asked for within a moment; then post `Read`."""
        if self._debounce is not None:
            self._debounce.stop()
        self._debounce = self.set_timer(_DEBOUNCE, lambda: self._read(comparison, row, link, batch))

    @work(thread=True, exclusive=True, group="sweep")
    def compare_all(self, comparison: Comparison) -> None:
        """Compare layer by layer; posts `Progressed` a few times a second."""
        worker = get_current_worker()
        told, done = time.monotonic(), 0
        for rows in comparison.run(lambda: worker.is_cancelled):
            done += len(rows)
            if time.monotonic() - told > _TELL_EVERY:
                told = time.monotonic()
                self.post_message(self.Progressed(comparison, done, running=True))
        if not worker.is_cancelled:
            self.post_message(self.Progressed(comparison, done, running=False))

    @work(thread=True, exclusive=True, group="compare")
    def compare_anew(self, *arguments: Any) -> None:
        """Make another `Comparison` of these arguments; posts `Compared`."""
        worker = get_current_worker()
        try:
            made = self.Compared(Comparison(*arguments), "")
        except DxrayError as error:
            made = self.Compared(None, str(error))
        except Exception as error:  # noqa: BLE001 - a damaged store raises whatever its codec likes
            made = self.Compared(None, f"{type(error).__name__}: {error}")
        if not worker.is_cancelled:
            self.post_message(made)

    @work(thread=True, exclusive=True, group="report")
    def write(self, comparison: Comparison, tolerance: float | None) -> None:
        """Write a report into the working folder; posts `Reported`."""
        try:
            told = self.Reported(write_report(comparison, tolerance, Path()))
        except OSError as error:
            told = self.Reported(None, str(error))
        self.post_message(told)

    @work(thread=True, exclusive=True, group="read")
    def _read(self, comparison: Comparison, row: int, link: int, batch: int) -> None:
        worker = get_current_worker()
        if worker.is_cancelled:
            return
        found = _picture(comparison, row, link, batch)
        if worker.is_cancelled:
            return
        self.post_message(self.Read(comparison, found, is_news=False))
        before = comparison.table.at(row, link)
        divergence = comparison.look(row, link)
        error = found.error or comparison.table.errors.get((row, divergence.link), "")
        if not worker.is_cancelled:
            whole = Found(row, link, batch, found.a, found.b, divergence, found.statistics, error)
            self.post_message(self.Read(comparison, whole, is_news=divergence.evidence != before.evidence))


def _picture(comparison: Comparison, row: int, link: int, batch: int) -> Found:
    """What a picture needs: an entry of the batch of both tensors, or the statistics where they are not kept."""
    a = b = statistics = None
    error = ""
    pair = comparison.table.pairing.pairs[row]
    try:
        if comparison.comparable[row, link if pair.a.stepped else 0]:
            a, b = comparison.entry(row, link, batch)
        else:
            statistics = comparison.statistics(row, link)
    except Exception as failure:  # noqa: BLE001 - a damaged chunk raises whatever its codec likes
        error = f"{type(failure).__name__}: {failure}"
        statistics = comparison.statistics(row, link)
    return Found(row, link, batch, a, b, None, statistics, error)
