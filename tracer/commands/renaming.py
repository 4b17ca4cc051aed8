"""What modules of one trace are called in the other, as the options of commands that compare say it."""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..comparison.naming import Fused, fused_of
from ..comparison.pairing import Idle, Pairing
from ..errors import ComparisonError
from ..storage.library_store import local_path

__all__ = ["Renaming", "add_renaming"]


@dataclass(frozen=True, slots=True)
class Renaming:
    """Names that were given.

    Args:
        names: As `pair_sites` takes them.
        typed: Those of them that stood on the command line, and not in a file.
    """

    names: Mapping[str, str | Fused]
    typed: frozenset[str] = frozenset()

    @classmethod
    def of(cls, options: argparse.Namespace) -> Renaming:
        """Read them from what `add_renaming` asks for.

        Raises:
            ComparisonError: One does not say what a module is called, or the file cannot be read.
        """
        typed = dict(map(_rule, options.rename))
        return cls({**(_names_in(options.map) if options.map else {}), **typed}, frozenset(typed))

    def misfits(self, pairing: Pairing) -> tuple[tuple[Idle, ...], bool]:
        """Names that should have brought layers together and did not, and whether that is an error in any case.

        A file may name all layers of a model, of which a run calls some; what was typed is meant.
        """
        idle = pairing.idle
        none_fits = bool(idle) and len(idle) == len(self.names)
        wrong = tuple(each for each in idle if each.fired or each.rule in self.typed or none_fits)
        return wrong, none_fits or any(each.rule in self.typed for each in wrong)


def add_renaming(parser: argparse.ArgumentParser, *, when: str = "") -> None:
    """Add the options.

    Args:
        parser: Of a command.
        when: Words in front of their help.
    """
    parser.add_argument(
        "--rename",
        "--names",
        dest="rename",
        metavar="A=B",
        action="append",
        default=[],
        help=f'{when}what modules of A are called in B, paths or globs: "unet.**=transformer.**"; can be repeated',
    )
    parser.add_argument(
        "--map", type=local_path, metavar="FILE", help=f"{when}the same as an object in JSON, or in TOML"
    )


def _rule(text: str) -> tuple[str, str]:
    ours, separator, theirs = text.partition("=")
    if not (ours and separator and theirs):
        raise ComparisonError(f'{text!r} does not say what a module is called; write --rename "unet.**=transformer.**"')
    return ours, theirs


def _names_in(path: Path) -> dict[str, str | Fused]:
    try:
        text = path.read_text(encoding="utf-8")
        names = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        raise ComparisonError(f"names cannot be read from {path}: {error}") from error
    if not isinstance(names, dict):
        raise ComparisonError(
            f'{path} holds a {type(names).__name__}: write an object, {{"unet.**": "transformer.**"}}'
        )
    return {ours: _name_in(path, ours, theirs) for ours, theirs in names.items()}


def _name_in(path: Path, ours: str, theirs: object) -> str | Fused:
    if isinstance(theirs, dict) and "to" in theirs:
        try:
            return fused_of(theirs)
        except ComparisonError as error:
            raise ComparisonError(f"{path}: {ours!r}: {error}") from error
    if not isinstance(theirs, str) or not theirs:
        hint = f'; in TOML a name with dots is quoted, "{ours}.…"' if isinstance(theirs, dict) else ""
        raise ComparisonError(f"{path}: {ours!r} is called {theirs!r}: give the name of a module or a glob{hint}")
    return theirs
