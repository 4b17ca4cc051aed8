"""A recipe's options on the command line, from the signature and the docstring of its function."""

from __future__ import annotations

import argparse
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from diffusion_xray.tracer.errors import RecipeError
from diffusion_xray.tracer.info import printable

from .registry import Recipe

__all__ = ["add_common", "add_options", "described", "given", "parse", "written"]

_ENTRY = re.compile(r"^    (\w+): (.*(?:\n      .*)*)", re.MULTILINE)
"""An entry of "Args:" in a docstring, with its further lines."""
_SINGLE = (int, float, str, Path)


def add_common(parser: argparse._ActionsContainer) -> None:
    """Add the options of every recipe."""
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="folder of all runs (runs)")
    parser.add_argument("--model", metavar="ID", help="hub id or folder of a pipeline (the embedded model)")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, mps (cuda for --model where there is one)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON, for programs")


def parse(recipe: Recipe, common: argparse.Namespace, rest: Sequence[str]) -> argparse.Namespace:
    """Read what stands after a recipe's name; options of every recipe that were given before it count as well.

    Raises:
        RecipeError: The recipe has an option that cannot be one.
    """
    parser = argparse.ArgumentParser(
        prog=f"dxray run {recipe.name}",
        description=described(recipe.function)[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    try:
        add_common(parser.add_argument_group("options of every recipe"))
        add_options(parser, recipe.function)
    except Exception as error:
        raise RecipeError(f"recipe {recipe.name!r} cannot be run: {printable(error)}") from error
    parser.set_defaults(out=common.out, model=common.model, device=common.device, json=common.json)
    return parser.parse_args(rest)


def add_options(parser: argparse.ArgumentParser, function: Callable[..., Any]) -> None:
    """Add an option for each keyword-only parameter of `function`.

    A parameter is an int, float, str, Path or bool, a `Literal`, a tuple of any number of the first four, or one of
    these or None; it has a default.

    Raises:
        TypeError: A parameter is none of these.
    """
    _, helps = described(function)
    for name, parameter in _options(function).items():
        default = parameter.default
        if default is inspect.Parameter.empty:
            raise TypeError(f"option {name!r} of a recipe has no default")
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
        text = helps.get(name, "")
        text = text[:1].lower() + text[1:]
        if default is not None and shown:
            text = f"{text} ({'yes' if default is True else 'no' if default is False else shown})".strip()
        how = {"default": default, "help": text.replace("%", "%%"), **_reading(_hint(function, name), name)}
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, **how)


def given(options: argparse.Namespace, function: Callable[..., Any]) -> dict[str, Any]:
    """The arguments for `function` that stand in parsed options."""
    found = {name: getattr(options, name) for name in _options(function)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def written(options: Mapping[str, Any], function: Callable[..., Any]) -> list[str]:
    """The words of a command line that give `function` these arguments; what is as it is by default is left out."""
    words: list[str] = []
    for name, parameter in _options(function).items():
        value = options.get(name, parameter.default)
        option = name.replace("_", "-")
        if value == parameter.default or value is None:
            continue
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif isinstance(value, tuple):
            words += [f"--{option}", *map(str, value)]
        else:
            text = str(value)
            words += [f"--{option}={text}"] if text.startswith("-") else [f"--{option}", text]
    return words


def described(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """The docstring without its "Args:", and what is said there of each parameter, in one line without a full stop."""
    text, _, arguments = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    helps = {name: re.sub(r"\s+", " ", said).strip().rstrip(".") for name, said in _ENTRY.findall(arguments)}
    return text.strip(), helps


def _options(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(function).parameters
    return {name: it for name, it in parameters.items() if it.kind is inspect.Parameter.KEYWORD_ONLY}


def _hint(function: Callable[..., Any], name: str) -> Any:
    """The type of one parameter; those of the others may be known to type checkers only."""
    plain: Any = inspect.unwrap(function)
    alone = types.SimpleNamespace(__annotations__={name: plain.__annotations__.get(name)})
    return typing.get_type_hints(alone, plain.__globals__)[name]


def _reading(hint: Any, name: str) -> dict[str, Any]:
    """How argparse reads a value of a type."""
    parts = typing.get_args(hint)
    if type(None) in parts and len(parts) == 2:
        hint = parts[parts[0] is type(None)]
        parts = typing.get_args(hint)
    if hint is bool:
        return {"action": _Switch}
    if typing.get_origin(hint) is Literal:
        return {"choices": parts, "type": type(parts[0])}
    if typing.get_origin(hint) is tuple and parts[1:] == (...,) and parts[0] in _SINGLE:
        return {"type": parts[0], "nargs": "+", "metavar": _metavar(parts[0], name)}
    if hint in _SINGLE:
        return {"type": hint, "metavar": _metavar(hint, name)}
    raise TypeError(f"option {name!r} of a recipe is a {hint}: docs/recipes.md has what it can be")


class _Switch(argparse.BooleanOptionalAction):
    """``--name`` and ``--no-name``; its help is not added to, as some versions of Python do."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = kwargs.get("help")


def _metavar(kind: type, name: str) -> str:
    return {int: "N", float: "X", Path: "FILE"}.get(kind, name.rpartition("_")[2].upper())
