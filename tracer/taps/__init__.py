"""Taps: each listens to one kind of event of a run and emits what it sees."""

from __future__ import annotations

from ..recording.sites import Source
from ..recording.target import Target
from .protocol import Emit, Tap, Undo

__all__ = ["Emit", "Source", "Tap", "Target", "Undo"]
