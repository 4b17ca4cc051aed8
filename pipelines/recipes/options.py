"""A recipe's options on the command line, from the signature and the docstring of its function."""

from __future__ import annotations

import argparse
import inspect
import re
import shlex
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from diffusion_xray.tracer.errors import RecipeError
from diffusion_xray.tracer.info import printable
from diffusion_xray.tracer.storage.library_store import local_path

from .option_types import Between, Called
from .registry import Recipe

__all__ = ["add_common", "add_options", "described", "given", "parse", "written"]

_ENTRY = re.compile(r"^    (\w+): (.*(?:\n      .*)*)", re.MULTILINE)
"""An entry of "Args:" in a docstring, with its further lines."""
_SINGLE = (int, float, str, Path)
_MODEL = "hub id or folder of a pipeline; those that train make a network of their own (the embedded model)"
_METAVARS = {int: "N", float: "X", str: "TEXT", Path: "FILE"}
_SEEDS = Between(0, 2**63 - 1)
"""What random number generators take; an option called seed is one, and its help need not say so."""


def add_common(parser: argparse._ActionsContainer) -> None:
    """Add the options of every recipe."""
    parser.add_argument("--out", type=local_path, default=Path("runs"), metavar="DIR", help="folder of all runs (runs)")
    parser.add_argument("--model", metavar="ID", help=_MODEL)
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
    these or None; it has a default. `Annotated` says more of it: see `option_types`.

    Raises:
        TypeError: A parameter is none of these.
    """
    _, helps = described(function)
    for name, parameter in _options(function).items():
        default = parameter.default
        if default is inspect.Parameter.empty:
            raise TypeError(f"option {name!r} of a recipe has no default")
        text = helps.get(name, "")
        text = text[:1].lower() + text[1:]
        hint, marks = _taken_apart(_hint(function, name))
        aside = "; ".join(filter(None, (_shown(default), *(str(mark) for mark in marks if isinstance(mark, Between)))))
        text = f"{text} ({aside})".strip() if aside else text
        how = {"default": default, "help": text.replace("%", "%%"), **_reading(hint, marks, name)}
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, **how)


def given(options: argparse.Namespace, function: Callable[..., Any]) -> dict[str, Any]:
    """The arguments for `function` that stand in parsed options.

    Raises:
        RecipeError: A number is out of the range that its annotation names, or not finite; or a seed is none.
    """
    found = {name: getattr(options, name) for name in _options(function)}
    found = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    for name, value in found.items():
        _refuse(name, value, _hint(function, name))
    return found


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
    return typing.get_type_hints(alone, plain.__globals__, include_extras=True)[name]


def _taken_apart(hint: Any) -> tuple[Any, list[Any]]:
    """A type without None and `Annotated`, and what is said of it, or of what a tuple holds, by `Annotated`."""
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is Annotated:
        plain, marks = _taken_apart(parts[0])
        return plain, [*marks, *parts[1:]]
    if type(None) in parts and len(parts) == 2:
        return _taken_apart(parts[parts[0] is type(None)])
    if typing.get_origin(hint) is tuple and parts[1:] == (...,):
        plain, marks = _taken_apart(parts[0])
        return types.GenericAlias(tuple, (plain, ...)), marks
    return hint, []


def _shown(default: Any) -> str:
    """A default as it would be written; "" for None."""
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, tuple):
        return shlex.join(map(str, default))
    return "" if default is None else str(default)


def _reading(hint: Any, marks: Sequence[Any], name: str) -> dict[str, Any]:
    """How argparse reads a value of a type."""
    parts = typing.get_args(hint)
    if hint is bool:
        return {"action": _Switch}
    if typing.get_origin(hint) is Literal:
        return {"choices": parts, "type": type(parts[0])}
    many = typing.get_origin(hint) is tuple and parts[1:] == (...,)
    kind = parts[0] if many else hint
    if kind not in _SINGLE:
        raise TypeError(f"option {name!r} of a recipe is a {hint}: docs/recipes.md has what it can be")
    metavar = next((mark.name for mark in marks if isinstance(mark, Called)), _METAVARS[kind])
    return {"type": local_path if kind is Path else kind, "metavar": metavar, **({"nargs": "+"} if many else {})}


def _refuse(name: str, value: Any, hint: Any) -> None:
    """Raise a `RecipeError` for a number that an option of this type may not be."""
    _, marks = _taken_apart(hint)
    ranges = [mark for mark in marks if isinstance(mark, Between)]
    ranges.append(_SEEDS if name == "seed" else Between())  # after the others: theirs say more
    for each in value if isinstance(value, tuple) else (value,):
        if isinstance(each, int | float):
            for allowed in ranges:
                if each not in allowed:
                    raise RecipeError(f"--{name.replace('_', '-')} {each}: give {allowed}")


class _Switch(argparse.BooleanOptionalAction):
    """``--name`` and ``--no-name``; its help is not added to, as some versions of Python do."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = kwargs.get("help")
