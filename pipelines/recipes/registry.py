"""Find recipes: functions named by the entry point group ``diffusion_xray.recipes``, those of other packages too."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from diffusion_xray.tracer.errors import MissingLibraryError, RecipeError, near_matches
from diffusion_xray.tracer.extras import explained
from diffusion_xray.tracer.info import printable
from diffusion_xray.tracer.plugins import find

__all__ = ["RECIPES", "Listed", "Recipe", "chapter_summary", "list_recipes", "load_recipe", "option_names"]

RECIPES = "diffusion_xray.recipes"
_CHAPTERS = ("components", "sampling", "images", "guidance", "illusions", "training", "scratch", "cascade")
"""Folders of recipes in the order in which one learns from them; those of other packages come after."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A recipe that is installed, before it is imported."""

    name: str
    chapter: str
    """The package it is in."""
    summary: str
    """What it is, in a line."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """An experiment: a function of a `Lab`. Its keyword-only parameters are its options, its docstring is the help."""

    name: str
    function: Callable[..., Any]


def list_recipes() -> list[Listed]:
    """All recipes, chapter by chapter. Nothing is imported for it: that would take seconds."""
    found = [(name, entry, _chapter(entry)) for name, entry in find(RECIPES).items()]
    order = {chapter: place for place, chapter in enumerate(_CHAPTERS)}
    found.sort(key=lambda it: (order.get(it[2], len(order)), it[2], it[0]))
    return [Listed(name, chapter, _summary(entry)) for name, entry, chapter in found]


def load_recipe(name: str) -> Recipe:
    """Import a recipe.

    Raises:
        RecipeError: There is none of that name, or it does not import.
        MissingLibraryError: It needs what recording needs, which is not installed.
    """
    entry = _entry(name)
    try:
        with explained(f"recipe {name!r}"):
            function = entry.load()
    except MissingLibraryError:
        raise
    except Exception as error:
        raise RecipeError(f"recipe {name!r} does not load: {_told(error)}") from error
    if not callable(function):
        raise RecipeError(f"recipe {name!r} is no function but {function!r}")
    return Recipe(name, function)


def option_names(name: str) -> list[str]:
    """The options of a recipe as they are written, read from its source: an import would take seconds.

    Raises:
        RecipeError: There is none of that name.
    """
    entry, names = _entry(name), []
    with contextlib.suppress(Exception):  # a recipe that does not load has none
        for argument in _definition(entry).args.kwonlyargs:
            option = argument.arg.replace("_", "-")
            names.append(f"--{option}")
            if isinstance(argument.annotation, ast.Name) and argument.annotation.id == "bool":
                names.append(f"--no-{option}")
    return names


def chapter_summary(recipe: str) -> str:
    """What the chapter of a recipe is about: the first line of its package's docstring; "" where there is none."""
    package, _, _ = _entry(recipe).module.rpartition(".")
    try:
        text = ast.get_docstring(_parsed(package)) if package else ""
    except Exception:  # noqa: BLE001 — the recipe itself says that it does not load
        return ""
    return (text or "").partition("\n")[0]


def _entry(name: str) -> EntryPoint:
    known = find(RECIPES)
    if name not in known:
        raise RecipeError(f"there is no recipe {name!r}: dxray run lists them.{near_matches(name, known)}")
    return known[name]


def _chapter(entry: EntryPoint) -> str:
    package, _, _ = entry.module.rpartition(".")
    return package.rpartition(".")[2] or entry.module


def _summary(entry: EntryPoint) -> str:
    try:
        text = ast.get_docstring(_definition(entry)) or ""
    except Exception as error:  # noqa: BLE001 — a broken recipe must not hide the others
        return f"(does not load: {_told(error)})"
    return text.partition("\n")[0].rstrip(".")


def _definition(entry: EntryPoint) -> ast.FunctionDef:
    """The recipe's function, as it stands in the source."""
    for node in _parsed(entry.module).body:
        if isinstance(node, ast.FunctionDef) and node.name == entry.attr:
            return node
    raise AttributeError(f"{entry.module} defines no function {entry.attr!r}")


def _parsed(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module named {module!r}")
    return ast.parse(Path(spec.origin).read_bytes(), spec.origin)


def _told(error: Exception) -> str:
    return printable(error) or type(error).__name__
