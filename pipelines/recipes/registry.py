"""Find recipes: functions named by the entry point group ``diffusion_xray.recipes``, those of other packages too."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from diffusion_xray.tracer.errors import RecipeError
from diffusion_xray.tracer.info import printable
from diffusion_xray.tracer.plugins import find

__all__ = ["RECIPES", "Listed", "Recipe", "list_recipes", "load_recipe"]

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
    """
    entry = find(RECIPES).get(name)
    if entry is None:
        raise RecipeError(f"there is no recipe {name!r}: dxray run lists them")
    try:
        return Recipe(name, entry.load())
    except Exception as error:
        raise RecipeError(f"recipe {name!r} does not load: {printable(error)}") from error


def _chapter(entry: EntryPoint) -> str:
    package, _, _ = entry.module.rpartition(".")
    return package.rpartition(".")[2] or entry.module


def _summary(entry: EntryPoint) -> str:
    try:
        spec = importlib.util.find_spec(entry.module)
        source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
        functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
        text = next(ast.get_docstring(node) for node in functions if node.name == entry.attr)
    except Exception as error:  # noqa: BLE001 — a broken recipe must not hide the others
        return f"(does not load: {printable(error) or type(error).__name__})"
    return (text or "").partition("\n")[0].rstrip(".")
