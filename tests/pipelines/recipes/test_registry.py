"""Which recipes there are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from diffusion_xray.pipelines.recipes.registry import (
    chapter_summary,
    list_recipes,
    load_recipe,
    option_names,
)
from diffusion_xray.tracer.errors import RecipeError

ROOT = Path(__file__).parents[3]


def test_own_recipes_come_first(kitchen: None) -> None:
    """They are listed chapter by chapter in the order one learns in, those of other packages after them."""
    chapters = list(dict.fromkeys(listed.chapter for listed in list_recipes()))
    assert chapters.index("sampling") < chapters.index("cascade") < chapters.index("kitchen")
    assert chapter_summary("soup") == "From the kitchen."
    assert chapter_summary("ddim") == "Sampling loops, written out."


def test_every_own_recipe_says_what_it_is() -> None:
    """Each has a line of at most 70 characters."""
    assert [it.name for it in list_recipes() if not 10 <= len(it.summary) <= 70 or "(" in it.summary[:1]] == []


def test_what_does_not_load_is_named(kitchen: None) -> None:
    """A recipe that is not there, or not in Python, is listed with the reason, and costs the others nothing."""
    summaries = {listed.name: listed.summary for listed in list_recipes()}
    assert summaries["soup"] == "Soup: 100 % <b>hot</b>"
    assert summaries["absent"] == "(does not load: no module named 'kitchen.nowhere')"
    assert summaries["nothing"] == "(does not load: kitchen.meals defines no function 'nothing')"
    assert summaries["torn"].startswith("(does not load: ")


def test_loading(kitchen: None) -> None:
    """A recipe is a function; what is none, is not there, or is called otherwise has a reason and near names."""
    assert callable(load_recipe("soup").function)
    with pytest.raises(RecipeError, match="recipe 'number' is no function but 7"):
        load_recipe("number")
    with pytest.raises(RecipeError, match=r"recipe 'absent' does not load: No module named 'kitchen\.nowhere'"):
        load_recipe("absent")
    with pytest.raises(RecipeError, match=r"no recipe 'suop': dxray run lists them\. Did you mean soup\?"):
        load_recipe("suop")


def test_options_from_the_source(kitchen: None) -> None:
    """Options are known without an import, a switch with its opposite; of what does not load there are none."""
    assert option_names("soup")[:5] == ["--spoons", "--heat", "--name", "--hot", "--no-hot"]
    assert "kitchen.meals" not in sys.modules
    assert option_names("absent") == option_names("torn") == []


def test_the_list_imports_no_torch() -> None:
    """Listing is quick: nothing of a recipe is imported."""
    code = (
        "import sys\nfrom diffusion_xray.tracer.cli import main\n"
        "assert main(['run']) == 0\nassert not {'torch', 'diffusers', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "ddim" in done.stdout
