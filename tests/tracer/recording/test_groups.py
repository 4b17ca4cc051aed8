"""Whatever comes into being in whatever order, no array lies above another, and every group opens by itself."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_xray.tracer import Capture, Trace, open_trace
from diffusion_xray.tracer.layout import FORMAT_VERSION
from diffusion_xray.tracer.recording.clock import Clock
from diffusion_xray.tracer.recording.groups import Groups
from diffusion_xray.tracer.recording.recorder import Recorder
from diffusion_xray.tracer.recording.sites import Source
from diffusion_xray.tracer.recording.writer import BackgroundWriter
from diffusion_xray.tracer.storage.store import StoreWriter

NAMES = ("a", "b", "io", "shape1_a", "below_a", "a_shape1", "_io", "output")


def recording(path: Path) -> tuple[Recorder, Clock]:
    """A recorder that tensors are handed to directly."""
    writer = BackgroundWriter(lambda: StoreWriter(path, {"format_version": FORMAT_VERSION, "status": "recording"}))
    clock = Clock(lambda _: None, has_schedulers=False)
    recorder = Recorder(writer, Capture(modules="**"), clock)
    clock.on_step_end = recorder.step_ended
    return recorder, clock


def closed(recorder: Recorder, clock: Clock, path: Path) -> Trace:
    """The trace, once everything is written."""
    clock.finish(complete=True)
    assert recorder.close({"status": "complete"}, lambda _: {}) is None
    return open_trace(path)


def test_modules_that_come_below_a_leaf_lie_beside_it(tmp_path: Path) -> None:
    """An adapter that wraps a layer between two steps is recorded, and the layer's own array stays where it is."""
    path = tmp_path / "run.zarr"
    recorder, clock = recording(path)
    clock.set_step(0)
    leaf = Source("unet.to_v", "Linear", 1)
    recorder.record(Source("unet", "UNet", 0, leaf=False), torch.ones(1, 9), keep=True)
    recorder.record(leaf, torch.ones(1, 4), keep=True)
    clock.set_step(1)
    later = {"unet.to_v.base_layer": 4, "unet.to_v.lora_A.default": 2, "unet.to_v.lora_B.default": 4}
    for order, (name, size) in enumerate(later.items(), 2):
        recorder.record(Source(name, "Linear", order), torch.full((3, size), float(order)), keep=True)
    recorder.record(Source("unet.to_v", "lora.Linear", 1, leaf=False), torch.full((1, 4), 7.0), keep=True)
    trace = closed(recorder, clock, path)
    assert trace.site("unet.to_v").array == "unet/to_v/output"
    assert trace.tensor(trace.site("unet.to_v"), 1).tolist() == [[7, 7, 7, 7]]
    for order, (name, size) in enumerate(later.items(), 2):
        site = trace.site(name)
        assert site.array.startswith("unet/_below_to_v/")
        assert trace.tensor(site, 1).tolist() == [[order] * size] * 3
    with xarray.open_datatree(path, engine="zarr", chunks=None) as tree:
        assert tree["unet/_below_to_v/lora_A/default/output"].shape == (2, 3, 2)


names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map(lambda parts: ".".join(["unet", *parts]))


@settings(max_examples=150)
@given(st.lists(st.tuples(names, st.booleans(), st.integers(0, 2), st.sampled_from(["output", "input"])), max_size=12))
def test_no_two_arrays_clash(made: list[tuple[str, bool, int, str]]) -> None:
    """Of any modules in any order, leaves or not, with any number of shapes, no group with arrays is above another."""
    groups, paths = Groups(), {}
    for name, leaf, number, port in made:
        if (name, number, port) not in paths:
            paths[name, number, port] = groups.array(Source(name, leaf=leaf).group, port, number)
    assert len(set(paths.values())) == len(paths)
    holding = {path.rpartition("/")[0] for path in paths.values()}
    for group in holding:
        assert not any(other.startswith(f"{group}/") for other in holding), group
    assert not holding & set(paths.values())


@settings(max_examples=12)
@given(st.lists(st.tuples(names, st.booleans(), st.integers(1, 3), st.integers(1, 2)), min_size=1, max_size=8))
def test_any_order_opens_as_a_tree(made: list[tuple[str, bool, int, int]]) -> None:
    """Modules that come to be in any order, leaves or not, in changing shapes, are read back, and the tree opens."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.zarr"
        recorder, clock = recording(path)
        kept: dict[tuple[str, int], torch.Tensor] = {}
        for step, (name, leaf, rows, columns) in enumerate(made):
            clock.set_step(step)
            kept[name, step] = torch.full((rows, columns), float(step + 1))
            recorder.record(Source(name, "Part", step, leaf=leaf), kept[name, step], keep=True)
        trace = closed(recorder, clock, path)
        for (name, step), tensor in kept.items():
            assert np.array_equal(trace.tensor(trace.site(name), step), tensor.numpy())
        with xarray.open_datatree(path, engine="zarr", chunks=None) as tree:
            assert len(tree.groups) > len(made) / 4
