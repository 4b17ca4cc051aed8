"""Modules that return what nobody expects, models that are copied, runs that change their mind."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer import Trace, Tracer, TracerStateError
from diffusion_xray.tracer.layout import STATISTICS


class Given(nn.Module):
    """Returns what it is told to, one thing after another."""

    def __init__(self, outputs: list[Any]) -> None:
        super().__init__()
        self.outputs, self.calls = outputs, 0

    def forward(self, _: Tensor) -> Any:
        """The next."""
        self.calls += 1
        return self.outputs[self.calls - 1]


def trace_of(outputs: list[Any], path: Path) -> Trace:
    """A trace of a module that returns these, a step each."""
    module = nn.ModuleDict({"odd": Given(outputs)})
    with torch.no_grad(), Tracer({"net": module}, path, capture="all") as tracer:
        for step in range(len(outputs)):
            tracer.step(step)
            module["odd"](torch.ones(2))
    assert tracer.trace.info.tap_failures == ()
    return tracer.trace


USUAL = torch.arange(4.0).reshape(2, 2)


@dataclasses.dataclass
class Unset:
    """A dataclass of which a field was never set."""

    sample: Tensor
    never: Any = dataclasses.field(init=False)


class Refusing(dict[str, Any]):
    """A mapping that cannot be walked."""

    def items(self) -> Any:
        """Never."""
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "odd",
    [
        lambda: torch.empty(2, 2, device="meta"),
        USUAL.to_sparse_csr,
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        Refusing,
    ],
    ids=["meta", "sparse", "nested", "refusing"],
)
@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:The PyTorch API of nested")
def test_one_odd_output_costs_itself_alone(tmp_path: Path, odd: Callable[[], Any]) -> None:
    """An output that holds no numbers, between two that do, leaves those and the module's tap as they are."""
    trace = trace_of([USUAL, odd(), USUAL + 1], tmp_path / "run.zarr")
    site = trace.site("net.odd")
    assert trace.tensor(site, 2).tolist() == (USUAL + 1).tolist()
    assert trace.table("net").captured[:, site.row].tolist() == [2, 0, 2]


def test_a_field_that_was_never_set_is_passed_by(tmp_path: Path) -> None:
    """The tensors of a dataclass are recorded although another field of it has no value."""
    trace = trace_of([Unset(USUAL)], tmp_path / "run.zarr")
    assert trace.tensor(trace.site("net.odd"), 0).tolist() == USUAL.tolist()


@pytest.mark.parametrize("later", [torch.full((2, 2), 2**40 + 1), USUAL.double() / 3, USUAL > 1])
def test_another_type_than_the_first_has_an_array_of_its_own(tmp_path: Path, later: Tensor) -> None:
    """A tensor that the first array could not hold as it is lies in a further one, as it is."""
    trace = trace_of([USUAL, later], tmp_path / "run.zarr")
    site = trace.site("net.odd")
    table = trace.table("net")
    assert table.captured[:, site.row].tolist() == [2, 3]
    assert table.values[1, site.row, STATISTICS.index("max")] == later.double().max().item()
    assert trace.info.gaps == ()
    assert trace.tensor(site, 1).tolist() == later.tolist()
    assert [variant.torch_dtype for variant in site.variants] == [str(later.dtype).removeprefix("torch.")]


def test_transformations_of_functions_are_let_through(tmp_path: Path) -> None:
    """What a module makes within `torch.func` has no memory of its own; the tap goes on after it."""
    layer = nn.Linear(2, 2)
    with Tracer({"net": layer}, tmp_path / "run.zarr", capture="all") as tracer:
        for step in range(2):
            tracer.step(step)
            expected = layer(USUAL)
            assert torch.equal(torch.func.vmap(layer)(USUAL), expected)
    trace = tracer.trace
    assert trace.info.tap_failures == ()
    assert np.array_equal(trace.tensor(trace.site("net"), 1), expected.detach().numpy())


def test_a_copy_of_the_model_is_not_recorded(tmp_path: Path) -> None:
    """A copy made while the tracer records takes the hooks along, which do nothing there, then or later."""
    model = nn.Sequential(nn.Linear(2, 2), nn.SiLU())
    with torch.no_grad(), Tracer({"net": model}, tmp_path / "run.zarr", capture="all") as tracer:
        tracer.step(0)
        expected = model(USUAL)
        other = copy.deepcopy(model)
        other(USUAL + 100)
        other[0](USUAL + 100)
    other(USUAL)
    trace = tracer.trace
    assert np.array_equal(trace.tensor(trace.site("net"), 0), expected.numpy())
    assert [(site.name, site.call) for module in trace.modules.values() for site in module.sites] == [
        ("net", 0),
        ("net.0", 0),
        ("net.1", 0),
    ]


def test_two_tracers_do_not_share_a_place(tmp_path: Path) -> None:
    """A trace that is being recorded is not replaced by another tracer, whatever that is told."""
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    with Tracer({"net": first}, tmp_path / "run.zarr") as tracer:
        first(USUAL)
        with (
            pytest.raises(TracerStateError, match=r"another tracer is writing to .*run\.zarr"),
            Tracer({"net": second}, tmp_path / "x" / ".." / "run.zarr", overwrite=True),
        ):
            pass
        assert not second._forward_hooks
    assert tracer.trace.info.status == "complete"


def test_a_module_that_parts_from_another_keeps_its_past(tmp_path: Path) -> None:
    """Steps in which a module returned another one's tensor read as they were once it returns tensors of its own."""

    class Parting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.calls = nn.Linear(2, 2), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            inner: Tensor = self.inner(x)
            return inner if self.calls < 3 else inner * 2

    model, kept = Parting(), []
    with torch.no_grad(), Tracer({"net": model}, tmp_path / "run.zarr", capture="all") as tracer:
        for step in range(4):
            tracer.step(step)
            kept.append(model(USUAL + step).clone())
    trace = tracer.trace
    for step, output in enumerate(kept):
        assert np.array_equal(trace.tensor(trace.site("net"), step), output.numpy()), step
    assert np.array_equal(trace["net"]["output"].values, torch.stack(kept).numpy())
    assert trace.info.gaps == ()


def test_a_loop_of_ones_own_is_as_long_as_it_was(tmp_path: Path) -> None:
    """A loop that is numbered by the user, beside a scheduler that has been told its length, is complete at its end."""
    pipe = load_pipeline()
    pipe.scheduler.set_timesteps(3)
    text = torch.zeros(1, 20, pipe.text_encoder.config.hidden_size)
    with torch.no_grad(), Tracer(pipe, tmp_path / "run.zarr", capture="statistics") as tracer:
        for step, t in enumerate(pipe.scheduler.timesteps):
            tracer.step(step, timestep=float(t))
            pipe.unet(torch.zeros(1, 4, 16, 16), t, encoder_hidden_states=text)
    assert (tracer.trace.n_steps, tracer.trace.info.planned_steps) == (3, 3)


def test_an_output_too_large_to_copy_costs_its_own_record(tmp_path: Path) -> None:
    """What a denoiser expands to terabytes is a gap, and nothing else of the run is lost."""
    model = Given([torch.zeros(1).expand(1 << 20, 1 << 20)] * 2)
    with Tracer({"unet": model}, tmp_path / "run.zarr", capture="all") as tracer:
        for step in range(2):
            tracer.step(step)
            model(torch.ones(2))
    assert not tracer.trace.info.tap_failures
    assert [gap["count"] for gap in tracer.trace.info.gaps] == [2]


def test_a_namespace_is_looked_into(tmp_path: Path) -> None:
    """Tensors in a plain namespace are recorded, as those of any other object are."""
    trace = trace_of([SimpleNamespace(logits=torch.full((2,), 3.0))], tmp_path / "run.zarr")
    np.testing.assert_array_equal(trace.tensor(trace.site("net.odd")), [3, 3])


def test_what_returns_no_tensor_was_called_all_the_same(tmp_path: Path) -> None:
    """Of a model that returns no tensors it is not said that it was not called."""
    model = Given([np.ones(2)])
    with pytest.warns(UserWarning, match="no tensor came out of net"), Tracer({"net": model}, tmp_path / "run.zarr"):
        model(torch.ones(2))
