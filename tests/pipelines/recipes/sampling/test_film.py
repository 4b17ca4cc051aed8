"""The film of x_t and x0."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.pipelines.recipes.sampling.film import film
from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer import open_trace


@pytest.fixture(scope="module", params=["ddim", "ddpm"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run with few steps."""
    lab = Lab(tmp_path_factory.mktemp(request.param), quiet=True)
    film(lab, steps=12, scheduler=request.param)
    return lab


def test_x_t_loses_its_noise_and_x0_arrives(lab: Lab) -> None:
    """With every step x_t has less noise, as much as the schedule says, and x0 is closer to the final latents.

    At first, where there is hardly anything but noise, what ddpm draws anew makes both go up and down.
    """
    trace = open_trace(lab.traces[0])
    alpha_bars = load_pipeline().scheduler.alphas_cumprod.numpy()[trace.timestep.astype(int)].reshape(-1, 1, 1, 1, 1)
    x, x0, final = trace.steps["latents"].values, trace.steps["x0"].values, trace.steps["next_latents"].values[-1]
    axes = tuple(range(1, x.ndim))
    noise = np.sqrt(((x - np.sqrt(alpha_bars) * final) ** 2).mean(axes))
    away = np.sqrt(((x0 - final) ** 2).mean(axes))
    assert (np.diff(noise) < 0.05).all() and (np.diff(noise)[5:] < 0).all()
    np.testing.assert_allclose(noise, np.sqrt(1 - alpha_bars).ravel(), atol=0.12)
    assert (np.diff(away)[1:] < 0.02).all() and away[0] > 5 * away[-2]
    assert lab["noise in x_t at the start"] == pytest.approx(noise[0], rel=1e-4)
    assert lab["distance of x0 to the final latents at the start"] == pytest.approx(away[0], rel=1e-4)


def test_the_film_moves(lab: Lab) -> None:
    """The GIF has a frame for each step, the picture and its last look; x_t and x0 are the same at the end."""
    files: dict[str, Path] = {shown.file.name: shown.file for shown in lab.figures}
    assert set(files) == {"film.gif", "strip.png", "distances.png"}
    with Image.open(files["film.gif"]) as gif:
        count = sum(1 for _ in ImageSequence.Iterator(gif))
        assert count >= 13  # equal frames are joined
        frames = []
        for place in (0, count - 1):
            gif.seek(place)
            frames.append(np.asarray(gif.convert("RGB"), float)[22:])
    first, last = (abs(frame[:, :256] - frame[:, 256:]).mean() for frame in frames)
    assert first > 30 > 3 > last


def test_the_scheduler_is_recorded_by_itself(lab: Lab) -> None:
    """Steps, branches and the picture are known without a word to the tracer."""
    trace = open_trace(lab.traces[0])
    assert trace.n_steps == 12
    assert trace.info.guidance == {"unet": {"batch": ["unconditional", "conditional"], "evidence": "embeddings"}}
    assert trace.images is not None and trace.images.shape == (1, 64, 64, 3)
