"""What views of a stored tensor share: whether there is one, and reading it."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from diffusion_xray.tracer.info import SiteInfo

from ..reader import Reader
from ..scene import Scene
from .protocol import Missing, Request

__all__ = ["capture_line", "missing_tensor", "read_tensor"]


def capture_line(site: SiteInfo) -> str:
    """The code that keeps the tensors of a layer."""
    what = f"modules={site.name!r}" + (", inputs=True" if site.port.startswith("input") else "")
    return f'Tracer(pipe, "run.zarr", capture=Capture({what}))'


def missing_tensor(scene: Scene) -> Missing | None:
    """Why there is no tensor of what a scene selects."""
    site = scene.site
    if site is None:
        return Missing("There is no layer to show.")
    if not site.array:
        kept = scene.snapshot.kept_beside(site)
        what = f"this {site.array_name}; o goes on to {', '.join(kept)}" if kept else "this layer"
        whose = "it" if kept else "its tensors"
        return Missing(f"Only statistics were kept of {what}. To keep {whose}, trace with", capture_line(site))
    if site.stepped and not scene.snapshot.steps:
        return Missing("No step is complete yet.")
    if not scene.snapshot.has_tensor(site, scene.step):
        return Missing(
            f"The tensor was not kept at step {scene.step}: Capture(every=…, steps=…) left it out, or there was no"
            " room for it. Its statistics are in the other views.",
        )
    return None


def read_tensor(reader: Reader, request: Request) -> NDArray[Any] | None:
    """The tensor asked for, in its own dtype and shape."""
    return reader.tensor(request.site, request.step)
