"""Prove a trace: do the recorded queries and keys give what the attention kernels returned?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .info import ModuleInfo, SiteInfo
from .layout import HAS_STATISTICS, HAS_TENSOR, array_name
from .maps import probabilities
from .trace import Trace

__all__ = ["AttentionCheck", "check_attention"]

_TOLERANCE: Mapping[str, float] = {"float64": 1e-5, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
"""Largest error by dtype: some roundings of its last bit; of float32 (and what is recomputed in it) some hundred."""
_BLOCK_BYTES = 64 << 20
"""Probabilities in memory at a time."""


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
    """Recompute softmax(QKᵀ · scale + mask) · V of every call whose value and result are stored.

    Memory is bounded: heads and queries are taken in blocks.
    """
    for module in trace.modules.values():
        entries = [
            entry
            for group in sorted({site.array.rpartition("/")[0] for site in module.sites if site.array})
            for entry in _entries(trace.attributes(group))
        ]
        for entry in entries:
            sites = {port: _site(module, port, entry) for port in ("query", "key", "mask", "value", "attended")}
            query, key, mask, value, attended = sites.values()
            if query and key and value and attended:
                stored = (query, key, value, attended)
                steps = _captured(trace, stored, mask)
                if steps:
                    yield _check(trace, entry, stored, mask, steps)


def _entries(attributes: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The calls that a group describes, as far as they can be recomputed."""
    entries = attributes.get("attention")
    return [
        entry
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict)
        and entry.get("softmax") is True
        and isinstance(entry.get("call"), int)
        and isinstance(entry.get("scale"), int | float)
    ]


def _site(module: ModuleInfo, port: str, entry: Mapping[str, Any]) -> SiteInfo | None:
    """A stored tensor of a call; in and outside of the loop calls are numbered each for themselves."""
    stepped, call = entry.get("stepped"), entry["call"]
    place = "step" if stepped else "once"
    names = {array_name(port, call), array_name(f"{port}_{place}", call), f"{array_name(port, call)}_{place}"}
    return next(
        (
            site
            for site in module.sites
            if site.array and site.array_name in names and stepped in (None, site.stepped) and len(site.shape) == 4
        ),
        None,
    )


def _check(
    trace: Trace,
    entry: Mapping[str, Any],
    sites: tuple[SiteInfo, SiteInfo, SiteInfo, SiteInfo],
    mask: SiteInfo | None,
    steps: Mapping[int, bool],
) -> AttentionCheck:
    query, attended = sites[0], sites[-1]
    errors = {}
    for step, masked in steps.items():
        tensors = [trace.tensor(site, step) for site in sites]
        masking = trace.tensor(mask, step) if mask and masked else None
        errors[step] = _error(*tensors, mask=masking, scale=float(entry["scale"]), causal=entry.get("causal") is True)
    worst = max(steps, key=lambda step: (np.isnan(errors[step]), errors[step]))
    dtype = "float16" if trace.info.capture.get("dtype") == "float16" else attended.torch_dtype
    return AttentionCheck(
        module=query.name,
        call=int(entry["call"]),
        door=str(entry.get("door", "")),
        dtype=attended.torch_dtype,
        steps=len(steps),
        error=errors[worst],
        step=worst if query.stepped else None,
        tolerance=max(_TOLERANCE.get(name, 1e-5) for name in (dtype, attended.torch_dtype)),
    )


def _captured(trace: Trace, sites: tuple[SiteInfo, ...], mask: SiteInfo | None) -> dict[int, bool]:
    """The steps at which all of the tensors were stored (0 for what has none), and whether there was a mask."""
    captured = trace.table(sites[0].name.split(".", 1)[0], stepped=sites[0].stepped).captured
    stored = (captured[:, [site.row for site in sites]] == HAS_TENSOR).all(axis=1)
    masked = captured[:, mask.row] if mask else np.zeros(len(captured), np.uint8)
    stored &= masked != HAS_STATISTICS  # there was one, which is lost
    return {int(step): bool(masked[step]) for step in np.flatnonzero(stored)}


def _error(
    query: NDArray[Any],
    key: NDArray[Any],
    value: NDArray[Any],
    attended: NDArray[Any],
    *,
    mask: NDArray[Any] | None,
    scale: float,
    causal: bool,
) -> float:
    """The largest relative error of a call over its batch and heads, each taken whole."""
    batch, heads, queries = attended.shape[:3]
    rows = max(1, _BLOCK_BYTES // (4 * key.shape[2]))
    worst = 0.0
    for sample in range(batch):
        for head in range(heads):
            q, k, v = (_head(tensor, sample, head, heads) for tensor in (query, key, value))
            wrong = total = 0.0
            for start in range(0, queries, rows):
                block = slice(start, min(start + rows, queries))
                chances = probabilities(
                    q[block], k, scale=scale, mask=_mask(mask, sample, head, block, k.shape[0], causal=causal)
                )
                returned = attended[sample, head, block].astype(np.float64)
                wrong += float(((chances.astype(np.float64) @ v.astype(np.float64) - returned) ** 2).sum())
                total += float((returned**2).sum())
            error = np.sqrt(wrong / total) if total else np.sqrt(wrong)
            worst = error if np.isnan(error) else max(worst, float(error))
            if np.isnan(worst):
                return worst
    return worst


def _head(tensor: NDArray[Any], sample: int, head: int, heads: int) -> NDArray[Any]:
    """One head of one sample, of tensors with fewer heads (grouped) or one sample for all."""
    chosen: NDArray[Any] = tensor[min(sample, tensor.shape[0] - 1), head * tensor.shape[1] // heads]
    return chosen


def _mask(
    mask: NDArray[Any] | None, sample: int, head: int, rows: slice, keys: int, *, causal: bool
) -> NDArray[Any] | None:
    """The mask of some rows of one head, with the causal one in it."""
    part = None
    if mask is not None:
        part = mask[min(sample, mask.shape[0] - 1), min(head, mask.shape[1] - 1)]
        part = part[rows] if part.shape[0] > 1 else part
    if not causal:
        return part
    seen = np.arange(keys) <= np.arange(rows.start, rows.stop)[:, None]
    if part is None or part.dtype == np.bool_:
        return seen if part is None else part & seen
    return np.where(seen, part, -np.inf)
