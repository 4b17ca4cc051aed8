"""Guidance by a loss."""

from contextlib import AbstractContextManager
from typing import Any, Self

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion_xray.pipelines.recipes.guidance.more_blue import more_blue
from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.pipelines.recipes.latent_diffusion import encode_prompts, noise_and_x0, predict
from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer import Trace, open_trace

STRENGTHS = (0.0, 1500.0, 3000.0)
PROMPT = "a red circle on gray"
RUN: dict[str, Any] = {"prompt": PROMPT, "strengths": STRENGTHS, "steps": 10, "every": 2}


class _Untraced(AbstractContextManager["_Untraced"]):
    """In a tracer's place: hooks nothing and keeps what the loop hands over."""

    def __init__(self) -> None:
        self.kept: dict[str, list[Tensor]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def step(self, index: int | None, **_: object) -> None:
        pass

    def record(self, name: str, tensor: Tensor) -> None:
        self.kept.setdefault(name, []).append(tensor.detach().clone())

    def record_latents(self, latents: Tensor, **rest: Tensor) -> None:
        for name, tensor in {"latents": latents, **rest}.items():
            self.record(name, tensor)

    def record_images(self, images: Tensor) -> None:
        self.record("images", images)


class _UntracedLab(Lab):
    """A lab without a tracer."""

    untraced: _Untraced

    def trace(self, *_: object, **__: object) -> Any:
        self.untraced = _Untraced()
        return self.untraced


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run with few strengths and steps."""
    lab = Lab(tmp_path_factory.mktemp("more-blue"), quiet=True)
    more_blue(lab, **RUN)
    return lab


@pytest.fixture(scope="module")
def trace(lab: Lab) -> Trace:
    """Its trace."""
    return open_trace(lab.traces[0])


def test_the_blue_channel_rises_with_the_strength(lab: Lab) -> None:
    """The stronger the guidance, the bluer the picture."""
    blue = [lab[f"mean of the blue channel, strength {strength:g}"] for strength in STRENGTHS]
    assert blue == sorted(blue) and blue[-1] > blue[0] + 0.03


def test_the_trace_holds_the_gradient(trace: Trace) -> None:
    """At every second step the pull on each latent, and at every step the loss and the picture that it is taken of."""
    gradient = trace["records.gradient"]
    length = gradient["l2_norm"].values.reshape(-1)
    assert np.isnan(length).tolist() == [False, True] * 5 and length[::2].min() > 0
    blue = trace["records.picture"]["output"].values[:, :, 2]
    np.testing.assert_allclose(trace["records.loss"]["output"].values, np.abs(blue - 0.9).mean((2, 3)), rtol=1e-5)
    assert not trace.info.gaps and not trace.info.tap_failures


def test_the_gradient_is_that_of_the_loss(trace: Trace) -> None:
    """A small move along it changes the loss as much as it says."""
    pipe = load_pipeline()
    latents, gradient, t = _entry(trace, step=4)
    small = 0.05 / gradient.norm()
    ahead, behind = (_loss(pipe, latents + move * gradient, t) for move in (small, -small))
    assert (ahead - behind) / (2 * float(small)) == pytest.approx(float(gradient.square().sum()), rel=0.05)


@pytest.mark.parametrize("step", [0, 4])
def test_a_move_lowers_the_loss(trace: Trace, step: int) -> None:
    """The first move of the recipe, however little it is in nearly pure noise, and a later one make it bluer."""
    pipe = load_pipeline()
    latents, gradient, t = _entry(trace, step=step)
    moved = latents - STRENGTHS[1] * pipe.scheduler.alphas_cumprod[t] * gradient
    assert _loss(pipe, moved, t) < _loss(pipe, latents, t)


def test_tracing_changes_neither_gradients_nor_latents(trace: Trace, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Without a tracer the same numbers come out, bit for bit, of the backward pass too."""
    lab = _UntracedLab(tmp_path_factory.mktemp("untraced"), quiet=True)
    more_blue(lab, **RUN)
    kept = lab.untraced.kept
    np.testing.assert_array_equal(trace["records.gradient"]["output"].values[::2], torch.stack(kept["gradient"]))
    np.testing.assert_array_equal(trace["records.loss"]["output"].values, torch.stack(kept["loss"]))
    np.testing.assert_array_equal(trace.steps["next_latents"].values, torch.stack(kept["next_latents"]))


def test_strength_zero_is_no_guidance(trace: Trace) -> None:
    """The first of the batch is what the pipeline draws from the same noise."""
    pipe = load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    start = torch.from_numpy(trace.steps["latents"].values[0, :1])
    theirs = pipe(PROMPT, num_inference_steps=10, guidance_scale=3.0, latents=start, output_type="latent").images
    np.testing.assert_allclose(trace.steps["next_latents"].values[-1, :1], theirs, atol=1e-4)


def test_figures_are_written(lab: Lab) -> None:
    """The sweep, the gradient and the loss."""
    assert [shown.file.name for shown in lab.figures] == ["sweep.png", "gradient.png", "loss.png"]


def _entry(trace: Trace, *, step: int) -> tuple[Tensor, Tensor, int]:
    """Latents, gradient and timestep of the second entry of the batch."""
    latents = torch.from_numpy(trace.steps["latents"].values[step, 1:2])
    gradient = torch.from_numpy(trace["records.gradient"]["output"].values[step, 1:2])
    return latents, gradient, int(trace.timestep[step])


@torch.no_grad()
def _loss(pipe: Any, latents: Tensor, t: int) -> float:
    """The loss at some latents, by other means than the recipe's."""
    condition, unconditional = encode_prompts(pipe, PROMPT), encode_prompts(pipe, "")
    prediction = predict(pipe, latents, t, condition, unconditional=unconditional, guidance=3.0)
    x0 = noise_and_x0(pipe, prediction, latents, pipe.scheduler.alphas_cumprod[t])[1]
    picture = pipe.vae.decode(x0 / pipe.vae.config.scaling_factor).sample[0, 2] / 2 + 0.5
    return float((picture.double() - 0.9).abs().mean())
