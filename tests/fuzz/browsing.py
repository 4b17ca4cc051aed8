"""A damaged trace in the browser, without a terminal."""

from __future__ import annotations

import random
from pathlib import Path

from diffusion_xray.tracer.errors import DxrayError
from diffusion_xray.viewer.screenshot import take_screenshot

from .readers import SECRET

__all__ = ["browse"]

_KEYS = ("down", "right", "left", "up", "tab", "1", "2", "3", "4", "5", "n", "enter", "j", "k")


def browse(path: Path, whole: Path, random: random.Random) -> str:
    """Open it, press keys, and look at views; what is wrong with how that ended, or ""."""
    compare = whole if random.random() < 0.3 else None
    tab = random.choice(["overview", "stats", "hist", "image", "attention"])
    try:
        shown = take_screenshot(path, tab=tab, compare=compare, keys=random.choices(_KEYS, k=4))
    except DxrayError as error:
        return "" if str(error) else "an error that says nothing"
    return "the secret" if SECRET.decode() in shown else ""
