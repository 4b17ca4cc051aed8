"""Prove a trace: do the recorded queries and keys give what the attention kernels returned?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .attention.exact import Head, scatter
from .attention.info import AttentionInfo, site_of
from .attention.maps import attend
from .attention.rounding import unit_roundoff
from .info import SiteInfo
from .layout import HAS_STATISTICS, HAS_TENSOR
from .trace import Trace

__all__ = ["AttentionCheck", "check_attention", "quick_tolerance"]

_SPREAD: Final = 64
_WORST: Final = 4
"""Rows of a head that are looked at in float64: some spread over all of them, and those that are furthest off."""
Doubles = NDArray[np.float64]

_LARGEST: Final[Mapping[str, float]] = {"float16": 65504.0}
"""Where a dtype ends, if that is within reach."""


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
    """‖recomputed − returned‖₂ / ‖returned‖₂ of the step, batch entry and head that is furthest off."""
    step: int | None
    """Where that was."""
    tolerance: float
    """What rounding explains: see `quick_tolerance`; of a call that is beyond it, what it explains of those values."""

    @property
    def passed(self) -> bool:
        """Whether the error is within the rounding of the dtype; NaN never is."""
        return self.error <= self.tolerance


def quick_tolerance(dtype: str, keys: int) -> float:
    """Error that nobody needs to look at: ‖recomputed − returned‖₂ / ‖returned‖₂ over a head.

    Two roundings of the dtype, and as rounding errors of n terms add up as √n (Higham, "Accuracy and Stability of
    Numerical Algorithms", 2nd edition, section 2.8), 8 √keys of float32, in which sums are made here and there. Large
    scores take correct kernels further: whatever is beyond is decided in float64.

    Args:
        dtype: The coarsest of what the kernel was given and returned.
        keys: How many were added up.
    """
    return 2 * unit_roundoff(dtype) + 8 * math.sqrt(keys) * unit_roundoff("float32")


def check_attention(trace: Trace) -> Iterator[AttentionCheck]:
    """Recompute softmax(QKᵀ · scale + mask) · V of every call whose value and result are stored, in bounded memory."""
    for name, calls in trace.attention_modules.items():
        for call in calls:
            value, attended = (
                site_of(trace.modules[name], port, call.call, stepped=call.stepped) for port in ("value", "attended")
            )
            if value and attended and len(value.shape) == len(attended.shape) == 4:
                forms = [form for form in trace.attentions.forms(call) if not form.reason]
                steps = {form: _captured(trace, form, value, attended) for form in forms}
                if any(steps.values()):
                    yield _check(trace, value, attended, {form: own for form, own in steps.items() if own})


def _captured(trace: Trace, call: AttentionInfo, value: SiteInfo, attended: SiteInfo) -> dict[int, bool]:
    """The steps at which all of the tensors were stored (0 for what has none), and whether there was a mask."""
    assert call.query and call.key
    table = trace.table(call.module.split(".", 1)[0], stepped=call.stepped).captured
    stored = (table[:, [site.row for site in (call.query, call.key, value, attended)]] >= HAS_TENSOR).all(axis=1)
    masked = table[:, call.mask.row] if call.mask else np.zeros(len(table), np.uint8)
    stored &= masked != HAS_STATISTICS  # there was one, which is lost
    of_form = (int(step) for step in np.flatnonzero(stored) if call.steps is None or int(step) in call.steps)
    return {step: bool(masked[step]) for step in of_form}


def _check(
    trace: Trace, value: SiteInfo, attended: SiteInfo, forms: Mapping[AttentionInfo, Mapping[int, bool]]
) -> AttentionCheck:
    """Compare a call in all its forms, each at its steps."""
    call = next(iter(forms))
    found = {
        step: _compare(_Kernel(trace, form, value, attended, step, masked, _coarsest(trace, form, value, attended)))
        for form, steps in forms.items()
        for step, masked in steps.items()
    }
    worst = max(found, key=lambda step: _badness(found[step]))
    error, tolerance = found[worst]
    return AttentionCheck(
        module=call.module,
        call=call.call,
        door=call.door,
        dtype=attended.torch_dtype,
        steps=len(found),
        error=error,
        step=worst if call.stepped else None,
        tolerance=tolerance,
    )


def _coarsest(trace: Trace, call: AttentionInfo, value: SiteInfo, attended: SiteInfo) -> str:
    """What rounded most on the way: dtypes of the tensors, of the trace, and in which float32 was multiplied."""
    assert call.query and call.key
    names = [site.torch_dtype for site in (call.query, call.key, value, attended)]
    if trace.info.capture.get("dtype") == "float16":
        names.append("float16")
    if "float32" in names and call.multiplied_in:
        names.append(call.multiplied_in)
    return max(names, key=unit_roundoff)


def _badness(compared: tuple[float, float]) -> tuple[bool, float]:
    error, tolerance = compared
    return math.isnan(error), error / tolerance


class _Kernel:
    """One call at one step: what was given and what was returned."""

    def __init__(  # noqa: PLR0917 — all of what a call is
        self,
        trace: Trace,
        call: AttentionInfo,
        value: SiteInfo,
        attended: SiteInfo,
        step: int,
        masked: bool,  # noqa: FBT001
        dtype: str,
    ) -> None:
        assert call.query and call.key
        self.call, self.dtype = call, dtype
        self.query, self.key, self.value, self.returned = (
            trace.tensor(trace.site(site.key), step) for site in (call.query, call.key, value, attended)
        )
        self.mask = trace.tensor(trace.site(call.mask.key), step) if call.mask and masked else None

    def recomputed(self, entry: int) -> NDArray[np.float32]:
        """All heads of an entry of the batch, shape (head, query, value_dim)."""
        scale, causal = self.call.scale, self.call.causal
        given = self.query[entry], self.key[entry], self.value[entry]
        return attend(*given, scale=scale, mask=self._mask(entry), causal=causal)

    def head(self, entry: int, head: int) -> Head:
        """One head, to be looked at more closely."""
        mask = self._mask(entry)
        own = None if mask is None else mask[min(head, len(mask) - 1)]
        key, value = (part[entry][head * len(part[entry]) // self.query.shape[1]] for part in (self.key, self.value))
        return Head(self.query[entry, head], key, value, self.call.scale, own, self.call.causal)

    def _mask(self, entry: int) -> NDArray[Any] | None:
        return None if self.mask is None else self.mask[min(entry, len(self.mask) - 1)]


def _compare(kernel: _Kernel) -> tuple[float, float]:
    """Error and tolerance of the head, of all entries of the batch, that is furthest off for what rounding explains."""
    quick = quick_tolerance(kernel.dtype, kernel.key.shape[2])
    worst = 0.0, quick
    for entry, wanted in enumerate(kernel.returned.astype(np.float64)):
        found = kernel.recomputed(entry)
        for head in range(len(wanted)):
            error = _relative(found[head], wanted[head])
            compared = (error, quick)
            if not error <= quick:
                compared = _closely(kernel.head(entry, head), found[head], wanted[head], kernel.dtype)
            worst = max(worst, compared, key=_badness)
    return worst


def _relative(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """‖found − wanted‖ / ‖wanted‖; NaN where either is not finite."""
    wrong, whole = np.linalg.norm(found - wanted), np.linalg.norm(wanted)
    return float(wrong / whole) if whole else float(wrong)


def _closely(head: Head, found: NDArray[Any], wanted: NDArray[Any], dtype: str) -> tuple[float, float]:
    """Error and tolerance of some rows in float64: of those spread over the head, or the few that are furthest off."""
    known = np.isfinite(wanted).all(axis=1)
    broken = np.flatnonzero(known != np.isfinite(found).all(axis=1))
    if known[broken].any() or not _overflows(head, broken, dtype):
        return math.nan, 1.0  # one is a number where the other is none
    rows = np.flatnonzero(known & np.isfinite(found).all(axis=1))
    if not len(rows):
        return 0.0, 1.0  # neither is finite anywhere
    off = np.linalg.norm(found[rows] - wanted[rows], axis=1)
    spread = rows[np.linspace(0, len(rows) - 1, min(_SPREAD, len(rows))).astype(np.intp)]
    pairs = []
    for chosen in (spread, rows[np.argsort(off)[-_WORST:]]):
        exact, errors = scatter(head, chosen, dtype)
        pairs += [_size(exact, wanted[chosen] - exact, errors), _gain(exact, wanted[chosen] - exact, errors, dtype)]
    return max(pairs, key=_badness)


def _size(exact: Doubles, error: Doubles, errors: Doubles) -> tuple[float, float]:
    """How far rows are off, and how far a correct kernel may be, relative to the rows.

    A quarter more than rounding explains of all rows together, and up to twice as much more where one row alone
    counts, two scores of which are nearly alike.
    """
    whole = float(np.linalg.norm(exact)) or 1.0
    squares = (errors**2).sum(axis=2).mean(axis=0)
    rows = float(squares.sum() ** 2 / (squares**2).sum()) if squares.any() else 1.0
    allowed = (1.25 + 1.25 / math.sqrt(rows)) * math.sqrt(squares.sum()) / whole
    return float(np.linalg.norm(error)) / whole, max(allowed, float(np.finfo(np.float32).tiny))


def _gain(exact: Doubles, error: Doubles, errors: Doubles, dtype: str) -> tuple[float, float]:
    """By how much rows are too large altogether, and how much of that a correct kernel may be.

    Rounding goes up as often as down, so that a factor is seen that is smaller than the error of any one number: four
    times what rounding explains, and one rounding that goes one way.
    """
    whole = float((exact**2).sum()) or 1.0
    explained = math.sqrt(float(((exact * errors).sum(axis=(1, 2)) ** 2).mean())) / whole
    return abs(float((exact * error).sum())) / whole, 4 * explained + unit_roundoff(dtype)


def _overflows(head: Head, rows: NDArray[np.intp], dtype: str) -> bool:
    """Whether each of the rows leaves the range of the dtype on its way, so that a correct kernel returns no number."""
    return not len(rows) or bool((head.largest_product(rows) > _LARGEST.get(dtype, math.inf)).all())
