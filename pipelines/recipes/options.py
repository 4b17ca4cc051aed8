"""A recipe's options on the command line, from the signature and the docstring of its function."""

from __future__ import annotations

import argparse
import inspect
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

__all__ = ["add_options", "described", "given"]

_ENTRY = re.compile(r"^    (\w+): (.*(?:\n      .*)*)", re.MULTILINE)
"""An entry of "Args:" in a docstring, with its further lines."""
_SINGLE = (int, float, str, Path)


def add_options(parser: argparse.ArgumentParser, function: Callable[..., Any]) -> None:
    """Add an option for each keyword-only parameter of `function`.

    A parameter is an int, float, str, Path or bool, a `Literal` of strings, a tuple of any number of the first four, or
    one of these or None; it has a default.
    """
    _, helps = described(function)
    hints = typing.get_type_hints(function)
    for name, parameter in _options(function).items():
        default = parameter.default
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        text = helps.get(name, "").replace("%", "%%")
        text = text[:1].lower() + text[1:]
        how: dict[str, Any] = {"default": default, "help": text if default is None else f"{text} ({shown})"}
        how |= _reading(hints[name], name)
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, **how)


def given(options: argparse.Namespace, function: Callable[..., Any]) -> dict[str, Any]:
    """The arguments for `function` that stand in parsed options."""
    found = {name: getattr(options, name) for name in _options(function)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def described(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """The docstring without its "Args:", and what is said there of each parameter, in one line without a full stop."""
    text, _, arguments = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    helps = {name: re.sub(r"\s+", " ", said).strip().rstrip(".") for name, said in _ENTRY.findall(arguments)}
    return text.strip(), helps


def _options(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(function).parameters
    return {name: it for name, it in parameters.items() if it.kind is inspect.Parameter.KEYWORD_ONLY}


def _reading(hint: Any, name: str) -> dict[str, Any]:
    """How argparse reads a value of a type."""
    parts = typing.get_args(hint)
    if type(None) in parts:
        (hint,) = (part for part in parts if part is not type(None))
        parts = typing.get_args(hint)
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if typing.get_origin(hint) is Literal:
        return {"choices": parts}
    if typing.get_origin(hint) is tuple:
        return {"type": parts[0], "nargs": "+", "metavar": _metavar(parts[0], name)}
    if hint in _SINGLE:
        return {"type": hint, "metavar": _metavar(hint, name)}
    raise TypeError(f"option {name!r} of a recipe is a {hint}; see diffusion_xray.pipelines.recipes.options")


def _metavar(kind: type, name: str) -> str:
    return {int: "N", float: "X", Path: "FILE"}.get(kind, name.rpartition("_")[2].upper())
