"""Any tensor a module may return comes back from the trace as it was, with the statistics numpy finds."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from diffusion_xray.tracer import SiteNotFoundError, Tracer
from diffusion_xray.tracer.capture import Level
from diffusion_xray.tracer.layout import HAS_STATISTICS, HAS_TENSOR

from ..exact import assert_rows, assert_same, in_xarray, row_of, widened

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
ODD = (math.nan, -math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-45, 1e38)


class Returning(nn.Module):
    """Returns one tensor after another, whatever it is given."""

    def __init__(self, *tensors: Tensor) -> None:
        super().__init__()
        self.coming = list(tensors)

    def forward(self) -> Tensor:
        """The next tensor."""
        return self.coming.pop(0)


class Idle(nn.Module):
    """A denoiser that is never called, beside which everything else is outside of the loop."""

    def forward(self, sample: Tensor, timestep: float) -> Tensor:
        """Predict nothing."""
        return sample * timestep


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """A tensor of any dtype, shape and values."""
    dtype = draw(st.sampled_from(FLOATS + INTEGERS))
    shape = draw(st.lists(st.integers(0, 7), max_size=5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    if not dtype.is_floating_point:
        full = torch.iinfo(dtype) if dtype != torch.bool else None
        low, high = (full.min, full.max) if full else (0, 2)
        return torch.randint(low, high, shape, generator=generator).to(dtype)
    scale, offset = draw(st.sampled_from([1e-30, 1e-3, 1.0, 300.0, 1e30])), draw(st.sampled_from([0.0, 0.0, 1.0, -1e4]))
    tensor = (torch.randn(shape, generator=generator, dtype=torch.float64) * scale + offset).to(dtype)
    if tensor.numel():
        places = st.tuples(st.integers(0, tensor.numel() - 1), st.sampled_from(ODD))
        for place, value in draw(st.lists(places, max_size=4)):
            tensor.view(-1)[place] = value
    return tensor


@st.composite
def layouts(draw: st.DrawFn, source: st.SearchStrategy[Tensor]) -> Tensor:
    """The same kind of tensor, laid out in memory in any way torch knows."""
    tensor = draw(source)
    kinds = ["contiguous", "permuted", "expanded", "reversed storage"]
    kinds += ["channels last"] * (tensor.dim() == 4) + ["channels last 3d"] * (tensor.dim() == 5)
    kinds += ["strided", "narrowed"] * (tensor.dim() > 0)
    kind = draw(st.sampled_from(kinds))
    if kind == "permuted":
        return tensor.permute(draw(st.permutations(range(tensor.dim()))))
    if kind == "expanded":
        return tensor.unsqueeze(0).expand(draw(st.integers(1, 4)), *tensor.shape)
    if kind == "channels last":
        return tensor.to(memory_format=torch.channels_last)
    if kind == "channels last 3d":
        return tensor.to(memory_format=torch.channels_last_3d)
    if kind == "strided":
        axis = draw(st.integers(0, tensor.dim() - 1))
        return tensor[(slice(None),) * axis + (slice(draw(st.integers(0, 1)), None, draw(st.integers(2, 3))),)]
    if kind == "narrowed":
        axis = draw(st.integers(0, tensor.dim() - 1))
        start = draw(st.integers(0, tensor.shape[axis]))
        return tensor.narrow(axis, start, tensor.shape[axis] - start)
    if kind == "reversed storage":
        backwards = tuple(reversed(range(tensor.dim())))
        return tensor.permute(backwards).contiguous().permute(backwards)
    return tensor


@pytest.mark.filterwarnings("ignore:a value is not finite")
@settings(max_examples=60)
@given(layouts(tensors()), st.booleans())
def test_whatever_a_module_returns_is_read_back(tensor: Tensor, stepped: bool) -> None:
    """Dtype, shape, layout and values of a tensor survive, in the loop and outside, and its statistics are numpy's."""
    before = tensor.clone()
    module = Returning(tensor)
    parts = {"part": module} if stepped else {"part": module, "unet": Idle()}
    with tempfile.TemporaryDirectory() as folder:
        with Tracer(parts, Path(folder) / "run.zarr", capture="all") as tracer:
            assert module() is tensor
        trace = tracer.trace
        assert trace.info.status == "complete"
        assert not trace.info.gaps
        site = trace.site("part")
        assert (site.stepped, site.shape) == (stepped, tuple(tensor.shape))
        assert site.torch_dtype == str(tensor.dtype).removeprefix("torch.")
        table = trace.table("part", stepped=stepped)
        assert_rows(table.values[0, site.row], row_of(before))
        assert trace.histogram(site, 0).counts.sum() == tensor.numel()
        if tensor.numel():
            assert table.captured[0, site.row] == HAS_TENSOR
            assert_same(trace.tensor(site, 0), widened(before))
            xray = trace["part"]["output"]
            assert_same(xray.values[0] if stepped else xray.values, in_xarray(widened(before)))
        else:
            assert table.captured[0, site.row] == HAS_STATISTICS
            with pytest.raises(SiteNotFoundError):
                trace.tensor(site, 0)
    assert_same(widened(tensor), widened(before), "the tracer changed the tensor")


@settings(max_examples=25)
@given(st.data(), st.integers(2, 5))
def test_layouts_may_change_between_steps(data: st.DataObject, steps: int) -> None:
    """A module whose output has the same shape but another layout in each step is read back step by step."""
    shape = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    values = [torch.randn(shape, generator=torch.Generator().manual_seed(step)) for step in range(steps)]
    laid_out = []
    for value in values:
        order = data.draw(st.permutations(range(len(shape))))
        back = [order.index(axis) for axis in range(len(shape))]
        laid_out.append(value.permute(order).contiguous().permute(back))
    module = Returning(*laid_out)
    with tempfile.TemporaryDirectory() as folder:
        with Tracer(module, Path(folder) / "run.zarr", capture="all") as tracer:
            for _ in range(steps):
                module()
        trace = tracer.trace
        site = trace.site("model")
        assert trace.n_steps == steps
        for step, value in enumerate(values):
            assert_same(trace.tensor(site, step), value.numpy())
            assert_rows(trace.table("model").values[step, site.row], row_of(value))


class Moody(nn.Module):
    """Makes of what it is given something else each time."""

    def __init__(self, moods: list[str]) -> None:
        super().__init__()
        self.coming = list(moods)

    def forward(self, x: Tensor) -> Tensor:
        """The tensor itself, a view of it, one to be negated when it is read, itself written to, or another one."""
        makes = {
            "same": lambda: x,
            "view": lambda: x.view_as(x),
            "negated": lambda: torch._neg_view(x),
            "in place": lambda: x.add_(1),
            "own": lambda: x + 1,
        }
        return makes[self.coming.pop(0)]()


class Pair(nn.Module):
    """A module's output goes into the next, whose output is that of the whole."""

    def __init__(self, tensors: list[Tensor], moods: list[str]) -> None:
        super().__init__()
        self.first, self.second, self.third = Returning(*tensors), Moody(moods), nn.Identity()

    def forward(self) -> Tensor:
        """Run the three."""
        result: Tensor = self.third(self.second(self.first()))
        return result


@settings(max_examples=60)
@given(st.data(), st.integers(2, 6), st.sampled_from(["statistics", "all"]), st.booleans())
def test_steps_may_differ_in_everything(data: st.DataObject, steps: int, capture: Level, inference: bool) -> None:
    """Dtype, shape, layout and identity of outputs may change from step to step; each step reads as it was."""
    usual = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    others = [usual.double(), usual.half(), usual[:, :2], usual.transpose(0, 1).contiguous().transpose(0, 1)]
    sources = [data.draw(st.sampled_from([usual, usual, usual, *others])) * (step + 1) for step in range(steps)]
    moods = [data.draw(st.sampled_from(["same", "view", "negated", "in place", "own"])) for _ in range(steps)]
    seen: dict[str, list[Tensor]] = {"first": [], "second": [], "third": []}
    module = Pair([source.clone() for source in sources], moods)
    for name, own in seen.items():
        module.get_submodule(name).register_forward_hook(
            lambda *args, own=own: own.append(args[2].resolve_neg().clone())
        )
    with tempfile.TemporaryDirectory() as folder:
        with Tracer(module, Path(folder) / "run.zarr", capture=capture) as tracer, torch.inference_mode(inference):
            for _ in range(steps):
                module()
        trace = tracer.trace
        assert trace.n_steps == steps
        table = trace.table("model")
        for name, outputs in seen.items():
            site = trace.site(f"model.{name}")
            for step, output in enumerate(outputs):
                assert_rows(table.values[step, site.row], row_of(output), (name, step))
                assert trace.histogram(site, step).counts.sum() == output.numel()
                if table.captured[step, site.row] == HAS_TENSOR:
                    stored = trace.tensor(site, step)
                    assert_same(stored, widened(output), (name, step))
                else:
                    first = outputs[0]
                    differs = output.shape != first.shape or widened(output).dtype != widened(first).dtype
                    assert capture == "statistics" or differs, (name, step)


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "uint16", "uint32", "uint64"])
def test_rare_types_are_read_back_too(tmp_path: Path, name: str) -> None:
    """Eight-bit floats and the larger unsigned integers are recorded like any other number."""
    dtype = getattr(torch, name)
    tensor = torch.tensor([[0.0, 1.0, 2.0], [16.0, 28.0, 3.5]]).to(dtype)
    module = Returning(tensor)
    with Tracer(module, tmp_path / "run.zarr", capture="all") as tracer:
        module()
    trace = tracer.trace
    site = trace.site("model")
    assert_same(trace.tensor(site, 0), widened(tensor))
    assert_rows(trace.table("model").values[0, site.row], row_of(tensor))
