"""The keys at the bottom, as one line of text. Textual's own footer is a widget for every key, made anew each time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from textual import events
from textual.binding import Binding
from textual.screen import Screen
from textual.strip import Strip

from ..scene import Scene
from .canvas import Canvas, Part

__all__ = ["KeyLine"]

_FIRST: Final = ("layer.tree", "view.help")
"""Ids of the keys that show what a narrow terminal has no room for."""


@dataclass(frozen=True, slots=True)
class _Entry:
    keys: str
    title: str
    key: str
    """What a click presses."""

    @property
    def width(self) -> int:
        return len(self.keys) + len(self.title) + 3


class KeyLine(Canvas):
    """The keys that hold now and are worth a place; those that do not fit are left out. A click presses the key."""

    DEFAULT_CSS = """
    KeyLine {
        dock: bottom;
        height: 1;
        background: $footer-background;
        color: $footer-foreground;
    }
    """

    _entries: tuple[_Entry, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Always: of the scene nothing is shown, and the comparison has none."""
        return True

    def on_mount(self) -> None:
        """Follow what keys there are."""
        self.screen.bindings_updated_signal.subscribe(self, self._changed)
        self._changed(self.screen)

    def on_resize(self) -> None:
        """What is hidden changes with the room."""
        self._changed(self.screen)
        super().on_resize()

    def parts_of(self, scene: Scene) -> tuple[object, ...]:  # noqa: ARG002 - the keys come by a signal
        """Nothing of the scene."""
        return ()

    def paint(self, width: int, height: int) -> Sequence[Strip]:  # noqa: ARG002 - its height is fixed
        """One line."""
        parts: list[Part] = []
        for entry in self._fitting(width):
            parts += [(f" {entry.keys}", "accent"), f" {entry.title} "]
        return [self.spread(parts, [("ctrl+p", "accent"), " all "], width)]

    def on_click(self, event: events.Click) -> None:
        """Press the key that was hit."""
        at = 0
        for entry in self._fitting(self.size.width):
            at += entry.width
            if event.x < at:
                self.app.simulate_key(entry.key)
                return
        if event.x >= self.size.width - 11:
            self.app.action_command_palette()

    def _fitting(self, width: int) -> list[_Entry]:
        total = itertools.accumulate(entry.width for entry in self._entries)
        return [entry for entry, end in zip(self._entries, total, strict=True) if end <= width - 12]

    def _changed(self, screen: Screen[object]) -> None:
        found = [active.binding for active in screen.active_bindings.values() if active.enabled]
        shown = [binding for binding in found if binding.show and not binding.system]
        if screen.has_class("-narrow"):  # what is hidden there must be named first
            first = [binding for binding in found if binding.id in _FIRST]
            shown = [*sorted(first, key=lambda binding: _FIRST.index(binding.id or "")), *shown]
            shown = list(dict.fromkeys(shown))
        entries = []
        for group, grouped in itertools.groupby(shown, key=lambda binding: binding.group or binding.id or binding.key):
            bindings = list({binding.id: binding for binding in grouped}.values())  # one may have several keys
            title = group.description if isinstance(group, Binding.Group) else bindings[0].description
            keys = " ".join(self.app.get_key_display(binding) for binding in bindings)
            entries.append(_Entry(keys, title, bindings[-1].key))
        if tuple(entries) != self._entries:
            self._entries = tuple(entries)
            self.redraw()
