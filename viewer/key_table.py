"""The table of keys in docs/viewer.md, made from the bindings: ``python -m diffusion_xray.viewer.key_table``."""

from __future__ import annotations

from collections.abc import Iterable

from textual.binding import Binding, BindingType
from textual.keys import format_key

from .screens.keys import KEYS, tab_keys
from .views.registry import BUILT_IN
from .widgets.layer_tree import LayerTree

__all__ = ["key_table"]


def key_table() -> str:
    """Markdown: a heading and a table for the screen, the layers, and each view that has keys of its own."""
    parts = [_table("Everywhere", [*KEYS, *tab_keys(BUILT_IN)]), _table("In the layers", LayerTree.BINDINGS)]
    for view in BUILT_IN:
        page = view.widget()
        own = [*getattr(page, "BINDINGS", []), *getattr(page, "INNER_BINDINGS", [])]
        if view.keys or own:
            note = "arrows and letters once it is focused, by tab or a click" if own else ""
            parts.append(_table(f"In {view.title}", [*view.keys, *own], note))
    return "\n\n".join(parts)


def _table(title: str, bindings: Iterable[BindingType], note: str = "") -> str:
    rows = [
        f"| {_keys(binding)} | `{binding.id}` | {(binding.tooltip or binding.description).replace('|', '∣')} |"
        for binding in bindings
        if isinstance(binding, Binding)
    ]
    head = f"**{title}**" + (f" ({note})" if note else "")
    return "\n".join([head, "", "| Key | Id | What it does |", "|---|---|---|", *rows])


def _keys(binding: Binding) -> str:
    keys = [format_key(key.strip()) for key in binding.key.split(",")]
    signs = {"grave_accent": "`` ` ``"}
    return " ".join(signs.get(key, f"`{sign}`") for key, sign in zip(binding.key.split(","), keys, strict=True))


if __name__ == "__main__":
    print(key_table())
