"""The sub-commands of ``dxray`` that need nothing but a trace; others arrive by entry point."""

from __future__ import annotations

from .protocol import Command

__all__ = ["Command"]
