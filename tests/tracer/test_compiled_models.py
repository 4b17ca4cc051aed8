"""Models given to `torch.compile`: nothing is compiled for the tracer, and the trace says what was seen."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn
from torch._dynamo.utils import counters

from diffusion_xray.tracer import CaptureError, Tracer, open_trace
from diffusion_xray.tracer.cli import main


class Attention(nn.Module):
    """Self-attention of two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        """By the kernel, which is a door."""
        query, key, value = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        result: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return result


class Block(nn.Module):
    """A block that repeats."""

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.ff = Attention(), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        """Attend, then feed forward."""
        result: Tensor = x + self.ff(torch.relu(x + self.attn(x)))
        return result


class Net(nn.Module):
    """Three blocks and a head that is not compiled with them."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.head = nn.ModuleList([Block() for _ in range(3)]), nn.Linear(8, 8)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        """Predict."""
        for block in self.blocks:
            x = block(x)
        result: Tensor = self.head(x) * timestep
        return result


HAS_COMPILER = bool(shutil.which("g++") or shutil.which("clang++"))
BACKENDS = [
    "aot_eager",
    pytest.param("inductor", marks=[pytest.mark.long, pytest.mark.skipif(not HAS_COMPILER, reason="no C++ compiler")]),
]


def whole(net: Net, backend: str) -> Any:
    """In a cover."""
    return torch.compile(net, backend=backend)


def in_place(net: Net, backend: str) -> Any:
    """By its own method."""
    net.compile(backend=backend)
    return net


def repeated_blocks(net: Net, backend: str) -> Any:
    """As `compile_repeated_blocks` of diffusers does."""
    for block in net.blocks:
        block.compile(backend=backend)
    return net


def run(model: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Three steps."""
    latents = torch.linspace(-1, 1, 40).view(1, 5, 8)
    with torch.no_grad():
        for timestep in (3.0, 2.0, 1.0):
            latents = latents - 0.1 * model(latents, torch.tensor(timestep))
    return latents


def graphs() -> int:
    """How many graphs were compiled so far."""
    return int(counters["stats"]["unique_graphs"])


pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"
)  # inductor's


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch._dynamo.reset()
    counters.clear()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("how", ["eager", "keep"])
@pytest.mark.parametrize("is_warm", [True, False])
@pytest.mark.parametrize("made", [whole, in_place, repeated_blocks])
def test_nothing_is_compiled_for_the_tracer(
    made: Callable[[Net, str], Any], is_warm: bool, how: Any, backend: str, tmp_path: Path
) -> None:
    """One compilation in all, before, in or after the block; and with "keep" the very numbers of the compiled model."""
    torch.manual_seed(0)
    model = made(Net(), backend)
    plain = run(model) if is_warm else None
    before = graphs()
    assert before == is_warm
    with Tracer({"unet": model}, tmp_path / "run.zarr", capture="all", compiled=how) as tracer:
        traced = run(model)
    inside = graphs() - before
    assert inside == (how == "keep" and not is_warm)
    after = run(model)
    assert graphs() == 1
    if how == "keep":
        assert torch.equal(traced, after)
        assert plain is None or torch.equal(traced, plain)
    trace = tracer.trace
    assert trace.n_steps == 3
    seen = {"unet", "unet.blocks.1", "unet.blocks.1.attn.qkv", "unet.head"}
    if how == "keep":
        seen -= {"unet.blocks.1.attn.qkv"} if made is repeated_blocks else seen - {"unet"}
    assert {name for name in ("unet", "unet.blocks.1", "unet.blocks.1.attn.qkv", "unet.head") if name in trace} == seen
    assert bool(trace.attention_modules) == (how == "eager")
    for name in seen:
        assert trace.site(name).array, name


def test_the_trace_says_what_was_not_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`info` names what ran as compiled and how much of it is hidden, or that it ran eagerly."""
    for how, words in (("eager", "unet ran eagerly"), ("keep", "unet ran as compiled; 16 modules within")):
        model = whole(Net(), "aot_eager")
        with Tracer({"unet": model}, tmp_path / f"{how}.zarr", compiled=how) as tracer:  # type: ignore[arg-type]
            run(model)
        assert tracer.trace.info.compiled["how"] == how
        assert main(["info", str(tmp_path / f"{how}.zarr")]) == 0
        assert words in capsys.readouterr().out
    assert "unet.blocks.0.attn" in open_trace(tmp_path / "keep.zarr").info.compiled["unseen"]["names"]


def test_what_is_not_compiled_is_told_nothing_of(tmp_path: Path) -> None:
    """A plain model has no such line, whatever was asked for."""
    with Tracer({"unet": Net()}, tmp_path / "run.zarr", compiled="keep") as tracer:
        run(tracer._target.components["unet"])
    assert not tracer.trace.info.compiled
    assert "unet.blocks.0.attn" in tracer.trace


@pytest.mark.parametrize("is_warm", [True, False])
def test_other_compiled_models_are_left_alone(is_warm: bool, tmp_path: Path) -> None:
    """A compiled model that is not traced, and attends, is compiled once, though attention is listened at meanwhile."""
    torch.manual_seed(0)
    traced, other = Net(), torch.compile(Block(), backend="aot_eager")
    x = torch.ones(1, 5, 8)
    if is_warm:
        other(x)
    with Tracer({"unet": traced}, tmp_path / "run.zarr", capture="all") as tracer:
        for step in range(3):
            tracer.step(step)
            traced(x, torch.tensor(1.0))
            other(x)
    other(x)
    assert graphs() == 1
    assert set(tracer.trace.attention_modules) == {f"unet.blocks.{block}.attn" for block in range(3)}


def test_two_tracers_and_a_compiled_model(tmp_path: Path) -> None:
    """Both see the attention of their own model, and the kernel is itself again in the end."""
    kernel = nn.functional.scaled_dot_product_attention
    _ = torch.compile(Block(), backend="aot_eager")
    one, two = Net(), Net()
    timestep = torch.tensor(1.0)
    with Tracer({"one": one}, tmp_path / "one.zarr", capture="all") as first:
        assert nn.functional.scaled_dot_product_attention is kernel
        with Tracer({"two": two}, tmp_path / "two.zarr", capture="all") as second:
            for model in (one, two):
                model(torch.ones(1, 5, 8), timestep)
            with pytest.raises(RuntimeError, match=r"shape|size"):
                one(torch.ones(1, 5, 7), timestep)
            two(torch.ones(1, 5, 8), timestep)
        one(torch.ones(1, 5, 8), timestep)
    assert nn.functional.scaled_dot_product_attention is kernel
    for tracer, name in ((first, "one"), (second, "two")):
        assert set(tracer.trace.attention_modules) == {f"{name}.blocks.{block}.attn" for block in range(3)}


def test_a_wrong_wish_is_one_line(tmp_path: Path) -> None:
    """The message has the value and what there is."""
    with pytest.raises(CaptureError, match="compiled='fast': choose from 'eager', 'keep'"):
        Tracer(Net(), tmp_path / "run.zarr", compiled="fast")  # type: ignore[arg-type]
