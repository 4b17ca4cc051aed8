"""The keys of the comparison. Those that the main screen has too do the same here."""

from __future__ import annotations

from typing import Final

from textual.binding import Binding

from ..bindings import hidden

__all__ = ["KEYS"]

_NEXT = Binding.Group("Divergence", compact=True)
_STEP = Binding.Group("Step", compact=True)

KEYS: Final = (
    Binding("n", "next(1)", "Next over", id="compare.next", tooltip="Next layer and step over tolerance", group=_NEXT),
    Binding("N", "next(-1)", "Last over", id="compare.previous", tooltip="The one before", group=_NEXT),
    Binding("X", "mode", "Mode", id="compare.mode", tooltip="Difference signed, absolute, relative; wipe; flicker"),
    Binding("[", "step(-1)", "Step back", id="compare.step_back", tooltip="A step back", key_display="[", group=_STEP),
    Binding("]", "step(1)", "Step on", id="compare.step_on", tooltip="A step on", key_display="]", group=_STEP),
    Binding("t", "tolerance", "Tol", id="compare.tolerance", tooltip="Next tolerance of the relative L2 distance"),
    Binding("escape", "leave", "Back", id="compare.leave", tooltip="Leave zoom or facts, or go back to the browser"),
    Binding("q", "app.quit", "Leave", id="compare.quit", tooltip="Leave dxray"),
    Binding("question_mark", "help", "Help", id="compare.help", tooltip="Show all keys", key_display="?"),
    Binding("e", "report", "Report", id="compare.report", tooltip="Write a report as Markdown, JSON and CSV"),
    hidden("{", "step(-10)", "Ten back", id="compare.step_back_ten", tooltip="Ten steps back", display="{"),
    hidden("}", "step(10)", "Ten on", id="compare.step_on_ten", tooltip="Ten steps on", display="}"),
    hidden("home", "step(-100000)", "First step", id="compare.step_first", tooltip="Go to the first step"),
    hidden("end", "step(100000)", "Last step", id="compare.step_last", tooltip="Go to the last step"),
    hidden("s", "sort", "Sort", id="compare.sort", tooltip="Sort by execution, distance, first step or name"),
    hidden(
        "equals_sign", "link", "Link", id="compare.link", tooltip="Link steps by index, timestep or sigma", display="="
    ),
    hidden("i", "facts", "Facts", id="compare.facts", tooltip="What the two runs have in common"),
    hidden("S", "swap", "Swap", id="compare.swap", tooltip="Make B the one that counts, and A the other"),
    hidden("tab", "app.focus_next", "Focus", id="compare.focus", tooltip="Layers, A, B, difference"),
    hidden("m", "zoom", "Max", id="compare.zoom", tooltip="What has the focus on the whole screen, or back"),
    hidden("left,h", "wipe(-1)", "Wipe left", id="compare.wipe_left", tooltip="Move the edge of the wipe"),
    hidden("right,l", "wipe(1)", "Wipe right", id="compare.wipe_right", tooltip="Move the edge of the wipe"),
    hidden(
        "comma", "look('previous_channel')", "Channel back", id="compare.channel_back", tooltip="Channel", display=","
    ),
    hidden(
        "full_stop", "look('next_channel')", "Channel on", id="compare.channel_on", tooltip="Next channel", display="."
    ),
    hidden(
        "less_than_sign",
        "look('previous_batch')",
        "Batch back",
        id="compare.batch_back",
        tooltip="Batch entry before",
        display="<",
    ),
    hidden(
        "greater_than_sign",
        "look('next_batch')",
        "Batch on",
        id="compare.batch_on",
        tooltip="Next batch entry",
        display=">",
    ),
    hidden("c", "look('next_colours')", "Colour map", id="compare.colours", tooltip="Next colour map of A and B"),
    hidden("d", "look('range')", "Range", id="compare.range", tooltip="Range min to max, or p1 to p99"),
)
"""At 80 columns all that are shown fit, but for the last where `escape` leads back to the browser."""
