"""All keys that hold now, made from their bindings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Final

from rich.table import Table
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.keys import format_key
from textual.widget import Widget
from textual.widgets import Static

from ..key_by_key import KeyByKey
from .sheet import Sheet

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


class KeyHelp(Sheet):
    """Lists of keys.

    Args:
        note: A sentence on top.
        sections: A title each, and its keys.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q", "dismiss(None)", "Leave", id="help.leave", tooltip="Leave the help"),
    ]
    HEADING, HOW = "Keys", "arrows scroll · ? or esc leaves · ctrl+p finds"
    DEFAULT_CSS = """
    KeyHelp {
        & Horizontal { height: auto; }
        & .help--keys { width: 1fr; margin-right: 2; }
    }
    """

    def __init__(self, note: str, sections: Sequence[tuple[str, Sequence[BindingType]]]) -> None:
        super().__init__()
        self._note = note
        self._sections = [
            (title, [key for key in keys if isinstance(key, Binding) and not key.system]) for title, keys in sections
        ]

    def body(self) -> Iterable[Widget]:
        """The note, and the sections in one column or two of about the same length."""
        lines = sum(len(keys) + 2 for _, keys in self._sections)
        columns: list[list[tuple[str, list[Binding]]]] = [[], []]
        filled = 0
        for section in self._sections:
            columns[self.app.size.width >= _WIDE and filled >= lines / 2].append(section)
            filled += len(section[1]) + 2
        yield Static(self._note, markup=False)
        yield Horizontal(*(Static(self._table(column), classes="help--keys") for column in columns if column))

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
