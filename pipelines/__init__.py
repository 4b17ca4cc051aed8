"""Pipelines worth tracing: the embedded model, Stable Diffusion in plain PyTorch, experiments.

``from diffusion_xray.pipelines import load_pipeline`` gives the embedded one; what needs torch is imported on first
use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from diffusion_xray.tracer.extras import explained

if TYPE_CHECKING:
    from .shapes.load import load_pipeline

__all__ = ["load_pipeline"]


def __getattr__(name: str) -> Any:
    if name == "load_pipeline":
        with explained("load_pipeline"):
            return importlib.import_module(".shapes.load", __name__).load_pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
