"""Options of recipes on the command line."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffusion_xray.pipelines.recipes.options import add_options, described, given, written
from diffusion_xray.pipelines.recipes.registry import load_recipe
from diffusion_xray.tracer.errors import RecipeError


@pytest.fixture
def soup(kitchen: None) -> Callable[..., Any]:
    """A recipe with an option of every kind."""
    return load_recipe("soup").function


def read(function: Callable[..., Any], *words: str) -> dict[str, Any]:
    """The arguments that a command line gives."""
    parser = argparse.ArgumentParser()
    add_options(parser, function)
    return given(parser.parse_args(words), function)


def test_defaults(soup: Callable[..., Any]) -> None:
    """Without options a recipe is called as its signature says."""
    assert read(soup) == {name: it.default for name, it in inspect.signature(soup).parameters.items() if name != "lab"}


WORDS = (
    *("--spoons", "5", "--heat", "1e-3", "--name", "pea", "--no-hot", "--size", "big"),
    *("--level", "2", "--herbs", "dill", "chive", "--times", "7", "--book", "a/b"),
)
READ = {
    "spoons": 5,
    "heat": 1e-3,
    "name": "pea",
    "hot": False,
    "size": "big",
    "level": 2,
    "herbs": ("dill", "chive"),
    "times": (7,),
    "book": Path("a/b"),
}


def test_every_kind(soup: Callable[..., Any]) -> None:
    """Each option arrives as what the signature says it is."""
    assert read(soup, *WORDS) == READ
    assert type(read(soup, *WORDS)["level"]) is int


def test_back_to_words(soup: Callable[..., Any]) -> None:
    """What was given is written as a command line that gives the same; what is as by default is left out."""
    assert written(read(soup), soup) == []
    words = written(READ, soup)
    assert read(soup, *words) == READ
    assert written({"name": "-x", "hot": True}, soup) == ["--name=-x"]


@pytest.mark.parametrize(
    "words", [("--spoons", "two"), ("--size", "huge"), ("--level", "3"), ("--times",), ("--salt",)]
)
def test_wrong_values(soup: Callable[..., Any], words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """A value of another kind, one that is not to choose, none at all, and an unknown option end with code 2."""
    with pytest.raises(SystemExit) as ended:
        read(soup, *words)
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_help(soup: Callable[..., Any]) -> None:
    """The help of an option is its line under Args, and its default; a percent sign is one."""
    parser = argparse.ArgumentParser(
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=40, width=200)
    )
    add_options(parser, soup)
    shown = {line.split()[0]: line for line in parser.format_help().splitlines() if line.startswith("  --")}
    assert shown["--spoons"].endswith("how many, of those that are clean (3)")
    assert shown["--hot,"].endswith("whether it is 100 % hot (yes)")
    assert shown["--times"].endswith("when to stir (1 2)")
    assert shown["--book"].endswith("where it is written")
    assert shown["--herbs"].endswith("what to strew on it")


def test_description(soup: Callable[..., Any]) -> None:
    """The explanation is the docstring up to the options."""
    text, helps = described(soup)
    assert text.startswith("Soup: 100 % <b>hot</b>.\n\nStirred") and text.endswith("Then eaten.")
    assert set(helps) == set(READ)


@pytest.mark.parametrize(
    ("name", "why"),
    [("odd", r"option 'pot' of a recipe is a dict\[str, int\]"), ("bare", "option 'pot' .* has no default")],
)
def test_what_cannot_be_an_option(kitchen: None, name: str, why: str) -> None:
    """A parameter of another type, or without a default, is named."""
    with pytest.raises(TypeError, match=why):
        read(load_recipe(name).function)


def test_help_of_what_an_option_may_be(kitchen: None) -> None:
    """A range stands behind the default, texts of several words are quoted, and a value has the name it was given."""
    parser = argparse.ArgumentParser(
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=40, width=200)
    )
    add_options(parser, load_recipe("stew").function)
    shown = parser.format_help()
    assert "how many (1; 1 or more)" in shown
    assert "of the pot (0.5; 0 to 1)" in shown
    assert "when it is eaten (1; 7 at most)" in shown
    assert "it is called ('good stew' plain)" in shown
    assert "--cellar DIR" in shown


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("cooks", "0", "--cooks 0: give 1 or more"),
        ("share", "1.5", r"--share 1\.5: give 0 to 1"),
        ("share", "nan", "--share nan: give 0 to 1"),
        ("salt", "inf", "--salt inf: give a finite number"),
        ("days", "8", "--days 8: give 7 at most"),
        ("seed", "-1", "--seed -1: give 0 to 9223372036854775807"),
    ],
)
def test_what_an_option_may_not_be(kitchen: None, option: str, value: str, told: str) -> None:
    """A number out of the range that is declared, one that is not finite, and a seed that is none are refused."""
    stew = load_recipe("stew").function
    assert read(stew)
    with pytest.raises(RecipeError, match=f"^{told}$"):
        read(stew, f"--{option}={value}")
