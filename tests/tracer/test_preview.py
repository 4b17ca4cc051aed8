"""Thumbnails of latents: the map that is fitted, and what is made of latents of every kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diffusion_xray.tracer import Trace, Tracer, TracerWarning, open_trace
from diffusion_xray.tracer.description import describe_in_lines
from diffusion_xray.tracer.preview_fit import fit_preview

WEIGHT = np.array([[0.11, 0.02, 0.0], [0.0, 0.12, -0.03], [-0.05, 0.0, 0.1], [0.04, -0.04, 0.04]])
BIAS = np.array([0.5, 0.4, 0.6])


class Flatten(nn.Module):
    """A denoiser that takes every latent to nearly nothing."""

    def forward(self, sample: Tensor, timestep: float) -> Tensor:
        """Keep a tenth."""
        return 0.1 * sample


class Halving:
    """A scheduler that takes away what the model found."""

    timesteps = (30.0, 20.0, 10.0)
    num_inference_steps = 3

    def step(self, model_output: Tensor, timestep: float, sample: Tensor) -> SimpleNamespace:
        """One step, and what it would be at once."""
        return SimpleNamespace(prev_sample=sample - model_output, pred_original_sample=sample * 0.7)


class Toy:
    """What a pipeline looks like from outside; `decode` makes its pictures."""

    def __init__(self, decode: Callable[[NDArray[Any]], Any]) -> None:
        self.components = {"denoiser": Flatten(), "scheduler": Halving()}
        self.decode = decode

    def __call__(self, latents: Tensor) -> SimpleNamespace:
        """Run the loop."""
        model, scheduler = self.components["denoiser"], self.components["scheduler"]
        assert isinstance(model, Flatten)
        assert isinstance(scheduler, Halving)
        for timestep in scheduler.timesteps:
            latents = scheduler.step(model(latents, timestep), timestep, latents).prev_sample
        return SimpleNamespace(images=self.decode(latents.numpy()))


def traced(path: Path, latents: Tensor, decode: Callable[[NDArray[Any]], Any]) -> Trace:
    """Trace the toy pipeline on the given latents."""
    pipeline = Toy(decode)
    with Tracer(pipeline, path, capture="statistics") as tracer:
        pipeline(latents)
    assert not tracer.trace.info.tap_failures
    assert tracer.trace.info.status == "complete"
    return tracer.trace


def noise(*shape: int) -> Tensor:
    """Latents, the same every time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def colours(latents: NDArray[Any]) -> NDArray[Any]:
    """The true colours of latents whose channels come last."""
    colours: NDArray[Any] = latents @ WEIGHT + BIAS
    return colours.clip(0, 1)


def enlarged(pictures: NDArray[Any], factor: int) -> NDArray[Any]:
    """Pictures (..., y, x, rgb) with every pixel repeated."""
    return pictures.repeat(factor, axis=-3).repeat(factor, axis=-2)


def test_a_linear_map_is_recovered() -> None:
    """Where colours depend linearly on latents, the fit finds that very map, from floats and from bytes."""
    latents = np.random.default_rng(0).normal(size=(2, 8, 6, 4))
    pictures = latents @ WEIGHT + BIAS
    fitted = fit_preview(latents, enlarged(pictures, 8))
    assert fitted.method == "linear fit"
    assert fitted.r2 == pytest.approx(1)
    assert np.allclose(fitted.weight, WEIGHT)
    assert np.allclose(fitted.bias, BIAS)
    in_bytes = (enlarged(pictures, 8).clip(0, 1) * 255).round().astype(np.uint8)
    rough = fit_preview(latents, in_bytes)
    assert rough.r2 is not None
    assert 0.99 < rough.r2 < 1
    assert np.abs(fitted(latents).astype(int) - in_bytes[:, ::8, ::8]).max() <= 1


def test_a_size_that_does_not_divide_is_averaged() -> None:
    """Pictures whose size is no multiple of the latents', larger or smaller, still give a map."""
    latents = np.random.default_rng(0).normal(size=(1, 7, 5, 4))
    for size in ((50, 33), (7, 5), (3, 2)):
        down, across = np.linspace(0.1, 0.9, size[0]), np.linspace(0.9, 0.1, size[1])
        picture = np.stack(np.broadcast_arrays(down[:, None], across[None], down[:, None]), axis=-1)[None]
        places = np.stack(np.broadcast_arrays(np.linspace(0, 1, 7)[:, None], np.linspace(0, 1, 5)[None]), axis=-1)
        fitted = fit_preview(np.concatenate([latents, places[None]], axis=-1), picture)
        assert fitted.method == "linear fit"
        assert fitted.r2 is not None and fitted.r2 > 0.85


def test_noise_is_not_explained() -> None:
    """Where colours have nothing to do with the latents, R² says so."""
    random = np.random.default_rng(0)
    fitted = fit_preview(random.normal(size=(1, 32, 32, 4)), random.uniform(size=(1, 32, 32, 3)))
    assert fitted.r2 is not None
    assert fitted.r2 < 0.1


@pytest.mark.parametrize("channels", [1, 2, 3, 16])
def test_principal_components_are_labelled(channels: int) -> None:
    """Without a picture the strongest directions become colours, using most of the range, and have no R²."""
    latents = np.random.default_rng(0).normal(size=(1, 16, 16, channels))
    fitted = fit_preview(latents, None)
    assert (fitted.method, fitted.r2) == ("principal components", None)
    drawn = fitted(latents)
    assert drawn.shape == (1, 16, 16, 3)
    assert drawn.dtype == np.uint8
    assert np.ptp(drawn[..., 0]) > 200


def test_images_make_previews(tmp_path: Path) -> None:
    """A run that returned pictures gets thumbnails of its latents and of x0 at every step, in the true colours."""
    trace = traced(tmp_path / "run.zarr", noise(2, 4, 8, 8), lambda z: enlarged(colours(np.moveaxis(z, 1, -1)), 8))
    assert trace.info.preview["method"] == "linear fit"
    assert trace.info.preview["r2"] > 0.99
    preview = trace.steps["preview"]
    assert preview.dims == ("step", "preview_image", "preview_y", "preview_x", "preview_rgb")
    assert preview.shape == (3, 2, 8, 8, 3)
    assert preview.dtype == np.uint8
    latents = trace.steps["next_latents"][-1].values
    last = trace.steps["latents"][2].values
    expected = colours(np.moveaxis(last, 1, -1)) * 255
    assert np.abs(preview[2] - expected).max() < 12, "colours that were clipped bend the fit a little"
    assert trace.steps["preview_x0"].shape == preview.shape
    assert latents.shape == (2, 4, 8, 8)


def test_the_last_latents_go_with_the_pictures_of_their_own_call(tmp_path: Path) -> None:
    """Of two calls in one block the picture of the second is what the last latents were decoded to."""
    pipeline = Toy(lambda z: enlarged(colours(np.moveaxis(z, 1, -1)), 8))
    with Tracer(pipeline, tmp_path / "run.zarr", capture="statistics") as tracer:
        first = pipeline(noise(1, 4, 8, 8)).images
        second = pipeline(noise(1, 4, 8, 8).flip(2)).images
    trace = tracer.trace
    assert trace.info.preview["r2"] > 0.99
    for step, images in ((2, first), (3, second)):
        found = trace.images_of(step)
        assert found is not None and np.array_equal(found, images)


def test_video_shows_its_middle_frame(tmp_path: Path) -> None:
    """Latents of a video are shown by their middle frame, fitted to the middle frame of the pictures."""
    trace = traced(tmp_path / "run.zarr", noise(1, 4, 3, 6, 8), lambda z: enlarged(colours(np.moveaxis(z, 1, -1)), 4))
    assert trace.images is not None
    assert trace.images.shape == (1, 3, 24, 32, 3)
    assert trace.info.preview["r2"] > 0.98
    assert trace.steps["preview"].shape == (3, 1, 6, 8, 3)


def test_packed_tokens_take_their_shape_from_the_picture(tmp_path: Path) -> None:
    """Latents packed into a row of tokens are laid out by the picture's aspect, also when it is not square."""
    trace = traced(tmp_path / "run.zarr", noise(1, 6 * 10, 4), lambda z: enlarged(colours(z.reshape(1, 6, 10, 4)), 8))
    assert trace.info.preview["r2"] > 0.99
    assert trace.steps["preview"].shape == (3, 1, 6, 10, 3)


def test_without_pictures(tmp_path: Path) -> None:
    """A run that returned no pictures shows principal components."""
    trace = traced(tmp_path / "run.zarr", noise(1, 4, 8, 8), lambda z: None)
    assert trace.images is None
    assert trace.info.preview == {
        "method": "principal components",
        "r2": None,
        "reason": "no picture came back",
    }
    assert trace.steps["preview"].shape == (3, 1, 8, 8, 3)


@pytest.mark.parametrize(
    ("shape", "decode"),
    [
        ((1, 7, 4), lambda z: None),
        ((1, 4), lambda z: None),
        ((1, 4, 8, 8), lambda z: np.zeros((1, 8, 8, 1))),
        ((1, 4, 8, 8), lambda z: np.zeros((3, 8, 8, 3))),
        ((2, 4, 8, 8), lambda z: np.zeros((1, 8, 8, 3))),
        ((1, 4, 8, 8), lambda z: ["not", "pictures"]),
        ((1, 1, 1, 1), lambda z: np.zeros((1, 8, 8, 3), np.uint8)),
        ((1, 4, 2, 2, 2, 2), lambda z: None),
    ],
    ids=["prime tokens", "vectors", "grey", "more pictures", "fewer pictures", "text", "one pixel", "six dimensions"],
)
def test_odd_runs_cost_the_preview_at_most(
    tmp_path: Path, shape: tuple[int, ...], decode: Callable[[NDArray[Any]], Any]
) -> None:
    """Latents or pictures of an unexpected kind leave the trace complete, with or without thumbnails."""
    trace = traced(tmp_path / "run.zarr", noise(*shape), decode)
    assert trace.n_steps == 3
    assert trace.steps["next_latents"].shape == (3, *shape)


@pytest.mark.parametrize("share", [0.1, 1.0])
@pytest.mark.parametrize("pictures", [False, True])
def test_latents_that_are_not_finite(tmp_path: Path, share: float, pictures: bool) -> None:
    """Some NaN among the latents are drawn as if they were zero; where all are, there is nothing to draw."""
    latents = noise(1, 4, 8, 8)
    latents.view(-1)[: int(256 * share)] = torch.nan

    def decode(z: NDArray[Any]) -> Any:
        return enlarged(np.nan_to_num(colours(np.moveaxis(z, 1, -1))), 2) if pictures else None

    with pytest.warns(TracerWarning, match="a value is not finite, the first in"):
        trace = traced(tmp_path / "run.zarr", latents, decode)
    assert ("preview" in trace.steps) == (share < 1)
    told = trace.info.preview
    if share == 1:
        assert told == {"method": "none", "r2": None, "reason": "the latents of every step are not finite"}
    else:
        assert told["method"] == ("linear fit" if pictures else "principal components")


def gradient(size: int = 32) -> NDArray[Any]:
    """A picture with all shades, (y, x, rgb)."""
    ramp = np.linspace(0.05, 0.95, size)
    return np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], ramp[::-1, None]), axis=-1)


def flat(value: float) -> NDArray[Any]:
    """A picture of one value."""
    return np.full((32, 32, 3), value)


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (flat(0), "the picture is black"),
        (flat(1), "the picture is white"),
        (flat(0.5), "the picture is of one colour"),
        (flat(0.5) + np.random.default_rng(0).uniform(-0.002, 0.002, (32, 32, 3)), "the picture is of one colour"),
        (flat(np.nan), "the picture is not finite"),
        ((np.random.default_rng(0).uniform(size=(32, 32, 3)) > 0.5) * 1.0, "the picture is clipped to black and white"),
    ],
    ids=["black", "white", "grey", "nearly one colour", "NaN", "clipped"],
)
@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_picture_that_shows_nothing_is_no_target(picture: NDArray[Any], reason: str, as_bytes: bool) -> None:
    """Not "R² 1.000" of a black picture: principal components, which vary, and the reason."""
    latents = np.random.default_rng(1).normal(size=(1, 8, 8, 4))
    if as_bytes:
        if np.isnan(picture).any():
            picture, reason = flat(0), "the picture is black"  # what Pillow makes of it
        picture = (picture * 255).round().astype(np.uint8)
    fitted = fit_preview(latents, picture[None])
    assert (fitted.method, fitted.r2, fitted.reason) == ("principal components", None, reason)
    assert fitted(latents).std() > 20


def test_most_of_a_background_is_still_a_picture() -> None:
    """A small thing on white, and a picture of which one colour never varies, are fitted."""
    picture = np.ones((64, 64, 3))
    picture[20:40, 20:40] = gradient(20)
    one_constant = np.concatenate([gradient(64)[..., :2], np.zeros((64, 64, 1))], axis=-1)
    for target in (picture, one_constant):
        shrunk = target.reshape(8, 8, 8, 8, 3).mean((1, 3))[None]
        assert fit_preview(shrunk, target[None]).r2 == pytest.approx(1)


def test_a_constant_channel_of_the_last_latents_gets_no_weight() -> None:
    """It may vary at other steps, where what the last step cannot tell would be drawn."""
    latents = np.random.default_rng(0).normal(size=(1, 8, 8, 4))
    latents[..., 2] = 3.0
    fitted = fit_preview(latents, (latents @ WEIGHT + BIAS)[:, :, :])
    assert np.abs(fitted.weight[2]).max() < 1e-9
    assert fitted.r2 == pytest.approx(1)


def test_the_pictures_of_a_batch_that_show_something_are_used() -> None:
    """One black picture among others, as a filter leaves it, takes no part."""
    latents = np.random.default_rng(0).normal(size=(2, 8, 8, 4)) * 0.2
    pictures = latents @ WEIGHT + BIAS
    pictures[0] = 0
    fitted = fit_preview(latents, pictures)
    assert fitted.r2 == pytest.approx(1) and np.allclose(fitted.weight, WEIGHT)


def test_a_black_picture_leaves_previews_of_healthy_latents(tmp_path: Path) -> None:
    """The decoder is at fault, and the previews show that the latents are not."""
    trace = traced(tmp_path / "run.zarr", noise(1, 4, 8, 8), lambda z: np.zeros((1, 64, 64, 3), np.uint8))
    assert trace.info.preview == {"method": "principal components", "r2": None, "reason": "the picture is black"}
    assert trace.steps["preview_x0"].values.std() > 20


@pytest.mark.filterwarnings("ignore:a value is not finite")
def test_the_last_latents_that_are_finite(tmp_path: Path) -> None:
    """Where the loop ends in NaN, the map is made of the step before that, and it says of which."""
    latents = noise(1, 4, 8, 8)
    with Tracer(Flatten(), tmp_path / "run.zarr", capture="statistics") as tracer:
        for step in range(3):
            tracer.step(step)
            following = latents * (0.9 if step < 2 else torch.nan)
            tracer.record_latents(latents, next_latents=following)
            latents = following
    trace = tracer.trace
    assert trace.info.preview["reason"] == "the last latents are not finite; those before step 2 are used"
    assert trace.steps["preview"].values[0].std() > 20


def test_a_black_frame_in_the_middle_of_a_video(tmp_path: Path) -> None:
    """The nearest frame that shows something is fitted, to its own latents."""

    def decode(z: NDArray[Any]) -> NDArray[Any]:
        frames = enlarged(colours(np.moveaxis(z, 1, -1)), 4)
        frames[:, 1] = 0
        return frames

    trace = traced(tmp_path / "run.zarr", noise(1, 4, 3, 6, 8), decode)
    assert trace.info.preview["method"] == "linear fit"
    assert trace.info.preview["r2"] > 0.98


def test_info_says_how_and_why(tmp_path: Path) -> None:
    """Beside the method stands the reason, from whatever a trace holds."""
    traced(tmp_path / "run.zarr", noise(1, 4, 8, 8), lambda z: np.zeros((1, 64, 64, 3), np.uint8))
    assert (
        "principal components, as the picture is black"
        in dict(describe_in_lines(open_trace(tmp_path / "run.zarr")))["preview"]
    )
