"""Which guidance branch an entry of a batch belongs to."""

from __future__ import annotations

from diffusion_xray.tracer.batches import batch_at, batches_of
from diffusion_xray.tracer.info import SiteInfo

from .model import Snapshot

__all__ = ["batch_name"]


def batch_name(snapshot: Snapshot, site: SiteInfo, at: int, batches: int, step: int) -> str:
    """The branch of the entry `at` of `batches` at a step, or "" where none is known."""
    component = site.name.split(".", 1)[0]
    told = batches_of(snapshot.info.batches, component) if site.stepped else None
    if told is None:
        layout = snapshot.info.guidance.get(component)
        listed = layout.get("batch") if isinstance(layout, dict) else None
        branches = [str(branch) for branch in listed] if isinstance(listed, list) else []
    else:
        held = [batch_at(told, step, call) for call in {batch.call for batch in told}]
        parts = {batch.parts for batch in held if batch is not None and len(batch.parts) > 1}
        branches = list(parts.pop()) if len(parts) == 1 else []  # calls of another layout: which was it?
    return branches[at * len(branches) // batches] if branches and batches % len(branches) == 0 else ""
