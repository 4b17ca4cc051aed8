"""``dxray run``."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffusion_xray.tracer.commands.protocol import print_json
from diffusion_xray.tracer.errors import RecipeError
from diffusion_xray.tracer.info import printable
from diffusion_xray.tracer.plugins import find

from ..libraries import quieten
from .options import add_common, parse
from .registry import RECIPES, chapter_summary, list_recipes, load_recipe, option_names

if TYPE_CHECKING:
    from .outcome import Outcome

__all__ = ["Run"]

_VALUED = ("--device", "--model", "--out")
"""Options of every recipe that a value follows."""


class Run:
    """Run an experiment that diffusion is learned from, traced.

      dxray run                    list the recipes
      dxray run NAME --help        what a recipe shows, the formula with its source, what to look at
      dxray run NAME               run it on the embedded model
      dxray run NAME --model ID    on real weights: a model of the hub, or a folder
      dxray run --all --out DIR    run them all and write a gallery, DIR/index.html

    Each leaves its trace, its figures and its numbers in a folder of its name.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        add_common(parser)
        parser.add_argument("--all", action="store_true", help="run every recipe and write a gallery")
        parser.add_argument("recipe", nargs="?", metavar="NAME", help="the recipe")
        parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)

    def run(self, options: argparse.Namespace) -> int:
        if options.recipe is None and not options.all:
            return _list(as_json=options.json)
        quieten()  # before diffusers is imported
        if options.all:
            from .gallery import run_all

            if options.recipe is not None:
                raise RecipeError(f"--all runs every recipe: leave out {options.recipe!r}, or --all")
            return run_all(options)
        from .outcome import perform

        recipe = load_recipe(options.recipe)
        options = parse(recipe, options, options.rest)
        outcome = perform(recipe, options)
        if options.json:
            print_json(outcome.as_json())
        else:
            _print(outcome)
        return 0

    def complete(self, before: Sequence[str], word: str) -> list[str] | None:
        """For tab completion: names of recipes, and after one its options."""
        names = find(RECIPES)
        name = next((given for given in before if given in names), None)
        if before and before[-1] in _VALUED:
            return []  # a file, or a name that nobody knows
        if name is not None:
            return [*option_names(name), *_VALUED, "--help", "--json"] if word.startswith("-") else []
        return None if word.startswith("-") else sorted(names)


def _list(*, as_json: bool) -> int:
    found = list_recipes()
    if as_json:
        print_json([dataclasses.asdict(listed) for listed in found])
        return 0
    width = max((len(listed.name) for listed in found), default=0)
    for chapter, group in itertools.groupby(found, key=lambda listed: listed.chapter):
        recipes = list(group)
        print(printable(chapter_summary(recipes[0].name).rstrip(".") or chapter))
        for listed in recipes:
            print(printable(f"  {listed.name:{width}}  {listed.summary}"))
        print()
    print("dxray run NAME --help explains one; dxray run NAME runs it")
    return 0


def _print(outcome: Outcome) -> None:
    for finding in outcome.findings:
        print(printable(finding))
    for shown in outcome.figures:
        print(f"\n{printable(shown.file)}\n  {printable(shown.caption)}")
    print()
    for path in outcome.traces:
        print(printable(shlex.join(["dxray", "view", str(path)])))
