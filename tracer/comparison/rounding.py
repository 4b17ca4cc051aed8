"""How far two runs may be apart where they round differently: half precision, autocast, a port in another dtype.

A layer's own dtype does not say it. Under autocast a norm returns float32, computed from what a convolution rounded to
float16; and what was rounded in one step goes into the next. So the coarsest dtype on the way counts, and how far apart
the tensors were that went in. Measured on the embedded pipeline over 20 steps, float16 against float32, healthy: the
denoiser's layers stay within 0.8e-3 to 2e-3, while the latents, which lose their noise, go from 0.5e-3 to 1e-2, and
layers of the decoder are up to seven times as far apart as the latents they were given. A layer whose weights are off
by 1 % is at 1e-2 at step 0.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..layout import LATENTS, PROMPTS, RECORDS
from ..moments import Moments
from ..statistics_table import StatisticsTable
from .distance import Tolerance

__all__ = ["allowed", "coarsest_on_the_way"]

_GAIN: Final = 4
"""How many times further apart a healthy layer's outputs may be than anything that went before it."""
_DERIVED: Final = frozenset({LATENTS, PROMPTS, RECORDS})
"""What came out of modules of other components."""
_EACH_STEP: Final = 8
"""How many times the tolerance each step may add at most."""
_FINE: Final = Tolerance.of("float32").relative


def coarsest_on_the_way(moments: Moments) -> list[NDArray[np.float64]]:
    """The relative tolerance of the coarsest dtype that a tensor has come through, its own included.

    Everything made before it counts, in all components: what a denoiser made of a text encoder's output in float16 has
    come through float16. Only components that run before the loop do not look at one another, as two text encoders do
    not.

    Returns:
        For each table of `moments`, shape (step, site); NaN where nothing was recorded.
    """
    own = [np.array([Tolerance.of(site.torch_dtype).relative for site in table.sites]) for table in moments.tables]
    starts = [np.nanmin(when) for table, when in _known(moments) if table.stepped]
    loop = min(starts, default=-np.inf)
    found = [np.full(when.shape, np.nan) for when in moments.when]
    everything = [(when, np.broadcast_to(own[at], when.shape)) for at, when in enumerate(moments.when)]
    whole = _running_most(everything)
    for at, (when, most) in enumerate(zip(moments.when, whole, strict=True)):
        component = moments.tables[at].component
        same = [other for other, table in enumerate(moments.tables) if table.component == component]
        alone = _running_most([everything[other] for other in same])[same.index(at)]
        found[at] = np.where((when < loop) & (component not in _DERIVED), alone, most)
    return found


def _known(moments: Moments) -> list[tuple[StatisticsTable, NDArray[np.float64]]]:
    return [(table, when) for table, when in zip(moments.tables, moments.when, strict=True) if np.isfinite(when).any()]


def _running_most(parts: list[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> list[NDArray[np.float64]]:
    """The largest value up to each moment; NaN where the moment is. Each part has moments and values of one shape."""
    if not parts:
        return []
    when = np.concatenate([part.ravel() for part, _ in parts])
    values = np.concatenate([part.ravel() for _, part in parts])
    order = np.argsort(when, kind="stable")
    most = np.empty(len(when))
    most[order] = np.maximum.accumulate(values[order]) if len(order) else []
    most[np.isnan(when)] = np.nan
    ends = np.cumsum([part.size for part, _ in parts])[:-1]
    return [piece.reshape(part.shape) for piece, (part, _) in zip(np.split(most, ends), parts, strict=True)]


def allowed(
    distance: NDArray[np.float64],
    rounding: NDArray[np.float64],
    when: NDArray[np.float64],
    steps: NDArray[np.int64],
) -> NDArray[np.float64]:
    """The largest relative L2 distance of two tensors that rounding explains.

    The tolerance of the coarsest dtype on the way, and `_GAIN` times the largest distance before it that was itself
    allowed. At worst the errors of all steps add up, so that no more is allowed than `_EACH_STEP` times the tolerance
    for each step so far: a small fault that grows from step to step is not taken for rounding. Where nothing was
    coarser than float32, the tolerance alone.

    Args:
        distance: Of each tensor at each step, NaN where it is not known; any shape.
        rounding: Tolerance of the coarsest dtype on its way, same shape.
        when: When it was made, same shape; NaN where that is not known.
        steps: How many steps went before it, same shape.
    """
    coarse = rounding > _FINE
    if not coarse.any():
        return rounding
    order = np.argsort(when, axis=None, kind="stable")
    apart, base = np.nan_to_num(distance.ravel()[order], nan=np.inf), rounding.ravel()[order]
    most = _EACH_STEP * base * (1 + steps.ravel()[order])
    limit = base
    while True:  # what is allowed allows more of what follows; each round settles at least one more
        carried = np.maximum.accumulate(np.where(apart <= limit, apart, 0.0))
        before = np.append(0.0, carried[:-1])
        more = np.where(coarse.ravel()[order], np.minimum(base + _GAIN * before, most), base)
        if (more <= limit).all():
            break
        limit = np.maximum(more, limit)
    limits = np.empty(len(order))
    limits[order] = limit
    return limits.reshape(distance.shape)
