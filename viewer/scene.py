"""What is on show: the selection, how to draw it, and what has been read for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from diffusion_xray.tracer.info import SiteInfo

from .look import Look
from .model import Snapshot
from .previews import Previews
from .views.protocol import View

__all__ = ["Scene"]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """All that a view draws from."""

    snapshot: Snapshot
    site: SiteInfo | None
    step: int
    view: View
    """The view shown."""
    views: Mapping[str, View]
    """All views, by id, in the order of their tabs."""
    look: Look = field(default_factory=Look)
    wish: Hashable = None
    """What the view asked for beside the layer and the step."""
    found: Any = None
    """What the view's `read` returned; None before it did, and when it failed."""
    error: str = ""
    """What could not be read, and why."""
    previews: Previews = field(default_factory=Previews)
    """Of the step; those of an earlier one stay until there are newer, so that nothing flickers."""
    loading: bool = False
    """Whether `found` is still that of an earlier selection, or not there yet."""
    playing: bool = False
    following: bool = False
    unseen: int = 0
    """Steps that a run wrote since the user stopped following it."""
