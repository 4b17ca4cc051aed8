"""Which guidance branch an entry of a batch belongs to."""

from __future__ import annotations

from diffusion_xray.tracer.info import SiteInfo

from .model import Snapshot

__all__ = ["batch_name"]


def batch_name(snapshot: Snapshot, site: SiteInfo, at: int, batches: int) -> str:
    """The branch of the entry `at` of `batches`, or "" where none is known."""
    layout = snapshot.info.guidance.get(site.name.split(".", 1)[0])
    branches = layout.get("batch") if isinstance(layout, dict) else None
    if isinstance(branches, list) and branches and batches % len(branches) == 0:
        return str(branches[at * len(branches) // batches])
    return ""
