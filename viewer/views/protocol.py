"""What a view is: all that the browser knows of a tab.

A package adds one by an entry point of the group ``diffusion_xray.views`` that names a `View`. See
docs/examples/view_plugin for a whole package.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textual.binding import Binding
    from textual.widget import Widget

    from diffusion_xray.tracer.info import SiteInfo

    from ..reader import Reader
    from ..scene import Scene

__all__ = ["Missing", "Request", "View"]


@dataclass(frozen=True, slots=True)
class Missing:
    """Why a view has nothing to show."""

    why: str
    """One sentence."""
    code: str = ""
    """The line of code that would have recorded what is missing."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be read."""

    site: SiteInfo | None
    step: int
    """Step shown; it may lie outside of what is complete where the trace has no step at all."""
    steps: int
    """Number of complete steps."""
    wish: Hashable = None
    """What the view's widget asked for by `Canvas.Wished`; None until it did."""


def _always(scene: Scene) -> Missing | None:  # noqa: ARG001 - the protocol's signature
    return None


def _nothing(reader: Reader, request: Request) -> None:  # noqa: ARG001 - likewise
    return None


def _silent(scene: Scene) -> str:  # noqa: ARG001 - likewise
    return ""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One tab.

    Args:
        id: One word, unique, for ``dxray view --tab ID``; also the id of the widget.
        title: On the tab.
        about: What it shows, in one sentence for the help.
        widget: Makes the page. Import heavy things here: it is called when the tab is first shown. Each `Canvas` in the
            page, itself included, is handed every `Scene` while it is shown.
        missing: What a scene lacks for this view, or None; in its place the page would be blank. Must be quick: it is
            called with every scene.
        read: Reads what the page needs beside the statistics, in a thread; what it returns is handed to the page as
            `Scene.found`. It may raise; must not touch widgets; long work should end when `Reader.cancelled` says so.
        how: How the page draws, in a few words at the right of the tabs.
        keys: Bindings that hold while the page is shown, each with an id that starts with the view's. Their actions are
            looked up on the page; ``screen.look('next_colours')`` reaches those of the screen.
        key: The digit that chooses the tab; "" for the next one that is free.
        with_previews: Whether the pictures of the step stand beside it also where room is short.
    """

    id: str
    title: str
    about: str
    widget: Callable[[], Widget]
    missing: Callable[[Scene], Missing | None] = _always
    read: Callable[[Reader, Request], Any] = _nothing
    how: Callable[[Scene], str] = _silent
    keys: tuple[Binding, ...] = field(default=())
    key: str = ""
    with_previews: bool = False
