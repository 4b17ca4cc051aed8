"""A trace in which every name and text tries to take over the terminal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

__all__ = ["HOSTILE", "make_hostile"]

HOSTILE = (
    "\x1b]52;c;aGVsbG8=\x07"  # OSC 52: into the clipboard
    "\x1b]0;title\x1b\\\x1b[31m\x1b[2J\x1b[6n"  # window title, colour, clear, ask for an answer
    "\x9b2J\x9d0;c1\x9c\x90q\x9c"  # the same in C1
    "\u202eright\u2066\u200b\ufeff"  # bidi override and isolate, zero width
    "[red]markup[/red][@click=app.quit]x[/]"
    "\r\n\t\x08\x7f\x00ü"
)
_KEPT = {"array", "component", "encoder", "stepped", "format_version", "suffix", "status"}
"""Attributes that must stay what they are for the trace to be read at all."""
_WORDS = {"query", "key", "image", "text", "conditional", "unconditional", "<|startoftext|>", "<|endoftext|>"}
"""Values that must, for its attention to be read; the paths of its modules too."""
_ENDING = "</w>"
"""Of the last token of a word."""


def make_hostile(source: Path, path: Path) -> Path:
    """Copy a trace, and put `HOSTILE` behind every text in it that a reader may show."""
    shutil.copytree(source, path)
    document = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
    root = document["attributes"]
    root["gaps"] = [{"site": "unet.conv_in", "step": 1, "reason": "no room"}, {"reason": "disk full"}]
    root["tap_failures"] = [{"tap": "modules", "error": "it broke"}]
    root["error"] = {"type": "ValueError", "message": "wrong", "module": "unet.conv_out", "step": 2}
    root["guidance"] = {**root["guidance"], "vae": {"batch": ["first", "second"]}}
    root["status"] = f"failed{HOSTILE}"
    nodes = document["consolidated_metadata"]["metadata"]
    document["attributes"] = _poisoned(root)
    for name, node in nodes.items():
        if name.startswith(("statistics", "prompts", "unet")):
            node["attributes"] = _poisoned(node.get("attributes", {}))
    (path / "zarr.json").write_text(json.dumps(document), encoding="utf-8")
    return path


def _poisoned(value: Any) -> Any:
    if isinstance(value, str) and value not in _WORDS and ".attn" not in value:
        return f"{value.removesuffix(_ENDING)}{HOSTILE}{_ENDING if value.endswith(_ENDING) else ''}"
    if isinstance(value, list):
        return [_poisoned(entry) for entry in value]
    if isinstance(value, dict):
        return {key: entry if key in _KEPT else _poisoned(entry) for key, entry in value.items()}
    return value
