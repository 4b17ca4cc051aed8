"""How faults are drawn. What a fault is, and which came first, is told by `diffusion_xray.tracer.faults`."""

from __future__ import annotations

from typing import Final

from diffusion_xray.tracer.faults import NARROW, Fault, find_faults, find_narrow

__all__ = ["NARROW", "OUTSIDE", "Fault", "fault_text", "find_faults", "find_narrow"]

OUTSIDE: Final = -1
"""In place of a step, for what fired outside of the denoising loop."""


def fault_text(step: int | None) -> str:
    """A layer's first fault as the tree shows it: its step or `OUTSIDE`, None where there is none."""
    return "" if step is None else "✗" if step == OUTSIDE else f"✗{step}"
