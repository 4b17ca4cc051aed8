"""The part of the main screen that says which layers are listed, and how."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from textual import on
from textual.widgets import Input

from diffusion_xray.tracer.info import SiteInfo

from ..arrangement import Arrangement
from ..order import ORDERS
from ..pins import Pins
from ..widgets.layer_tree import LayerTree
from .jumps import JumpScreen

__all__ = ["ListScreen"]


class ListScreen(JumpScreen):
    """Filters, sorts and pins layers, and takes the one that is chosen."""

    pins = Pins()
    """Where pinned layers are kept."""

    def reveal(self, site: SiteInfo | None, step: int) -> None:
        """Select a tensor, and its layer in the tree, where filters may hide it."""
        tree = self.query_one(LayerTree)
        self.select(site, step)
        if site is not None and not tree.lists(site.name):
            tree.arrangement = Arrangement()
            self._clear_filter()
        tree.choose(self._layer)

    @on(LayerTree.Highlighted)
    def _layer_highlighted(self, message: LayerTree.Highlighted) -> None:
        layer = message.layer if message.layer.module else next((c for c in message.layer.walk() if c.module), None)
        self.select(layer.module.site if layer and layer.module else None, self._step)

    @on(LayerTree.Opened)
    def _layer_opened(self) -> None:
        if self.has_class("-narrow"):
            self.remove_class("-flip")

    @on(Input.Changed, "#filter")
    def _filter_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._arrange(query=event.value.strip())

    @on(Input.Submitted, "#filter")
    def _filter_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        event.input.can_focus = False  # else tab leads into it, and the next letter replaces the words
        self.query_one(LayerTree).focus()

    def action_filter(self) -> None:
        """Ask for words of layers' names."""
        self.maximized = None
        if self.has_class("-narrow"):
            self.add_class("-flip")
        else:
            self.remove_class("-flip")
        field = self.query_one("#filter", Input)
        field.display = field.can_focus = True
        self.set_focus(field)

    def action_sort(self) -> None:
        """Another order of the layers."""
        tree = self.query_one(LayerTree)
        order = ORDERS[(ORDERS.index(tree.arrangement.order) + 1) % len(ORDERS)]
        self._arrange(order=order)
        if self.has_class("-narrow"):
            self.add_class("-flip")
        if order != "called":
            self._remember()
            tree.choose_first()

    def action_only(self, what: str) -> None:
        """Show some layers only, or all again: "faults" or "pinned"; or a list rather than a tree: "flat"."""
        self._arrange(**{what: not getattr(self.query_one(LayerTree).arrangement, what)})

    def action_pin(self) -> None:
        """Pin the layer, or let go of it."""
        tree = self.query_one(LayerTree)
        if not tree.pin():
            self.notify("This group never fires by itself: pin a layer inside.", timeout=3)
        elif error := self.pins.write(tree.pins):
            self.tell(error, title="Pins are not kept")

    def action_tree(self) -> None:
        """Show or hide the layers."""
        self.toggle_class("-flip")
        if self.query_one("#side").display:
            self.query_one(LayerTree).focus()

    def _arrange(self, **changes: Any) -> None:
        tree = self.query_one(LayerTree)
        tree.arrangement = replace(tree.arrangement, **changes)
        self.show()

    def _clear_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.value = ""
        field.display = False
        self._arrange(query="")
        tree = self.query_one(LayerTree)
        tree.choose(self._layer)
        tree.focus()
