"""Where the comparison opens: checked against the traces before anything is drawn."""

from __future__ import annotations

from diffusion_xray.tracer.capture import matches
from diffusion_xray.tracer.errors import DxrayError, SiteNotFoundError, TraceFormatError, near_matches
from diffusion_xray.tracer.pairing import Names
from diffusion_xray.tracer.trace import Trace

from .screen import CompareScreen

__all__ = ["compare_screen"]


def compare_screen(
    a: Trace, b: Trace, *, names: Names | None = None, layer: str = "", step: int | None = None
) -> CompareScreen:
    """The comparison of two traces, opened at a layer and a step.

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
    if step is not None and not -len(a) <= step < len(a):
        raise SiteNotFoundError(f"no step {step} in {a.name}; it has {len(a)}, from 0")
    try:
        return CompareScreen(a, b, names=names or None, layer=layer, step=step)
    except DxrayError:
        raise
    except Exception as error:  # a damaged store raises whatever its codec likes
        raise TraceFormatError(f"{a.name} or {b.name} is damaged: {type(error).__name__}: {error}") from error
