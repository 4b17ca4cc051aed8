"""A UNet that is told the time, trained to draw digits."""

from pathlib import Path

import numpy as np
import pytest

from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.pipelines.recipes.training.train_time_conditional import train_time_conditional
from diffusion_xray.tracer import Trace, open_trace

from .mnist_files import write_mnist


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run with less training and fewer noise levels."""
    lab = Lab(tmp_path_factory.mktemp("timed"), quiet=True)
    train_time_conditional(lab, steps=150, timesteps=40, every=50)
    return lab


@pytest.fixture(scope="module")
def training(lab: Lab) -> Trace:
    """How it learned."""
    return open_trace(lab.folder / "training.zarr")


@pytest.fixture(scope="module")
def sampling(lab: Lab) -> Trace:
    """How it draws."""
    return open_trace(lab.folder / "sampling.zarr")


def test_what_is_drawn_becomes_digits(lab: Lab) -> None:
    """Pictures drawn come closer to digits held out with training, by far."""
    distances = [it.value for it in lab.findings if it.name.startswith("Fréchet distance after")]
    assert len(distances) == 5
    assert distances[-1] == min(distances) and distances[-1] < 0.15 * distances[0]
    assert lab["Fréchet distance of the training digits"] < distances[-1]


def test_the_trace_shows_it_learn(training: Trace) -> None:
    """The loss falls; the noise predicted and the one there was are beside it; samples stand where they were drawn."""
    assert training.timestep.tolist() == [0, 1, 3, 14, 44, 50, 100, 149]
    loss = training["records.loss"]["output"].values
    assert loss[-1] < 0.3 * loss[0]
    noise, predicted = (training[f"records.{name}"]["output"].values for name in ("noise", "predicted_noise"))
    np.testing.assert_allclose(((noise - predicted) ** 2).mean(axis=(1, 2, 3, 4)), loss, rtol=1e-4)
    samples = training["records.samples"]
    drawn_at = training.timestep[~np.isnan(samples["mean"].values)]
    assert drawn_at.tolist() == [1, 3, 14, 44, 149]


def test_time_is_scale_and_offset(training: Trace, sampling: Trace) -> None:
    """What the time does to the decoder is nothing at first, and differs from step to step of the drawing at last."""
    for what in ("scale", "offset"):
        assert (training[f"unet.modulate2.{what}.time"]["output"].values[0] == 0).all()
        drawn = sampling[f"unet.modulate2.{what}.time"]["output"].values
        np.testing.assert_allclose(drawn, np.broadcast_to(drawn[:, :1], drawn.shape), atol=1e-6)
        assert np.abs(drawn[0] - drawn[-1]).max() > 0.1


def test_drawing_is_traced(sampling: Trace) -> None:
    """From noise to digits, one step for each time."""
    assert sampling.timestep.tolist() == list(range(39, -1, -1))
    latents = sampling.steps["latents"].values
    assert abs(latents[0].std() - 1) < 0.1
    assert sampling.images is not None and sampling.images.shape == (10, 8, 8, 3)


def test_figures(lab: Lab) -> None:
    """The samples after epochs, and the curves."""
    assert [shown.file.name for shown in lab.figures] == ["samples.png", "curves.png"]
    assert all(shown.caption and shown.file.is_file() for shown in lab.figures)


def test_mnist(tmp_path: Path) -> None:
    """From a folder with MNIST's files, it learns and draws pictures of 28×28 pixels."""
    lab = Lab(tmp_path / "run", quiet=True)
    train_time_conditional(lab, steps=2, batch=8, timesteps=2, mnist=write_mnist(tmp_path))
    trace = open_trace(tmp_path / "run" / "training.zarr")
    assert trace["records.samples"]["output"].shape == (2, 10, 1, 28, 28)
    assert len(lab.figures) == 2
