"""Prove a trace: do the recorded queries and keys give what the attention kernels returned?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from .attention.info import AttentionInfo, site_of
from .attention.maps import attend
from .info import SiteInfo
from .layout import HAS_STATISTICS, HAS_TENSOR
from .trace import Trace

__all__ = ["AttentionCheck", "check_attention"]

_TOLERANCE: Mapping[str, float] = {"float64": 1e-5, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
"""Largest error by dtype: some roundings of its last bit; of float32 (and what is recomputed in it) some hundred."""


@dataclass(frozen=True, slots=True)
class AttentionCheck:
    """One attention call of one module, recomputed at all of its steps."""

    module: str
    call: int
    door: str
    dtype: str
    """What the kernel computed in."""
    steps: int
    """How often it was compared; 1 outside of the loop."""
    error: float
    """The largest over steps, batch and heads of ‖recomputed − returned‖₂ / ‖returned‖₂."""
    step: int | None
    """Where that was."""
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the rounding of the dtype; NaN never is."""
        return self.error <= self.tolerance


def check_attention(trace: Trace) -> Iterator[AttentionCheck]:
    """Recompute softmax(QKᵀ · scale + mask) · V of every call whose value and result are stored, in bounded memory."""
    for name, calls in trace.attention_modules.items():
        for call in calls:
            value, attended = (
                site_of(trace.modules[name], port, call.call, stepped=call.stepped) for port in ("value", "attended")
            )
            if not call.reason and value and attended and len(value.shape) == len(attended.shape) == 4:
                steps = _captured(trace, call, value, attended)
                if steps:
                    yield _check(trace, call, value, attended, steps)


def _captured(trace: Trace, call: AttentionInfo, value: SiteInfo, attended: SiteInfo) -> dict[int, bool]:
    """The steps at which all of the tensors were stored (0 for what has none), and whether there was a mask."""
    assert call.query and call.key
    table = trace.table(call.module.split(".", 1)[0], stepped=call.stepped).captured
    stored = (table[:, [site.row for site in (call.query, call.key, value, attended)]] == HAS_TENSOR).all(axis=1)
    masked = table[:, call.mask.row] if call.mask else np.zeros(len(table), np.uint8)
    stored &= masked != HAS_STATISTICS  # there was one, which is lost
    return {int(step): bool(masked[step]) for step in np.flatnonzero(stored)}


def _check(
    trace: Trace, call: AttentionInfo, value: SiteInfo, attended: SiteInfo, steps: Mapping[int, bool]
) -> AttentionCheck:
    errors = {step: _error(trace, call, value, attended, step, masked=masked) for step, masked in steps.items()}
    worst = max(steps, key=lambda step: (np.isnan(errors[step]), errors[step]))
    dtype = "float16" if trace.info.capture.get("dtype") == "float16" else attended.torch_dtype
    return AttentionCheck(
        module=call.module,
        call=call.call,
        door=call.door,
        dtype=attended.torch_dtype,
        steps=len(steps),
        error=errors[worst],
        step=worst if call.stepped else None,
        tolerance=max(_TOLERANCE.get(name, 1e-5) for name in (dtype, attended.torch_dtype)),
    )


def _error(trace: Trace, call: AttentionInfo, value: SiteInfo, attended: SiteInfo, step: int, *, masked: bool) -> float:
    """The largest relative error of a call over its batch and heads, each taken whole."""
    assert call.query and call.key
    query, key, values, returned = (trace.tensor(site, step) for site in (call.query, call.key, value, attended))
    mask = trace.tensor(call.mask, step) if call.mask and masked else None
    worst = 0.0
    for entry, wanted in enumerate(returned.astype(np.float64)):
        own = None if mask is None else mask[min(entry, len(mask) - 1)]
        scale, causal = call.scale, call.causal
        found = attend(query[entry], key[entry], values[entry], scale=scale, mask=own, causal=causal)
        wrong, whole = (np.linalg.norm(part.reshape(len(wanted), -1), axis=1) for part in (found - wanted, wanted))
        worst = float(np.maximum(worst, (wrong / np.where(whole, whole, 1)).max()))  # which NaN wins
    return worst
