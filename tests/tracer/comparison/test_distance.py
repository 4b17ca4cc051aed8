"""How far two tensors are apart, against plain numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from diffusion_xray.tracer.comparison import distance
from diffusion_xray.tracer.comparison.distance import (
    EQUAL,
    Distance,
    Tolerance,
    histogram_distance,
    least_distance,
    measure,
)
from diffusion_xray.tracer.recording.statistics import summarise

from ..exact import row_of

LOOSE = Tolerance(1e-3, 1e-5)
NUMBERS = st.floats(-1e150, 1e150, allow_subnormal=False).filter(lambda value: value == 0 or abs(value) > 1e-150)
ANYTHING = st.one_of(NUMBERS, st.sampled_from([math.nan, math.inf, -math.inf]))


def plain(a: NDArray[Any], b: NDArray[Any]) -> Distance:
    """The same by the formulas, in extended precision."""
    wide = [values.astype(np.longdouble).ravel() for values in (a, b)]
    same = (wide[0] == wide[1]) | (np.isnan(wide[0]) & np.isnan(wide[1]))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0, np.abs(wide[0] - wide[1]))
    apart[np.isnan(apart)] = np.inf
    if not (apart > 0).any():
        return EQUAL
    with np.errstate(invalid="ignore"):
        limit = LOOSE.absolute + LOOSE.relative * np.abs(np.where(np.isfinite(wide[0]), wide[0], 0))
    over, where = float((apart > limit).mean()), int(apart.argmax())
    if np.isinf(apart).any():
        return Distance(math.inf, math.nan, math.inf, where, over)
    keep = np.isfinite(wide[0])
    ours, theirs, gap = wide[0][keep], wide[1][keep], apart[keep]
    norms = [float(np.sqrt((values**2).sum())) for values in (ours, theirs)]
    cosine = (
        float((ours * theirs).sum() / np.longdouble(norms[0]) / np.longdouble(norms[1])) if all(norms) else math.nan
    )
    relative = float(np.sqrt((gap**2).sum())) / norms[0] if norms[0] else math.inf
    return Distance(relative, cosine, float(apart.max()), where, over)


def assert_close(seen: Distance, expected: Distance) -> None:
    """Equal up to rounding."""
    for name in ("relative_l2", "cosine", "max_abs", "over"):
        value = getattr(expected, name)
        assert getattr(seen, name) == pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True), name
    assert seen.where == expected.where


@given(st.data(), st.integers(1, 7))
def test_distance_is_that_of_the_formulas(data: st.DataObject, part: int) -> None:
    """Any two tensors, in parts of any size, have the distance that the definitions give."""
    shape = data.draw(array_shapes(max_dims=2, max_side=5))
    a = data.draw(arrays(np.float64, shape, elements=ANYTHING))
    change = data.draw(arrays(np.bool_, shape))
    b = np.where(change, data.draw(arrays(np.float64, shape, elements=ANYTHING)), a)
    flat = a.ravel(), b.ravel()
    blocks = [(flat[0][at : at + part], flat[1][at : at + part]) for at in range(0, a.size, part)]
    assert_close(measure(blocks, LOOSE), plain(a, b))


@given(st.sampled_from([np.float16, np.float32]), st.integers(0, 2**32 - 1))
def test_blocks_within_a_part_change_nothing(dtype: type[np.floating[Any]], seed: int) -> None:
    """A tensor of several blocks is measured as one of a single block."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(2 * distance._BLOCK + 17).astype(dtype)
    b = a.copy()
    b[rng.integers(0, a.size, 5)] += 1
    assert_close(measure([(a, b)], LOOSE), plain(a, b))


def test_equal_tensors() -> None:
    """Equal tensors are at no distance whatever is in them; so are empty ones."""
    values = np.array([math.nan, math.inf, -math.inf, 0, -0.0, 3])
    assert measure([(values, values.copy())], LOOSE) == EQUAL
    assert measure([(np.zeros(0), np.zeros(0))], LOOSE) == EQUAL
    assert measure([], LOOSE) == EQUAL


def test_a_fault_in_one_of_them_is_infinitely_far() -> None:
    """NaN or an infinity on one side alone is an infinite distance at the first such place."""
    a = np.array([1.0, 2.0, 3.0, math.nan])
    for bad in (math.nan, math.inf, -math.inf):
        b = np.array([9.0, 2.0, bad, math.nan])
        for pair in ((a, b), (b, a)):
            found = measure([pair], LOOSE)
            assert (found.relative_l2, found.max_abs, found.where, found.over) == (math.inf, math.inf, 2, 0.5)
            assert math.isnan(found.cosine)


def test_large_integers_are_told_apart() -> None:
    """Integers that float64 cannot tell apart differ all the same, and no difference overflows."""
    top = np.iinfo(np.int64)
    a, b = np.array([2**60, top.min]), np.array([2**60 + 1, top.min])
    assert measure([(a, b)], Tolerance(0, 0)).max_abs == 1
    assert measure([(np.array([top.max]), np.array([top.min]))], Tolerance(0, 0)).max_abs == 2.0**64


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_tolerances_are_those_of_torch(dtype: str) -> None:
    """The share of elements over tolerance counts what `torch.testing.assert_close` refuses."""
    torch.manual_seed(0)
    a = torch.randn(50, dtype=getattr(torch, dtype))
    tolerance = Tolerance.of(dtype)
    noise = torch.linspace(0, 4, 50) * (tolerance.absolute + tolerance.relative * a.abs().float())
    b = (a.double() + noise.double()).to(a.dtype)
    refused = 0
    for ours, theirs in zip(a, b, strict=True):
        try:
            torch.testing.assert_close(theirs, ours)
        except AssertionError:
            refused += 1
    assert 0 < refused < 50
    wide = np.float64 if dtype == "float64" else np.float32
    blocks = [(a.to(torch.float64).numpy().astype(wide), b.to(torch.float64).numpy().astype(wide))]
    assert measure(blocks, tolerance).over * 50 == pytest.approx(refused)


def test_the_coarser_dtype_counts() -> None:
    """Of two dtypes the coarser one sets the tolerance; integers agree only where they are equal."""
    assert Tolerance.of("float32", "bfloat16") == Tolerance.of("bfloat16", "float64") == Tolerance(1.6e-2, 1e-5)
    assert Tolerance.of("float64", "float64") == Tolerance(1e-7, 1e-7)
    assert Tolerance.of("int64", "bool") == Tolerance(0, 0)


@given(st.data())
def test_statistics_never_say_too_much(data: st.DataObject) -> None:
    """What statistics say the distance is at least, it is."""
    size = data.draw(st.integers(1, 20))
    numbers = st.floats(-100, 100, width=32)
    a, b = (data.draw(arrays(np.float32, size, elements=numbers)) for _ in range(2))
    rows = [row_of(torch.from_numpy(values)) for values in (a, b)]
    least = float(least_distance(rows[0], rows[1]))
    true = measure([(a, b)], LOOSE).relative_l2
    assert least <= true * (1 + 1e-6) + 1e-6


def test_summarise_what_cannot_be_compared() -> None:
    """Other counts of NaN are infinitely far; other sizes and missing rows have no distance; equal rows have 0."""
    fine = row_of(torch.tensor([1.0, 2.0, 3.0]))
    bad = row_of(torch.tensor([1.0, 2.0, math.nan]))
    all_bad = row_of(torch.full((3,), math.nan))
    missing = np.full_like(fine, math.nan)
    assert least_distance(fine, bad) == math.inf
    assert least_distance(all_bad, all_bad) == 0
    assert least_distance(fine, fine) == 0
    assert math.isnan(least_distance(fine, row_of(torch.tensor([1.0, 2.0]))))
    assert math.isnan(least_distance(fine, missing)) and math.isnan(least_distance(missing, missing))


def test_histograms() -> None:
    """Half of the sum of the differences of shares: 0 for equal ones, 1 for those without a common bin."""
    ours, theirs = (summarise(torch.tensor(values)).histogram for values in ([1.0, 2, 3, 4], [1.0, 2, 64, 128]))
    assert histogram_distance(ours, ours) == 0
    assert histogram_distance(ours, theirs) == 0.5
    assert histogram_distance(ours, summarise(torch.tensor([-1.0])).histogram) == 1
    assert math.isnan(histogram_distance(ours, np.zeros_like(ours)))
