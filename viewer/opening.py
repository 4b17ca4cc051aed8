"""Where the browser opens: checked against the trace before anything is drawn."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from diffusion_xray.tracer.capture import matches
from diffusion_xray.tracer.errors import SiteNotFoundError, near_matches
from diffusion_xray.tracer.info import SiteInfo

from .model import Layer, Snapshot
from .views.registry import load_views

__all__ = ["Opening", "find_opening"]


@dataclass(frozen=True, slots=True)
class Opening:
    """The first selection."""

    layer: str
    """Name of a layer, or "" where the trace has none."""
    site: SiteInfo | None
    step: int
    tab: str = "overview"
    """Id of the view."""
    wish: Hashable = None
    """What the view is to ask for, `Request.wish`."""


def find_opening(
    snapshot: Snapshot,
    *,
    layer: str = "",
    step: int | None = None,
    tab: str = "overview",
    tabs: Iterable[str] | None = None,
) -> Opening:
    """Find what was asked for; the first fault where nothing was, else the first layer of the loop at its last step.

    Args:
        snapshot: The trace.
        layer: Path of a module, a tensor of it as `dxray ls` prints it ("unet.mid_block:input"), or a glob, of which
            the first match is taken.
        step: Index of a step, negative from the end.
        tab: Id of a view.
        tabs: Ids of all views; those installed when it is None.

    Raises:
        SiteNotFoundError: There is no such layer, step or view.
    """
    known = list(load_views() if tabs is None else tabs)
    if tab not in known:
        raise SiteNotFoundError(f"no view {tab!r}; choose from {', '.join(known)}")
    site = _find_site(snapshot, layer)
    fault = snapshot.faults[0] if snapshot.faults and not layer else None
    if fault is not None:
        site = fault.site
    at = max(snapshot.steps - 1, 0)
    if step is not None:
        at = step if step >= 0 else snapshot.steps + step
        if not 0 <= at < snapshot.steps:
            raise SiteNotFoundError(f"no step {step} in {snapshot.title}; it has {snapshot.steps}, from 0")
    elif fault is not None and fault.step is not None:
        at = fault.step
    return Opening(site.name if site else "", site, at, tab)


def _find_site(snapshot: Snapshot, wanted: str) -> SiteInfo | None:
    """The tensor that is named, else the first one of the layer."""
    owner = snapshot.layers.get(wanted.rpartition(":")[0])
    for site in owner.module.sites if owner and owner.module else ():
        if site.key == wanted:
            return site
    chosen = _find_layer(snapshot, wanted) if wanted else _first_layer(snapshot)
    return chosen.module.site if chosen and chosen.module else None


def _first_layer(snapshot: Snapshot) -> Layer | None:
    fired = [layer for layer in snapshot.layers.values() if layer.module is not None]
    in_loop = (layer for layer in fired if layer.module and layer.module.site.stepped)
    return next(in_loop, next(iter(fired), None))


def _find_layer(snapshot: Snapshot, wanted: str) -> Layer:
    named = snapshot.layers.get(wanted)
    if named is not None and named.module is not None:
        return named
    fits = matches(wanted)
    for name, layer in snapshot.layers.items():
        if layer.module is not None and fits(name):
            return layer
    inner = next((layer for layer in named.walk() if layer.module), None) if named else None
    if inner is None:
        plain = wanted.replace("*", "").strip(".")
        raise SiteNotFoundError(
            f"{wanted!r} matches no layer of {snapshot.title}.{near_matches(plain, snapshot.layers)}"
        )
    return inner
