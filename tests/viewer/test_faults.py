"""Values that are not finite, and those that float16 can hardly hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from diffusion_xray.tracer import Tracer, open_trace
from diffusion_xray.viewer.app import Browser
from diffusion_xray.viewer.faults import NARROW, OUTSIDE, fault_text
from diffusion_xray.viewer.loader import Loader
from diffusion_xray.viewer.model import Snapshot

from .test_browser import settle, text


class Growing(nn.Module):
    """Doubles its input as often as the step says."""

    def forward(self, x: Tensor, step: int) -> Tensor:
        """From 0.75 of the limit on."""
        return torch.full_like(x, 0.75 * NARROW * 2**step)


class Network(nn.Module):
    """One block that stays small and one that grows, with whole numbers beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.Identity()
        self.growing = nn.Sequential(nn.Identity())
        self.growing.append(Growing())
        self.whole = nn.Identity()

    def forward(self, x: Tensor, step: int) -> Tensor:
        """As small as it came in."""
        self.whole(torch.full((3,), 49407))
        self.growing[1](self.small(x), step)
        return x


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace of three steps; `growing.1` passes the limit in the second."""
    path = tmp_path_factory.mktemp("growing") / "growing.zarr"
    network = Network()
    with torch.no_grad(), Tracer({"unet": network}, path) as tracer:
        for step in range(3):
            tracer.step(step, timestep=900.0 - step)
            network(torch.ones(2, 2), step)
    return path


def snapshot(path: Path) -> Snapshot:
    """What the browser knows of it."""
    return Loader(open_trace(path)).snapshot()


@pytest.mark.parametrize(("step", "mark"), [(None, ""), (OUTSIDE, "✗"), (31, "✗31")])
def test_fault_text(step: int | None, mark: str) -> None:
    """The mark carries the step, where there is one."""
    assert fault_text(step) == mark


def test_what_float16_can_hardly_hold(growing: Path) -> None:
    """A magnitude from an eighth of float16's range on is found with its first step; whole numbers are not meant."""
    found = snapshot(growing)
    assert [(fault.site.name, fault.step) for fault in found.narrow] == [("unet.growing.1", 1)]
    assert found.layers["unet.growing.1"].narrow and found.layers["unet"].narrow
    assert not found.layers["unet.small"].narrow and not found.layers["unet.whole"].narrow
    assert found.faults == ()


def test_ordinary_traces_have_none(traces: dict[str, Path]) -> None:
    """Where everything is small nothing is marked."""
    found = snapshot(traces["normal"])
    assert found.narrow == () and not any(layer.narrow for layer in found.layers.values())


async def test_it_shows_before_the_first_key(growing: Path, browser: Callable[..., Browser]) -> None:
    """The mark is on the layer, on what it lies in, and counted at the top; the value stays beside it."""
    async with browser(growing, layer="unet.growing.1").run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert "▲ 1 large for float16" in text(pilot, "#header")
        marked = [row.strip("▾ ").split()[0] for row in text(pilot, "#tree").splitlines() if "▲" in row]
        assert marked == ["unet", "growing.1"]


async def test_what_came_before_a_fault(traces: dict[str, Path], browser: Callable[..., Browser]) -> None:
    """The numbers of a faulty step name the tensor that came right before, at the first fault where it was born."""
    async with browser("faulty").run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert "before it: unet.down_blocks.1.act  |x|max" in text(pilot, "#overview")
        assert "born in unet.down_blocks.1 or on the way to it" in text(pilot, "#overview")
        await pilot.press("left_square_bracket")
        await settle(pilot)
        assert "before it" not in text(pilot, "#overview")
    async with browser("faulty", layer="unet.mid_block.conv").run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert "not finite before it either: unet.down_blocks.1" in text(pilot, "#overview")
        assert "born" not in text(pilot, "#overview")


def test_a_mask_is_no_fault(tmp_path: Path) -> None:
    """A layer that makes a mask of −∞ carries no mark, at no step."""
    layer = nn.Identity()
    with Tracer({"unet": layer}, tmp_path / "a.zarr") as tracer:
        for step in range(2):
            tracer.step(step)
            layer(torch.full((3, 3), -torch.inf).triu(1))
    found = snapshot(tmp_path / "a.zarr")
    (site,) = found.layers["unet"].module.sites if found.layers["unet"].module else ()
    assert found.faults == () and found.layers["unet"].fault is None and not found.faulty(site).any()
