"""Modules that hand their calls on to another one: what they cover, and what its modules are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion_xray.tracer import Tracer, open_trace
from diffusion_xray.tracer.comparison.divergence import Comparison
from diffusion_xray.tracer.recording.covers import chain, time_parameters
from diffusion_xray.tracer.recording.target import Target

from ..networks import Denoiser, denoise


class Parallel(nn.DataParallel[nn.Module]):
    """A class of one's own, which may do more than hand calls on."""


class Wrapper(nn.Module):
    """Takes anything, for the one module within."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Hand the call on."""
        return self.model(*args, **kwargs)


class Adapter(nn.Module):
    """Takes anything too, but holds more than one module."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = Denoiser(), nn.Linear(2, 2)

    def forward(self, *args: Any) -> Any:
        """Nobody knows for whom that is."""
        return self.one(*args)


class Loop(nn.Module):
    """A cover that leads to itself."""

    def __init__(self) -> None:
        super().__init__()
        self._modules["inner"] = self

    def forward(self, *args: Any) -> None:
        """Nothing."""


def compiled(module: nn.Module) -> nn.Module:
    """A module as `torch.compile` covers it."""
    found: Any = torch.compile(module, backend="eager")
    assert isinstance(found, nn.Module)
    return found


def covered(kind: str) -> nn.Module:
    """A denoiser behind one cover."""
    if kind == "compiled":
        return compiled(Denoiser())
    if kind == "peft":
        peft = pytest.importorskip("peft")
        found: nn.Module = peft.get_peft_model(Denoiser(), peft.LoraConfig(target_modules=["conv_in"]))
        return found
    kinds: dict[str, type[nn.Module]] = {"parallel": nn.DataParallel, "own": Parallel, "wrapper": Wrapper}
    return kinds[kind](Denoiser())


@pytest.mark.parametrize("kind", ["compiled", "peft", "parallel", "own", "wrapper"])
def test_what_a_cover_hands_on_is_found(kind: str) -> None:
    """Whatever covers a denoiser, how it takes the time is known."""
    module = covered(kind)
    assert time_parameters(chain(module)[-1]).timestep == "timestep"
    assert Target.of({"unet": module, "other": nn.Linear(2, 2)}).denoisers() == {"unet": module}


@pytest.mark.parametrize("kind", ["compiled", "peft", "parallel"])
def test_covers_of_torch_and_peft_have_no_part_in_names(kind: str) -> None:
    """Modules are called as those of the plain model are, and the trace says what covers them."""
    target = Target.of({"unet": covered(kind)})
    names = {name for name in target.modules() if "lora" not in name and "base_layer" not in name}
    assert names == set(Target.of({"unet": Denoiser()}).modules())
    assert target.classes() == {"unet": "Denoiser"}
    assert target.covers()["unet"]


@pytest.mark.parametrize(("kind", "inner"), [("own", "module"), ("wrapper", "model")])
def test_a_wrapper_of_ones_own_keeps_its_place_in_names(kind: str, inner: str) -> None:
    """Nobody knows what else it does, so it is a module like any other."""
    target = Target.of({"unet": covered(kind)})
    assert f"unet.{inner}.conv_in" in target.modules()
    assert target.covers() == {"unet": [type(covered(kind)).__name__]}


def test_a_cover_within_a_model_is_looked_through_too() -> None:
    """A block that was compiled by itself has the name it had."""
    model = Denoiser()
    model.blocks[1] = compiled(model.blocks[1])
    assert list(Target.of(model).modules()) == list(Target.of(Denoiser()).modules())


def test_what_holds_more_or_itself_covers_nothing() -> None:
    """Of two modules nobody knows which is meant, and a circle has no inside."""
    for module in (Adapter(), Loop(), nn.Sequential(nn.Linear(2, 2))):
        assert chain(module) == [module]
    assert list(Target.of(Loop()).modules()) == ["model"]


@pytest.mark.parametrize("kind", ["compiled", "parallel"])
def test_traces_of_a_covered_and_the_plain_model_compare(kind: str, tmp_path: Path) -> None:
    """Every tensor of one has its partner, at every step, and none differs."""
    for name, model in (("a", Denoiser()), ("b", covered(kind))):
        with Tracer({"unet": model}, tmp_path / f"{name}.zarr"):
            denoise(model)
    a, b = (open_trace(tmp_path / f"{name}.zarr") for name in "ab")
    comparison = Comparison(a, b)
    for _ in comparison.run():
        pass
    assert not comparison.table.pairing.only_a
    assert not comparison.table.pairing.only_b
    assert comparison.table.first_over() is None
    assert a.timestep.tolist() == b.timestep.tolist() == [1000, 900, 800, 700]
    assert b.info.covers["unet"]


def test_the_time_is_read_by_what_it_is_called() -> None:
    """A noise level is no timestep; where a model takes both, both are known."""

    class Karras(nn.Module):
        def forward(self, x: Tensor, sigma: Tensor, t: Tensor | None = None) -> Tensor:
            """Denoise."""
            return x * sigma

    found = time_parameters(Karras())
    assert (found.timestep, found.sigma) == ("t", "sigma")
    assert not time_parameters(nn.Linear(2, 2))
