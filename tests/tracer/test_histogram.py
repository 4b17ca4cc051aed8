"""What the float-bit histogram tells without the tensor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_xray.tracer.histogram import DTYPE_LIMITS, Histogram
from diffusion_xray.tracer.recording.statistics import summarise


def histogram(values: object) -> Histogram:
    """The histogram of some numbers."""
    return Histogram(summarise(torch.as_tensor(values, dtype=torch.float32)).histogram)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=80), st.integers(0, 100))
@settings(max_examples=150)
def test_percentiles_are_right_to_an_eighth_of_a_binade(values: list[float], q: int) -> None:
    """A percentile lies within one bin of the value that has that rank."""
    exact = sorted(values)[round(q / 100 * (len(values) - 1) - 1e-9)]
    lower = sorted(values)[int(q / 100 * (len(values) - 1))]
    found = histogram(values).percentile(q)
    bounds = [value * factor for value in (exact, lower) for factor in (7 / 8, 9 / 8)]
    assert min(bounds) - 1e-38 <= found <= max(bounds) + 1e-38


def test_histograms_add() -> None:
    """The histogram of two tensors together is the sum of theirs."""
    a, b = torch.randn(100), torch.randn(50) * 9
    total = histogram(a).counts + histogram(b).counts
    assert np.array_equal(total, histogram(torch.cat([a, b])).counts)


@pytest.mark.parametrize("dtype", DTYPE_LIMITS)
def test_headroom_counts_binades_to_the_limit(dtype: str) -> None:
    """A value two binades below the largest number of a dtype has two binades of headroom, to within an eighth."""
    limit = DTYPE_LIMITS[dtype][0]
    assert histogram([limit / 4, 0.0, -limit / 64]).headroom(dtype) == pytest.approx(2, abs=0.2)


def test_headroom_agrees_with_torch() -> None:
    """The limits are those of torch's own dtypes."""
    for name, (largest, smallest) in DTYPE_LIMITS.items():
        info = torch.finfo(getattr(torch, name))
        assert (info.max, info.smallest_normal) == pytest.approx((largest, smallest), rel=1e-6)


def test_shares_that_leave_the_range_of_a_dtype() -> None:
    """What would overflow and what would lose precision in half precision is counted."""
    found = histogram([1e6, -1e6, 1.0, 1e-6, 0.0, 2.0, 3.0, 4.0])
    assert found.overflow_share("float16") == 2 / 8
    assert found.underflow_share("float16") == 1 / 8
    assert found.overflow_share("bfloat16") == 0


def test_linear_histograms_keep_the_count() -> None:
    """Rebinning to equal intervals over the whole range loses nothing."""
    values = torch.randn(10_000) * 3
    seen = summarise(values)
    counts = histogram(values).linear(40, seen.min * 1.2, seen.max * 1.2)
    assert counts.sum() == pytest.approx(10_000, rel=1e-3)
    exact, _ = np.histogram(values.numpy(), bins=40, range=(seen.min * 1.2, seen.max * 1.2))
    assert np.abs(counts - exact).sum() < 0.1 * 10_000


def test_no_value_is_lost_at_the_edge_of_the_range() -> None:
    """Between the extrema every value counts, also where an extreme is the very edge of its bin."""
    for values in ([0.0, 1.0], [0.0, 1.0, 2.0, 3.0, 4.0], [-4.0, -1.0, 0.5], [1.0, 1.0 + 2**-20]):
        counts = histogram(values).linear(12, min(values), max(values), all_within=True)
        assert counts.sum() == pytest.approx(len(values))
    assert histogram([0.0, 1.0]).linear(12, 0, 1, all_within=True)[[0, -1]].tolist() == pytest.approx([1, 1])


def test_values_that_are_not_finite_are_counted() -> None:
    """NaN and infinities have bins of their own and stay out of percentiles."""
    found = histogram([float("nan"), float("inf"), float("-inf"), 5.0])
    assert found.not_finite == 3
    assert found.percentile(50) == pytest.approx(5, rel=1 / 8)


def test_an_empty_histogram_says_so() -> None:
    """Without values there are no percentiles and no bars."""
    found = histogram([])
    assert np.isnan(found.percentile(50))
    assert found.linear(4, 0, 1).tolist() == [0, 0, 0, 0]
