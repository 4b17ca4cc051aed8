"""Between two starting noises."""

import numpy as np
import pytest

from diffusion_xray.pipelines.recipes.components.latent_interpolation import latent_interpolation
from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.pipelines.shapes.judge import judge
from diffusion_xray.pipelines.shapes.world import Object, Scene
from diffusion_xray.tracer import open_trace


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run with few frames."""
    lab = Lab(tmp_path_factory.mktemp("interpolation"), quiet=True)
    latent_interpolation(lab, frames=5, steps=10)
    return lab


def norms(lab: Lab, way: int) -> np.ndarray:
    """Of the latents at the first step in the trace, over sqrt(d)."""
    latents = open_trace(lab.traces[way]).steps["latents"].values[0].astype(np.float64)
    return np.asarray(np.linalg.norm(latents.reshape(len(latents), -1), axis=1) / 32)


def test_the_straight_way_leaves_the_shell(lab: Lab) -> None:
    """In its middle the norm is near sqrt(d / 2), as the trace has it too."""
    straight = norms(lab, 0)
    assert lab["linear: least norm over sqrt(d)"] == pytest.approx(np.sqrt(0.5), abs=0.06)
    assert straight.argmin() == 2 and straight.min() == pytest.approx(lab["linear: least norm over sqrt(d)"], rel=1e-5)


def test_the_other_way_stays_on_it(lab: Lab) -> None:
    """Its norms lie between those of the ends, which are the same on both ways."""
    straight, round_way = norms(lab, 0), norms(lab, 1)
    assert round_way == pytest.approx(np.ones(5), abs=0.06)
    assert round_way[[0, -1]] == pytest.approx(straight[[0, -1]], rel=1e-5)


def test_weaker_noise_leaves_less_contrast(lab: Lab) -> None:
    """What the straight way comes to in its middle is fainter than what the other does."""
    name = "contrast of the final latents in the middle, over that at the ends"
    assert lab[f"linear: {name}"] < lab[f"spherical: {name}"]


def test_every_picture_shows_the_prompt(lab: Lab) -> None:
    """On the sphere, each point between two noises is a noise like any other: its picture is right."""
    images = open_trace(lab.traces[1]).images
    assert images is not None
    star, ring = Object("red", "star", "", 0, 0, 0), Object("blue", "ring", "", 0, 0, 0)
    scene = Scene((star, ring), "left of", "white")
    verdicts = [judge((image * 255).round().astype(np.uint8), scene) for image in images]
    assert all(verdict.colour and verdict.placement and verdict.background for verdict in verdicts)


def test_the_film_goes_there_and_back(lab: Lab) -> None:
    """Pictures, film and norms are written."""
    assert [shown.file.name for shown in lab.figures] == ["pictures.png", "film.gif", "norm.png"]
