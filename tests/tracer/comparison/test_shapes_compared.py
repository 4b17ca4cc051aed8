"""Tensors whose shape changes from step to step are compared as one series."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffusion_xray.tracer import Trace, Tracer
from diffusion_xray.tracer.comparison.divergence import Comparison, Evidence
from diffusion_xray.tracer.comparison.report import FORMS, report


def record(path: Path, tensors: list[Tensor]) -> Trace:
    """A trace with one tensor a step."""
    with Tracer(nn.Linear(1, 1), path) as tracer:
        for step, tensor in enumerate(tensors):
            tracer.step(step)
            tracer.record("x", tensor)
    return tracer.trace


def growing(sizes: list[int], *, wrong: int = -1, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Random tensors of these sizes, of which one may have another last element."""
    tensors = [torch.randn(2, size, generator=torch.Generator().manual_seed(size), dtype=dtype) for size in sizes]
    if wrong >= 0:
        tensors[wrong][-1, -1] += 1
    return tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_each_step_is_compared_in_its_own_shape(tmp_path: Path, dtype: torch.dtype) -> None:
    """A fault in the last and largest shape is found there, at its place, and all other steps are equal."""
    a = record(tmp_path / "a.zarr", growing([3, 3, 5, 7], dtype=dtype))
    b = record(tmp_path / "b.zarr", growing([3, 3, 5, 7], wrong=3, dtype=dtype))
    comparison = Comparison(a, b)
    list(comparison.run())
    assert comparison.table.evidence.tolist() == [[Evidence.TENSOR] * 4]
    assert comparison.table.relative_l2[0, :3].tolist() == [0, 0, 0]
    worst = comparison.table.worst()
    assert worst is not None
    assert (worst.steps, worst.shape, worst.distance.where) == ((3, 3), (2, 7), 13)
    assert json.loads(report(comparison, "json"))["worst"]["where"] == [1, 6]
    ours, theirs = comparison.entry(0, 3, batch=1)
    assert ours.shape == (1, 7) and np.argmax(ours != theirs) == 6
    for form in FORMS:
        assert report(comparison, form)


def test_steps_of_different_shapes_are_not_compared(tmp_path: Path) -> None:
    """Where one run has another shape at a step, nothing is said of that step, whatever its statistics are."""
    a, b = record(tmp_path / "a.zarr", growing([3, 5, 3])), record(tmp_path / "b.zarr", growing([3, 3, 3]))
    comparison = Comparison(a, b)
    list(comparison.run())
    assert comparison.table.evidence.tolist() == [[Evidence.TENSOR, Evidence.NOTHING, Evidence.TENSOR]]
    assert np.isnan(comparison.table.relative_l2[0, 1])


def test_series_that_share_no_shape_say_so(tmp_path: Path) -> None:
    """Two series without a shape in common cannot be compared, and the pair says why."""
    a, b = record(tmp_path / "a.zarr", growing([3, 5])), record(tmp_path / "b.zarr", growing([4, 6]))
    comparison = Comparison(a, b)
    assert "shapes differ" in comparison.table.pairing.pairs[0].problem
    assert not comparison.comparable.any()
