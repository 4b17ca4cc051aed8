"""DDIM, written out."""

import numpy as np
import pytest

from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.pipelines.recipes.sampling.ddim import ddim
from diffusion_xray.tracer import open_trace


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run with few steps."""
    lab = Lab(tmp_path_factory.mktemp("ddim"), quiet=True)
    ddim(lab, steps=10, fewer=(1, 2, 5))
    return lab


def test_it_is_the_loop_of_diffusers(lab: Lab) -> None:
    """The latents agree with those of the pipeline from the same noise."""
    assert lab["largest difference to diffusers' latents"] < 1e-5


def test_the_trace_has_the_loop(lab: Lab) -> None:
    """Each step has its timestep, its latents and the x0 expected, and the picture is there."""
    (path,) = lab.traces
    trace = open_trace(path)
    assert trace.timestep.tolist() == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
    steps = trace.steps
    assert {"latents", "model_output", "next_latents", "x0", "preview"} <= set(steps)
    np.testing.assert_array_equal(steps["next_latents"].values[:-1], steps["latents"].values[1:])
    assert trace.images is not None and trace.images.shape == (1, 64, 64, 3)


def test_the_trace_knows_prompt_and_branches(lab: Lab) -> None:
    """The halves of the batch are told apart, and a word's map is that of the prompt."""
    trace = open_trace(lab.traces[0])
    assert trace.info.guidance == {"unet": {"batch": ["unconditional", "conditional"], "evidence": "embeddings"}}
    assert trace.word_map("circle", step=9).shape == (8, 8)


def test_x0_settles(lab: Lab) -> None:
    """What the model expects comes closer to the final picture with every step."""
    (path,) = lab.traces
    x0 = open_trace(path).steps["x0"].values
    distances = np.abs(x0 - x0[-1]).mean(axis=tuple(range(1, x0.ndim)))
    assert (np.diff(distances) < 0).all()


def test_more_steps_come_closer(lab: Lab) -> None:
    """The same noise leads to the same picture, the closer the more steps it is given."""
    distances = [lab[f"latents of {count} steps differ from those of 10"] for count in (1, 2, 5)]
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 30


def test_the_figures_are_written(lab: Lab) -> None:
    """Two figures, with captions."""
    assert [shown.file.name for shown in lab.figures] == ["film.png", "steps.png"]
    assert all(shown.caption for shown in lab.figures)
