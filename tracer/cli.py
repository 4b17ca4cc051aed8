"""``dxray``: the command line."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from .errors import DxrayError
from .extras import explained
from .info import printable
from .output import encode_anything, forget_output
from .plugins import COMMANDS, find

if TYPE_CHECKING:
    from .commands import Command

__all__ = ["command_parser", "main"]

_DESCRIPTION = """See what happens inside a diffusion pipeline: record a run, then look at every layer of every step.

  dxray demo              trace the embedded model and open the browser
  dxray view run.zarr     browse a trace in the terminal
  dxray info run.zarr     what a trace holds
"""


DEBUG = "DXRAY_DEBUG"
"""Environment variable with which an error that nobody has thought of shows where it arose."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command and return its exit code.

    2 after a clear one-line error, 130 after Ctrl-C, and 141 where the reader of a pipe had seen enough, as other
    programs have it, so that a comparison whose answer nobody read is not taken for one that passed.
    """
    encode_anything()
    try:
        try:
            options = _parse(argv)
            with explained():
                code = int(options.command.run(options) or 0)
        finally:  # of --help, too; what cannot be written is an error while there is someone to tell it
            if sys.stdout is not None:
                sys.stdout.flush()
    except DxrayError as error:
        return _failed(printable(error))
    except KeyboardInterrupt:
        return _failed("interrupted", 128 + signal.SIGINT)
    except BrokenPipeError:
        forget_output()
        return 128 + signal.SIGPIPE
    except OSError as error:
        forget_output()
        where = "" if error.filename is None else f" {error.filename}"
        return _failed(f"cannot read or write{printable(where)}: {printable(error.strerror or error)}")
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        what = f"{type(error).__name__}: {str(error)[:200]}"
        return _failed(printable(f"{what}; the trace may be damaged, or dxray is wrong: {DEBUG}=1 shows where"))
    return code


_LONGEST = 4000
"""Characters of an error; names and texts of a trace may have any length."""


def _failed(message: str, code: int = 2) -> int:
    message = message if len(message) <= _LONGEST else f"{message[: _LONGEST - 1]}…"
    with contextlib.suppress(OSError):
        print(f"dxray: {message}", file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    """One that does not keep to itself that its help could not be written."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if message:
            print(message, end="", file=file or sys.stderr)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse, with a GLOB allowed after an option too, where argparse (before Python 3.12) does not expect it."""
    parser = command_parser()
    options, rest = parser.parse_known_args(argv)
    if len(rest) == 1 and not rest[0].startswith("-") and getattr(options, "glob", None) == "**":
        options.glob = rest[0]
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def command_parser() -> argparse.ArgumentParser:
    """The whole command line, with every command that is installed."""
    parser = _Parser(prog="dxray", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"dxray {_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in _commands().items():
        text = inspect.getdoc(type(command)) or ""
        sub = commands.add_parser(
            name,
            help=text.splitlines()[0].rstrip(".") if text else "",
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.prepare_parser(sub)
        sub.set_defaults(command=command)
    return parser


def _commands() -> dict[str, Command]:
    """All commands by name; one that does not load is named and left out."""
    from .commands.check import Check
    from .commands.completion import Completion
    from .commands.diff import Diff
    from .commands.info import Info
    from .commands.ls import Ls
    from .commands.stats import Stats

    found: dict[str, Command] = {
        "check": Check(),
        "completion": Completion(),
        "diff": Diff(),
        "info": Info(),
        "ls": Ls(),
        "stats": Stats(),
    }
    for name, entry in sorted(find(COMMANDS).items()):
        try:
            found[name] = entry.load()()
        except Exception as error:  # noqa: BLE001 — a broken plug-in must not take the others with it
            print(f"dxray: command {name!r} does not load: {printable(error)}", file=sys.stderr)
    return found


def _version() -> str:
    try:
        return version("diffusion-xray")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
