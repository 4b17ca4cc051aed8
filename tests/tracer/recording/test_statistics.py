"""Statistics against a float64 reference, for every dtype, layout and oddity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import Tensor
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._python_dispatch import TorchDispatchMode

from diffusion_xray.tracer.layout import MEASURED
from diffusion_xray.tracer.recording import statistics
from diffusion_xray.tracer.recording.statistics import Statistics, can_summarise, measure_on_device, summarise

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def reference(tensor: Tensor) -> dict[str, float]:
    """The same numbers the slow way, in float64."""
    values = tensor.detach().double().numpy().ravel()
    finite = values[np.isfinite(values)]
    some = finite.size > 0
    return {
        "min": finite.min() if some else math.nan,
        "max": finite.max() if some else math.nan,
        "mean": finite.mean() if some else math.nan,
        "std": finite.std() if some else math.nan,
        "l2_norm": np.sqrt((finite**2).sum()) if some else math.nan,
        "abs_max": np.abs(finite).max() if some else math.nan,
        "nans": np.isnan(values).sum(),
        "positive_infs": (values == np.inf).sum(),
        "negative_infs": (values == -np.inf).sum(),
        "zeros": (values == 0).sum(),
        "count": values.size,
    }


def bits(tensor: Tensor) -> NDArray[np.int64]:
    """The float-bit histogram, one value at a time."""
    counts = np.zeros(4096, np.int64)
    patterns = tensor.detach().float().contiguous().numpy().ravel().view(np.uint32)
    np.add.at(counts, patterns >> 20, 1)
    return counts


def check(seen: Statistics, tensor: Tensor) -> None:
    """Compare with the reference: counts and extrema exactly, moments to 1e-9 of the values' size."""
    expected = reference(tensor)
    scale = max(abs(expected["abs_max"]), 1e-300) if expected["abs_max"] == expected["abs_max"] else 1.0
    for name in MEASURED:
        value = float(getattr(seen, name))
        if name in ("mean", "std", "l2_norm"):
            size = scale * math.sqrt(max(expected["count"], 1))
            assert value == pytest.approx(expected[name], rel=1e-9, abs=1e-9 * size, nan_ok=True), name
        else:
            assert value == expected[name] or (math.isnan(value) and math.isnan(expected[name])), name
    assert np.array_equal(seen.histogram, bits(tensor))


@pytest.fixture(params=["compiled", "torch"])
def _kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to the numbers: the compiled kernel, and torch where numba is missing or on an accelerator."""
    if request.param == "torch":
        monkeypatch.setattr(statistics, "_kernel", lambda: None)


@pytest.mark.usefixtures("_kernel")
@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_with_everything_in_them(dtype: torch.dtype) -> None:
    """NaN, infinities, zeros of both signs, subnormals and the largest numbers are all counted right."""
    tiny = torch.finfo(dtype).smallest_normal
    odd = [math.nan, math.inf, -math.inf, 0.0, -0.0, tiny / 2, -tiny / 4, torch.finfo(dtype).max, -3.5, 1e-3]
    tensor = torch.cat([torch.tensor(odd, dtype=dtype), torch.randn(1000, generator=seeded()).to(dtype)])
    check(summarise(tensor), tensor)


@pytest.mark.usefixtures("_kernel")
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool, torch.float64])
def test_other_types(dtype: torch.dtype) -> None:
    """Integers, booleans and doubles have statistics too."""
    tensor = (torch.randn(100, generator=seeded()) * 50).abs().to(dtype)
    check(summarise(tensor), tensor)


@pytest.mark.usefixtures("_kernel")
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (5, 7)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    """Scalars and empty tensors are no exception."""
    tensor = torch.randn(shape, generator=seeded())
    check(summarise(tensor), tensor)


@pytest.mark.usefixtures("_kernel")
@pytest.mark.parametrize("dtype", FLOATS)
def test_any_memory_layout(dtype: torch.dtype) -> None:
    """Transposed, channels-last, strided, expanded and sliced tensors give what their elements give."""
    base = torch.randn(2, 4, 6, 8, generator=seeded()).to(dtype)
    views = [
        base.permute(3, 1, 0, 2)[::2, 1:, :, ::3],
        base.as_strided((2, 2, 2, 2, 2, 2), (150, 70, 31, 14, 6, 2)),
        base.transpose(1, 3),
        base.to(memory_format=torch.channels_last),
        base[:, ::2],
        base[..., 1:5],
        base[:1].expand(3, 4, 6, 8),
        base.flip(0),
    ]
    for view in views:
        check(summarise(view), view)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_half_precision_number(dtype: torch.dtype) -> None:
    """Each of the 65,536 bit patterns of a 16-bit float is read as the number it is."""
    patterns = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(dtype).clone()
    patterns[patterns.isnan()] = math.nan  # torch quiets signalling NaN as it widens them
    check(summarise(patterns), patterns)
    for pattern in patterns[~patterns.isnan()][::257]:
        check(summarise(pattern), pattern)


def test_many_blocks_in_several_layouts() -> None:
    """A tensor of many blocks gives the same numbers whole, in half precision, and as a strided view."""
    tensor = torch.randn(3, 50, 211, 7, generator=seeded())
    tensor[1, 7, 5, 3], tensor[2, 1] = math.nan, math.inf
    for view in (tensor, tensor.half(), tensor.bfloat16(), tensor[:, :, ::2], tensor.half()[:, 1:, :, 2:5]):
        check(summarise(view), view)


def test_the_operations_on_an_accelerator_never_wait_for_it() -> None:
    """No operation of the path for accelerators has a result whose size or value the host must know."""

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    seen: set[str] = set()
    with Watch():  # type: ignore[no-untyped-call]
        measure_on_device(torch.randn(3, 5, generator=seeded()))
    assert "scatter_add_" in seen
    assert not seen & {"_local_scalar_dense", "item", "nonzero", "bincount", "masked_select", "unique2"}


@pytest.mark.usefixtures("_kernel")
def test_a_large_offset_does_not_cost_the_deviation() -> None:
    """The standard deviation survives a mean ten million times as large."""
    tensor = torch.full((100_000,), 1e4) + torch.randn(100_000, generator=seeded()) * 1e-2
    check(summarise(tensor), tensor)


@given(hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)))
@settings(max_examples=150)
def test_any_floats(values: NDArray[np.float32]) -> None:
    """Whatever the values, the statistics are those of the reference."""
    with np.errstate(over="ignore"):
        check(summarise(torch.from_numpy(values)), torch.from_numpy(values))


def test_gradients_and_the_tensor_are_untouched() -> None:
    """A tensor that requires gradients is read like any other and left as it was."""
    tensor = torch.randn(10, generator=seeded(), requires_grad=True)
    before = tensor.detach().clone()
    summarise(tensor * 1)
    assert torch.equal(tensor.detach(), before)
    assert tensor.grad is None


@pytest.mark.parametrize(
    "tensor",
    [
        torch.eye(3).to_sparse(),
        torch.zeros(2, device="meta"),
        TwoTensor(torch.zeros(2), torch.ones(2)),  # type: ignore[no-untyped-call]
    ],
)
def test_tensors_without_readable_numbers_are_told_apart(tensor: Tensor) -> None:
    """Sparse and meta tensors, and those made of others, are recognised before anything reads."""
    assert not can_summarise(tensor)


def seeded() -> torch.Generator:
    """The same random numbers every time."""
    return torch.Generator().manual_seed(0)
