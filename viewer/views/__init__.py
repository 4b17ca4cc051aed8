"""Ways to look at a selection, one tab each: the built-in ones and those of installed packages."""

from .protocol import Missing, Request, View

__all__ = ["Missing", "Request", "View"]
