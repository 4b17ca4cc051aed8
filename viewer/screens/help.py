"""All keys that hold now, made from their bindings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Final

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.keys import format_key
from textual.screen import ModalScreen
from textual.widgets import Static

from ..key_by_key import KeyByKey

__all__ = ["KeyHelp", "by_topic"]

_WIDE: Final = 100
"""Columns that two lists side by side need."""
_KEYS: Final = 10
_TOPICS: Final = {
    "step": "Steps",
    "layer": "Layers",
    "fault": "Faults",
    "place": "Places",
    "tab": "Views",
    "view": "Screen",
    "look": "How to draw",
    "trace": "Traces",
    "act": "Taking it with you",
    "app": "Browser",
}


def by_topic(bindings: Iterable[Binding]) -> list[tuple[str, list[Binding]]]:
    """Keys of the main screen, parted by the first word of their ids."""
    parted: dict[str, list[Binding]] = {topic: [] for topic in _TOPICS}
    for binding in bindings:
        topic = (binding.id or "").partition(".")[0]
        if topic in parted:
            parted[topic].append(binding)
    return [(_TOPICS[topic], found) for topic, found in parted.items() if found]


class KeyHelp(ModalScreen[None]):
    """Lists of keys, which arrows and page keys scroll. Textual's own panel is scrolled by the mouse alone.

    Args:
        note: A sentence on top.
        sections: A title each, and its keys.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q", "dismiss(None)", "Leave", id="help.leave", tooltip="Leave the help"),
    ]
    AUTO_FOCUS = "VerticalScroll"
    DEFAULT_CSS = """
    KeyHelp {
        align: center middle;
        background: $background 60%;

        & > VerticalScroll {
            width: 116;
            max-width: 100%;
            height: auto;
            max-height: 100%;
            border: round $accent;
            border-title-color: $text-accent;
            border-subtitle-color: $foreground 60%;
            background: $surface;
            padding: 0 1;
            scrollbar-size-vertical: 1;
        }

        & Horizontal { height: auto; }
        & Static { height: auto; }
        & .help--keys { width: 1fr; margin-right: 2; }
    }
    """

    def __init__(self, note: str, sections: Sequence[tuple[str, Sequence[BindingType]]]) -> None:
        super().__init__()
        self._note = note
        self._sections = [
            (title, [key for key in keys if isinstance(key, Binding) and not key.system]) for title, keys in sections
        ]

    def compose(self) -> ComposeResult:
        """The note, and the sections in one column or two of about the same length."""
        lines = sum(len(keys) + 2 for _, keys in self._sections)
        columns: list[list[tuple[str, list[Binding]]]] = [[], []]
        filled = 0
        for section in self._sections:
            columns[self.app.size.width >= _WIDE and filled >= lines / 2].append(section)
            filled += len(section[1]) + 2
        with VerticalScroll() as scroll:
            scroll.border_title, scroll.border_subtitle = "Keys", "arrows scroll · ? or esc leaves · ctrl+p finds"
            yield Static(self._note, markup=False)
            with Horizontal():
                for column in filter(None, columns):
                    yield Static(self._table(column), classes="help--keys")

    def _table(self, sections: Sequence[tuple[str, Sequence[Binding]]]) -> Table:
        own = self.app.settings.keys if isinstance(self.app, KeyByKey) else {}
        table = Table.grid(padding=(0, 1))
        table.add_column(width=_KEYS)
        table.add_column()
        for title, keys in sections:
            table.add_row()
            table.add_row(Text(), Text(title, style="bold underline"))
            for binding in keys:
                moved = own.get(binding.id or "", "")
                names = " ".join(map(format_key, (moved or binding.key).split(",")))
                shown = names if moved else binding.key_display or names
                table.add_row(Text(shown, style="bold"), Text(binding.tooltip or binding.description))
        return table
