"""The tree of layers and the order of faults."""

from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion_xray.tracer import Tracer, open_trace
from diffusion_xray.tracer.errors import SiteNotFoundError
from diffusion_xray.tracer.faults import find_faults
from diffusion_xray.tracer.info import SiteInfo
from diffusion_xray.viewer.loader import Loader
from diffusion_xray.viewer.model import Snapshot
from diffusion_xray.viewer.opening import find_opening


@pytest.fixture
def faulty(traces: dict[str, Path]) -> Snapshot:
    """The trace whose `down_blocks.1` divides by zero from step 4 on."""
    return Loader(open_trace(traces["faulty"])).snapshot()


def test_tree_is_in_call_order(faulty: Snapshot) -> None:
    """A parent comes before its children, and layers in the order in which they were called."""
    (root,) = faulty.roots
    labels = [layer.label for layer in root.children]
    assert labels == ["conv_in", "down_blocks.0", "down_blocks.1", "mid_block", "conv_out"]
    assert [layer.label for layer in root.children[1].children] == ["conv", "act"]


def test_container_that_never_fired_is_no_row(faulty: Snapshot) -> None:
    """A `ModuleList` is part of its children's labels, not a layer."""
    assert "unet.down_blocks" not in faulty.layers
    assert faulty.layers["unet.down_blocks.1.conv"].module is not None


def test_fault_reaches_every_ancestor(faulty: Snapshot) -> None:
    """A fault shows at its layer and at all it lies in, with the first step."""
    assert faulty.layers["unet.down_blocks.1"].own_fault == 4
    assert faulty.layers["unet.down_blocks.1.conv"].own_fault == 5
    assert faulty.layers["unet"].fault == 4
    assert faulty.layers["unet.conv_in"].fault == 5


def test_cause_comes_first(faulty: Snapshot) -> None:
    """Faults are ordered by step and then by when the tensor came into being: the cause leads."""
    assert faulty.faults[0].site.name == "unet.down_blocks.1"
    steps = [fault.step for fault in faulty.faults if fault.step is not None]
    assert steps == sorted(steps) and len(steps) == len(faulty.faults)


def test_one_order_of_faults(traces: dict[str, Path]) -> None:
    """The browser has the faults of `Trace.first_fault`, and looks for what came before in all components."""
    trace = open_trace(traces["faulty"])
    snapshot = Loader(trace).snapshot()
    first = trace.first_fault()
    assert first is not None and first == snapshot.faults[0] == find_faults(tuple(trace.tables()))[0]
    assert first.step is not None and first.after == snapshot.before(first.site, first.step)


@pytest.mark.filterwarnings("ignore:a value is not finite")
def test_the_first_fault_of_a_layer_is_that_of_the_run(tmp_path: Path) -> None:
    """A layer that fails in the loop and again after it is marked with the step."""

    class Denoiser(torch.nn.Module):
        def forward(self, timestep: int) -> None:
            """Is there so that the layer is none."""

    layer = torch.nn.Identity()
    with Tracer({"unet": Denoiser(), "vae": layer}, tmp_path / "a.zarr") as tracer:
        for step in range(3):
            tracer.step(step)
            layer(torch.full((2,), torch.inf if step == 2 else 0.0))
        tracer.step(None)
        layer(torch.full((2,), torch.nan))
    snapshot = Loader(open_trace(tmp_path / "a.zarr")).snapshot()
    assert [fault.step for fault in snapshot.faults] == [2, None]
    assert snapshot.layers["vae"].own_fault == snapshot.layers["vae"].fault == 2


def test_no_faults(traces: dict[str, Path]) -> None:
    """A sound trace has none, and nothing is marked."""
    snapshot = Loader(open_trace(traces["normal"])).snapshot()
    assert not snapshot.faults
    assert all(layer.fault is None for layer in snapshot.layers.values())


def test_matching_takes_all_words(faulty: Snapshot) -> None:
    """Words match in any order, in names and classes, whatever their case."""
    assert [layer.name for layer in faulty.matching("CONV down 1")] == ["unet.down_blocks.1.conv"]
    assert [layer.name for layer in faulty.matching("silu mid")] == ["unet.mid_block.act"]
    assert faulty.matching("nothing") == []


def test_deep_name_is_no_danger() -> None:
    """A name of thousands of parts, as a damaged trace may hold, becomes a layer like any other."""
    import numpy as np

    from diffusion_xray.tracer.info import ModuleInfo, TraceInfo

    name = ".".join(["a"] * 5000)
    site = SiteInfo.from_attributes({"name": name}, row=0, stepped=True)
    nothing = np.zeros(0)
    snapshot = Snapshot.of(
        "t",
        TraceInfo.from_attributes({}),
        modules={name: ModuleInfo(name, "", (site,))},
        tables=[],
        timestep=nothing,
        sigma=nothing,
    )
    assert sum(layer.module is not None for layer in snapshot.layers.values()) == 1


def test_opens_at_the_first_fault(faulty: Snapshot) -> None:
    """Without a wish the browser opens where the first fault is."""
    opening = find_opening(faulty)
    assert (opening.layer, opening.step) == ("unet.down_blocks.1", 4)


def test_opens_at_the_last_step(traces: dict[str, Path]) -> None:
    """A sound trace opens at the denoiser, at the last step."""
    opening = find_opening(Loader(open_trace(traces["normal"])).snapshot())
    assert (opening.layer, opening.step) == ("unet", 5)


def test_opens_where_it_was_told(faulty: Snapshot) -> None:
    """A glob chooses its first match, a negative step counts from the end."""
    opening = find_opening(faulty, layer="unet.**.conv", step=-2, tab="image")
    assert (opening.layer, opening.step, opening.tab) == ("unet.down_blocks.0.conv", 4, "image")


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"layer": "unet.mid_blok"}, "Did you mean unet.mid_block"),
        ({"step": 6}, "no step 6 in faulty.zarr; it has 6"),
        ({"tab": "gradients"}, "no view 'gradients'; choose from overview"),
    ],
)
def test_opening_that_does_not_exist(faulty: Snapshot, wish: dict[str, Any], message: str) -> None:
    """An unknown layer, step or view is refused with what there is instead."""
    with pytest.raises(SiteNotFoundError, match=message):
        find_opening(faulty, **wish)


def test_empty_trace_opens(traces: dict[str, Path]) -> None:
    """A trace without steps or layers has an opening, of nothing."""
    opening = find_opening(Loader(open_trace(traces["empty"])).snapshot())
    assert (opening.layer, opening.site, opening.step) == ("", None, 0)
