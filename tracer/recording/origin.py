"""What is known of a run before it starts: what is traced, by which versions, from which line of code."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..layout import FORMAT_VERSION
from ..process import describe_process
from .settings import settings_of
from .target import Target

__all__ = ["caller", "describe_origin"]

_PACKAGES = ("torch", "diffusers", "transformers", "numpy", "zarr", "diffusion-xray")


def describe_origin(target: Target, title: str, capture: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that a trace begins with.

    Args:
        target: What is traced.
        title: What the trace is called.
        capture: What is kept.
    """
    return {
        "format_version": FORMAT_VERSION,
        "status": "recording",
        "title": title,
        "pipeline": type(target.pipeline).__name__ if target.pipeline is not None else "",
        "components": target.classes(),
        "covers": target.covers(),
        "schedulers": {name: type(part).__name__ for name, part in target.schedulers.items()},
        "scheduler_settings": {name: settings_of(part) for name, part in target.schedulers.items()},
        "capture": dict(capture),
        "versions": dict(_versions()),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "process": describe_process(),
        "planned_steps": 0,
        "gaps": [],
    }


def caller() -> str:
    """File and line of what called the caller of this: the code that made the tracer."""
    frame = sys._getframe(2)
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


@functools.cache  # to read what is written of a large package takes milliseconds, and what is imported stays as it is
def _versions() -> Mapping[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
