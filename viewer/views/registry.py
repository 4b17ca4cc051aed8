"""The views there are: the built-in ones in their order, then those of installed packages by name."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from diffusion_xray.tracer.plugins import find

from .attention import ATTENTION
from .hist import HIST
from .image import IMAGE
from .overview import OVERVIEW
from .protocol import View
from .stats import STATS
from .values import VALUES

__all__ = ["BUILT_IN", "VIEWS", "Registry", "load_views"]

VIEWS: Final = "diffusion_xray.views"
"""Entry points of this group name a `View`."""

BUILT_IN: Final = (OVERVIEW, STATS, HIST, IMAGE, ATTENTION, VALUES)

_ID: Final = re.compile(r"[a-z][a-z0-9_-]*")


class Registry(dict[str, View]):
    """Views by id, in the order of their tabs; `failed` names the plug-ins that do not load, with their errors."""

    def __init__(self) -> None:
        super().__init__()
        self.failed: dict[str, Exception] = {}
        self.foreign: set[str] = set()
        """Ids of those that other packages brought."""

    def add(self, view: View) -> None:
        """Take a view in, with a digit of its own as long as there is one.

        Raises:
            TypeError: It is no `View`.
            ValueError: Its id is none, or is taken.
        """
        if not isinstance(view, View):
            raise TypeError(f"{view!r} is no View")
        if not _ID.fullmatch(view.id) or view.id in self:
            raise ValueError(f"the id {view.id!r} is taken" if view.id in self else f"{view.id!r} is no id: use a-z")
        taken = {other.key for other in self.values()} | {built_in.key for built_in in BUILT_IN}
        if not view.key or (view.key in taken and view not in BUILT_IN):
            view = replace(view, key=next((digit for digit in "123456789" if digit not in taken), ""))
        self[view.id] = view


def load_views() -> Registry:
    """All views; a broken plug-in is left out and noted."""
    views = Registry()
    for view in BUILT_IN:
        views.add(view)
    for name, entry in sorted(find(VIEWS).items()):
        try:
            view = entry.load()
            views.add(view)
            views.foreign.add(view.id)
        except Exception as error:  # noqa: BLE001 — a broken plug-in must not take the others with it
            views.failed[name] = error
    return views
