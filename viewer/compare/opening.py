"""Where the comparison opens: checked against the traces before anything is drawn."""

from __future__ import annotations

from dataclasses import dataclass

from diffusion_xray.tracer.capture import matches
from diffusion_xray.tracer.comparison.divergence import Comparison
from diffusion_xray.tracer.comparison.facts import Fact, facts
from diffusion_xray.tracer.comparison.naming import Names
from diffusion_xray.tracer.errors import DxrayError, SiteNotFoundError, TraceFormatError, near_matches
from diffusion_xray.tracer.trace import Trace

__all__ = ["ComparisonOpening", "open_comparison"]


@dataclass(frozen=True, slots=True, eq=False)
class ComparisonOpening:
    """Two traces side by side, and the first selection."""

    comparison: Comparison
    facts: tuple[Fact, ...]
    names: Names | None = None
    """What modules of A are called in B."""
    layer: str = ""
    """Name of a module of A; "" for the first that differs."""
    step: int | None = None
    """Step of A, negative from the end; None likewise."""


def open_comparison(
    a: Trace, b: Trace, *, names: Names | None = None, layer: str = "", step: int | None = None
) -> ComparisonOpening:
    """Lay two traces side by side by their statistics. May take long, and touches no widget.

    Args:
        a: The trace that counts.
        b: The other one.
        names: What modules of `a` are called in `b`, see `pair_sites`.
        layer: Path of a module, or a glob, of which the first match is taken; "" for the first that differs.
        step: Step of `a`, negative from the end.

    Raises:
        DxrayError: There is no such layer or step, or a trace cannot be read.
    """
    if layer:
        fits = matches(layer)
        found = next((name for name in a.modules if name == layer or fits(name)), None)
        if found is None:
            hint = near_matches(layer.replace("*", "").strip("."), a.modules)
            raise SiteNotFoundError(f"{layer!r} matches no layer of {a.name}.{hint}")
        layer = found
    if step is not None and not -a.n_steps <= step < a.n_steps:
        raise SiteNotFoundError(f"no step {step} in {a.name}; it has {a.n_steps}, from 0")
    try:
        return ComparisonOpening(Comparison(a, b, names or None, "index"), facts(a, b), names or None, layer, step)
    except DxrayError:
        raise
    except Exception as error:  # a damaged store raises whatever its codec likes
        raise TraceFormatError(f"{a.name} or {b.name} is damaged: {type(error).__name__}: {error}") from error
