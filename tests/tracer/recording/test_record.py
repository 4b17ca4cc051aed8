"""Tensors of the user's own code, put into the trace by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from torch import nn

from diffusion_xray.tracer import Capture, TargetError, Tracer

from ..networks import Denoiser


@pytest.mark.filterwarnings("ignore:a value is not finite")
def test_a_record_answers_in_one_line(tmp_path: Path) -> None:
    """The answer shows shape, dtype, range, mean and deviation, a sparkline, and whether any value is not finite."""
    with Tracer(nn.Linear(1, 1), tmp_path / "run.zarr") as tracer:
        good = tracer.record("good", torch.arange(12.0).view(3, 4))
        bad = tracer.record("bad", torch.tensor([1.0, math.nan, math.inf, -math.inf, math.nan], dtype=torch.float16))
    assert str(good).startswith("good 3×4 float32 [0, 11] 5.5 ± 3.45 ")
    assert len(str(good).split()[-1]) == 12
    assert set(str(good).split()[-1]) <= set("▁▂▃▄▅▆▇█")
    assert "✗" not in str(good)
    assert repr(bad).startswith("bad 5 float16 [1, 1] 1 ± 0")
    assert repr(bad).endswith("✗ 2 NaN, 1 +Inf, 1 -Inf")
    assert "\n" not in f"{good}{bad}"


def test_a_deviation_that_overflows_is_infinite(tmp_path: Path) -> None:
    """The line is made also where squares are beyond float64."""
    with Tracer(nn.Linear(1, 1), tmp_path / "run.zarr") as tracer:
        line = tracer.record("x", torch.tensor([1e300, -1e300], dtype=torch.float64))
    assert str(line).startswith("x 2 float64 [-1.0e+300, 1.0e+300] 0 ± ∞")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (3, "an int is no tensor"),
        (object(), "an object is no tensor"),
        ([1.0], "a list is no tensor"),
        (np.array(["a"]), "a ndarray of <U1 is no tensor; give one, or an array of numbers"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_tensor_is_named(tmp_path: Path, value: object, words: str) -> None:
    """The error says what was given."""
    with Tracer(nn.Linear(1, 1), tmp_path / "run.zarr") as tracer:
        tracer.record("x", torch.ones(1))
        with pytest.raises(TargetError, match=words):
            tracer.record("y", value)


@pytest.mark.parametrize(
    ("tensor", "start"),
    [
        (torch.tensor(2.5), "x scalar float32 [2.5, 2.5] 2.5 ± 0"),
        (torch.tensor([True, False]), "x 2 bool [0, 1] 0.5 ± 0.5"),
        (torch.arange(4), "x 4 int64 [0, 3] 1.5 ± 1.12"),
        (torch.ones(2, 1, dtype=torch.bfloat16), "x 2×1 bfloat16 [1, 1] 1 ± 0"),
        (torch.zeros(1, 0), "x 1×0 float32 [–, –] – ± –"),
        (torch.full((2,), math.nan), "x 2 float32 [–, –] – ± –"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:a value is not finite")
@pytest.mark.parametrize("in_loop", [False, True])
def test_any_dense_tensor_can_be_recorded(tmp_path: Path, tensor: torch.Tensor, start: str, in_loop: bool) -> None:
    """Scalars, booleans, integers and empty tensors are recorded and read back, in and outside of a loop."""
    with Tracer(nn.Linear(1, 1), tmp_path / "run.zarr") as tracer:
        if in_loop:
            tracer.step(0)
        assert str(tracer.record("x", tensor)).startswith(start)
    trace = tracer.trace
    assert trace.info.status == "complete"
    site = trace.site("records.x")
    assert site.stepped is in_loop
    if tensor.numel():
        stored = trace.tensor(site)
        assert stored.shape == tuple(tensor.shape)
        assert np.array_equal(stored, tensor.float().numpy(), equal_nan=True)
        assert trace["records.x"]["output"].sizes.get("step") == (1 if in_loop else None)


def test_a_record_is_copied(tmp_path: Path) -> None:
    """What happens to the tensor afterwards does not change the record."""
    tensor = torch.ones(3)
    with Tracer(nn.Linear(1, 1), tmp_path / "run.zarr") as tracer:
        tracer.record("x", tensor)
        tensor.zero_()
    assert tracer.trace.tensor(tracer.trace.site("records.x")).tolist() == [1, 1, 1]


def test_records_know_their_step(tmp_path: Path) -> None:
    """In a hand-written DDIM loop the latents of each step are found under it; before the loop there is none."""
    model = Denoiser()
    alphas = torch.linspace(0.9999, 0.01, 1000).cumprod(0).clamp(min=1e-4)
    timesteps = [900, 600, 300]
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    seen = []
    with torch.no_grad(), Tracer(model, tmp_path / "run.zarr", capture="statistics") as tracer:
        tracer.record("start", latents)
        for index, timestep in enumerate(timesteps):
            tracer.step(index, timestep=timestep, sigma=float((1 / alphas[timestep] - 1).sqrt()))
            noise = model(latents, timestep)[0]
            before = alphas[timestep]
            after = alphas[timestep - 300]
            x0 = (latents - (1 - before).sqrt() * noise) / before.sqrt()
            latents = after.sqrt() * x0 + (1 - after).sqrt() * noise
            tracer.record("x0", x0)
            tracer.record("loop.latents", latents)
            seen.append(latents)
    trace = tracer.trace
    assert not trace.site("records.start").stepped
    recorded = trace["records.loop.latents"]
    assert recorded["timestep"].values.tolist() == timesteps
    assert np.array_equal(recorded["output"], np.stack(seen))
    assert recorded["output"].dims == ("step", "batch", "channel", "height", "width")
    assert np.allclose(recorded["std"], [float(step.std(correction=0)) for step in seen], rtol=1e-5)
    assert trace["records.x0"].sizes["step"] == 3
    assert "step" not in trace["records.start"].dims
    assert trace["model.conv_in"].sizes["step"] == 3


def test_a_name_before_and_inside_the_loop_is_two_places(tmp_path: Path) -> None:
    """The same name outside of the loop and in it keeps both, each with its own values."""
    with Tracer(nn.Linear(1, 1), tmp_path / "run.zarr") as tracer:
        tracer.record("x", torch.zeros(2))
        tracer.step(0)
        tracer.record("x", torch.ones(2))
    sites = tracer.trace.modules["records.x"].sites
    assert {site.stepped: tracer.trace.tensor(site).tolist() for site in sites} == {False: [0, 0], True: [1, 1]}
    assert {"mean", "output_step_mean"} <= set(tracer.trace["records.x"])


def test_a_record_taken_twice_in_a_step(tmp_path: Path) -> None:
    """A second record of the same name in a step is a further call of it."""
    with Tracer(nn.Linear(1, 1), tmp_path / "run.zarr") as tracer:
        for step in range(2):
            tracer.step(step)
            for value in range(2):
                tracer.record("x", torch.full((2,), 10.0 * step + value))
    trace = tracer.trace
    values = {site.array_name: trace.tensor(site, 1)[0] for site in trace.modules["records.x"].sites}
    assert values == {"output": 10, "output_call1": 11}


def test_records_form_a_hierarchy_of_any_shapes(tmp_path: Path) -> None:
    """A record may lie below another of a different shape, and names may hold anything; xarray opens the whole tree."""
    names = ["a", "a.b", "a.b.output", "x y", "a/b", "_io", "ü", "c", "zarr.json", "\x1b[31mred"]
    with Tracer(nn.Linear(1, 1), tmp_path / "run.zarr") as tracer:
        for step in range(2):
            tracer.step(step)
            for size, name in enumerate(names, 1):
                tracer.record(name, torch.full((size,), float(size)))
    trace = tracer.trace
    for size, name in enumerate(names, 1):
        assert trace.tensor(trace.modules[f"records.{name}"].site, 1).tolist() == [size] * size
    with xarray.open_datatree(tmp_path / "run.zarr") as tree:
        assert tree["records/a/b/_io/output"].shape == (2, 2)


def test_a_record_may_change_its_shape(tmp_path: Path) -> None:
    """A record of another shape is stored beside the first, and both read as one series."""
    with Tracer(nn.Linear(1, 1), tmp_path / "run.zarr") as tracer:
        for step in range(2):
            tracer.step(step)
            tracer.record("x", torch.ones(2 + step))
    trace = tracer.trace
    assert trace.info.gaps == ()
    assert trace["records.x"]["count"].values.tolist() == [2, 3]
    assert np.isnan(trace["records.x"]["output"][1]).all()
    assert trace["records.x"]["output_shape1"][1].values.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("", torch.zeros(1), "give a name"),
        ("a..b", torch.zeros(1), "give a name"),
        (".", torch.zeros(1), "give a name"),
        ("x", [1.0], "list"),
        ("x", np.array(["text"]), "ndarray"),
        ("x", None, "NoneType"),
        ("x", torch.zeros(2).to_sparse(), "sparse_coo .*no numbers"),
        ("x", torch.zeros(2, device="meta"), "no numbers"),
    ],
)
def test_what_cannot_be_recorded_is_refused(tmp_path: Path, name: str, tensor: Any, words: str) -> None:
    """A wrong name or something that is no dense real tensor is an error at the call, and recording goes on."""
    with Tracer(nn.Linear(1, 1), tmp_path / "run.zarr") as tracer:
        with pytest.raises(TargetError, match=words):
            tracer.record(name, tensor)
        tracer.record("after", torch.zeros(1))
    assert tracer.trace.info.status == "complete"
    assert "records.after" in tracer.trace.modules


def test_inputs_named_by_anything_stay_inside_their_group(tmp_path: Path) -> None:
    """The keys of a mapping that goes into a module name its arrays, whatever they hold."""

    class Mixer(nn.Module):
        def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
            return torch.stack(list(features.values())).sum(0)

    model, features = Mixer(), {"down/0": torch.ones(2), "../../../up": torch.ones(2), "ü": torch.ones(2)}
    with Tracer(model, tmp_path / "run.zarr", capture=Capture(modules="model", inputs=True)) as tracer:
        model(features)
    trace = tracer.trace
    inputs = [site for site in trace.modules["model"].sites if site.port.startswith("input")]
    assert [trace.tensor(site).tolist() for site in inputs] == [[1, 1]] * 3
    assert {str(Path(site.array).parent) for site in inputs} == {"model"}
    assert {file.name for file in tmp_path.iterdir()} == {"run.zarr"}
    with xarray.open_datatree(tmp_path / "run.zarr") as tree:
        assert len(tree["model"].ds) == 4


def test_a_loop_of_ones_own_has_latents_and_pictures(tmp_path: Path) -> None:
    """What a hand-written loop works on is read where a scheduler's is, and previews are fitted to its pictures."""
    generator = torch.Generator().manual_seed(0)
    x, steps = torch.randn(1, 4, 8, 8, generator=generator), []
    with Tracer({"denoiser": Denoiser()}, tmp_path / "run.zarr") as tracer:
        for step, t in enumerate((900, 500, 100)):
            tracer.step(step, timestep=t)
            noise = torch.randn(x.shape, generator=generator)
            steps.append((x, noise, x - noise, x - noise / 2))
            tracer.record_latents(x, model_output=noise, x0=x - noise, next_latents=x - noise / 2)
            x = x - noise / 2
        tracer.step(None)
        tracer.record_images(x[:, :3].sigmoid())
        tracer.record_images([np.zeros((5, 6, 3), np.uint8)])
    trace = tracer.trace
    loop = trace.steps
    for place, name in enumerate(("latents", "model_output", "x0", "next_latents")):
        np.testing.assert_array_equal(loop[name].values, torch.stack([found[place] for found in steps]).numpy())
    assert trace.images is not None
    np.testing.assert_array_equal(trace.images, x[:, :3].sigmoid().permute(0, 2, 3, 1).numpy())
    assert loop["preview"].shape == (3, 1, 8, 8, 3) and trace.info.preview["method"] == "linear fit"
    assert "images_call1" in xarray.open_zarr(tmp_path / "run.zarr", group="images", consolidated=False)


def test_latents_are_left_out_where_the_capture_leaves_them_out(tmp_path: Path) -> None:
    """`Capture(latents=False)` keeps the statistics of a hand-written loop's latents only."""
    with Tracer({"denoiser": Denoiser()}, tmp_path / "run.zarr", capture=Capture(latents=False)) as tracer:
        tracer.step(0)
        tracer.record_latents(torch.ones(1, 4, 8, 8))
    assert tracer.trace.steps.get("latents") is None
    assert tracer.trace["latents"]["mean"].values == [1.0]


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    """A tensor without colours is named with its type, and nothing is recorded."""
    refused = pytest.raises(TargetError, match=r"record_images\(Tensor\): give")
    with Tracer(nn.Linear(1, 1), tmp_path / "run.zarr") as tracer:
        tracer.record("something", torch.zeros(1))
        with refused:
            tracer.record_images(torch.zeros(2, 7, 8, 8))
    assert tracer.trace.images is None


HALVES = ["part 0", "part 1"]


@pytest.mark.parametrize(
    ("weights", "known"),
    [
        ((1.0,), {}),
        ((-2.0, 3.0), {"batch": ["unconditional", "conditional"], "evidence": "output"}),
        ((3.0, -2.0), {"batch": ["conditional", "unconditional"], "evidence": "output"}),
        ((0.5, 0.5), {"batch": HALVES, "evidence": ""}),
        (None, {"batch": HALVES, "evidence": ""}),
    ],
)
def test_guidance_of_a_hand_written_loop(
    tmp_path: Path, weights: tuple[float, ...] | None, known: dict[str, Any]
) -> None:
    """A batch twice that of the latents holds two branches: which is which is told by the result, where it is given."""
    model, latents = nn.Conv2d(4, 4, 1), torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), Tracer(model, tmp_path / "run.zarr") as tracer:
        for step in range(2):
            tracer.step(step)
            parts = model(torch.cat([latents + at for at in range(len(weights or HALVES))])).chunk(
                len(weights or HALVES)
            )
            result = None if weights is None else sum(w * part for w, part in zip(weights, parts, strict=True))
            tracer.record_latents(latents, model_output=result)
    assert tracer.trace.info.guidance == ({"model": known} if known else {})


def test_loops_of_one_step_follow_one_another(tmp_path: Path) -> None:
    """A loop that was said to be over is not gone on with: each of three loops has steps of its own."""
    with torch.no_grad(), Tracer(nn.Linear(2, 2), tmp_path / "run.zarr") as tracer:
        for loop in ((3.0, 2.0), (1.0,), (1.0,)):
            for step, timestep in enumerate(loop):
                tracer.step(step, timestep=timestep)
                tracer.record("x", torch.zeros(1))
            tracer.step(None)
    assert tracer.trace.timestep.tolist() == [3, 2, 1, 1]
