"""``dxray keys``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from diffusion_xray.tracer.commands.protocol import print_json, print_table

if TYPE_CHECKING:
    from textual.binding import Binding, BindingType

__all__ = ["Keys", "bindings"]


class Keys:
    """List the keys of the browser.

    Each has an id, by which the settings move it to another key: in ~/.config/dxray/config.toml, below [keys], a line
    such as "step.on" = "ctrl+right".
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
            for where, binding in bindings()
        ]
        if options.json:
            print_json(found)
        else:
            rows = [(" ".join(row["keys"]), str(row["id"]), str(row["does"])) for row in found]
            print_table(("key", "id", "what it does"), rows, left=3)
        return 0


def bindings() -> Iterator[tuple[str, Binding]]:
    """All keys, each with where it holds."""
    from textual.binding import Binding

    from .compare.keys import KEYS as COMPARE_KEYS
    from .compare.table import DivergenceTable
    from .screens.export import ExportMenu
    from .screens.help import KeyHelp
    from .screens.keys import tab_keys
    from .screens.main import MainScreen
    from .views.registry import BUILT_IN
    from .widgets.layer_tree import LayerTree

    places: list[tuple[str, Iterable[BindingType]]] = [
        ("screen", [*MainScreen.BINDINGS, *tab_keys(BUILT_IN)]),
        ("layers", LayerTree.BINDINGS),
    ]
    for view in BUILT_IN:
        page = view.widget()
        places.append((view.id, [*view.keys, *getattr(page, "BINDINGS", ()), *getattr(page, "INNER_BINDINGS", ())]))
    places += [
        ("comparison", [*COMPARE_KEYS, *DivergenceTable.BINDINGS]),
        ("menu", ExportMenu.BINDINGS),
        ("help", KeyHelp.BINDINGS),
    ]
    for where, found in places:
        yield from ((where, binding) for binding in found if isinstance(binding, Binding) and binding.id)


def _shown(binding: Binding) -> list[str]:
    """The keys as they are printed on a keyboard."""
    from textual.keys import format_key

    return [binding.key_display] if binding.key_display else [format_key(key) for key in binding.key.split(",")]
