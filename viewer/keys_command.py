"""``dxray keys``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from diffusion_xray.tracer.commands.protocol import print_json, print_table

if TYPE_CHECKING:
    from textual.binding import Binding, BindingType

__all__ = ["Keys"]


class Keys:
    """List the keys of the browser.

    Each has an id, by which a Textual keymap moves it to another key.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add the form of the output."""
        parser.add_argument("--json", action="store_true", help="print JSON, for programs")

    def run(self, options: argparse.Namespace) -> int:
        """Print the table."""
        found = [
            {
                "where": where,
                "keys": _shown(binding),
                "id": binding.id or "",
                "does": binding.tooltip or binding.description,
            }
            for where, binding in _bindings()
        ]
        if options.json:
            print_json(found)
        else:
            rows = [(" ".join(row["keys"]), str(row["id"]), str(row["does"])) for row in found]
            print_table(("key", "id", "what it does"), rows, left=3)
        return 0


def _bindings() -> Iterator[tuple[str, Binding]]:
    from textual.binding import Binding

    from .screens.export import ExportMenu
    from .screens.main import MainScreen
    from .widgets.layer_tree import LayerTree

    places: tuple[tuple[str, list[BindingType]], ...] = (
        ("screen", MainScreen.BINDINGS),
        ("layers", LayerTree.BINDINGS),
        ("menu", ExportMenu.BINDINGS),
    )
    for where, bindings in places:
        yield from ((where, binding) for binding in bindings if isinstance(binding, Binding))


def _shown(binding: Binding) -> list[str]:
    """The keys as they are printed on a keyboard."""
    from textual.keys import format_key

    return [binding.key_display] if binding.key_display else [format_key(key) for key in binding.key.split(",")]
