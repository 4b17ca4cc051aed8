from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from peft import LoraConfig
from torch import Tensor, nn

from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer import Capture, Tracer

from .networks import Denoiser, denoise


class Adapter(nn.Module):
    """Stands in a layer's place and adds something to what it returns, as a LoRA does."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base_layer = base
        self.scale = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Twice the layer."""
        return torch.as_tensor(self.scale(2 * self.base_layer(x)))


def returned(model: nn.Module, name: str, seen: list[Tensor]) -> Any:
    """A hook of the user's own that keeps what a module returned."""
    return model.get_submodule(name).register_forward_hook(lambda _, __, output: seen.append(output.clone()))


def test_a_layer_is_replaced_between_calls(tmp_path: Path) -> None:
    """A layer that gets an adapter within the block is recorded as what the next layer received, its parts by name."""
    model, seen = Denoiser(), list[Tensor]()
    with Tracer({"model": model}, tmp_path / "a.zarr", capture="all") as tracer:
        denoise(model, steps=2)
        model.conv_in = Adapter(model.conv_in)  # type: ignore[assignment]
        look = returned(model, "conv_in", seen)
        denoise(model, steps=2)
        look.remove()
        model.conv_in = model.conv_in.base_layer  # type: ignore[assignment]
        denoise(model, steps=1)
    trace = tracer.trace
    recorded = trace["model.conv_in"]["output"].values
    assert np.array_equal(recorded[2:4], torch.stack(seen).numpy())
    assert not np.array_equal(recorded[0], recorded[2]) and np.array_equal(recorded[0], recorded[4])
    base = trace["model.conv_in.base_layer"]["output"].values
    assert np.isnan(base[[0, 1, 4]]).all() and np.array_equal(2 * base[2:4], recorded[2:4])
    changes = trace.info.modules_changed
    assert [(change["after_step"], change["added"]["count"]) for change in changes if "added" in change] == [(1, 2)]
    assert changes[0]["moved"]["names"] == ["model.conv_in"] and changes[1]["removed"]["count"] == 2


def test_a_component_is_replaced(tmp_path: Path) -> None:
    """Another model in a component's place is traced from its first call on."""
    parts, other = {"model": Denoiser()}, Denoiser()
    nn.init.zeros_(other.conv_out.weight)
    with Tracer(parts, tmp_path / "a.zarr", capture="all") as tracer:
        denoise(parts["model"], steps=2)
        parts["model"] = other
        denoise(parts["model"], steps=1)
    output = tracer.trace["model.conv_out"]["output"].values
    assert output[1].std() > 0 and output[2].std(axis=(2, 3)).max() < 1e-6


def test_a_module_put_in_by_the_back_door(tmp_path: Path) -> None:
    """A module that was put in without any registration is found when it is called."""
    model = Denoiser()
    with Tracer({"model": model}, tmp_path / "a.zarr", capture="all") as tracer:
        denoise(model, steps=2)
        model._modules["conv_in"] = Adapter(model.conv_in)
        denoise(model, steps=1)
    trace = tracer.trace
    assert "model.conv_in.base_layer" in trace.modules
    two, one = (trace[f"model.conv_in{part}"]["output"].values[2] for part in ("", ".base_layer"))
    assert np.array_equal(two, 2 * one)


def test_hooks_that_come_later(tmp_path: Path) -> None:
    """What is recorded of a module is what its caller got, also where a hook that came later changed it."""
    model = Denoiser()
    with Tracer({"model": model}, tmp_path / "a.zarr", capture="all") as tracer:
        model.conv_in.register_forward_hook(lambda _, __, output: output * 0 + 5)
        denoise(model, steps=1)
    assert (tracer.trace["model.conv_in"]["output"].values == 5).all()


class Doubling(nn.Module):
    """Has a `__call__` of its own."""

    def __call__(self, x: Tensor) -> Tensor:
        """Double."""
        return x * 2


def test_a_class_with_its_own_call(tmp_path: Path) -> None:
    """A module whose class has its own `__call__` is recorded as every other."""
    model = nn.Sequential(nn.Conv2d(4, 4, 1), Doubling())
    with torch.no_grad(), Tracer({"model": model}, tmp_path / "a.zarr", capture="all") as tracer:
        model(torch.randn(1, 4, 2, 2))
    trace = tracer.trace
    assert np.array_equal(trace["model.1"]["output"].values, 2 * trace["model.0"]["output"].values)


def test_what_is_not_called_again_is_told(tmp_path: Path) -> None:
    """A change after the last call stands in the trace as well."""
    model = Denoiser()
    with Tracer({"model": model}, tmp_path / "a.zarr") as tracer:
        denoise(model, steps=1)
        model.conv_in = Adapter(model.conv_in)  # type: ignore[assignment]
    assert tracer.trace.info.modules_changed[0]["after_step"] == 0


def test_copies_within_the_block(tmp_path: Path) -> None:
    """Copies made within the block hold nothing of ours, are not recorded, and go on working after it."""
    model = Denoiser()
    with Tracer({"model": model}, tmp_path / "a.zarr") as tracer:
        denoise(model, steps=1)
        copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        for other in copies:
            denoise(other, steps=2)
    assert len(tracer.trace.timestep) == 1
    for other in copies:
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in other.modules())
        assert torch.equal(denoise(other), denoise(model))


def test_a_pattern_holds_for_what_comes_later(tmp_path: Path) -> None:
    """What a pattern asks for is kept of modules that come in during the run, and nothing else of them."""
    model = Denoiser()
    capture = Capture(modules="model.**.scale", classes="Conv2d")
    model.add_module("extra", Adapter(nn.Identity()))
    with Tracer({"model": model}, tmp_path / "a.zarr", capture=capture) as tracer:
        denoise(model, steps=1)
        model.conv_in = Adapter(model.conv_in)  # type: ignore[assignment]
        denoise(model, steps=1)
    stored = {name for name, module in tracer.trace.modules.items() if module.stored}
    assert {"model.conv_in.scale", "model.conv_in.base_layer"} <= stored


@pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt])
def test_a_run_that_fails_in_a_new_module(tmp_path: Path, error: type[BaseException]) -> None:
    """An error of a module that came in during the run is told with its name, and nothing stays behind."""

    class Breaks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise error

    model, call = Denoiser(), vars(nn.Module)["__call__"]
    tracer = Tracer({"model": model}, tmp_path / "a.zarr")

    def failing() -> None:
        with tracer:
            denoise(model, steps=1)
            model.blocks[1].conv2 = Breaks()
            denoise(model, steps=1)

    with pytest.raises(error):
        failing()
    assert tracer.trace.info.error["module"] == "model.blocks.1.conv2"
    assert vars(nn.Module)["__call__"] is call


def test_a_lora_between_two_calls(tmp_path: Path) -> None:
    """A LoRA of peft that is added, and emptied again, between calls of a pipeline leaves a trace that opens whole."""
    pipe, name, seen = load_pipeline(), "mid_block.attentions.0.transformer_blocks.0.attn2.to_v", list[Tensor]()
    pipe.set_progress_bar_config(disable=True)

    def draw() -> None:
        pipe("a red circle", num_inference_steps=2, generator=torch.Generator().manual_seed(0))

    with Tracer(pipe, tmp_path / "a.zarr", capture="all") as tracer:
        draw()
        pipe.unet.add_adapter(LoraConfig(r=4, init_lora_weights=False, target_modules=["to_v"]))
        look = returned(pipe.unet, name, seen)
        draw()
        look.remove()
        pipe.unet.delete_adapters("default")
        draw()
    trace = tracer.trace
    assert not trace.info.tap_failures and not trace.info.gaps
    recorded = trace[f"unet.{name}"]["output"].values
    assert np.array_equal(recorded[2:4], torch.stack(seen).detach().numpy())
    assert np.array_equal(recorded[:2], recorded[4:6]) and not np.array_equal(recorded[:2], recorded[2:4])
    inside = trace[f"unet.{name}.base_layer"]["output"].values
    assert np.isfinite(inside[2:4]).all() and np.isnan(inside[:2]).all()
    assert f"unet.{name}.lora_B.default" in trace.modules
    with xarray.open_datatree(tmp_path / "a.zarr", engine="zarr", chunks=None) as tree:
        assert len(tree.leaves) > 100
