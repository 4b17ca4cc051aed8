"""SDEdit."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_xray.pipelines.recipes.images.sdedit import sdedit
from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.tracer import open_trace
from diffusion_xray.tracer.errors import RecipeError

STARTS = (0, 10, 20)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe with fewer starts and pictures."""
    lab = Lab(tmp_path_factory.mktemp("sdedit"), quiet=True)
    sdedit(lab, i_start=STARTS, pictures=2)
    return lab


def test_less_noise_stays_nearer_to_the_input(lab: Lab) -> None:
    """The distance to the input falls from start to start."""
    distances = [lab[f"i_start {start}: distance to the input"] for start in STARTS]
    assert (np.diff(distances) < 0).all()
    assert distances[-1] < 0.7 * distances[0]


def test_more_noise_is_more_like_the_model(lab: Lab) -> None:
    """Hardly any noise leaves what surprises the model."""
    assert lab["i_start 20: surprise of the model"] > 3 * lab["i_start 0: surprise of the model"]


def test_more_noise_shows_what_the_prompt_says(lab: Lab) -> None:
    """The judge passes most of what came from much noise, nothing of what came from little."""
    assert lab["i_start 0: right by the judge"] >= 75
    assert lab["i_start 10: right by the judge"] >= 75
    assert lab["i_start 20: right by the judge"] <= 20


def test_the_trace_holds_the_runs_in_turn(lab: Lab) -> None:
    """Each begins at the timestep of its start; with less noise x0 strays less from the input."""
    trace = open_trace(lab.traces[0])
    begins = [0, *np.flatnonzero(np.diff(trace.timestep) > 0) + 1]
    assert trace.timestep[begins].tolist() == [999, 359, 39]
    assert trace.n_steps == sum(25 - start for start in STARTS)
    departure = trace["records.departure"]["std"].values
    ends = [*np.array(begins[1:]) - 1, trace.n_steps - 1]
    assert (np.diff(departure[ends]) < 0).all()


def test_own_pictures(tmp_path: Path) -> None:
    """A picture and a prompt make one row; what is lacking is said."""
    Image.new("RGB", (80, 60), "red").save(tmp_path / "red.png")
    lab = Lab(tmp_path / "out", quiet=True)
    sdedit(lab, picture=tmp_path / "red.png", prompt="a red circle on white", i_start=(3,), steps=4, pictures=1)
    assert {finding.name.partition(": ")[2] for finding in lab.findings} == {
        "distance to the input",
        "surprise of the model",
    }  # nobody can judge it
    with pytest.raises(RecipeError, match="give --prompt"):
        sdedit(lab, picture=tmp_path / "red.png")
    with pytest.raises(RecipeError, match="cannot read the picture"):
        sdedit(lab, picture=tmp_path / "gone.png", prompt="a red circle on white")
    with pytest.raises(RecipeError, match="i_start 25 is no step of 25: give 0 to 24"):
        sdedit(lab, i_start=(0, 25))
