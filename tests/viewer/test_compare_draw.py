"""Two planes and their difference as one to draw."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from diffusion_xray.tracer.comparison.divergence import Evidence
from diffusion_xray.viewer.compare import draw

A = np.array([[1.0, 2.0, math.nan], [math.inf, 0.0, -4.0]])
B = np.array([[1.0, 4.0, math.nan], [math.inf, math.nan, 4.0]])


def test_differences() -> None:
    """Signed, absolute and relative; equal where both hold the same that is not finite, NaN where only one does."""
    assert draw.difference(A, B, "signed").tolist()[0] == [0, -2, 0]
    assert draw.difference(A, B, "absolute").tolist()[0] == [0, 2, 0]
    assert draw.difference(A, B, "relative").tolist()[0] == [0, 0.5, 0]
    row = draw.difference(A, B, "signed")[1]
    assert row[0] == 0 and math.isnan(row[1]) and row[2] == -8
    assert draw.difference(A, B, "relative")[1, 2] == 2


def test_ranges() -> None:
    """A signed difference is drawn symmetric about zero, the others from zero; outliers are left out if asked."""
    apart = np.append(np.linspace(-1, 3, 999), [1000.0, math.nan])[None]
    assert draw.difference_range(apart, "signed", clipped=False) == (-1000, 1000)
    assert draw.difference_range(apart, "absolute", clipped=False) == (0, 1000)
    assert draw.difference_range(apart, "absolute", clipped=True)[1] < 3.1
    lonely = np.append(np.zeros(999), 5.0)[None]
    assert draw.difference_range(lonely, "signed", clipped=True) == (-5, 5)
    assert all(math.isnan(end) for end in draw.difference_range(np.array([[math.nan]]), "signed", clipped=False))


def test_wipe() -> None:
    """Left of the edge is A, right of it B; at both ends there is one alone."""
    ours, theirs = np.zeros((2, 4)), np.ones((2, 4))
    assert draw.wiped(ours, theirs, 0.5).tolist() == [[0, 0, 1, 1]] * 2
    assert (draw.wiped(ours, theirs, 1.0) == 0).all() and (draw.wiped(ours, theirs, 0.0) == 1).all()


def test_bars() -> None:
    """A step is a bar on a logarithmic scale: "·" for no difference, a blank for no number, full for infinity."""
    signs, largest = draw.heights(np.array([0, math.nan, 1e-9, 1e-3, 10, math.inf]), 16)
    assert signs == "· ▁▄██"
    assert math.isnan(largest[1]) and largest[5] == math.inf
    assert draw.heights(np.zeros(0), 16)[0] == ""


@given(arrays(np.float64, st.integers(1, 60), elements=st.floats(0) | st.just(math.nan)), st.integers(1, 16))
def test_no_step_is_lost_between_bars(values: np.ndarray, columns: int) -> None:
    """Where several steps share a bar, it is the largest of them."""
    signs, largest = draw.heights(values, columns)
    assert len(signs) == len(largest) == min(columns, values.size)
    if not np.isnan(values).all():
        assert np.nanmax(largest) == np.nanmax(values)


@pytest.mark.parametrize(
    ("value", "evidence", "text"),
    [
        (0.0, Evidence.TENSOR, "0"),
        (0.25, Evidence.TENSOR, "0.25"),
        (math.inf, Evidence.TENSOR, "∞"),
        (0.25, Evidence.STATISTICS, "≥0.25"),
        (0.25, Evidence.UNREADABLE, "0.25?"),
        (math.nan, Evidence.UNREADABLE, "?"),
        (math.nan, Evidence.NOTHING, "–"),
    ],
)
def test_numbers_say_what_they_come_from(value: float, evidence: Evidence, text: str) -> None:
    """A bound from statistics is never written as a distance of tensors."""
    assert draw.relative(value, evidence) == text
