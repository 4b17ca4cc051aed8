"""The visual anagram."""

from typing import get_args

import numpy as np
import pytest
import torch

from diffusion_xray.pipelines.recipes.illusions.anagram import View, anagram, turn, turn_back
from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.tracer import open_trace


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run with few pictures and steps."""
    lab = Lab(tmp_path_factory.mktemp("anagram"), quiet=True)
    anagram(lab, pictures=3, steps=12)
    return lab


def test_both_views_show_what_they_should(lab: Lab) -> None:
    """Upright and turned are each explained better by their own prompt than by the other's."""
    assert lab["upright: share that reads as its own prompt"] > 0.6
    assert lab["turned: share that reads as its own prompt"] > 0.6
    assert lab["share of pictures of which both views do"] > 0.6


def test_a_picture_of_the_first_prompt_is_no_anagram(lab: Lab) -> None:
    """Drawn for the first prompt alone and turned, it does not show the second."""
    assert lab["turned, control: share that reads as its own prompt"] < 0.4


def test_turned_latents_are_nearly_a_turned_picture(lab: Lab) -> None:
    """The decoder does not commute with the flip, but comes close."""
    assert 20 < lab["turned latents decoded against the picture turned, PSNR"] < 60


def test_each_step_takes_the_mean_of_both_views(lab: Lab) -> None:
    """x0 of the step is halfway between those of the two answers, the second turned back."""
    trace = open_trace(lab.traces[0])
    upright, turned = (trace[f"records.x0.{name}"]["output"].values for name in ("upright", "turned"))
    np.testing.assert_allclose(trace.steps["x0"].values, (upright + turned[..., ::-1, :]) / 2, atol=2e-5)


def test_the_views_differ_about_the_shape(lab: Lab) -> None:
    """At the end the two answers contradict each other in the middle, where the object is, and not around it."""
    disagreement = open_trace(lab.traces[0])["records.disagreement"]["output"].values[-1].mean(axis=(0, 1))
    middle = np.zeros(disagreement.shape, bool)
    middle[3:13, 3:13] = True
    assert disagreement[middle].mean() > 2 * disagreement[~middle].mean()


def test_the_trace_has_pictures_and_words(lab: Lab) -> None:
    """All pictures both ways up, and both prompts."""
    trace = open_trace(lab.traces[0])
    assert trace.images is not None
    np.testing.assert_array_equal(trace.images[3:], trace.images[:3, ::-1])
    assert [prompt.text[0].split()[3:4] for prompt in trace.prompts] == [["star"], ["triangle"], []]


def test_figures_are_written(lab: Lab) -> None:
    """The views, and the film of how they come about."""
    assert [shown.file.name for shown in lab.figures] == ["views.png", "film.gif"]


@pytest.mark.parametrize("view", get_args(View))
def test_a_view_can_be_undone(view: View) -> None:
    """Turning back restores what was turned, and turning changes it."""
    x = torch.arange(2 * 4 * 3 * 3.0).view(2, 4, 3, 3)
    torch.testing.assert_close(turn_back(turn(x, view), view), x, rtol=0, atol=0)
    assert not torch.equal(turn(x, view), x)
