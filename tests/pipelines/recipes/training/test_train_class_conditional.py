"""A UNet that is told the digit, trained to draw digits to order."""

import numpy as np
import pytest
import torch

from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.pipelines.recipes.training.digits import load_digits
from diffusion_xray.pipelines.recipes.training.train_class_conditional import train_class_conditional
from diffusion_xray.tracer import Trace, open_trace


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run with less training and fewer noise levels."""
    lab = Lab(tmp_path_factory.mktemp("told"), quiet=True)
    train_class_conditional(lab, steps=150, timesteps=40, count=8, every=75)
    return lab


@pytest.fixture(scope="module")
def training(lab: Lab) -> Trace:
    """How it learned."""
    return open_trace(lab.folder / "training.zarr")


@pytest.fixture(scope="module")
def sampling(lab: Lab) -> Trace:
    """How it draws, one of each digit."""
    return open_trace(lab.folder / "sampling.zarr")


def test_it_draws_digits_to_order(lab: Lab) -> None:
    """A classifier that reads true digits well reads at least four in five of those drawn as what was asked for."""
    assert lab["recognised of true digits held out"] > 97
    assert lab["recognised of drawn digits"] >= 80


def test_guidance_helps(lab: Lab) -> None:
    """With guidance more digits are read than without."""
    assert lab["recognised of drawn digits"] > lab["recognised without guidance"]


def test_digits_are_not_copies(lab: Lab) -> None:
    """What is drawn is about as far from the nearest training digit as digits held out are."""
    assert 0.6 < lab["distance to the nearest training digit, over that of digits held out"] < 1.5


def test_another_reader_agrees(lab: Lab, training: Trace) -> None:
    """The last samples of the trace, one for each digit, are mostly nearest to the mean of their own class."""
    digits, _ = load_digits()
    means = torch.stack([digits.pictures[digits.labels == label].mean(0) for label in range(10)])
    samples = torch.tensor(training["records.samples"]["output"].values[-1])
    nearest = torch.cdist(samples.flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == torch.arange(10)).sum() >= 7


def test_the_class_is_scale_and_offset(sampling: Trace) -> None:
    """Half of the batch is told no class and has scales and offsets of zero; each digit has others of its own."""
    for what in ("scale", "offset"):
        values = sampling[f"unet.modulate2.{what}.class"]["output"].values
        assert values.shape[1] == 20
        assert (values[:, :10] == 0).all()
        np.testing.assert_allclose(values, np.broadcast_to(values[:1], values.shape), atol=1e-6)
        digits = values[0, 10:]
        apart = np.linalg.norm(digits[:, None] - digits[None], axis=-1)[~np.eye(10, dtype=bool)]
        assert apart.min() > 0.05


def test_classes_are_dropped(training: Trace) -> None:
    """In training, about one picture of ten is told no class."""
    told = training["records.told"]["output"].values
    assert told.max() == 10 and 0.05 < (told == 10).mean() < 0.15


def test_drawing_is_traced(sampling: Trace) -> None:
    """One step for each time, ten digits."""
    assert sampling.timestep.tolist() == list(range(39, -1, -1))
    assert sampling.steps["latents"].shape == (40, 10, 1, 8, 8)
    assert sampling.images is not None and sampling.images.shape == (10, 8, 8, 3)


def test_figures(lab: Lab) -> None:
    """Samples after epochs, the digits, what time and class do, and the curves."""
    names = ["samples.png", "digits.png", "scale_and_offset.png", "curves.png"]
    assert [shown.file.name for shown in lab.figures] == names
    assert all(shown.caption and shown.file.is_file() for shown in lab.figures)
