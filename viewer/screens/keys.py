"""The keys of the main screen. Every one has an id, so that a keymap can move it, and a tooltip, which is its help."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from textual.binding import Binding

from ..bindings import hidden
from ..views.protocol import View

__all__ = ["KEYS", "LAST", "page_keys", "tab_keys"]

_STEP = Binding.Group("Step", compact=True)
_FAULT = Binding.Group("Fault", compact=True)

KEYS: Final = (
    Binding("[", "step(-1)", "Step back", id="step.back", tooltip="One step back", key_display="[", group=_STEP),
    Binding("]", "step(1)", "Step on", id="step.on", tooltip="One step on", key_display="]", group=_STEP),
    hidden("{", "step(-10)", "Ten steps back", id="step.back_ten", tooltip="Ten steps back", display="{"),
    hidden("}", "step(10)", "Ten steps on", id="step.on_ten", tooltip="Ten steps on", display="}"),
    hidden("home", "step_to(0)", "First step", id="step.first", tooltip="Go to the first step"),
    hidden("end", "step_to(-1)", "Last step", id="step.last", tooltip="Go to the last step"),
    Binding("space", "play", "Play", id="step.play", tooltip="Play the steps, or stop"),
    hidden("F", "follow", "Follow live", id="step.follow", tooltip="Stay at the newest step of a run being written"),
    Binding(
        "slash", "filter", "Filter", id="layer.filter", tooltip="Show layers that hold some words", key_display="/"
    ),
    Binding("n", "fault(1)", "Next fault", id="fault.next", tooltip="Next place that is not finite", group=_FAULT),
    Binding("N", "fault(-1)", "Fault before", id="fault.previous", tooltip="The fault before", group=_FAULT),
    hidden(
        "shift+left",
        "widen(-4)",
        "Layers narrower",
        id="layer.narrower",
        tooltip="Less room for the layers",
        display="shift+←",
    ),
    hidden(
        "shift+right",
        "widen(4)",
        "Layers wider",
        id="layer.wider",
        tooltip="More room for the layers; or drag their right edge",
        display="shift+→",
    ),
    hidden("b", "tree", "Layers", id="layer.tree", tooltip="Show or hide the layers"),
    hidden("o", "next_tensor", "Next tensor", id="layer.tensor", tooltip="Next tensor of this layer: input, call, …"),
    hidden("c", "look('next_colours')", "Colour map", id="look.colours", tooltip="Next colour map"),
    hidden("d", "look('range')", "Range", id="look.range", tooltip="Range from min to max, or from p1 to p99"),
    hidden("L", "look('log')", "Log counts", id="look.log", tooltip="Histogram counts on a logarithmic scale"),
    hidden(
        "s",
        "look('next_statistic')",
        "Statistic",
        id="look.statistic",
        tooltip="Next statistic for layers, line and steps",
    ),
    Binding("S", "sort", "Sort", id="layer.sort", tooltip="Layers as called, largest first, most changed first"),
    hidden(
        "exclamation_mark",
        "only('faults')",
        "Faults only",
        id="layer.faults",
        tooltip="Only layers with faults, or all",
        display="!",
    ),
    hidden(
        "grave_accent",
        "only('flat')",
        "Tree or list",
        id="layer.flat",
        tooltip="Layers as a tree, or as a list",
        display="`",
    ),
    hidden("asterisk", "pin", "Pin", id="layer.pin", tooltip="Pin the layer, or let go of it", display="*"),
    hidden("P", "only('pinned')", "Pinned layers", id="layer.pinned", tooltip="Only layers that are pinned, or all"),
    Binding(
        "colon",
        "goto",
        "Go to",
        id="place.goto",
        tooltip="Go to a step or layer: step 31, t=519, attn2",
        key_display=":",
    ),
    hidden(
        "minus",
        "last_place",
        "Last place",
        id="place.last",
        tooltip="Back to where the last jump was made",
        display="-",
    ),
    hidden("ctrl+o", "trail", "Places left", id="place.trail", tooltip="Choose a place that a jump has left"),
    Binding("W", "compare", "Compare", id="trace.compare", tooltip="Compare with another trace, from here"),
    hidden("I", "about", "About", id="trace.about", tooltip="Pipeline, prompts, versions, gaps: what dxray info says"),
    Binding("e", "export", "Export", id="act.export", tooltip="Write what is chosen into a file: PNG, NPY, CSV, code"),
    Binding("y", "copy", "Copy", id="act.copy", tooltip="Copy a value, a path, the command that opens here, or code"),
    Binding(
        "m,plus", "zoom", "Max", id="view.zoom", key_display="m", tooltip="The view alone on the whole screen, or back"
    ),
    hidden(
        "V",
        "preview",
        "Previews",
        id="view.preview",
        tooltip="What the step looks like beside the view, or not",
    ),
    hidden("escape", "back", "Back", id="view.back", tooltip="Leave a field, filter, zoom, or the order of the layers"),
    Binding("question_mark", "help", "Help", id="view.help", tooltip="Show all keys", key_display="?"),
    hidden("q", "app.quit", "Quit", id="app.quit", tooltip="Leave the browser"),
)
"""At 80 columns the footer holds six entries; more are cut."""

LAST: Final = frozenset({"layer.sort", "place.goto", "trace.compare", "act.export", "act.copy"})
"""Ids of those that the footer names after the keys of the view shown."""


def tab_keys(views: Iterable[View]) -> list[Binding]:
    """A key for every tab that has a digit."""
    return [
        hidden(view.key, f"tab({view.id!r})", view.title, id=f"tab.{view.id}", tooltip=view.about)
        for view in views
        if view.key
    ]


def page_keys(view: View) -> list[Binding]:
    """A view's own keys, with their actions looked up on its page."""
    return [replace(key, action=f"page({key.action!r})") for key in view.keys]
