"""Where a run's first fault was born, told from what was recorded before it; numpy only, no I/O."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final

from .info import SiteInfo
from .layout import LATENTS, PROMPTS, RECORDS
from .moments import Moment, Moments

__all__ = ["Born", "birth"]

_GIVEN: Final = frozenset({"input", "query", "key", "mask", "value"})
"""First words of the ports at which a module is given something."""


class Born(enum.StrEnum):
    """Where a fault came into being, as far as what was recorded proves it."""

    MODULE = "module"
    """In the module: what went into it was recorded, and finite."""
    MODULE_OR_WAY = "module or way"
    """In the module, or in code on the way to it: what went in was not recorded."""
    WAY = "way"
    """In code on the way to it, outside of the modules recorded."""
    GUIDANCE = "guidance"
    """Between the denoiser, whose output was finite, and the scheduler."""
    SCHEDULER = "scheduler"
    """In the step of the scheduler, which was given finite tensors."""
    BETWEEN_STEPS = "between steps"
    """Between two steps: the latents that the one ended with were finite, those that the next began with are not."""
    PREDICTED_X0 = "predicted x0"
    """In the prediction of x0 from finite tensors; the run itself may make no use of it."""
    UNKNOWN = "unknown"
    """What it came of was not recorded, or not in which order."""


def birth(moments: Moments, first: Moment) -> Born:
    """Where the first fault of a run was born.

    Args:
        moments: When everything was made.
        first: The fault. All that was made before it must be as it should be.
    """
    component = first.site.name.split(".", 1)[0]
    if not moments.exact or component == PROMPTS:  # where an encoder is traced, its own output comes first
        return Born.UNKNOWN
    if component == RECORDS:
        return Born.WAY
    return _of_latents(moments, first) if component == LATENTS else _of_module(moments, first)


def _of_module(moments: Moments, first: Moment) -> Born:
    """Of a module's tensor."""
    site = first.site
    kind = site.port.split("_", 1)[0]
    if kind == "attended":  # recorded with what went into the same call
        return Born.MODULE if _has(moments, first, site.name, site.port.replace(kind, "value"), 0) else Born.UNKNOWN
    if not site.module_class:  # of somebody else's tap
        return Born.UNKNOWN
    if kind in _GIVEN:
        return Born.WAY
    return Born.MODULE if _has(moments, first, site.name, "input", site.call) else Born.MODULE_OR_WAY


def _of_latents(moments: Moments, first: Moment) -> Born:
    """Of what passes through the loop itself."""
    site, step, call = first.site, first.step, first.site.call
    if site.port == "latents":
        ended = bool(step) and _has(moments, first, LATENTS, "next_latents", call, steps_ago=1)
        return Born.BETWEEN_STEPS if ended else Born.WAY
    if site.port == "model_output":
        return Born.GUIDANCE if _denoiser_returned(moments, first) else Born.UNKNOWN
    given = all(_has(moments, first, LATENTS, port, call) for port in ("latents", "model_output"))
    born = {"next_latents": Born.SCHEDULER, "x0": Born.PREDICTED_X0}
    return born.get(site.port, Born.UNKNOWN) if given else Born.UNKNOWN


def _denoiser_returned(moments: Moments, first: Moment) -> bool:
    """Whether a component returned in this step what guidance may have made the model output of.

    That is of the same shape but for the batch; learned variances double the channels.
    """
    shape = first.site.shape
    for site in _sites(moments, stepped=True):
        fits = len(site.shape) == len(shape) > 1 and site.shape[2:] == shape[2:]
        is_root = "." not in site.name and site.port.startswith("output")
        if is_root and fits and site.shape[1] in (shape[1], 2 * shape[1]) and _made_before(moments, first, site):
            return True
    return False


def _has(moments: Moments, first: Moment, name: str, port: str, call: int, *, steps_ago: int = 0) -> bool:
    """Whether a port was recorded before `first`, in its step or an earlier one."""
    names = port, f"{port}_step", f"{port}_once"
    return any(
        site.name == name and site.port in names and site.call == call and _made_before(moments, first, site, steps_ago)
        for site in _sites(moments, stepped=first.site.stepped)
    )


def _made_before(moments: Moments, first: Moment, site: SiteInfo, steps_ago: int = 0) -> bool:
    step = None if first.step is None else first.step - steps_ago
    return moments.of_site(site, step) < moments.of_site(first.site, first.step)


def _sites(moments: Moments, *, stepped: bool) -> Iterator[SiteInfo]:
    for table in moments.tables:
        if table.stepped == stepped:
            yield from table.sites
