"""Nothing is lost for its shape or type: tensors that change from step to step are all read back."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from diffusion_xray.tracer import Capture, Trace, Tracer
from diffusion_xray.tracer.capture import Level
from diffusion_xray.tracer.layout import HAS_TENSOR, STATISTICS

from ..exact import assert_rows, assert_same, in_xarray, row_of, widened


class Returning(nn.Module):
    """Returns one tensor after another."""

    def __init__(self, tensors: list[Tensor]) -> None:
        super().__init__()
        self.coming = list(tensors)

    def forward(self, _: Tensor) -> Tensor:
        """The next tensor."""
        following: Tensor = self.coming.pop(0)
        return following


class Net(nn.Module):
    """A module with children, one of which hands its very tensors on in some of the steps."""

    def __init__(self, first: list[Tensor], second: list[Tensor], shared: list[bool]) -> None:
        super().__init__()
        self.first, self.second, self.shared = Returning(first), Returning(second), list(shared)

    def forward(self, x: Tensor) -> Tensor:
        """What the first returned, or the second."""
        one, two = self.first(x), self.second(x)
        whole: Tensor = one if self.shared.pop(0) else two
        return whole


SHAPES = [(2, 3), (2, 4), (1, 3), (2, 3, 2), (5,), (), (3, 2)]
DTYPES = [torch.float32, torch.float16, torch.float64, torch.int64, torch.bool, torch.complex64, torch.complex128]


@st.composite
def tensors(draw: st.DrawFn, count: int) -> list[Tensor]:
    """Tensors of a few shapes and dtypes in any order."""
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3))
    dtypes = draw(st.lists(st.sampled_from(DTYPES), min_size=1, max_size=2))
    made = []
    for step in range(count):
        shape, dtype = draw(st.sampled_from(shapes)), draw(st.sampled_from(dtypes))
        values = torch.randn(shape, generator=torch.Generator().manual_seed(step), dtype=torch.float64) * 9
        made.append((values + 1j * values.flip(-1)).to(dtype) if dtype.is_complex and shape else values.to(dtype))
    return made


def record(path: Path, first: list[Tensor], second: list[Tensor], shared: list[bool], *, level: Level) -> Trace:
    """A trace of a `Net` that is called once a step."""
    net = Net(first, second, shared)
    with torch.no_grad(), Tracer(net, path, capture=level) as tracer:
        for step in range(len(first)):
            tracer.step(step)
            net(torch.ones(1))
    trace = tracer.trace
    assert (trace.info.status, trace.info.gaps, trace.info.tap_failures) == ("complete", (), ())
    return trace


def assert_opens_plainly(path: Path) -> None:
    """Every group opens in xarray by itself, and all of them as one tree."""
    groups = {"/".join(name.split("/")[:-1]) for name, node in _nodes(path) if isinstance(node, zarr.Array)}
    for group in groups:
        with xarray.open_zarr(path, group=group, chunks=None) as dataset:
            assert dataset.variables
    with xarray.open_datatree(path, engine="zarr", chunks=None) as tree:
        assert {node.path.strip("/") for node in tree.subtree if node.variables} >= groups - {""}


def _nodes(path: Path) -> list[tuple[str, object]]:
    root = zarr.open_group(path, mode="r")
    return list(root.members(max_depth=None))


@settings(max_examples=10)
@given(st.data(), st.integers(1, 6))
def test_any_order_of_shapes_and_types_is_read_back(data: st.DataObject, steps: int) -> None:
    """Each step's tensor comes back exactly: from the trace, from its lazy variables, from plain zarr and xarray."""
    first, second = data.draw(tensors(steps)), data.draw(tensors(steps))
    shared = [data.draw(st.booleans()) for _ in range(steps)]
    whole = [one if share else two for one, two, share in zip(first, second, shared, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.zarr"
        trace = record(path, first, second, shared, level="all")
        for name, outputs in {"model": whole, "model.first": first, "model.second": second}.items():
            _assert_series(trace, path, name, outputs)
        assert_opens_plainly(path)


def _assert_series(trace: Trace, path: Path, name: str, outputs: list[Tensor]) -> None:
    site = trace.site(name)
    captured = trace.table("model").captured[:, site.row]
    dataset, told = trace[name], site.arrays
    kinds = {(tuple(tensor.shape), widened(tensor).dtype.name) for tensor in outputs}
    assert len(told) == len(kinds)
    for step, tensor in enumerate(outputs):
        expected, stored = widened(tensor), site.stored(int(captured[step]))
        assert stored is not None
        assert stored.shape == tuple(tensor.shape)
        assert_same(trace.tensor(site, step), expected, (name, step))
        plain = zarr.open_array(path / stored.array, mode="r")
        assert plain.metadata.dimension_names == ("step", *stored.dims)  # type: ignore[union-attr]
        assert_same(np.asarray(plain[step]), expected, (name, step))
        mine = captured[step] - HAS_TENSOR
        for number in range(len(told)):
            variable = dataset[f"output_shape{number}" if number else "output"].isel(step=step)
            if number == mine:
                assert_same(variable.values, in_xarray(expected), (name, step))
            else:
                assert (np.isnan(variable.values) if variable.dtype.kind in "fc" else variable.values == 0).all()
        if not tensor.is_complex():
            assert_rows(trace.table("model").values[step, site.row], row_of(tensor), (name, step))


def test_a_cascade_of_latents_is_one_series(tmp_path: Path) -> None:
    """Latents that grow from stage to stage are all there, step by step and in `steps`, with a preview of each."""
    sizes = [4, 4, 8, 8, 8]
    kept = [torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(at)) for at, size in enumerate(sizes)]
    net = nn.Linear(1, 1)
    with Tracer(net, tmp_path / "run.zarr") as tracer:
        for step, latents in enumerate(kept):
            tracer.step(step)
            net(torch.ones(1))
            tracer.record_latents(latents, next_latents=latents)
    trace = tracer.trace
    for step, latents in enumerate(kept):
        found = trace.step_array("latents", step)
        assert found is not None
        assert_same(found, latents.numpy())
    steps = trace.steps
    assert_same(steps["latents"].values[:2], torch.stack(kept[:2]).numpy())
    assert_same(steps["latents_shape1"].values[2:], torch.stack(kept[2:]).numpy())
    assert np.isnan(steps["latents_shape1"].values[:2]).all() and np.isnan(steps["latents"].values[2:]).all()
    previews = steps["preview"].values
    assert previews.shape == (5, 1, 8, 8, 3)
    assert (previews.reshape(5, -1).std(axis=1) > 0).all()
    enlarged = previews[0, 0, ::2, ::2]
    assert (previews[0, 0] == enlarged.repeat(2, axis=0).repeat(2, axis=1)).all()


@pytest.mark.parametrize("level", ["statistics", "all"])
def test_statistics_are_one_row_whatever_the_shape(tmp_path: Path, level: Level) -> None:
    """Shapes that change make further arrays, never further rows."""
    outputs = [torch.ones(1, size) for size in (2, 3, 2, 5)]
    trace = record(tmp_path / "run.zarr", outputs, [torch.ones(1)] * 4, [True] * 4, level=level)
    table = trace.table("model")
    assert [site.key for site in table.sites] == ["model.first:output", "model.second:output", "model:output"]
    counts = table.column("count")[:, trace.site("model.first").row]
    assert counts.tolist() == [2, 3, 2, 5]


def test_a_shape_that_comes_back_takes_the_short_way(tmp_path: Path) -> None:
    """Two shapes in turn, as a mixture of resolutions makes them, lie in two arrays, each step in its own."""
    outputs = [torch.full((2, 2 + step % 2), float(step)) for step in range(9)]
    trace = record(tmp_path / "run.zarr", outputs, [torch.ones(1)] * 9, [False] * 9, level="all")
    site = trace.site("model.first")
    assert trace.table("model").captured[:, site.row].tolist() == [2, 3] * 4 + [2]
    assert [trace.tensor(site, step).flat[0] for step in range(9)] == list(range(9))


def test_what_is_first_kept_gives_the_first_shape(tmp_path: Path) -> None:
    """A site whose first tensors were not wanted is described by the first that was stored."""
    module = Returning([torch.ones(2, size) for size in (2, 3, 3, 4)])
    with Tracer(module, tmp_path / "run.zarr", capture=Capture(modules="**", steps=[1, 2, 3])) as tracer:
        for step in range(4):
            tracer.step(step)
            module(torch.ones(1))
    trace = tracer.trace
    site = trace.site("model")
    assert (site.shape, [variant.shape for variant in site.variants]) == ((2, 3), [(2, 4)])
    assert trace.table("model").captured[:, site.row].tolist() == [1, 2, 2, 3]
    assert trace.stored(site, 0) is None
    assert np.isnan(trace.tensor(site, 0)).all()


@pytest.mark.filterwarnings("ignore:ComplexHalf support")
@pytest.mark.parametrize("make", [lambda x: x, lambda x: x.conj(), lambda x: x.to(torch.complex32)])
def test_complex_tensors_are_measured_by_their_magnitude(tmp_path: Path, make: Callable[[Tensor], Tensor]) -> None:
    """Statistics and histogram of a complex tensor are those of its magnitude; the values are stored as they are."""
    given_ = torch.complex(torch.tensor([[3.0, 0.0], [-5.0, 8.0]]), torch.tensor([[4.0, 0.0], [12.0, -6.0]]))
    module = Returning([make(given_)])
    with Tracer(module, tmp_path / "run.zarr", capture="all") as tracer:
        tracer.step(0)
        module(torch.ones(1))
    trace = tracer.trace
    site = trace.site("model")
    row = dict(zip(STATISTICS, trace.table("model").values[0, site.row], strict=False))
    assert (row["min"], row["max"], row["mean"], row["zeros"], row["count"]) == (0.0, 13.0, 7.0, 1, 4)
    assert trace.histogram(site).counts.sum() == 4
    assert_same(trace.tensor(site), make(given_).to(torch.complex64).resolve_conj().numpy())
